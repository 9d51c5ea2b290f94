"""Calling the handlers of an event, and what happens when one raises."""

from __future__ import annotations

import functools
import inspect
import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import TypeAlias

import attrs

from aggstream._base.greenlets import in_turns, is_patched
from aggstream._base.text import shown
from aggstream._delivery.registry import Handler, Registry
from aggstream._delivery.room import Tally
from aggstream.events import Event, UserEvent, is_users

logger = logging.getLogger("aggstream.delivery")

ErrorHandler: TypeAlias = "Callable[[BaseException, Event], object]"
Tap: TypeAlias = "Callable[[Event, int, int], None]"


@attrs.frozen(eq=False, repr=False)
class Running:
    """A handler that is running now."""

    handler: str
    """Its qualified name."""
    event: str
    """The type of the event that it was given, fit for a log."""
    since: float
    """When it was called, in monotonic seconds."""
    seconds: float
    """For how long it has run."""
    thread: threading.Thread
    account: str = ""
    """The account of the event that it was given."""


class Caller:
    """The side of a worker that other threads may read: its counts, and the handler that runs."""

    def __init__(self) -> None:
        self.tally = Tally()
        self.current: tuple[Handler, Event, float] | None = None
        """The handler that runs, the event that it was given, and when it was called."""


class HandlerCalls:
    """Calls handlers on the workers' threads. What it holds is shared by all workers of a dispatcher."""

    def __init__(
        self,
        registry: Registry,
        *,
        name: str,
        shown: Callable[[str], str],
        on_fatal: Callable[[BaseException], None],
    ) -> None:
        """Make one.

        Args:
            registry: finds the handlers of an event.
            name: begins the log lines.
            shown: makes a type that the server has invented fit for a log.
            on_fatal: called with an exception that is to end the stream (`SystemExit`, say).
        """
        self.error_handlers: tuple[ErrorHandler, ...] = ()
        self.taps: tuple[Tap, ...] = ()
        """Called with each event, its epoch and its size before its handlers."""
        self.epoch = 0
        """Raised when the user is switched: user events that were queued before it are not delivered."""
        self.is_abandoned = False
        """True once nothing is delivered any more."""
        self.is_outage: Callable[[BaseException], bool] = lambda error: False
        """Returns True for an exception which means that something is away that a handler needs."""
        self.on_fatal = on_fatal
        self.name = name
        self._registry = registry
        self._shown = shown
        self.call = in_turns(self._call) if is_patched() else self._call
        """Calls an event's handlers: see `_call`."""

    def is_stale(self, event: Event, epoch: int) -> bool:
        """Return True if the user whose event it is has been switched."""
        return epoch != self.epoch and is_users(event)

    def is_wanted(self, event: Event) -> bool:
        """Return True if there is a handler or a tap for an event."""
        return bool(self.taps) or self._registry.is_handled(event)

    def running(self, caller: Caller, thread: threading.Thread | None) -> list[Running]:
        """Return the handler that a caller runs now on a thread, if it runs one."""
        current = caller.current
        if current is None or thread is None:
            return []
        handler, event, since = current
        name = getattr(handler, "__qualname__", None) or repr(handler)
        return [Running(name, self.in_a_log(event.type), since, time.monotonic() - since, thread, event.account)]

    def in_a_log(self, event_type: str) -> str:
        """Return a type as it may stand in a log line."""
        return self._shown(event_type)[1:-1]  # without the quotes

    def _identified(self, event: Event) -> str:
        """Return the ids by which an event is found in a journal, a database, and at the service."""
        if not isinstance(event, UserEvent):
            return ""
        order_id = getattr(event, "order_id", None)
        order = "" if order_id is None else f" of order {self.in_a_log(order_id)}"
        return f"{order} (event {event.id})"

    def call_function(self, function: Callable[[], object]) -> None:
        """Call a function that is no handler, of a future say."""
        try:
            function()
        except Exception:  # it is the user's
            logger.exception("%s: a future's callback failed", self.name)
        except BaseException as leaving:
            self.on_fatal(leaving)

    def _call(
        self, caller: Caller, event: Event, epoch: int, size: int, handlers: Sequence[Handler] | None = None
    ) -> Sequence[tuple[Handler, BaseException]]:
        """Call an event's handlers, all or some of them; return those that failed, with what they raised."""
        if self.is_abandoned:
            return ()
        if handlers is None:
            for tap in self.taps:
                tap(event, epoch, size)
            handlers = self._registry.handlers(event)
        failed: list[tuple[Handler, BaseException]] | None = None
        for handler in handlers:
            # The handler before, or another thread, may have switched the user.
            if epoch != self.epoch and is_users(event):
                break
            caller.current = (handler, event, time.monotonic())
            try:
                handler(event)
            except BaseException as error:  # the next handler and the next event must run
                caller.current = None
                caller.tally.handler_errors += 1
                failed = [*(failed or ()), (handler, error)]
                self._handler_failed(error, handler, event, epoch)
        caller.current = None
        if self._registry.by_order:
            self._registry.forget_ended(event)
        return failed or ()

    def _handler_failed(self, error: BaseException, handler: Handler, event: Event, epoch: int) -> None:
        if not isinstance(error, Exception):
            # sys.exit() in a handler means the program, not a thread that nobody would miss.
            self.on_fatal(error)
            return
        what = f"{self.in_a_log(event.type)}{self._identified(event)}"
        if self.is_outage(error):
            # Without a traceback, because it is told again and again, and the place is not to blame.
            text = "%s: the handler %s failed on %s, because something that it needs is away: %s"
            logger.warning(text, self.name, name_of(handler), what, described(error))
        else:
            logger.error("%s: the handler %s failed on %s", self.name, name_of(handler), what, exc_info=error)
        for on_error in self.error_handlers:
            if self.is_stale(event, epoch):
                return
            try:
                on_error(error, event)
            except Exception:
                logger.exception("%s: on_error %r failed", self.name, on_error)
            except BaseException as leaving:
                self.on_fatal(leaving)


def name_of(handler: object) -> str:
    """Return where a handler is: its module, and its name in it."""
    while isinstance(handler, functools.partial):
        handler = handler.func
    function = inspect.unwrap(handler) if callable(handler) else handler
    name = getattr(function, "__qualname__", None) or type(function).__qualname__
    module = getattr(function, "__module__", None) or type(function).__module__
    return f"{module}.{name}"


def described(error: BaseException) -> str:
    """Return an error in one short line."""
    return shown(f"{type(error).__name__}: {error}")
