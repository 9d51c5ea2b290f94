"""The state of orders, kept in their table by the same rules as in `client.orders`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable

from aggstream.errors import DecodeError
from aggstream.events import OrderEvent, OrderSubmitted, UserEvent
from aggstream.integrations.django._columns import KEY, NAME, key, storable
from aggstream.integrations.django.models import Order
from aggstream.journal import StoredEvent
from aggstream.journal._file import to_integer
from aggstream.orders._state import OrderState

# Of orders that have not ended, about; more are read again when something is heard of them.
_MOST = 10_000

FIELDS = (
    "status",
    "is_terminal",
    "is_unclear",
    "venue",
    "side",
    "outcome_id",
    "price",
    "size",
    "filled_amount_raw",
    "remaining_amount_raw",
    "error_reason",
    "first_timestamp",
    "last_timestamp",
)
"""The columns that an event may change."""


class Folding:
    """Remembers the orders that go on. Belongs to the thread that stores events."""

    def __init__(self, events_of: Callable[[Order], Iterable[StoredEvent]]) -> None:
        """Make one.

        Args:
            events_of: returns what is stored of an order, oldest first.
        """
        self._events_of = events_of
        self._folds: dict[int, OrderState] = {}

    def forget(self) -> None:
        """Forget what was folded: it was not stored."""
        self._folds.clear()

    def take(self, order: Order, events: Iterable[UserEvent]) -> bool:
        """Let an order go on by events that are not stored yet; return True if its row has changed."""
        fold = self._folds.pop(order.pk, None) or self._recalled(order)
        for event in events:
            _fold(fold, event)
        if order.is_terminal and not fold.is_terminal:
            return False  # its end is no longer stored, and an end is never undone
        _write(order, fold)
        if not fold.is_terminal:
            if len(self._folds) >= _MOST:
                self._folds.clear()
            self._folds[order.pk] = fold
        return True

    def _recalled(self, order: Order) -> OrderState:
        fold = OrderState(order.order_id)
        for stored in self._events_of(order):
            with contextlib.suppress(DecodeError):  # of another version
                _fold(fold, stored.event)
        return fold


def _fold(fold: OrderState, event: UserEvent) -> None:
    if isinstance(event, OrderSubmitted):
        fold.fold_submitted(event)
    elif isinstance(event, OrderEvent):
        fold.fold_event(event)


def _write(order: Order, fold: OrderState) -> None:
    known = fold.snapshot()
    order.status = key(known.status or "", NAME)
    order.is_terminal = fold.is_terminal
    order.is_unclear = not fold.is_terminal and not fold.is_open
    order.venue = key(known.venue or "", NAME)
    order.side = key(known.side or "", NAME)
    order.outcome_id = key(known.outcome_id or "", KEY)
    order.price, order.size = known.price, known.size
    order.filled_amount_raw, order.remaining_amount_raw = known.filled_amount_raw, known.remaining_amount_raw
    order.error_reason = storable(known.error_reason or "")
    order.first_timestamp = _column(known.first_timestamp)
    order.last_timestamp = _column(known.last_timestamp)


def _column(timestamp: int | None) -> int | None:
    return None if timestamp is None else to_integer(timestamp)
