"""Threads whose end can be waited for by a thread that may be interrupted, as by Ctrl-C.

Before CPython 3.13 an interrupted `threading.Thread.join` leaves a thread that runs on as one that has ended.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any

from aggstream._base.signals import Mask, set_mask


def make_thread(target: Callable[..., object], *args: Any, name: str, mask: Mask = None) -> threading.Thread:
    """Make a daemon thread, and do not start it.

    Args:
        target: what runs on it.
        args: what that is called with.
        name: its name.
        mask: the signals that it blocks; None: those that the thread blocks which starts it.
    """
    # Looked up now: gevent may have put another class there since this module was imported.
    thread = _interruptible(threading.Thread)
    return thread(target=_masked, args=(mask, target, args), name=name, daemon=True)


def _masked(mask: Mask, target: Callable[..., object], args: tuple[Any, ...]) -> None:
    set_mask(mask)
    target(*args)


class Gate:
    """Threads that are started one after the other wait at it, until it is certain that all of them are there."""

    def __init__(self) -> None:
        self._is_decided = threading.Event()
        self.is_open = False
        """True once the threads may run. That is not taken back."""

    def open(self) -> None:
        """Let the threads run."""
        self.is_open = True
        self._is_decided.set()

    def cancel(self) -> None:
        """Let the threads end without running."""
        self._is_decided.set()

    def run(self, target: Callable[..., object], *args: Any) -> None:
        """Wait until the gate is decided, and call a function if it is open. Runs on one of the threads."""
        self._is_decided.wait()
        if self.is_open:
            target(*args)


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
