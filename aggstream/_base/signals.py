"""The signals that end a program, while it runs in the main thread."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, TypeAlias

from aggstream._base.greenlets import is_patched

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
# `timeout` and some supervisors signal a process and then its group: that is one wish, told twice.
SAME_WISH = 1.0
"""Seconds."""


# A thread must not block what tells of its own faults, or measures its own time.
_OF_THREAD = {"SIGABRT", "SIGBUS", "SIGFPE", "SIGILL", "SIGPROF", "SIGSEGV", "SIGSYS", "SIGTRAP", "SIGVTALRM"}

Mask: TypeAlias = "frozenset[int] | None"
"""The signals that a thread blocks; None: the system, or gevent, has no masks for threads."""


def present_mask() -> Mask:
    """Return the signals that the calling thread blocks."""
    if not hasattr(signal, "pthread_sigmask") or is_patched():
        return None
    return frozenset(signal.pthread_sigmask(signal.SIG_BLOCK, ()))


def full_mask() -> Mask:
    """Return the mask for a thread in which only code of ours runs.

    Python's signal handlers run in the main thread. A signal that the system gives to another thread does not wake
    the main thread, and a thread that starts threads can be given any. With this mask it is given none. It also
    turns SIGPIPE, which OpenSSL raises when a peer has gone away, into an error of the call.
    """
    if present_mask() is None:
        return None
    return frozenset(number for number in signal.valid_signals() if _name_of(number) not in _OF_THREAD)


def set_mask(mask: Mask) -> None:
    """Let the calling thread block these signals and no others."""
    if mask is not None and not is_patched():
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


@contextlib.contextmanager
def without_sigpipe() -> Iterator[None]:
    """Keep SIGPIPE from the calling thread, in which a call writes to a socket over TLS.

    OpenSSL cannot be told not to raise it. A program that has set it to its default, as scripts for pipes do, dies
    of it without a word when the peer has gone away. The call fails with BrokenPipeError all the same.
    """
    mask = present_mask()
    sigpipe = getattr(signal, "SIGPIPE", None)
    if mask is None or sigpipe is None or sigpipe in mask or not hasattr(signal, "sigtimedwait"):
        yield
        return
    was_pending = sigpipe in signal.sigpending()
    try:
        # A signal handler of the program may run in each of these calls, and raise.
        signal.pthread_sigmask(signal.SIG_BLOCK, (sigpipe,))
        yield
    finally:
        try:
            if not was_pending:  # what this call has raised is not for the program
                signal.sigtimedwait((sigpipe,), 0)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _name_of(number: int) -> str:
    return number.name if isinstance(number, signal.Signals) else ""


@contextlib.contextmanager
def caught_signals(on_first: Callable[[signal.Signals], object]) -> Iterator[list[int]]:
    """Catch SIGINT and SIGTERM, and put their handlers back at the end. Outside the main thread: do nothing.

    A signal whose handler was installed by another language than Python is left to it.

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
    # A handler that Python did not install could not be put back: the program has its own way to end.
    caught = [number for number in _SIGNALS if signal.getsignal(number) is not None] if in_main else []
    with contextlib.ExitStack() as put_back:
        for number in caught:
            # First this: another signal's handler may raise between any two calls.
            put_back.callback(_set_handler, number, signal.getsignal(number))
            signal.signal(number, on_signal)
        yield received


def _set_handler(number: int, handler: Any) -> None:
    try:
        signal.signal(number, handler)
    except BaseException:  # raised by another signal's handler, which runs before this one is set
        signal.signal(number, handler)
        raise
