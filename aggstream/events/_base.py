"""The base of all events, and the tables of classes by their types' names."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, TypeVar

import attrs

from aggstream._base.times import moment_of_ns

WIRE_TYPES: dict[str, type[Event]] = {}
"""The messages of the service that have a class, by the `type` they carry."""

LIFECYCLE_TYPES: dict[str, type[Event]] = {}
"""The events that the client itself makes. A message of the service never becomes one of these."""

E = TypeVar("E", bound="Event")


@attrs.frozen(kw_only=True, repr=False)
class Event:
    """Anything that a handler may be called with."""

    TYPE: ClassVar[str] = ""
    """The name under which handlers are registered, and the wire's `type`."""

    received_ns: int = attrs.field(factory=time.time_ns, eq=False, repr=False)
    """When this program received or made it: nanoseconds since the epoch, from the wall clock."""

    raw: Mapping[str, Any] = attrs.field(factory=dict, eq=False, repr=False)
    """The message as received, with numbers as `int` and `Decimal`; empty for what the client itself made.
    Shared by all handlers: read it, do not change it."""

    account: str = attrs.field(default="", eq=False)
    """The name of the account whose stream it came from; empty if the program has not given a name. It is a label
    of the program's own: the service does not know it, and no id depends on it."""

    def __repr__(self) -> str:
        """Show the fields that have a value, and moments as ISO times in UTC."""
        fields = (_field_shown(self, field) for field in attrs.fields(type(self)) if field.repr)
        return f"{type(self).__name__}({', '.join(filter(None, fields))})"

    @property
    def type(self) -> str:
        """The event's type: the wire's `type`, or the lifecycle event's name."""
        return self.TYPE

    @property
    def sub_event(self) -> str | None:
        """The name that tells the events of one type apart (`event` of an `order_event`), if there is one."""
        return None

    @property
    def received_at(self) -> dt.datetime:
        """`received_ns` as an aware datetime in UTC, cut to microseconds."""
        return moment_of_ns(self.received_ns)


set_account: Callable[[Event, str], None] = Event.account.__set__  # type: ignore[attr-defined]
"""Writes the account into an event that nobody has seen yet, below attrs' guard against assignment."""


def _field_shown(event: Event, field: attrs.Attribute[Any]) -> str:
    name, value = field.name, getattr(event, field.name)
    if name.endswith("_ns"):
        name = name.removesuffix("_ns") + "_at"
        value = getattr(event, name)
    if value is None or (name == "account" and not value):
        return ""
    if isinstance(value, dt.datetime):
        return f"{name}={value.isoformat()}"
    return f"{name}={field.repr(value) if callable(field.repr) else repr(value)}"


def wire(cls: type[E]) -> type[E]:
    """Enter a class into the table of the service's messages."""
    WIRE_TYPES[cls.TYPE] = cls
    return cls


def lifecycle(cls: type[E]) -> type[E]:
    """Enter a class into the table of the client's own events."""
    LIFECYCLE_TYPES[cls.TYPE] = cls
    return cls


@attrs.frozen(kw_only=True, eq=False, repr=False)
class UnknownEvent(Event):
    """A message of a type that this version does not know. AGG is in alpha: new types come.

    Register with the type's name (`on("market_resolved")`), with this class, or with `"*"`.
    """

    name: str
    """The wire's `type`."""

    @property
    def type(self) -> str:
        """The wire's `type`."""
        return self.name

    @property
    def sub_event(self) -> str | None:
        """The message's `event`, if it has one that is a text."""
        event = self.raw.get("event")
        return event if isinstance(event, str) else None
