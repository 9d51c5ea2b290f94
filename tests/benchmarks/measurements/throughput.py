"""From the frame to the user's function, as fast as it goes."""

from __future__ import annotations

import time

from benchmarks.measurement import Figures, Measurement, Plan, Quantity
from benchmarks.programs import AGGSTREAM, PEERS, PLAIN, PROGRAMS
from benchmarks.sender import Sender
from benchmarks.tally import Tally


def measure(subject: str, plan: Plan) -> Figures:
    program = PROGRAMS[subject]
    with Sender(plan.messages, program.dialect) as sender:
        tally = Tally(sender, program.group)
        with program.listening(sender.url, tally.handle):
            tally.prepare(max(1, plan.count // 10))
            tally.deliver()
            count = tally.prepare(plan.count * program.speed)
            began, cpu = time.perf_counter(), time.process_time()
            tally.deliver()
            took, cpu = time.perf_counter() - began, time.process_time() - cpu
    return {"events": count / took, "CPU of an event": cpu / count * 1e6, "core busy": 100 * cpu / took}


QUANTITIES = (
    Quantity("events", "/s", "more"),
    Quantity("CPU of an event", "µs"),
    Quantity("core busy", "%", "neither"),
)
MEASUREMENT = Measurement(
    name="throughput",
    title="End to end: from the frame to the user's function, as fast as it goes",
    notes="From the first byte sent until the last message is handled. aggstream with its default options.",
    quantities=QUANTITIES,
    pairs=tuple((ours, peer) for ours in (AGGSTREAM, PLAIN) for peer in PEERS),
    measure=measure,
    count=60_000,
    quick_count=10_000,
)
