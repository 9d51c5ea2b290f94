"""From the sender's clock to the user's function, at 1,000 messages a second."""

from __future__ import annotations

import statistics
import threading
import time

from benchmarks.measurement import Figures, Measurement, Plan, Quantity
from benchmarks.programs import AGGSTREAM, PEERS, PROGRAMS
from benchmarks.sender import Sender
from benchmarks.tally import patience

RATE = 1000.0


def measure(subject: str, plan: Plan) -> Figures:
    program = PROGRAMS[subject]
    count = plan.count + plan.count // 10
    taken: list[int] = []
    all_came = threading.Event()

    def handle(timestamp: int) -> None:
        taken.append(time.monotonic_ns() - timestamp)
        if len(taken) == count:
            all_came.set()

    with Sender(plan.messages, program.dialect) as sender, program.listening(sender.url, handle):
        sender.pace("messages", count, RATE)
        if not all_came.wait(patience(count)):
            raise TimeoutError(f"not all messages were handled: {len(taken)} of {count}")
    cuts = statistics.quantiles((nanoseconds / 1000 for nanoseconds in taken[-plan.count :]), n=1000)
    return {"p50": cuts[499], "p99": cuts[989], "p99.9": cuts[998]}


MEASUREMENT = Measurement(
    name="latency",
    title="End to end: latency at 1,000 messages a second",
    notes="From just before the sender's write until the user's function reads the clock.",
    quantities=(Quantity("p50", "µs"), Quantity("p99", "µs"), Quantity("p99.9", "µs")),
    pairs=tuple((AGGSTREAM, peer) for peer in PEERS),
    measure=measure,
    count=3000,
    quick_count=700,
)
