"""What the service knows of one user: orders, balances, and what was sent of them. Pure: no I/O."""

from __future__ import annotations

import base64
import itertools
import json
import random
from collections import deque
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from aggstream.simulator import _orders

if TYPE_CHECKING:
    from collections.abc import Callable

# Only so many of a user's newest orders are kept: a simulator may play for days.
HISTORY = 10_000
LARGEST_PAGE = 100

_CURSOR_PREFIX = "orders:"
_CHAIN = {"chainId": 137, "tokenAddress": "0x3c499c542cEF5E3811e1192ce70d8cC03d5c3359"}
_SLIPPAGE_BPS = 50


@dataclass(frozen=True)
class Books:
    """The simulator's count of one user's events; `emitted == sent + missed`, always.

    Attributes:
        emitted: events that happened.
        sent: of these, handed to at least one authenticated connection of the user.
        missed: of these, happened while the user had no authenticated connection.
    """

    emitted: int
    sent: int
    missed: int


class Account:
    """One user's orders and balances.

    Args:
        user_id: the user.
        seed: an order's fate follows from the seed, the user and the how-manieth order it is, and from nothing
            else: not from the time, nor from what is played beside it.
        now: seconds since the epoch.
    """

    def __init__(self, user_id: str, *, seed: object, now: Callable[[], float]) -> None:
        self.user_id = user_id
        self._seed = seed
        self._now = now
        self._begun = 0
        self._plays = 0
        self._submitted = 0
        self._sent = 0
        self._missed = 0
        self._last_ms = 0
        self._synced_ms = int(now() * 1000)
        self._orders: deque[_orders.Order] = deque(maxlen=HISTORY)
        self._wallets = {venue: _orders.Wallet(venue) for venue in _orders.VENUES}

    @property
    def books(self) -> Books:
        """The count of this user's events so far."""
        return Books(self._sent + self._missed, self._sent, self._missed)

    def count(self, *, sent: bool) -> None:
        """Enter one event into the books."""
        if sent:
            self._sent += 1
        else:
            self._missed += 1

    def begin(self, choices: _orders.Choices) -> _orders.Lifecycle:
        """Return the life of a new order. Nothing has happened until its first frame is taken."""
        self._begun += 1
        rng = random.Random(f"{self._seed}/{self.user_id}/order/{self._begun}")
        order, scenario = _orders.draw(self.user_id, choices, rng)
        wallet = self._wallets.setdefault(order.venue, _orders.Wallet(order.venue))
        return _orders.Lifecycle(order, wallet, scenario, rng)

    def new_play(self) -> random.Random:
        """Return what shuffles the user's next play."""
        self._plays += 1
        return random.Random(f"{self._seed}/{self.user_id}/play/{self._plays}")

    def advance(self, life: _orders.Lifecycle) -> str | None:
        """Let the next thing happen to an order; return the frame that tells of it, or None at its end."""
        frame = next(life.frames, None)
        if frame is None:
            return None
        # Strictly increasing, so that events can be put in order again: a burst runs ahead of the clock.
        self._last_ms = max(int(self._now() * 1000), self._last_ms + 1)
        frame["timestamp"] = self._last_ms
        order = life.order
        if frame["type"] == "order_submitted":
            order.position = self._submitted
            order.created_ms = self._last_ms
            self._submitted += 1
            self._orders.append(order)
        if frame["type"] == "balance_update":
            self._synced_ms = self._last_ms
        else:
            order.updated_ms = self._last_ms
        return json.dumps(frame, separators=(",", ":"))

    def orders_page(self, *, status: str | None, cursor: str | None, limit: int) -> dict[str, Any]:
        """Return a page of orders, newest first; orders submitted meanwhile do not shift the pages that follow.

        Args:
            status: only orders with this status; None for all.
            cursor: the `nextCursor` of the page before; None for the first page.
            limit: 1 to 100 orders.

        Raises:
            ValueError: the cursor is not one of ours.
        """
        below = self._submitted if cursor is None else _position(cursor)
        matching = (
            order for order in reversed(self._orders) if order.position < below and status in (None, order.status)
        )
        # One more than asked for tells whether there is a next page.
        found = list(itertools.islice(matching, limit + 1))
        page, more = found[:limit], len(found) > limit
        return {
            "data": [_order_row(order) for order in page],
            "nextCursor": _cursor(page[-1].position) if more else None,
            "hasMore": more,
        }

    def balances(self) -> dict[str, Any]:
        """Return the balances: cash is what all wallets hold, a position what is free to trade at a venue."""
        total = str(sum(wallet.wallet_cents for wallet in self._wallets.values()) * _orders.UNITS_PER_CENT)
        chain = {**_CHAIN, "balanceRaw": total, "lastSyncedAt": _iso(self._synced_ms)}
        return {
            "cash": [{"tokenSymbol": "USDC", "totalRaw": total, "decimals": 6, "chains": [chain]}],
            "positions": [
                {"venue": wallet.venue, "balance": str(wallet.trading_cents * _orders.UNITS_PER_CENT)}
                for wallet in self._wallets.values()
            ],
        }


def _order_row(order: _orders.Order) -> dict[str, Any]:
    return {
        "id": order.id,
        "venue": order.venue,
        "status": order.status,
        "side": order.side,
        "amountRaw": str(order.size_raw),
        "slippageBps": _SLIPPAGE_BPS,
        "quotedPriceRaw": str(order.price_raw),
        "quotedCostRaw": str(order.price_raw * order.size_raw // _orders.UNIT),
        "filledAmountRaw": str(order.filled_raw),
        "executionPrice": order.price_raw / _orders.UNIT if order.filled_raw else None,
        "txHash": order.tx_hash if order.filled_raw else None,
        "errorMessage": order.error,
        "createdAt": _iso(order.created_ms),
        "updatedAt": _iso(order.updated_ms),
        "venueMarket": {"id": f"vm_{order.outcome_id[4:]}", "question": order.question, "image": None},
        "venueMarketOutcome": {"label": order.outcome, "title": order.outcome},
    }


def _iso(milliseconds: int) -> str:
    moment = datetime.fromtimestamp(milliseconds // 1000, timezone.utc)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{milliseconds % 1000:03d}Z"


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
