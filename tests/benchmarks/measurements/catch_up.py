"""How long it takes to be told of what was missed."""

from __future__ import annotations

import tempfile

from benchmarks.cores import stay_anywhere
from benchmarks.loading import load
from benchmarks.measurement import Figures, Measurement, Plan, Quantity
from benchmarks.programs import AGGSTREAM


def measure(subject: str, plan: Plan) -> Figures:
    stay_anywhere()  # `recovery` starts both sides itself
    with tempfile.TemporaryDirectory(dir=".") as directory:
        seconds, peak, reading = load("recovery:catch_up")(plan.count, directory)
    return {"all told": seconds, "of them reading": reading, "peak resident": peak}


MEASUREMENT = Measurement(
    name="catch_up",
    title="Catch up: orders that were missed, from REST to the handlers",
    notes="10,000 orders (2,000 with --quick) behind pages of 100, from the simulator, as in recovery.py.",
    quantities=(Quantity("all told", "s"), Quantity("of them reading", "s"), Quantity("peak resident", "MB")),
    pairs=((AGGSTREAM, None),),
    measure=measure,
    count=10_000,
    quick_count=2000,
    most_runs=3,
    environment="recovery",
)
