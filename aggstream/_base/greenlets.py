"""Programs under gevent, whose patching makes greenlets of threads, and where that cannot work.

Nothing of gevent is imported here: who made the standard library's classes tells whether it is there.
"""

from __future__ import annotations

import functools
import queue
import selectors
import socket
import ssl
import sys
import threading
import time
import weakref
from collections.abc import Callable
from types import FrameType
from typing import Any, ParamSpec, TypeVar

from aggstream.errors import StateError

P = ParamSpec("P")
R = TypeVar("R")

# Like the interpreter's own switch interval.
_TURN = 0.005
# With 0, only those run that are ready already: no socket and no timer is looked at, for many turns on end.
_LEAST = 1e-9

_STANDARD = frozenset({"socket", "_socket", "ssl", "_ssl", "selectors", "_thread", "threading", "queue", "_queue"})

_greenlets: weakref.WeakKeyDictionary[threading.Thread, Any] = weakref.WeakKeyDictionary()

_INSTEAD = (
    "or run the stream in a process of its own, such as `manage.py aggstream`, where nothing of the kind is used"
)


def is_patched() -> bool:
    """Return True if gevent has patched the classes that threads and sockets are made of."""
    return "gevent" in _makers().values()


class Patching:
    """The patching that an object was made under. Its locks and sockets must still be of that make later."""

    def __init__(self) -> None:
        self._was_patched = is_patched()

    def is_outdated(self) -> bool:
        """Return True if gevent has patched the standard library since."""
        return is_patched() and not self._was_patched

    def check(self, what: str) -> None:
        """Return if the object can work under the present patching.

        Args:
            what: is to be used.

        Raises:
            StateError: it would hang; says what to do.
        """
        makers = _makers()
        if "eventlet" in makers.values():
            raise StateError(f"{what} cannot work under eventlet: use gevent or threads, {_INSTEAD}")
        missing = [name for name, maker in makers.items() if maker in _STANDARD]
        if missing and "gevent" in makers.values():
            raise StateError(
                f"{what} cannot work with half of gevent's patches ({', '.join(missing)} not patched): call "
                f"gevent.monkey.patch_all() without leaving anything out, {_INSTEAD}"
            )
        if self.is_outdated():
            raise StateError(
                f"{what} was made before gevent.monkey.patch_all() was called, and would hang: call that first of "
                f"all, before aggstream is imported (for `gunicorn --preload`: in its configuration file), "
                f"{_INSTEAD}"
            )


def in_turns(function: Callable[P, R]) -> Callable[P, R]:
    """Let other greenlets run now and then, after a call of a function that is called again and again.

    The interpreter interrupts threads; a greenlet that does not wait keeps all others waiting.
    """
    since, sleep = 0.0, sys.modules["gevent"].sleep

    @functools.wraps(function)
    def call(*args: P.args, **options: P.kwargs) -> R:
        nonlocal since
        result = function(*args, **options)
        if time.monotonic() - since >= _TURN:
            sleep(_LEAST)
            since = time.monotonic()
        return result

    return call


def is_in_hub() -> bool:
    """Return True in gevent's loop itself, as in a signal handler: nothing may wait there."""
    if not is_patched():
        return False
    gevent = sys.modules["gevent"]
    return bool(gevent.getcurrent() is gevent.get_hub())


def note_greenlet() -> None:
    """Let `frame_of` find the calling thread, if it is a greenlet."""
    if is_patched():
        _greenlets[threading.current_thread()] = sys.modules["gevent"].getcurrent()


def frame_of(thread: threading.Thread) -> FrameType | None:
    """Return the frame in which a greenlet of a thread waits; None if it does not wait, or is no greenlet."""
    frame: FrameType | None = getattr(_greenlets.get(thread), "gr_frame", None)
    return frame


def _makers() -> dict[str, str | None]:
    """Return the packages that the present lock, queue and socket classes come from; None: it cannot be told."""
    classes: dict[str, Any] = {
        "socket": socket.socket,
        "ssl": ssl.SSLContext,
        "select": selectors.DefaultSelector,
        "thread": threading.Lock,
        "queue": queue.SimpleQueue,
    }
    return {name: _maker(made) for name, made in classes.items()}


def _maker(made: Any) -> str | None:
    # A class that somebody else put there, such as PySocks, waits as the one that it is derived from.
    for one in made.__mro__ if isinstance(made, type) else (made,):
        package = str(one.__module__).partition(".")[0]
        if package in ("gevent", "eventlet") or package in _STANDARD:
            return package
    return None
