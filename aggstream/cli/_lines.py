"""Events as lines of text: JSON for programs, words for people."""

from __future__ import annotations

import datetime as dt
import textwrap
from collections.abc import Mapping
from functools import singledispatch
from typing import Any

import attrs

from aggstream._codec import to_json
from aggstream.cli._shell import printable
from aggstream.events import (
    Authenticated,
    BalancesCoalesced,
    BalanceUpdate,
    Connected,
    DecodeFailed,
    Disconnected,
    ErrorMessage,
    Event,
    Gap,
    LifecycleEvent,
    OrderEvent,
    OrderSubmitted,
    ReadingPaused,
    ReadingResumed,
    Reconnecting,
    Resumed,
    Stopped,
    TokenRefreshed,
    shown,
)

_LABEL_WIDTH = 16
_NARROWEST = 20


def as_json(event: Event) -> str:
    """Return an event as one line of JSON: a message as received, the client's own events by their fields."""
    return to_json(as_object(event))


def as_object(event: Event) -> Mapping[str, Any]:
    """Return what `as_json` writes."""
    if isinstance(event, ErrorMessage):
        # The service may echo the token in its words; the field has it masked, the message as received has not.
        return {**event.raw, "message": event.message}
    if event.raw:
        return event.raw
    fields: dict[str, Any] = {"type": event.type}
    for field in attrs.fields(type(event)):
        if field.name.endswith("_ns"):
            name = field.name.removesuffix("_ns") + "_at"
            fields[name] = getattr(event, name).isoformat()
        elif field.name != "raw":
            fields[field.name] = _plain(getattr(event, field.name))
    return fields


def _plain(value: Any) -> Any:
    if isinstance(value, dt.datetime):
        return value.isoformat()
    return str(value) if isinstance(value, BaseException) else value


@attrs.frozen
class Line:
    """An event in words, with the names of rich's styles."""

    time: str
    label: str
    style: str
    text: str

    def __str__(self) -> str:
        """The line without colour."""
        return f"{self.time}  {self.padded_label}  {self.text}".rstrip()

    def wrapped(self, columns: int) -> str:
        """The text, broken between words where the terminal would break it anywhere; what follows is indented."""
        indent = len(f"{self.time}  {self.padded_label}  ")
        width = columns - indent
        if width < _NARROWEST:
            return self.text
        rows = textwrap.wrap(self.text, width, break_long_words=False, break_on_hyphens=False)
        return f"\n{' ' * indent}".join(rows)

    def within(self, columns: int) -> str:
        """The line without colour, in as many rows as it takes."""
        return f"{self.time}  {self.padded_label}  {self.wrapped(columns)}".rstrip()

    @property
    def padded_label(self) -> str:
        """The label at the width of its column."""
        return f"{self.label:<{_LABEL_WIDTH}}"


def as_line(event: Event) -> Line:
    """Return an event in words."""
    label = event.sub_event or event.type
    return Line(
        time=f"{event.received_at.astimezone():%H:%M:%S.%f}"[:-3],
        label=printable(label),
        style=style_of(event),
        text=printable(in_words(event)),
    )


_BAD = ("failed", "cancelled", "expired", "rejected")
_LIFECYCLE_STYLES: dict[type[Event], str] = {
    Disconnected: "red",
    Reconnecting: "yellow",
    Gap: "bold yellow",
    Resumed: "green",
    ReadingPaused: "yellow",
    ReadingResumed: "green",
    DecodeFailed: "red",
    TokenRefreshed: "cyan",
    ErrorMessage: "red",
    Stopped: "bold",
}


def style_of(event: Event) -> str:
    """Return the style in which an event is shown."""
    if isinstance(event, OrderEvent):
        name = event.sub_event
        if name.endswith(_BAD):
            return "red"
        if name == "step_retrying":
            return "yellow"
        return "green" if event.family == "terminal" else "blue"
    if isinstance(event, OrderSubmitted):
        return "bold"
    if isinstance(event, BalanceUpdate):
        return "magenta"
    return _LIFECYCLE_STYLES.get(type(event), "dim")


@singledispatch
def in_words(event: Event) -> str:
    """Return what an event says beyond its name. The text may hold whatever the service sent."""
    return "" if isinstance(event, LifecycleEvent) else to_json(event.raw)


@in_words.register
def _(event: OrderSubmitted) -> str:
    return f"{event.order_id}  {event.venue}  {event.side} {event.size} at {event.price}"


@in_words.register
def _(event: OrderEvent) -> str:
    parts = [event.order_id, event.venue]
    if event.family == "step":
        parts.append(event.step_type or event.step_id)
        parts.append(f"attempt {event.attempt}" if event.attempt else None)
    if event.filled_amount_text is not None:
        parts.append(f"filled {event.filled_amount_text}")
    if event.remaining_amount_text is not None:
        parts.append(f"remaining {event.remaining_amount_text}")
    parts.append(event.error_reason)
    return "  ".join(part for part in parts if part)


@in_words.register
def _(event: BalanceUpdate) -> str:
    return f"{event.venue}  trading ${event.trading_balance:,}  wallet ${event.wallet_balance:,}"


@in_words.register
def _(event: Connected) -> str:
    return f"to the app {event.app_id}" if event.app_id else ""


@in_words.register
def _(event: Authenticated) -> str:
    return f"as {event.user_id}" if event.user_id else ""


@in_words.register
def _(event: ErrorMessage) -> str:
    return event.message if event.code is None else f"{event.message} ({event.code})"


@in_words.register
def _(event: Disconnected) -> str:
    return str(event.error)


@in_words.register
def _(event: Reconnecting) -> str:
    return f"attempt {event.attempt} in {event.delay:.1f} s: {event.error}"


@in_words.register
def _(event: Gap) -> str:
    seconds = (event.ended_ns - event.started_ns) / 1e9
    return f"{seconds:.1f} s, what happened in it is not replayed: REST has the present state"


@in_words.register
def _(event: Resumed) -> str:
    return f"live again after {event.downtime:.1f} s"


@in_words.register
def _(event: TokenRefreshed) -> str:
    until = "" if event.expires_at is None else f", good until {event.expires_at.astimezone():%H:%M:%S}"
    return f"a new token was accepted{until}"


@in_words.register
def _(event: ReadingPaused) -> str:
    return f"the handlers are behind by {event.waiting:,} events"


@in_words.register
def _(event: ReadingResumed) -> str:
    return f"the handlers have caught up after {event.paused_for:.1f} s"


@in_words.register
def _(event: BalancesCoalesced) -> str:
    return f"{event.venue}  {event.count:,} older balances were not shown"


@in_words.register
def _(event: DecodeFailed) -> str:
    return f"{event.error} in {shown(event.text)}"


@in_words.register
def _(event: Stopped) -> str:
    return "" if event.error is None else str(event.error)
