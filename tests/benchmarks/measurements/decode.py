"""A text becomes a typed event, or what the others make of it."""

from __future__ import annotations

import itertools
import time

from benchmarks.loading import load
from benchmarks.measurement import Figures, Measurement, Plan, Quantity
from benchmarks.messages import texts
from benchmarks.programs import AGGSTREAM, PLAIN

DECODERS = {
    AGGSTREAM: ("aggstream_parts:decoder", 2),
    PLAIN: ("aggstream_parts:decoder_without_msgspec", 1),
    "json.loads": ("peers.decoders:parser", 3),
    "msgspec": ("peers.decoders:msgspec_decoder", 10),
}


def measure(subject: str, plan: Plan) -> Figures:
    place, speed = DECODERS[subject]
    decode = load(place)()
    several = list(itertools.islice(texts(plan.messages), 2100))
    rounds = max(1, plan.count * speed // len(several))
    for text in several:
        decode(text)
    began = time.perf_counter()
    for _ in range(rounds):
        for text in several:
            decode(text)
    return {"a message": (time.perf_counter() - began) / (rounds * len(several)) * 1e6}


MEASUREMENT = Measurement(
    name="decode",
    title="Decode: from a text to a frozen, typed event with exact decimals",
    notes="json.loads makes dicts with floats, msgspec frozen structs with Decimal. In one process, in turns.",
    quantities=(Quantity("a message", "µs"),),
    pairs=tuple((ours, theirs) for ours in (AGGSTREAM, PLAIN) for theirs in ("json.loads", "msgspec")),
    measure=measure,
    count=42_000,
    quick_count=12_600,
    in_one_process=True,
)
