"""The signals that end a program, while it runs in the main thread."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
# `timeout` and some supervisors signal a process and then its group: that is one wish, told twice.
SAME_WISH = 1.0
"""Seconds."""


@contextlib.contextmanager
def caught_signals(on_first: Callable[[signal.Signals], object]) -> Iterator[list[int]]:
    """Catch SIGINT and SIGTERM, and put their handlers back at the end. Outside the main thread: do nothing.

    Args:
        on_first: called in the signal handler with the first one; it must take no lock.

    Yields:
        The list of the signals that came: empty or of one, because another one, more than a second later,
        raises KeyboardInterrupt.
    """
    received: list[int] = []
    since = 0.0

    def on_signal(number: int, frame: FrameType | None) -> None:
        nonlocal since
        if not received:
            since = time.monotonic()
            received.append(number)
            on_first(signal.Signals(number))
        elif time.monotonic() - since > SAME_WISH:
            raise KeyboardInterrupt

    in_main = threading.current_thread() is threading.main_thread()
    before = {number: signal.signal(number, on_signal) for number in _SIGNALS} if in_main else {}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
