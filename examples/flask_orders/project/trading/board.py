"""What a user's journal tells of orders and balances."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import threading
from decimal import Decimal
from pathlib import Path

import aggstream
from aggstream.journal import JournalReader

KEPT = 200
"""Orders that are remembered; of older ones only what comes anew."""
# Of the simulator's balances over REST; AGG's units are not public.
UNITS_PER_CENT = 10_000


@dataclasses.dataclass
class Step:
    """A step on the way to the venue."""

    name: str
    state: str = ""
    """"started", "retrying", "failed" or "completed"."""
    attempt: int = 0


@dataclasses.dataclass
class Order:
    """What nobody has told is empty, or None."""

    order_id: str
    first_seen_at: dt.datetime
    status: str = ""
    is_terminal: bool = False
    venue: str = ""
    side: str = ""
    price: Decimal | None = None
    size: Decimal | None = None
    filled_amount_raw: int = 0
    remaining_amount_raw: int = 0
    error_reason: str = ""
    steps: dict[str, Step] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class Balance:
    """What a user has at a venue, in dollars."""

    venue: str
    trading: Decimal
    wallet: Decimal | None
    """None: only the REST API has told, which does not tell this."""


@dataclasses.dataclass
class Known:
    """What is known up to and with an event."""

    seen: int
    """The `seq` of that event."""
    orders: list[Order]
    """The newest first."""
    balances: list[Balance]


class Board:
    """Reads a journal once, and from then on what is new in it. Every thread may look."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()  # guards what follows
        self._seen = 0
        self._orders: dict[str, Order] = {}
        self._balances: dict[str, Balance] = {}

    def look(self, most: int) -> Known:
        """Return what is known by now.

        Args:
            most: how many orders at most.

        Raises:
            JournalError: the journal cannot be read.
        """
        with self._lock:
            if self._path.exists():
                with JournalReader(self._path) as reader:
                    while page := reader.find(after=self._seen, limit=500):
                        for stored in page:
                            with contextlib.suppress(aggstream.DecodeError):  # written by another version
                                self._take(stored.event)
                        self._seen = page[-1].seq
            newest = list(reversed(self._orders.values()))[:most]
            balances = sorted(self._balances.values(), key=lambda balance: balance.venue)
            orders = [dataclasses.replace(order, steps=dict(order.steps)) for order in newest]
            return Known(self._seen, orders, [dataclasses.replace(balance) for balance in balances])

    def _take(self, event: aggstream.UserEvent) -> None:
        if isinstance(event, aggstream.BalanceUpdate):
            trading, wallet = event.trading_balance, event.wallet_balance
            self._balances[event.venue] = Balance(event.venue, trading, wallet)
        elif isinstance(event, aggstream.BalanceSnapshot):
            for position in event.balances.positions:
                if position.balance_text is not None:
                    cents = int(position.balance_text) // UNITS_PER_CENT
                    self._balances[position.venue] = Balance(position.venue, Decimal(cents).scaleb(-2), None)
        elif isinstance(event, aggstream.OrderSubmitted):
            order = self._order(event)
            order.venue, order.side = event.venue, event.side
            order.price, order.size = event.price, event.size
        elif isinstance(event, aggstream.OrderEvent):
            self._go_on(self._order(event), event)

    def _order(self, event: aggstream.OrderSubmitted | aggstream.OrderEvent) -> Order:
        if event.order_id not in self._orders:
            self._orders[event.order_id] = Order(event.order_id, event.received_at)
            if len(self._orders) > KEPT:
                del self._orders[next(iter(self._orders))]
        return self._orders[event.order_id]

    def _go_on(self, order: Order, event: aggstream.OrderEvent) -> None:
        order.venue = order.venue or event.venue or ""
        if event.family != "step":  # a step that fails is tried again
            order.error_reason = event.error_reason or order.error_reason
        if event.filled_amount_raw is not None and event.filled_amount_raw >= order.filled_amount_raw:
            order.filled_amount_raw = event.filled_amount_raw
            order.remaining_amount_raw = event.remaining_amount_raw or 0
        if event.family == "step":
            name = event.step_type or "step"
            step = order.steps.setdefault(event.step_id or name, Step(name.replace("_", " ")))
            step.state = event.sub_event.removeprefix("step_")
            step.attempt = max(step.attempt, event.attempt or 0)
        elif event.family != "run" and not order.is_terminal:  # an end is never undone
            order.status, order.is_terminal = event.sub_event, event.is_terminal
