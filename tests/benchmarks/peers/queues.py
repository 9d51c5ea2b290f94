"""Handing objects to a thread that calls one function with each, with the standard library's queues."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from typing import Any


def bounded(events: Sequence[Any], handle: Callable[[Any], object]) -> Callable[[], None]:
    return _hand_off(queue.Queue(maxsize=2 * len(events)), events, handle)


def simple(events: Sequence[Any], handle: Callable[[Any], object]) -> Callable[[], None]:
    return _hand_off(queue.SimpleQueue(), events, handle)


def _hand_off(
    waiting: queue.Queue[Any] | queue.SimpleQueue[Any], events: Sequence[Any], handle: Callable[[Any], object]
) -> Callable[[], None]:
    def run() -> None:
        while (event := waiting.get()) is not None:
            handle(event)

    thread = threading.Thread(target=run)
    thread.start()

    def put() -> None:
        for event in events:
            waiting.put(event)
        waiting.put(None)
        thread.join()

    return put
