"""Events as lines of text: JSON for programs, words for people."""

from __future__ import annotations

import datetime as dt
import textwrap
from collections.abc import Iterator, Mapping
from functools import singledispatch
from typing import Any, TypeAlias

import attrs

from aggstream._base.json_text import to_json
from aggstream._base.text import shown
from aggstream.cli._shell import printable
from aggstream.events import (
    Authenticated,
    BalancesCoalesced,
    BalanceSnapshot,
    BalanceUpdate,
    Connected,
    DecodeFailed,
    Disconnected,
    ErrorMessage,
    Event,
    Gap,
    JournalFailed,
    LifecycleEvent,
    OrderEvent,
    OrderSubmitted,
    ReadingPaused,
    ReadingResumed,
    Reconciled,
    Reconnecting,
    Resumed,
    Stopped,
    TokenRefreshed,
    UserEvent,
)

_LABEL_WIDTH = 16
_NO_BREAK = "\N{NO-BREAK SPACE}"

# A lost connection is in Reconnecting.
_TRUST = (Reconnecting, Gap, Resumed, Reconciled, JournalFailed, DecodeFailed)

Segment: TypeAlias = "tuple[str, str]"
"""A text, and the name of the style it has in rich."""


def as_json(event: Event, *, journalled: bool = False) -> str:
    """Return an event as one line of JSON.

    A message is written as received, the client's own events by their fields. Where a user event did not come from
    the stream, or may come again, `id`, `source` and `redelivered` stand behind it.

    Args:
        event: the event.
        journalled: True if a journal may deliver it again.
    """
    content = as_object(event)
    if isinstance(event, UserEvent) and (journalled or event.source == "reconcile"):
        content = {**content, "id": event.id, "source": event.source, "redelivered": event.redelivered}
    return to_json(content)


def as_object(event: Event) -> Mapping[str, Any]:
    """Return an event by its fields, or as received."""
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
    mark: str = ""
    """The unusual thing about it."""

    def __str__(self) -> str:
        """The line without colour."""
        return "".join(text for text, _ in self.segments).rstrip()

    def wrapped(self, width: int) -> Iterator[list[Segment]]:
        """Yield the line as it fits a terminal: no word is broken, and what goes on stands below the text."""
        head = self.segments[:4]
        indent = sum(len(text) for text, _ in head)
        mark = f"[{self.mark}]" if self.mark else ""
        # The mark stays in one piece, so that it can have its colour.
        words = f"{self.text}  {mark.replace(' ', _NO_BREAK)}".rstrip()
        pieces = textwrap.wrap(
            words, max(width - indent, indent), break_long_words=False, break_on_hyphens=False
        ) or [""]  # fmt: skip
        for piece in pieces:
            text = piece.replace(_NO_BREAK, " ")
            is_marked = bool(mark) and piece is pieces[-1]
            yield [*head, (text.removesuffix(mark), ""), *([(mark, "yellow")] if is_marked else [])]
            head = [(" " * indent, "")]

    @property
    def segments(self) -> list[Segment]:
        """The line in its parts."""
        mark = [("  ", ""), (f"[{self.mark}]", "yellow")] if self.mark else []
        return [(self.time, "dim"), ("  ", ""), (f"{self.label:<{_LABEL_WIDTH}}", self.style),
                ("  ", ""), (self.text, ""), *mark]  # fmt: skip


def as_line(event: Event) -> Line:
    """Return an event in words."""
    label = event.sub_event or event.type
    return line_at(event.received_at, label, style_of(event), in_words(event), _mark(event))


def line_at(moment: dt.datetime, label: str, style: str, text: str, mark: str = "") -> Line:
    """Return a line that tells of a moment. The texts may hold whatever the service sent."""
    return Line(
        time=f"{moment.astimezone():%H:%M:%S.%f}"[:-3],
        label=printable(label),
        style=style,
        text=printable(text),
        mark=mark,
    )


def _mark(event: Event) -> str:
    if not isinstance(event, UserEvent):
        return ""
    marks = ["from REST"] if event.source == "reconcile" else []
    return ", ".join([*marks, "delivered again"] if event.redelivered else marks)


def is_worth_printing(event: Event) -> bool:
    """Return True if a reader must know of an event to judge what else is shown."""
    if isinstance(event, Reconciled) and event.resolved:
        return bool(event.gaps)  # without, nothing was in doubt
    return isinstance(event, _TRUST)


_BAD = ("failed", "cancelled", "expired", "rejected")
_STYLES: dict[type[Event], str] = {
    OrderSubmitted: "bold",
    BalanceUpdate: "magenta",
    BalanceSnapshot: "magenta",
    Disconnected: "red",
    Reconnecting: "yellow",
    Gap: "bold yellow",
    Resumed: "green",
    ReadingPaused: "yellow",
    ReadingResumed: "green",
    DecodeFailed: "red",
    JournalFailed: "bold red",
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
    if isinstance(event, Reconciled):
        return "green" if event.resolved else "bold yellow"
    return _STYLES.get(type(event), "dim")


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
    return f"{seconds:.1f} s, what happened in it is not replayed; what comes now waits for REST, if there is one"


@in_words.register
def _(event: Reconciled) -> str:
    if not event.resolved:
        why = "there is no REST API to ask" if event.error is None else str(event.error)
        return f"something may be missing: {why}"
    orders = f"{event.orders:,} order{'' if event.orders == 1 else 's'}"
    return f"nothing is missing: {orders} read from REST in {event.took:.1f} s"


@in_words.register
def _(event: JournalFailed) -> str:
    return f"events are no longer stored: {event.error}"


@in_words.register
def _(event: BalanceSnapshot) -> str:
    cash = [f"{held.token_symbol} {held.total_text if held.total is None else f'{held.total:,}'}"
            for held in event.balances.cash]  # fmt: skip
    venues = [f"{held.venue} {held.balance_text}" for held in event.balances.positions]
    return "  ".join([*cash, *venues])


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
