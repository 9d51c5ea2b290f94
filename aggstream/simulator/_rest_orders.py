"""A user's newest orders as REST returns them. It does no I/O."""

from __future__ import annotations

import base64
import copy
import itertools
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from aggstream.simulator._lifecycle import UNIT, Order

if TYPE_CHECKING:
    from collections.abc import Iterator

LARGEST_PAGE = 100

_CURSOR_PREFIX = "orders:"
_SLIPPAGE_BPS = 50


@dataclass
class RestOrders:
    """Keeps orders by their position in the order of submission, so that reading a page costs only its own length.

    Attributes:
        size: the number of newest orders that are kept. It is limited because a simulator may play for days.
    """

    size: int
    _submitted: int = 0
    _orders: dict[int, Order] = field(default_factory=dict)
    _positions: dict[str, int] = field(default_factory=dict)
    # By order id, the values that REST returns instead of the true ones.
    _overrides: dict[str, dict[str, Any]] = field(default_factory=dict)
    # By order id, all versions of the order since `keep_versions` was called; None before that.
    _versions: dict[str, list[Order]] | None = None

    def __contains__(self, order_id: str) -> bool:
        return order_id in self._positions

    def copy(self) -> RestOrders:
        """Return a copy that later events do not change."""
        return replace(
            self,
            _orders={position: copy.copy(order) for position, order in self._orders.items()},
            _positions=dict(self._positions),
            _overrides=dict(self._overrides),
        )

    def add(self, order: Order) -> None:
        """Add an order that was just submitted, and remove the oldest one if there are too many."""
        position = self._submitted
        self._submitted += 1
        self._orders[position] = order
        self._positions[order.id] = position
        if oldest := self._orders.pop(position - self.size, None):
            del self._positions[oldest.id]
            self._overrides.pop(oldest.id, None)

    def keep_versions(self) -> None:
        """Keep all versions of orders from now on, for `as_of`."""
        if self._versions is None:
            self._versions = {order.id: [copy.copy(order)] for order in self._orders.values()}

    def note_change(self, order: Order) -> None:
        """Keep the present version of an order that has changed, if versions are kept."""
        if self._versions is not None:
            self._versions.setdefault(order.id, []).append(copy.copy(order))

    def as_of(self, ms: int) -> RestOrders:
        """Return the orders as they were at a time, in milliseconds since the epoch."""
        known = self._versions or {}
        earlier = RestOrders(self.size)
        for _, order in reversed(list(self._newest(self._submitted))):
            versions = [version for version in known.get(order.id, [order]) if version.updated_ms <= ms]
            if versions:
                earlier.add(versions[-1])
        return earlier

    def override(self, order_id: str, fields: dict[str, Any]) -> None:
        """Return these values of an order from now on, instead of the true ones and of an earlier override."""
        self._overrides[order_id] = fields

    def page(self, *, status: str | None, cursor: str | None, limit: int) -> dict[str, Any]:
        """Return a page of orders, newest first. Orders that are submitted later do not shift the next pages.

        Args:
            status: return only orders with this status; None: return all.
            cursor: the `nextCursor` of the page before; None: return the first page.
            limit: the largest number of orders on the page, from 1 to 100.

        Raises:
            ValueError: the cursor was not made by this service.
        """
        below = self._submitted if cursor is None else min(self._submitted, _position_of(cursor))
        matching = ((position, order) for position, order in self._newest(below) if status in (None, order.status))
        # One more order than asked for shows whether there is a next page.
        found = list(itertools.islice(matching, limit + 1))
        page, more = found[:limit], len(found) > limit
        return {
            "data": [_record(order) for _, order in page],
            "nextCursor": _cursor_of(page[-1][0]) if more else None,
            "hasMore": more,
        }

    def records(self) -> list[dict[str, Any]]:
        """Return the records of all orders, newest first, as on the pages."""
        return [_record(order) for _, order in self._newest(self._submitted)]

    def _newest(self, below: int) -> Iterator[tuple[int, Order]]:
        """Yield the orders below a position with their overrides, newest first."""
        for position in range(below - 1, self._submitted - len(self._orders) - 1, -1):
            order = self._orders[position]
            override = self._overrides.get(order.id)
            yield position, replace(order, **override) if override else order


def iso(milliseconds: int) -> str:
    """Return a time as text in REST's format."""
    moment = datetime.fromtimestamp(milliseconds // 1000, timezone.utc)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{milliseconds % 1000:03d}Z"


def _record(order: Order) -> dict[str, Any]:
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


def _cursor_of(position: int) -> str:
    return base64.urlsafe_b64encode(f"{_CURSOR_PREFIX}{position}".encode()).decode().rstrip("=")


def _position_of(cursor: str) -> int:
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
        if text.startswith(_CURSOR_PREFIX):
            return int(text.removeprefix(_CURSOR_PREFIX))
    except ValueError:
        pass  # the cursor is not base64, not text, or has no number
    raise ValueError("the cursor was not made by this service")
