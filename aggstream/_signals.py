"""The signals that end a program, while it runs in the main thread."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def caught_signals(on_first: Callable[[], None]) -> Iterator[list[int]]:
    """Catch SIGINT and SIGTERM, and put their handlers back at the end. Outside the main thread: do nothing.

    Args:
        on_first: called in the signal handler with the first one; it must take no lock.

    Yields:
        The list of the signals that came: empty or of one, because a second one raises KeyboardInterrupt.
    """
    received: list[int] = []

    def on_signal(number: int, frame: FrameType | None) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(number)
        on_first()

    in_main = threading.current_thread() is threading.main_thread()
    before = {number: signal.signal(number, on_signal) for number in _SIGNALS} if in_main else {}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
