"""The demo's counts and orders so far: pure, without clock or terminal. It belongs to one thread."""

from __future__ import annotations

import collections
from decimal import Decimal
from typing import Any

import attrs

from aggstream.cli._lines import style_of
from aggstream.cli._shell import printable
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

# The name of an order's state after an event that is not its end; after any other, it is running.
_STATUSES = {
    "step_failed": "step failed",
    "step_retrying": "retrying",
    "dag_failed": "failing",
    "partially_filled": "partial",
}
# Amounts in base units, of which a share has a million at the simulator's venues.
_UNITS_PER_SHARE = 1_000_000
_LOG_LENGTH = 20
# More than any terminal shows; a demo may run for days.
_KEPT_ORDERS = 200


@attrs.define
class Tally:
    """Counts of the events that handlers got: of the user, and of the stream's own life."""

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
    """An order as far as its events told. What they did not tell is None: it fell into a gap."""

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
    """False from a gap on, until the next event of the order."""

    @property
    def share_filled(self) -> float:
        """How much is filled, from 0 to 1."""
        return min(1.0, float(self.filled / self.size)) if self.size else 0.0


@attrs.define
class BalanceRow:
    """A venue's balances."""

    venue: str
    trading: Decimal
    wallet: Decimal
    change: Decimal
    """Of the trading balance, by the last update; 0 if there was none before."""


@attrs.frozen(kw_only=True)
class Summary:
    """The user events that happened, and those of them that arrived."""

    sent: int
    """The events that were to be sent to the user, by the server's books."""
    received: int
    missed: int
    """The events that happened while there was no connection, by the server's books."""
    gaps: int
    reconnects: int
    refreshes: int
    decode_failures: int

    @property
    def adds_up(self) -> bool:
        """Whether both sides' books agree: nothing was lost unsaid, nothing came twice."""
        return self.sent == self.received + self.missed

    def as_object(self) -> dict[str, Any]:
        """Return it as the last line of a pipe."""
        return {"type": "summary", **attrs.asdict(self)}


@attrs.frozen
class News:
    """A line of the log, with the name of its style."""

    time: str
    text: str
    style: str


class Board:
    """Orders, balances, counts, and the state of the connection."""

    def __init__(self) -> None:
        self.tally = Tally()
        self.orders: dict[str, OrderRow] = {}
        """By id; the newest last."""
        self.balances: dict[str, BalanceRow] = {}
        """By venue; the one that changed last is last."""
        self.log: collections.deque[News] = collections.deque(maxlen=_LOG_LENGTH)
        self.outcomes: collections.Counter[str] = collections.Counter()
        """How many orders ended in which way."""
        self.seen_orders = 0
        self._forgotten = 0
        self.state = "connecting"
        """"connecting", "live", "lost", "waiting" (for the next attempt) or "stopped"."""
        self.waits_until_ns: int | None = None
        """When the next attempt to connect comes, if the state is "waiting": nanoseconds since the epoch."""

    @property
    def not_known(self) -> int:
        """Of how many orders nothing came since a gap, or for very long: what became of them is not known."""
        return self._forgotten + sum(not row.is_certain for row in self.orders.values())

    def take(self, event: Event) -> None:
        """Take in the next event."""
        self.tally.count(event)
        if isinstance(event, OrderSubmitted):
            self._submitted(event)
        elif isinstance(event, OrderEvent):
            self._order_event(event)
        elif isinstance(event, BalanceUpdate):
            self._balance(event)
        elif not isinstance(event, Heartbeat):
            self._stream(event)

    def _order(self, order_id: str) -> OrderRow:
        row = self.orders.get(order_id)
        if row is None:
            row = self.orders[order_id] = OrderRow(order_id)
            self.seen_orders += 1
            if len(self.orders) > _KEPT_ORDERS:
                oldest = self.orders.pop(next(iter(self.orders)))
                self._forgotten += not oldest.is_over
        row.is_certain = True
        return row

    def _submitted(self, event: OrderSubmitted) -> None:
        row = self._order(event.order_id)
        row.venue, row.side, row.price, row.size = event.venue, event.side, event.price, event.size

    def _order_event(self, event: OrderEvent) -> None:
        row = self._order(event.order_id)
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
            row.status = _STATUSES.get(event.sub_event, "running")

    def _balance(self, event: BalanceUpdate) -> None:
        before = self.balances.pop(event.venue, None)
        change = event.trading_balance - before.trading if before else Decimal(0)
        self.balances[event.venue] = BalanceRow(event.venue, event.trading_balance, event.wallet_balance, change)

    def _stream(self, event: Event) -> None:
        if isinstance(event, Authenticated):
            self.state = "live"
        elif isinstance(event, Disconnected):
            self.state = "lost"
        elif isinstance(event, Reconnecting):
            self.state = "waiting"
            self.waits_until_ns = event.received_ns + int(event.delay * 1e9)
        elif isinstance(event, Stopped):
            self.state = "stopped"
        elif isinstance(event, Gap):
            for row in self.orders.values():
                row.is_certain = row.is_over
        if text := _in_brief(event):
            self.log.append(News(f"{event.received_at.astimezone():%H:%M:%S}", text, style_of(event)))


def _in_brief(event: Event) -> str | None:
    """Return the news of the stream in so few words that they fit beside the balances; None if it is none."""
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
        DecodeFailed: "a message made no sense",
        ReadingPaused: "reading pauses",
        ReadingResumed: "reading goes on",
    }
    return others.get(type(event))
