"""Formats events as lines: as JSON for programs, as text for people."""

from __future__ import annotations

import datetime as dt
import textwrap
from collections.abc import Iterator, Mapping
from functools import singledispatch
from typing import Any, TypeAlias

import attrs

from aggstream._base.json_text import to_json
from aggstream._base.text import shown
from aggstream.cli._std_streams import printable
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

# `Disconnected` is not in this list, because `Reconnecting` has the same error.
_SHOWN_ALWAYS = (Reconnecting, Gap, Resumed, Reconciled, JournalFailed, DecodeFailed)

Segment: TypeAlias = "tuple[str, str]"
"""A text, and the name of its style in rich."""


def as_json(event: Event, *, journalled: bool = False) -> str:
    """Return an event as one line of JSON.

    A message of the service is written as received, and an event of the client by its fields. `id`, `source` and
    `redelivered` follow if a user event came from REST, or may come again.

    Args:
        event: the event.
        journalled: True if a journal may deliver the event again.
    """
    content = as_object(event)
    if isinstance(event, UserEvent) and (journalled or event.source == "reconcile"):
        content = {**content, "id": event.id, "source": event.source, "redelivered": event.redelivered}
    return to_json(content)


def as_object(event: Event) -> Mapping[str, Any]:
    """Return a message of the service as received, and an event of the client by its fields."""
    if isinstance(event, ErrorMessage):
        # The service may repeat the token in its text. In the field it is masked; in the raw message it is not.
        return {**event.raw, "message": event.message}
    if event.raw:
        return event.raw
    fields: dict[str, Any] = {"type": event.type}
    for field in attrs.fields(type(event)):
        if field.name.endswith("_ns"):
            name = field.name.removesuffix("_ns") + "_at"
            fields[name] = getattr(event, name).isoformat()
        elif field.name != "raw":
            fields[field.name] = _json_value(getattr(event, field.name))
    return fields


def _json_value(value: Any) -> Any:
    if isinstance(value, dt.datetime):
        return value.isoformat()
    return str(value) if isinstance(value, BaseException) else value


@attrs.frozen
class Line:
    """An event as a line of text, with the names of styles in rich."""

    time: str
    label: str
    style: str
    text: str
    mark: str = ""
    """Where the event came from if it is not new from the stream, for example "from REST"."""

    def __str__(self) -> str:
        """The line without styles."""
        return "".join(text for text, _ in self.segments).rstrip()

    def wrapped(self, width: int) -> Iterator[list[Segment]]:
        """Yield the line wrapped to a width. Words are not broken; further lines are indented below the text."""
        head = self.segments[:4]
        indent = sum(len(text) for text, _ in head)
        mark = f"[{self.mark}]" if self.mark else ""
        # The mark is not broken, so that all of it gets its style.
        words = f"{self.text}  {mark.replace(' ', _NO_BREAK)}".rstrip()
        pieces = textwrap.wrap(
            words, max(width - indent, indent), break_long_words=False, break_on_hyphens=False
        ) or [""]  # fmt: skip
        for piece in pieces:
            text = piece.replace(_NO_BREAK, " ")
            has_mark = bool(mark) and piece is pieces[-1]
            yield [*head, (text.removesuffix(mark), ""), *([(mark, "yellow")] if has_mark else [])]
            head = [(" " * indent, "")]

    @property
    def segments(self) -> list[Segment]:
        """The parts of the line, with their styles."""
        mark = [("  ", ""), (f"[{self.mark}]", "yellow")] if self.mark else []
        return [(self.time, "dim"), ("  ", ""), (f"{self.label:<{_LABEL_WIDTH}}", self.style),
                ("  ", ""), (self.text, ""), *mark]  # fmt: skip


def as_line(event: Event) -> Line:
    """Return an event as a line of text."""
    label = event.sub_event or event.type
    return make_line(event.received_at, label, style_of(event), describe(event), _origin_of(event))


def make_line(moment: dt.datetime, label: str, style: str, text: str, mark: str = "") -> Line:
    """Return a line with a time. The texts may come from the service: control characters are replaced."""
    return Line(
        time=f"{moment.astimezone():%H:%M:%S.%f}"[:-3],
        label=printable(label),
        style=style,
        text=printable(text),
        mark=mark,
    )


