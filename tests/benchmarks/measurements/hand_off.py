"""From the thread that reads to the function on the thread that dispatches."""

from __future__ import annotations

import itertools
import time

from benchmarks.loading import load
from benchmarks.measurement import Figures, Measurement, Plan, Quantity
from benchmarks.messages import texts
from benchmarks.programs import AGGSTREAM

QUEUES = {
    AGGSTREAM: "aggstream_parts:hand_off",
    "queue.Queue": "peers.queues:bounded",
    "queue.SimpleQueue": "peers.queues:simple",
}


def measure(subject: str, plan: Plan) -> Figures:
    decode = load("aggstream_parts:decoder")()
    events = [decode(text) for text in itertools.islice(texts(plan.messages), plan.count)]
    handled = itertools.count()
    put = load(QUEUES[subject])(events, lambda event: next(handled))
    began = time.perf_counter()
    put()
    took = time.perf_counter() - began
    assert next(handled) == plan.count
    return {"an event": took / plan.count * 1e6}


MEASUREMENT = Measurement(
    name="hand_off",
    title="Hand-off: from the I/O side to a function on the dispatch thread",
    notes=(
        "aggstream's dispatcher also finds the functions of an event, counts, and notes how long they run; behind "
        "a queue one function is called with everything. In one process, in turns."
    ),
    quantities=(Quantity("an event", "µs"),),
    pairs=tuple((AGGSTREAM, name) for name in QUEUES if name != AGGSTREAM),
    measure=measure,
    count=40_000,
    quick_count=20_000,
    in_one_process=True,
)
