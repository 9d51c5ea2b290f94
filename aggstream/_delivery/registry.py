"""The registered handlers, and which of them an event is for."""

from __future__ import annotations

import inspect
import logging
import threading
from collections.abc import Callable, Collection
from typing import Any, TypeAlias

import attrs

from aggstream.errors import ConfigurationError
from aggstream.events import (
    LIFECYCLE_TYPES,
    WIRE_TYPES,
    Event,
    OrderEvent,
    OrderEventName,
    OrderSubmitted,
    UnknownEvent,
    normal_form,
    order_event_kind,
)

logger = logging.getLogger("aggstream.delivery")

Handler: TypeAlias = "Callable[[Any], object]"

# A service in alpha can send any number of names; what is remembered about them must not grow with them.
_REMEMBERED = 1024
_LONGEST_REMEMBERED = 200
_LIKE = 0.8
_SUB_EVENTS = frozenset(value for name, value in vars(OrderEventName).items() if name.isupper())


@attrs.frozen
class Key:
    """Which events are meant: a class, or the name of a type that has none, and maybe its sub-events."""

    cls: type[Event]
    name: str | None
    sub_events: frozenset[str]

    def matches(self, event: Event) -> bool:
        """Return True if an event is meant."""
        if not isinstance(event, self.cls):
            return False
        if self.name is not None and event.type != self.name:
            return False
        if not self.sub_events or event.sub_event in self.sub_events:
            return True
        # A status that the user has given another name is found by both.
        return isinstance(event, OrderEvent) and normal_form(event.event) in self.sub_events


def key_of(type_or_class: object, sub_events: tuple[object, ...] = ()) -> Key:
    """Return what a user means by a type's name or a class, and by names of sub-events.

    Raises:
        ConfigurationError: that cannot be meant.
    """
    names = [name for name in sub_events if isinstance(name, str) and name]
    if len(names) != len(sub_events):
        raise ConfigurationError("a sub-event must be a text that is not empty")
    if isinstance(type_or_class, str):
        cls, name = _named(type_or_class)
    elif isinstance(type_or_class, type) and issubclass(type_or_class, Event):
        cls, name = type_or_class, None
    else:
        raise ConfigurationError(
            f"events are registered by a type's name, by '*' or by an event class of aggstream, "
            f"not by {type_or_class!a}"
        )
    if names and not issubclass(cls, (OrderEvent, UnknownEvent)):
        raise ConfigurationError(f"{cls.__name__} has no sub-events, so {names[0]!a} can never match")
    return Key(cls, name, frozenset(_sub_events(names) if cls is OrderEvent else names))


def _sub_events(names: Collection[str]) -> list[str]:
    """Return sub-events of an `order_event` in the form by which they are found; log what may be a mistake."""
    for unheard in sorted({name for name in names if order_event_kind(name) is None}):
        _suggest(unheard, "order_event", _SUB_EVENTS)
    return [normal_form(name) for name in names]


def _named(name: str) -> tuple[type[Event], str | None]:
    if name == "*":
        return Event, None
    known = WIRE_TYPES.get(name) or LIFECYCLE_TYPES.get(name)
    if known is not None:
        return known, None
    if not name:
        raise ConfigurationError("the name of a type must not be empty")
    if order_event_kind(name) is not None:
        logger.warning(
            "aggstream: %s is an event of the type order_event: on('order_event', %s)", ascii(name), ascii(name)
        )
    else:
        _suggest(name, "type", [*WIRE_TYPES, *LIFECYCLE_TYPES])
    return UnknownEvent, name


def _suggest(name: str, what: str, known: Collection[str]) -> None:
    """Log what may have been meant by a name that is taken on purpose, although nobody knows it."""
    import difflib  # noqa: PLC0415  (hardly ever needed)

    for like in difflib.get_close_matches(name, known, n=1, cutoff=_LIKE):
        logger.warning(
            "aggstream: no %s %s is known; did you mean %s? It is registered as it is", what, ascii(name), like
        )


@attrs.frozen(eq=False)
class _Registration:
    key: Key
    handler: Handler
    once: bool