def _origin_of(event: Event) -> str:
    if not isinstance(event, UserEvent):
        return ""
    marks = ["from REST"] if event.source == "reconcile" else []
    return ", ".join([*marks, "delivered again"] if event.redelivered else marks)


def is_shown_always(event: Event) -> bool:
    """Return True if the event is shown whatever the filters are, because it says how complete the stream is."""
    if isinstance(event, Reconciled) and event.resolved:
        return bool(event.gaps)  # without a gap there was nothing to catch up
    return isinstance(event, _SHOWN_ALWAYS)


_FAILED_ENDINGS = ("failed", "cancelled", "expired", "rejected")
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
    """Return the name of an event's style."""
    if isinstance(event, OrderEvent):
        name = event.sub_event
        if name.endswith(_FAILED_ENDINGS):
            return "red"
        if name == "step_retrying":
            return "yellow"
        return "green" if event.family == "terminal" else "blue"
    if isinstance(event, Reconciled):
        return "green" if event.resolved else "bold yellow"
    return _STYLES.get(type(event), "dim")


@singledispatch
def describe(event: Event) -> str:
    """Return the details of an event as text. It may contain any text from the service."""
    return "" if isinstance(event, LifecycleEvent) else to_json(event.raw)


@describe.register
def _(event: OrderSubmitted) -> str:
    return f"{event.order_id}  {event.venue}  {event.side} {event.size} at {event.price}"


@describe.register
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


@describe.register
def _(event: BalanceUpdate) -> str:
    return f"{event.venue}  trading ${event.trading_balance:,}  wallet ${event.wallet_balance:,}"


@describe.register
def _(event: Connected) -> str:
    return f"to the app {event.app_id}" if event.app_id else ""


@describe.register
def _(event: Authenticated) -> str:
    return f"as {event.user_id}" if event.user_id else ""


@describe.register
def _(event: ErrorMessage) -> str:
    return event.message if event.code is None else f"{event.message} ({event.code})"


@describe.register
def _(event: Disconnected) -> str:
    return str(event.error)


@describe.register
def _(event: Reconnecting) -> str:
    return f"attempt {event.attempt} in {event.delay:.1f} s: {event.error}"


@describe.register
def _(event: Gap) -> str:
    seconds = (event.ended_ns - event.started_ns) / 1e9
    return f"{seconds:.1f} s: events of this time are not sent again; new ones wait for REST, if there is one"


@describe.register
def _(event: Reconciled) -> str:
    if not event.resolved:
        why = "there is no REST API to ask" if event.error is None else str(event.error)
        return f"something may be missing: {why}"
    orders = f"{event.orders:,} order{'' if event.orders == 1 else 's'}"
    return f"nothing is missing: {orders} read from REST in {event.took:.1f} s"


@describe.register
def _(event: JournalFailed) -> str:
    return f"events are no longer stored: {event.error}"


@describe.register
def _(event: BalanceSnapshot) -> str:
    cash = [f"{held.token_symbol} {held.total_text if held.total is None else f'{held.total:,}'}"
            for held in event.balances.cash]  # fmt: skip
    venues = [f"{held.venue} {held.balance_text}" for held in event.balances.positions]
    return "  ".join([*cash, *venues])


@describe.register
def _(event: Resumed) -> str:
    return f"live again after {event.downtime:.1f} s"


@describe.register
def _(event: TokenRefreshed) -> str:
    until = "" if event.expires_at is None else f", valid until {event.expires_at.astimezone():%H:%M:%S}"
    return f"the service accepted a new token{until}"


@describe.register
def _(event: ReadingPaused) -> str:
    return f"the handlers are behind by {event.waiting:,} events"


@describe.register
def _(event: ReadingResumed) -> str:
    return f"the handlers have caught up after {event.paused_for:.1f} s"


@describe.register
def _(event: BalancesCoalesced) -> str:
    return f"{event.venue}  {event.count:,} older balances were not shown"


@describe.register
def _(event: DecodeFailed) -> str:
    return f"{event.error} in {shown(event.text)}"


@describe.register
def _(event: Stopped) -> str:
    return "" if event.error is None else str(event.error)
