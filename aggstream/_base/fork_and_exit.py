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
import sys
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
# Their child processes end without the interpreter's own end, and call functions of their own before it.
_POOLS = ("multiprocessing", "billiard")
_was_forked = False
_pid_with_finalizers: int | None = None


def call_in_child(what: T, function: Callable[[T], None]) -> None:
    """Call a function with an object in each forked child, in its only thread, as long as the object lives.

    It replaces locks, which a thread of the parent may hold, and closes descriptors without a word to any peer.
    """
    _in_child[what] = function


def call_at_exit(what: T, ask: Callable[[T], None], wait: Callable[[T, Deadline], None]) -> None:
    """End an object when the interpreter, or a pool's worker process, ends, as long as the object lives.

    Args:
        what: the object.
        ask: asks it to end; all are asked before any is waited for.
        wait: waits for it, until a deadline that is one for all.
    """
    _at_exit[what] = ask, wait
    _call_at_end_of_worker()


def is_worker_process() -> bool:
    """Return True if this process was forked, or was begun by a pool of processes: its end may come unasked."""
    return _was_forked or any(_is_child_of(pool) for pool in _POOLS)


def _is_child_of(pool: str) -> bool:
    process = sys.modules.get(f"{pool}.process")
    # Both modules have the same attribute for it, and billiard has no public one.
    return process is not None and process.current_process()._parent_pid is not None  # noqa: SLF001


def _call_at_end_of_worker() -> None:
    global _pid_with_finalizers  # noqa: PLW0603  (one for the process, as atexit's functions are)
    if _pid_with_finalizers == os.getpid():
        return
    for pool in _POOLS:
        util = sys.modules.get(f"{pool}.util")
        if util is not None and _is_child_of(pool):
            _pid_with_finalizers = os.getpid()
            util.Finalize(None, _end_all, exitpriority=0)
            if pool == "billiard":
                logger.warning(
                    "a stream runs in a worker process of billiard (Celery), which may end without stopping it: "
                    "call stop() before that (in a function for Celery's signal worker_process_shutdown), or run "
                    "the stream in a process of its own"
                )


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


def _after_fork_in_child() -> None:
    global _was_forked  # noqa: PLW0603  (one for the process)
    _was_forked = True
    _call_all(_in_child)


if hasattr(os, "register_at_fork"):  # not on Windows, where there is no fork
    os.register_at_fork(after_in_child=_after_fork_in_child)
atexit.register(_end_all)