class Registry:
    """The handlers of one client, in the order of their registration. All methods are thread-safe."""

    def __init__(self) -> None:
        # Guards replacing the two below; they are never changed in place, so reading needs no lock. No user
        # code runs under it.
        self._lock = threading.Lock()
        self._registrations: tuple[_Registration, ...] = ()
        # By what tells events apart: the name of an `order_event`, else the class, and what an unknown one says.
        self._found: dict[object, tuple[Handler, ...]] = {}
        self.by_order: dict[str, tuple[Handler, ...]] = {}
        """Handlers of single orders; the tuples are never changed in place."""

    @property
    def entries(self) -> tuple[_Registration, ...]:
        """Everything that is registered, in order."""
        return self._registrations

    def after_fork_in_child(self) -> None:
        """Replace the lock, which a thread of the parent may hold."""
        self._lock = threading.Lock()

    def add(self, key: Key, handler: Handler, *, once: bool) -> None:
        """Register a handler.

        Raises:
            ConfigurationError: it cannot be called with one event.
        """
        check_handler(handler)
        with self._lock:
            self._replace((*self._registrations, _Registration(key, handler, once)))

    def remove(self, handler: Handler, key: Key | None) -> int:
        """Remove a handler's registrations, all or those of one key; return how many there were."""
        with self._lock:
            kept = tuple(
                entry
                for entry in self._registrations
                if entry.handler != handler or (key is not None and entry.key != key)
            )
            removed = len(self._registrations) - len(kept)
            self._replace(kept)
            return removed

    def handlers(self, event: Event) -> tuple[Handler, ...]:
        """Return the handlers for an event, in order. A `once` handler is returned once."""
        cls = event.__class__
        key: object = cls
        if cls is OrderEvent:
            key = event.event  # type: ignore[attr-defined]  # an OrderEvent's
        elif cls is UnknownEvent:
            key = (event.type, event.sub_event)
        handlers = self._found.get(key)
        if handlers is None:
            handlers = self._find(event, key)
        if self.by_order and isinstance(event, (OrderEvent, OrderSubmitted)):
            handlers += self.by_order.get(event.order_id, ())
        return handlers

    def _find(self, event: Event, key: object) -> tuple[Handler, ...]:
        """Find an event's handlers, and remember them if they stay the same."""
        found = self._found
        entries = [entry for entry in self._registrations if entry.key.matches(event)]
        handlers = tuple(entry.handler for entry in entries if not entry.once or self._take(entry))
        is_short = len(event.type) + len(event.sub_event or "") < _LONGEST_REMEMBERED
        if is_short and len(found) < _REMEMBERED and not any(entry.once for entry in entries):
            found[key] = handlers
        return handlers

    def is_handled(self, event: Event) -> bool:
        """Return True if there is a handler for an event of no order."""
        return any(entry.key.matches(event) for entry in self._registrations)

    def add_for_order(self, order_id: str, handler: Handler) -> None:
        """Register a handler for the events of one order.

        Raises:
            ConfigurationError: it cannot be called with one event.
        """
        check_handler(handler)
        with self._lock:
            self.by_order[order_id] = (*self.by_order.get(order_id, ()), handler)

    def remove_for_order(self, order_id: str, handler: Handler | None = None) -> None:
        """Remove a handler of an order, or all of them."""
        with self._lock:
            kept = tuple(h for h in self.by_order.pop(order_id, ()) if handler is not None and h != handler)
            if kept:
                self.by_order[order_id] = kept

    def forget_ended(self, event: Event) -> None:
        """Forget the handlers of an order that this event has ended; call it once they were called."""
        if isinstance(event, OrderEvent) and event.is_terminal:
            self.remove_for_order(event.order_id)

    def _take(self, entry: _Registration) -> bool:
        with self._lock:
            if entry not in self._registrations:
                return False
            self._replace(tuple(other for other in self._registrations if other is not entry))
            return True

    def _replace(self, registrations: tuple[_Registration, ...]) -> None:
        self._registrations = registrations
        self._found = {}


class AccountRegistry(Registry):
    """The handlers of one account: those that all accounts share, and those of single orders of its own."""

    def __init__(self, shared: Registry) -> None:
        """Make one; `shared` has the handlers that all accounts share."""
        super().__init__()
        self._shared = shared

    def handlers(self, event: Event) -> tuple[Handler, ...]:
        """Return the handlers for an event, in order; see `Registry.handlers`."""
        handlers = self._shared.handlers(event)
        if self.by_order and isinstance(event, (OrderEvent, OrderSubmitted)):
            handlers += self.by_order.get(event.order_id, ())
        return handlers

    def is_handled(self, event: Event) -> bool:
        """Return True if there is a handler for an event of no order."""
        return self._shared.is_handled(event)


def check_handler(
    handler: object, arguments: int = 1, *, what: str = "a handler", wanted: str | None = None
) -> None:
    """Refuse what can never be called with so many arguments.

    Args:
        handler: the function.
        arguments: their number.
        what: what it is, in words that begin a sentence.
        wanted: the arguments in words; None: those of a handler.

    Raises:
        ConfigurationError: it is not callable, a coroutine function, or of another signature.
    """
    if not callable(handler):
        raise ConfigurationError(f"{what} must be a function, got {handler!a}")
    if inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(type(handler).__call__):
        raise ConfigurationError(f"{handler!a} is a coroutine function: it would never run; use a plain one")
    if inspect.isgeneratorfunction(handler) or inspect.isasyncgenfunction(handler):
        raise ConfigurationError(f"{handler!a} is a generator function: it would never run; use a plain one")
    try:
        signature = inspect.signature(handler)
    except (TypeError, ValueError):  # some functions written in C do not tell
        return
    try:
        signature.bind(*[None] * arguments)
    except TypeError:
        if wanted is None:
            wanted = "one argument, the event" if arguments == 1 else "two arguments, the exception and the event"
        raise ConfigurationError(f"{handler!a} must take {wanted}") from None
