"""Calls objects when their process is forked, and when the interpreter ends.

Threads do not survive a fork, but sockets do: a child that closed a stream's connection in form would end it for
its parent, and locks that other threads held stay locked for ever.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import socket
import weakref
from collections.abc import Callable, MutableMapping
from typing import Any, TypeVar

from aggstream._base.deadline import Deadline

logger = logging.getLogger("aggstream.base")

T = TypeVar("T")

_in_child: MutableMapping[Any, Callable[[Any], None]] = weakref.WeakKeyDictionary()
_at_exit: MutableMapping[Any, tuple[Callable[[Any], None], Callable[[Any, Deadline], None]]] = (
    weakref.WeakKeyDictionary()
)

# In which all that is there must have ended, together.
_EXIT_TIMEOUT = 2.0


def call_in_child(what: T, function: Callable[[T], None]) -> None:
    """Call a function with an object in each forked child, in its only thread, as long as the object lives.

    It replaces locks, which a thread of the parent may hold, and closes descriptors without a word to any peer.
    """
    _in_child[what] = function


def call_at_exit(what: T, ask: Callable[[T], None], wait: Callable[[T, Deadline], None]) -> None:
    """End an object when the interpreter ends, as long as the object lives.

    Args:
        what: the object.
        ask: asks it to end; all are asked before any is waited for.
        wait: waits for it, until a deadline that is one for all.
    """
    _at_exit[what] = ask, wait


def close_here(sock: socket.socket) -> None:
    """Close this process's descriptor only: the connection is another process's."""
    # It may be closed already, or only as good as: a fork comes between any two steps of another thread.
    with contextlib.suppress(OSError):
        if (fd := sock.detach()) >= 0:
            os.close(fd)


def close_everywhere(sock: socket.socket) -> None:
    """End a connection at once, also if a child process holds a copy of the descriptor."""
    # By the base class, because a TLS socket's own changes its state.
    with contextlib.suppress(OSError):
        socket.socket.shutdown(sock, socket.SHUT_RDWR)
    sock.close()


def _call_all(functions: MutableMapping[Any, Callable[[Any], None]]) -> None:
    for what, function in list(functions.items()):
        _call(what, function)


def _end_all() -> None:
    everything = list(_at_exit.items())
    for what, (ask, _) in everything:
        _call(what, ask)
    deadline = Deadline(_EXIT_TIMEOUT)
    for what, (_, wait) in everything:
        _call(what, wait, deadline)


def _call(what: object, function: Callable[..., None], *more: object) -> None:
    try:
        function(what, *more)
    except Exception:  # the others must be called all the same
        logger.exception("%r was not told of the fork, or of the interpreter's end", what)


if hasattr(os, "register_at_fork"):  # not on Windows, where there is no fork
    os.register_at_fork(after_in_child=lambda: _call_all(_in_child))
atexit.register(_end_all)
