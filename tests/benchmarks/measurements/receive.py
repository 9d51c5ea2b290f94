"""Frames are read, and their texts thrown away."""

from __future__ import annotations

import time

from benchmarks.loading import load
from benchmarks.measurement import Figures, Measurement, Plan, Quantity
from benchmarks.programs import AGGSTREAM
from benchmarks.sender import Sender

# Where each one is, and about how many times as fast it is as the slowest: each is to be at work for as long.
READERS = {
    AGGSTREAM: ("aggstream_parts:read_texts", 5),
    "websocket-client": ("peers.readers:websocket_client", 1),
    "websocket-client, unchecked": ("peers.readers:websocket_client_unchecked", 4),
    "websockets": ("peers.readers:websockets_sync", 5),
    "picows": ("peers.readers:picows_texts", 40),
}


def measure(subject: str, plan: Plan) -> Figures:
    place, speed = READERS[subject]
    read = load(place)
    count = plan.count * speed
    began = cpu = 0.0
    with Sender(plan.messages, "mute") as sender:
        sender.prepare(count)

        def begin() -> None:
            nonlocal began, cpu
            began, cpu = time.perf_counter(), time.process_time()
            sender.send()

        read(sender.url, begin, count)
        took, cpu = time.perf_counter() - began, time.process_time() - cpu
    return {"messages": count / took, "core busy": 100 * cpu / took}


MEASUREMENT = Measurement(
    name="receive",
    title="Receive: frames are read, and their texts thrown away",
    notes=(
        "aggstream's transport, driven as its I/O thread does. websocket-client checks UTF-8 in Python unless "
        "told not to (skip_utf8_validation). picows runs on asyncio, and its listener makes a str of each payload."
    ),
    quantities=(Quantity("messages", "/s", "more"), Quantity("core busy", "%", "neither")),
    pairs=tuple((AGGSTREAM, reader) for reader in READERS if reader != AGGSTREAM),
    measure=measure,
    count=30_000,
    quick_count=10_000,
)
