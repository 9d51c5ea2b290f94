"""Keeps the state of orders in their table, by the same rules as `client.orders`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from aggstream.events import OrderEvent, OrderSubmitted, UserEvent
from aggstream.events._user import with_status_name
from aggstream.integrations.django._columns import KEY, NAME, key, storable
from aggstream.integrations.django.models import Order
from aggstream.journal import StoredEvent
from aggstream.journal._file import to_integer
from aggstream.journal._stored import understood
from aggstream.orders._state import OrderState

# About this number of open orders is kept in memory. The events of other orders are read again when necessary.
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

JUDGED = ("status", "is_terminal", "is_unclear")
"""The columns that the meaning of the words may change."""


class OrderStates:
    """Keeps the states of open orders in memory. Only the thread that stores events uses it."""

    def __init__(
        self, events_of: Callable[[Order], Iterable[StoredEvent]], status_names: Mapping[str, str]
    ) -> None:
        """Make the states.

        Args:
            events_of: returns the stored events of an order, oldest first.
            status_names: the option of `RestOptions`, because what is stored is the service's word.
        """
        self._events_of = events_of
        self._status_names = status_names
        self._states: dict[int, OrderState] = {}

    def forget(self) -> None:
        """Forget all states, because their latest events may not be stored."""
        self._states.clear()

    def update(self, order: Order, events: Iterable[UserEvent]) -> bool:
        """Update an order with events that are not stored yet. Return True if the order must be written."""
        state = self._states.pop(order.pk, None) or self._read_state(order)
        for event in events:
            _add(state, event)
        if order.is_terminal and not state.is_terminal:
            return False  # the event that ended the order was deleted, but the order must stay ended
        _write(order, state)
        if not state.is_terminal:
            if len(self._states) >= _MOST:
                self._states.clear()
            self._states[order.pk] = state
        return True

    def judge(self, order: Order, events: Iterable[StoredEvent]) -> bool:
        """Set the columns `JUDGED` by all stored events of an order. Return True if one of them has changed."""
        state = self._state_of(order, events)
        if state.status is None:
            return False
        before = [getattr(order, name) for name in JUDGED]
        _write_judged(order, state)
        return before != [getattr(order, name) for name in JUDGED]

    def _read_state(self, order: Order) -> OrderState:
        return self._state_of(order, self._events_of(order))

    def _state_of(self, order: Order, events: Iterable[StoredEvent]) -> OrderState:
        state = OrderState(order.order_id)
        for event in understood(events):
            _add(state, with_status_name(event, self._status_names))
        return state


def _add(state: OrderState, event: UserEvent) -> None:
    if isinstance(event, OrderSubmitted):
        state.fold_submitted(event)
    elif isinstance(event, OrderEvent):
        state.fold_event(event)


def _write_judged(order: Order, state: OrderState) -> None:
    order.status = key(state.status or "", NAME)
    order.is_terminal = state.is_terminal
    order.is_unclear = not state.is_terminal and not state.is_open


def _write(order: Order, state: OrderState) -> None:
    known = state.snapshot()
    _write_judged(order, state)
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
