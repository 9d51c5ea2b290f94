"""The most memory in one long burst, with handlers that keep up."""

from __future__ import annotations

import threading

from benchmarks.measurement import Figures, Measurement, Plan, Quantity
from benchmarks.programs import AGGSTREAM, PROGRAMS
from benchmarks.resident import resident_mb
from benchmarks.sender import Sender
from benchmarks.tally import Tally

LOOK = 0.02


def measure(subject: str, plan: Plan) -> Figures:
    program = PROGRAMS[subject]
    with Sender(plan.messages, program.dialect) as sender:
        tally = Tally(sender, program.group)
        tally.prepare(plan.count)
        with program.listening(sender.url, tally.handle):
            idle = peak = resident_mb()
            delivery = threading.Thread(target=tally.deliver)
            delivery.start()
            while delivery.is_alive():
                peak = max(peak, resident_mb())
                delivery.join(LOOK)
            left = resident_mb()
    return {"peak above idle": peak - idle, "afterwards": left - idle}


MEASUREMENT = Measurement(
    name="burst",
    title="Memory: one burst, with a handler that keeps up",
    notes="1,000,000 events (100,000 with --quick), without a pause; resident memory, looked at each 20 ms.",
    quantities=(Quantity("peak above idle", "MB"), Quantity("afterwards", "MB")),
    pairs=((AGGSTREAM, None),),
    measure=measure,
    count=1_000_000,
    quick_count=100_000,
    most_runs=1,
)
