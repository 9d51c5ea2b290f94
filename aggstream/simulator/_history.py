"""A user's newest orders as REST tells of them. Pure: no I/O."""

from __future__ import annotations

import base64
import copy
import itertools
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from aggstream.simulator._orders import UNIT, Order

if TYPE_CHECKING:
    from collections.abc import Iterator

LARGEST_PAGE = 100

_CURSOR_PREFIX = "orders:"
_SLIPPAGE_BPS = 50


@dataclass
class History:
    """Orders by the position in which they were submitted, so that a page costs no more than its own length.

    Attributes:
        size: only so many of the newest orders are kept: a simulator may play for days.
    """

    size: int
    _submitted: int = 0
    _orders: dict[int, Order] = field(default_factory=dict)
    _positions: dict[str, int] = field(default_factory=dict)
    # The status that REST is to tell of an order in place of the true one.
    _said: dict[str, dict[str, Any]] = field(default_factory=dict)
    # What each order was before, from when REST began to trail; None while it does not.
    _past: dict[str, list[Order]] | None = None

    def __contains__(self, order_id: str) -> bool:
        return order_id in self._positions

    def copy(self) -> History:
        """Return a copy that nothing happens to."""
        return replace(
            self,
            _orders={position: copy.copy(order) for position, order in self._orders.items()},
            _positions=dict(self._positions),
            _said=dict(self._said),
        )

    def add(self, order: Order) -> None:
        """Take in an order that was submitted just now, and forget the oldest if there are too many."""
        position = self._submitted
        self._submitted += 1
        self._orders[position] = order
        self._positions[order.id] = position
        if oldest := self._orders.pop(position - self.size, None):
            del self._positions[oldest.id]
            self._said.pop(oldest.id, None)

    def keep_past(self) -> None:
        """Remember from now on what orders were."""
        if self._past is None:
            self._past = {order.id: [copy.copy(order)] for order in self._orders.values()}

    def changed(self, order: Order) -> None:
        """Note that something has happened to an order."""
        if self._past is not None:
            self._past.setdefault(order.id, []).append(copy.copy(order))

    def as_of(self, ms: int) -> History:
        """Return the orders as they were at a moment, in milliseconds since the epoch."""
        past = self._past or {}
        then = History(self.size)
        for _, order in reversed(list(self._newest(self._submitted))):
            versions = [it for it in past.get(order.id, [order]) if it.updated_ms <= ms]
            if versions:
                then.add(versions[-1])
        return then

    def contradict(self, order_id: str, said: dict[str, Any]) -> None:
        """Let REST say something else of an order, in place of all that it was made to say before."""
        self._said[order_id] = said

    def page(self, *, status: str | None, cursor: str | None, limit: int) -> dict[str, Any]:
        """Return a page of orders, newest first; orders submitted meanwhile do not shift the pages that follow.

        Args:
            status: only orders with this status; None for all.
            cursor: the `nextCursor` of the page before; None for the first page.
            limit: 1 to 100 orders.

        Raises:
            ValueError: the cursor is not one of ours.
        """
        below = self._submitted if cursor is None else min(self._submitted, _position(cursor))
        matching = ((position, order) for position, order in self._newest(below) if status in (None, order.status))
        # One more than asked for tells whether there is a next page.
        found = list(itertools.islice(matching, limit + 1))
        page, more = found[:limit], len(found) > limit
        return {
            "data": [_row(order) for _, order in page],
            "nextCursor": _cursor(page[-1][0]) if more else None,
            "hasMore": more,
        }

    def rows(self) -> list[dict[str, Any]]:
        """Return all orders, newest first, as the pages have them."""
        return [_row(order) for _, order in self._newest(self._submitted)]

    def _newest(self, below: int) -> Iterator[tuple[int, Order]]:
        """Yield the orders below a position, as REST is to tell of them, from the newest on."""
        for position in range(below - 1, self._submitted - len(self._orders) - 1, -1):
            order = self._orders[position]
            said = self._said.get(order.id)
            yield position, replace(order, **said) if said else order


def iso(milliseconds: int) -> str:
    """Return a moment as REST writes it."""
    moment = datetime.fromtimestamp(milliseconds // 1000, timezone.utc)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{milliseconds % 1000:03d}Z"


def _row(order: Order) -> dict[str, Any]:
    return {
        "id": order.id,
        "venue": order.venue,
        "status": order.status,
        "side": order.side,
        "amountRaw": str(order.size_raw),
        "slippageBps": _SLIPPAGE_BPS,
        "quotedPriceRaw": str(order.price_raw),
        "quotedCostRaw": str(order.price_raw * order.size_raw // UNIT),
        "filledAmountRaw": str(order.filled_raw),
        "executionPrice": order.price_raw / UNIT if order.filled_raw else None,
        "txHash": order.tx_hash if order.filled_raw else None,
        "errorMessage": order.error,
        "createdAt": iso(order.created_ms),
        "updatedAt": iso(order.updated_ms),
        "venueMarket": {"id": f"vm_{order.outcome_id[4:]}", "question": order.question, "image": None},
        "venueMarketOutcome": {"label": order.outcome, "title": order.outcome},
    }


def _cursor(position: int) -> str:
    return base64.urlsafe_b64encode(f"{_CURSOR_PREFIX}{position}".encode()).decode().rstrip("=")


def _position(cursor: str) -> int:
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
        if text.startswith(_CURSOR_PREFIX):
            return int(text.removeprefix(_CURSOR_PREFIX))
    except ValueError:
        pass  # not base64, not text, or no number in it
    raise ValueError("the cursor is not one of this service")
