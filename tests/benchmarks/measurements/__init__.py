"""All measurements, in the order in which they are made."""

from __future__ import annotations

from benchmarks.measurements import (
    burst,
    catch_up,
    decode,
    hand_off,
    idle,
    imports,
    journal_throughput,
    latency,
    memory,
    receive,
    throughput,
)

MEASUREMENTS = {
    module.MEASUREMENT.name: module.MEASUREMENT
    for module in (
        receive,
        decode,
        hand_off,
        throughput,
        journal_throughput,
        latency,
        idle,
        memory,
        burst,
        imports,
        catch_up,
    )
}
