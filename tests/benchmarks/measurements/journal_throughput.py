"""From the frame to the user's function, with each event on disk before."""

from __future__ import annotations

from dataclasses import replace

from benchmarks.measurement import Figures, Measurement, Plan
from benchmarks.measurements import throughput
from benchmarks.programs import JOURNAL_FULL, JOURNAL_NORMAL, NAIVE


def measure(subject: str, plan: Plan) -> Figures:
    return throughput.measure(subject, replace(plan, messages="orders"))


MEASUREMENT = Measurement(
    name="journal",
    title="End to end with a journal: each event is on disk before its functions run",
    notes=(
        "Always with the lives of orders: a journal delivers no fact twice, and the examples are the same facts "
        "again and again. The disk is that of the checkout; with synchronous=full it decides."
    ),
    quantities=throughput.QUANTITIES,
    pairs=((JOURNAL_NORMAL, NAIVE), (JOURNAL_FULL, NAIVE)),
    measure=measure,
    count=20_000,
    quick_count=10_000,
)
