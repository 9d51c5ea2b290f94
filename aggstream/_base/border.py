"""The border between aggstream and the program: no exception crosses it with the frames that it went through.

Error reporters show the locals of all frames of a traceback, and frames below the border hold tokens in the clear:
ours, and those of the libraries that make a request. The log keeps the places, at DEBUG.

Exceptions that a signal handler raises in the program's thread, such as a time limit, arrive in whatever frame
runs. They are the program's, and no failure of the call.
"""

from __future__ import annotations

import functools
import inspect
import logging
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from types import CodeType, FrameType
from typing import ParamSpec, TypeVar

from aggstream._base.stacks import trail_of

logger = logging.getLogger("aggstream.base")

P = ParamSpec("P")
T = TypeVar("T")
C = TypeVar("C", bound=type)

# The packages whose exceptions a request may fail with.
_LIBRARIES = frozenset({"aggstream", "idna", "python_socks", "urllib3", "websocket"})


def border(function: Callable[P, T]) -> Callable[P, T]:
    """Let no exception leave a function of ours with the frames below it; a decorator."""

    @functools.wraps(function)
    def call(*args: P.args, **options: P.kwargs) -> T:
        try:
            return function(*args, **options)
        except BaseException as error:
            failure = bare(error)
        del args, options
        try:
            raise failure
        finally:
            del failure  # or the frame and the exception would keep each other

    return call


def border_at_init(cls: C) -> C:
    """Make the constructor of a class a `border`. An object that is half made cannot be shown, either."""
    cls.__init__ = border(cls.__init__)  # type: ignore[misc]
    return cls


def bare(error: BaseException) -> BaseException:
    """Return an exception without frames, and without what it came from unless that was said to be its cause."""
    if logger.isEnabledFor(logging.DEBUG):
        logger.debug("aggstream: %s came about in these calls:\n%s", type(error).__name__, trail_of(error))
    for found in _chain(error):
        found.__traceback__ = None
    for found in _chain(error, contexts=False):
        found.__context__ = found.__cause__
    return error


def interruption_in(error: BaseException) -> BaseException | None:
    """Return the exception by which the program has interrupted a request; None if the request has failed itself.

    The library may have wrapped it into an exception of its own.
    """
    for found in _chain(error):
        package = type(found).__module__.partition(".")[0]
        if package in _LIBRARIES:
            continue
        # Of the interpreter's own types, only those that a signal handler has raised are not the request's.
        if package not in sys.stdlib_module_names or is_raised_by_signal_handler(found):
            return found
    return None


def is_raised_by_signal_handler(error: BaseException) -> bool:
    """Return True if a signal handler of the program has raised an exception in whatever was running."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    installed = _codes_of_signal_handlers()
    return any(frame.f_code in installed or _is_of_signal_handler(frame) for frame in frames)


def has_interruption(error: BaseException) -> bool:
    """Return True if an exception, or one that it came from, was raised by a signal handler of the program."""
    return any(is_raised_by_signal_handler(found) for found in _chain(error))


def _codes_of_signal_handlers() -> set[CodeType]:
    """Return what the signal handlers run that are installed at this moment."""
    codes: set[CodeType] = set()
    for number in signal.valid_signals():
        handler: object = signal.getsignal(number)
        while isinstance(handler, functools.partial):
            handler = handler.func
        for function in (handler, handler.__call__) if callable(handler) else ():
            code = getattr(function, "__code__", None)  # a method has its function's
            if isinstance(code, CodeType):
                codes.add(code)
    return codes


def _is_of_signal_handler(frame: FrameType) -> bool:
    """Return True if a function was called as the interpreter calls signal handlers: with a number and a frame.

    The frame is the one that runs. The function may have changed its arguments, and may take more of them, so
    one of the two signs is enough. A handler may also be one no more when it raises, because it has reset itself.
    """
    code, values = frame.f_code, frame.f_locals
    given = [values.get(name) for name in code.co_varnames[: code.co_argcount]]
    if code.co_flags & inspect.CO_VARARGS:
        given += values.get(code.co_varnames[code.co_argcount + code.co_kwonlyargcount], ())
    number, interrupted = (None, None, *given)[-2:]
    if isinstance(number, int) and isinstance(interrupted, FrameType):
        return True
    return any(isinstance(value, FrameType) and value is frame.f_back for value in given)


def _chain(error: BaseException, *, contexts: bool = True) -> Iterator[BaseException]:
    """Yield an exception, its causes, and its contexts, each once."""
    found: list[BaseException | None] = [error]
    seen: set[int] = set()
    while found:
        one = found.pop()
        if one is not None and id(one) not in seen:
            seen.add(id(one))
            yield one
            found.append(one.__cause__)
            if contexts:
                found.append(one.__context__)
