"""Threads whose end can be waited for by a thread that may be interrupted, as by Ctrl-C.

Before CPython 3.13 an interrupted `threading.Thread.join` leaves a thread that runs on as one that has ended.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any


def make_thread(target: Callable[..., object], *args: Any, name: str) -> threading.Thread:
    """Make a daemon thread, and do not start it.

    Args:
        target: what runs on it.
        args: what that is called with.
        name: its name.
    """
    # Looked up now: gevent may have put another class there since this module was imported.
    return _interruptible(threading.Thread)(target=target, args=args, name=name, daemon=True)


@functools.cache
def _interruptible(base: type[threading.Thread]) -> type[threading.Thread]:
    class Thread(base):  # type: ignore[misc, valid-type]
        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            self._has_ended = threading.Event()

        def run(self) -> None:
            try:
                super().run()
            finally:
                self._has_ended.set()

        def join(self, timeout: float | None = None) -> None:
            if self.is_alive() and self is not threading.current_thread():
                if not self._has_ended.wait(timeout):
                    return
                timeout = None  # it is about to be over
            super().join(timeout)

    return Thread
