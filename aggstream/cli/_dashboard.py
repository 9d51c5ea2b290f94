"""The data that the demo shows: orders, balances and counts. It needs no clock and no terminal."""

from __future__ import annotations

import collections
from decimal import Decimal
from typing import Any

import attrs

from aggstream.cli._event_format import style_of
from aggstream.cli._std_streams import printable
from aggstream.events import (
    Authenticated,
    BalanceUpdate,
    DecodeFailed,
    Disconnected,
    Event,
    Gap,
    Heartbeat,
    OrderEvent,
    OrderSubmitted,
    ReadingPaused,
    ReadingResumed,
    Reconnecting,
    Resumed,
    Stopped,
    TokenRefreshed,
    UserEvent,
)

# By the name of an event that is not an order's end, the status to show. After any other such event: "running".
_ROW_STATUSES = {
    "step_failed": "step failed",
    "step_retrying": "retrying",
    "dag_failed": "failing",
    "partially_filled": "partial",
}
# The simulator's venues have a million base units in a share.
_UNITS_PER_SHARE = 1_000_000
_LOG_LENGTH = 20
# More orders than a terminal shows. Older ones are removed, because a demo may run for days.
_MAX_ORDERS = 200


@attrs.define
class EventCounts:
    """The counts of the events that the client has delivered."""

    received: int = 0
    gaps: int = 0
    reconnects: int = 0
    refreshes: int = 0
    decode_failures: int = 0

    def count(self, event: Event) -> None:
        """Count an event."""
        self.received += isinstance(event, UserEvent)
        self.gaps += isinstance(event, Gap)
        self.reconnects += isinstance(event, Resumed)
        self.refreshes += isinstance(event, TokenRefreshed)
        self.decode_failures += isinstance(event, DecodeFailed)


@attrs.define
class OrderRow:
    """An order as its events told. A field is None if the event that tells it fell into a gap."""

    order_id: str
    venue: str | None = None
    side: str | None = None
    price: Decimal | None = None
    size: Decimal | None = None
    filled: Decimal = Decimal(0)
    step: str | None = None
    attempt: int | None = None
    status: str = "submitted"
    reason: str | None = None
    is_over: bool = False
    is_certain: bool = True
    """False after a gap, until the next event of the order."""

    @property
    def share_filled(self) -> float:
        """The filled part of the order, from 0 to 1."""
        return min(1.0, float(self.filled / self.size)) if self.size else 0.0


@attrs.define
class BalanceRow:
    """A venue's balances."""

    venue: str
    trading: Decimal
    wallet: Decimal
    change: Decimal
    """The change of the trading balance by the last update; 0 for the first one."""


@attrs.frozen(kw_only=True)
class Summary:
    """The numbers of user events that the simulator sent, and that the client received."""

    sent: int
    """The events that happened, by the simulator's books."""
    received: int
    missed: int
    """The events that happened while there was no connection, by the simulator's books."""
    gaps: int
    reconnects: int
    refreshes: int
    decode_failures: int

    @property
    def is_balanced(self) -> bool:
        """True if each event was received once, or is counted as missed."""
        return self.sent == self.received + self.missed

    def as_object(self) -> dict[str, Any]:
        """Return the summary as an object for JSON."""
        return {"type": "summary", **attrs.asdict(self)}


@attrs.frozen
class LogEntry:
    """A line of the log, with the name of its style in rich."""

    time: str
    text: str
    style: str


