"""The border between aggstream and the program: no exception crosses it with the frames that it went through.

Error reporters show the locals of all frames of a traceback, and frames below the border hold tokens in the clear:
ours, and those of the libraries that make a request. The log keeps the places, at DEBUG.

Exceptions that a signal handler raises in the program's thread, such as a time limit, arrive in whatever frame
runs. They are the program's, and no failure of the call.
"""

from __future__ import annotations

import contextlib
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
# The mark of a signal handler's exception that has crossed a border. The border takes its frames away.
_MARK = "_aggstream_interruption"


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
    everything, causes = list(_chain(error)), list(_chain(error, contexts=False))
    if is_raised_by_signal_handler(error):
        with contextlib.suppress(AttributeError, TypeError):  # a class of the program may refuse it
            setattr(error, _MARK, True)
    for found in everything:
        found.__traceback__ = None
    for found in causes:
        found.__context__ = found.__cause__
    return error


def interruption_in(error: BaseException) -> BaseException | None:
    """Return the exception by which the program has interrupted a request; None if the request has failed itself.

    The library may have wrapped it into an exception of its own.
    """
    everything = list(_chain(error))
    if (raised := _raised_by_signal_handler(everything)) is not None:
        return raised
    for found in everything:
        # Of the libraries' and the interpreter's own types, only a signal handler's are the program's.
        package = type(found).__module__.partition(".")[0]
        if package not in _LIBRARIES and package not in sys.stdlib_module_names:
            return found
    return None


def raise_interruption_in(error: BaseException) -> None:
    """Raise what a signal handler of the program has raised, if an exception is that or came from it; else return.

    A clause that turns an exception of this thread into something else calls this first.
    """
    raised = _raised_by_signal_handler(list(_chain(error)))
    if raised is not None:
        raise raised


def _raised_by_signal_handler(chain: list[BaseException]) -> BaseException | None:
    # The last one, because urllib3 gives the traceback of an exception to the one that it makes of it.
    return next((found for found in reversed(chain) if is_raised_by_signal_handler(found)), None)


def is_raised_by_signal_handler(error: BaseException) -> bool:
    """Return True if a signal handler of the program has raised an exception in whatever was running."""
    if getattr(error, _MARK, False):
        return True
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    installed = _codes_of_signal_handlers()
    return any(frame.f_code in installed or _is_of_signal_handler(frame) for frame in frames)


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
    """Yield an exception, what it groups, its causes, and its contexts, each once.

    An exception that the program was handling already when it called is none of them, although Python makes it a
    context.
    """
    found: list[BaseException | None] = [error]
    seen: set[int] = set()
    callers = _callers_of(error)
    while found:
        one = found.pop()
        if one is not None and id(one) not in seen:
            seen.add(id(one))
            yield one
            if isinstance(grouped := getattr(one, "exceptions", None), tuple):  # as cattrs groups errors
                found.extend(each for each in grouped if isinstance(each, BaseException))
            found.append(one.__cause__)
            if contexts and not _was_caught_in(one.__context__, callers):
                found.append(one.__context__)


def _callers_of(error: BaseException) -> set[int]:
    """Return the ids of the frames above the one that has caught an exception. They all run still."""
    callers: set[int] = set()
    frame = None if error.__traceback__ is None else error.__traceback__.tb_frame.f_back
    while frame is not None:
        callers.add(id(frame))
        frame = frame.f_back
    return callers


def _was_caught_in(error: BaseException | None, frames: set[int]) -> bool:
    # One without a traceback was raised elsewhere, too: its frames have just been taken away.
    trace = None if error is None else error.__traceback__
    return trace is None or id(trace.tb_frame) in frames
