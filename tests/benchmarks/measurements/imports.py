"""How long a process takes that only imports."""

from __future__ import annotations

import subprocess
import sys
import time

from benchmarks.measurement import Figures, Measurement, Plan, Quantity
from benchmarks.programs import AGGSTREAM, PEERS, PROGRAMS

BARE = "bare Python"


def measure(subject: str, plan: Plan) -> Figures:
    text = "" if subject == BARE else PROGRAMS[subject].imports
    run(text)  # now the files are in the system's memory
    began = time.perf_counter()
    for _ in range(plan.count):
        run(text)
    return {"a process": (time.perf_counter() - began) / plan.count * 1000}


def run(text: str) -> None:
    subprocess.run([sys.executable, "-c", text], check=True)


MEASUREMENT = Measurement(
    name="imports",
    title="Import: a whole process that only imports",
    notes="slack_sdk's built-in client together with requests, as its programs have it.",
    quantities=(Quantity("a process", "ms"),),
    pairs=tuple((AGGSTREAM, name) for name in (BARE, *PEERS)),
    measure=measure,
    count=3,
    quick_count=1,
)