class Dashboard:
    """The orders, balances, counts and connection state that the demo shows. Only one thread may use it."""

    def __init__(self) -> None:
        self.counts = EventCounts()
        self.orders: dict[str, OrderRow] = {}
        """The orders by id, the newest last."""
        self.balances: dict[str, BalanceRow] = {}
        """The balances by venue, the last changed one last."""
        self.log: collections.deque[LogEntry] = collections.deque(maxlen=_LOG_LENGTH)
        self.outcomes: collections.Counter[str] = collections.Counter()
        """The number of ended orders, by their last status."""
        self.seen_orders = 0
        self._removed_unfinished = 0
        self.state = "connecting"
        """"connecting", "live", "lost", "waiting" (for the next attempt) or "stopped"."""
        self.next_attempt_ns: int | None = None
        """The time of the next attempt to connect, in nanoseconds since the epoch, if the state is "waiting"."""

    @property
    def unknown_orders(self) -> int:
        """The number of orders whose status is not known: without an event since a gap, or removed unfinished."""
        return self._removed_unfinished + sum(not row.is_certain for row in self.orders.values())

    def apply(self, event: Event) -> None:
        """Update the data by the next event."""
        self.counts.count(event)
        if isinstance(event, OrderSubmitted):
            self._apply_submitted(event)
        elif isinstance(event, OrderEvent):
            self._apply_order_event(event)
        elif isinstance(event, BalanceUpdate):
            self._apply_balance(event)
        elif not isinstance(event, Heartbeat):
            self._apply_stream_event(event)

    def _order_row(self, order_id: str) -> OrderRow:
        row = self.orders.get(order_id)
        if row is None:
            row = self.orders[order_id] = OrderRow(order_id)
            self.seen_orders += 1
            if len(self.orders) > _MAX_ORDERS:
                oldest = self.orders.pop(next(iter(self.orders)))
                self._removed_unfinished += not oldest.is_over
        row.is_certain = True
        return row

    def _apply_submitted(self, event: OrderSubmitted) -> None:
        row = self._order_row(event.order_id)
        row.venue, row.side, row.price, row.size = event.venue, event.side, event.price, event.size

    def _apply_order_event(self, event: OrderEvent) -> None:
        row = self._order_row(event.order_id)
        row.venue = row.venue or event.venue
        row.reason = event.error_reason or row.reason
        filled, remaining = event.filled_amount_raw, event.remaining_amount_raw
        if filled is not None:
            row.filled = Decimal(filled) / _UNITS_PER_SHARE
            if remaining is not None and row.size is None:
                row.size = row.filled + Decimal(remaining) / _UNITS_PER_SHARE
        if event.family == "step":
            row.step, row.attempt = event.step_type or event.step_id, event.attempt
        if event.is_terminal:
            row.is_over, row.status = True, event.sub_event
            self.outcomes[event.sub_event] += 1
        elif not row.is_over:
            row.status = _ROW_STATUSES.get(event.sub_event, "running")

    def _apply_balance(self, event: BalanceUpdate) -> None:
        before = self.balances.pop(event.venue, None)
        change = event.trading_balance - before.trading if before else Decimal(0)
        self.balances[event.venue] = BalanceRow(event.venue, event.trading_balance, event.wallet_balance, change)

    def _apply_stream_event(self, event: Event) -> None:
        if isinstance(event, Authenticated):
            self.state = "live"
        elif isinstance(event, Disconnected):
            self.state = "lost"
        elif isinstance(event, Reconnecting):
            self.state = "waiting"
            self.next_attempt_ns = event.received_ns + int(event.delay * 1e9)
        elif isinstance(event, Stopped):
            self.state = "stopped"
        elif isinstance(event, Gap):
            for row in self.orders.values():
                row.is_certain = row.is_over
        if text := _log_text(event):
            self.log.append(LogEntry(f"{event.received_at.astimezone():%H:%M:%S}", text, style_of(event)))


def _log_text(event: Event) -> str | None:
    """Return a short text for the log, which is narrow; None if the log does not show the event."""
    if isinstance(event, Authenticated):
        return f"signed in as {printable(event.user_id or '?')}"
    if isinstance(event, Disconnected):
        verb = "closed" if event.initiated_by == "client" else "dropped"
        return f"connection {verb} ({event.code or event.initiated_by})"
    if isinstance(event, Reconnecting):
        return f"next attempt in {event.delay:.1f} s"
    if isinstance(event, Gap):
        return f"gap of {(event.ended_ns - event.started_ns) / 1e9:.1f} s"
    if isinstance(event, Resumed):
        return f"live again after {event.downtime:.1f} s"
    others: dict[type[Event], str] = {
        TokenRefreshed: "token refreshed",
        DecodeFailed: "message not understood",
        ReadingPaused: "reading paused",
        ReadingResumed: "reading resumed",
    }
    return others.get(type(event))
