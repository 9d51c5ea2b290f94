"""The simulated service's data of one user: orders, balances and counts of events. It does no I/O."""

from __future__ import annotations

import copy
import json
import random
from typing import TYPE_CHECKING, Any

from aggstream.simulator import _lifecycle
from aggstream.simulator._counts import Books
from aggstream.simulator._rest_orders import RestOrders, iso

if TYPE_CHECKING:
    from collections.abc import Callable

_CHAIN = {"chainId": 137, "tokenAddress": "0x3c499c542cEF5E3811e1192ce70d8cC03d5c3359"}
# One encoder for all calls: with `separators`, `json.dumps` would make a new one for each call.
_encode = json.JSONEncoder(separators=(",", ":")).encode


class SimulatedUser:
    """One user's orders and balances.

    Args:
        user_id: the user's id.
        seed: what happens to an order depends on the seed, the user, the number of the user's orders before it and
            the choices for it. It does not depend on the time, or on other orders that are played meanwhile.
        now: returns the time in seconds since the epoch.
        history: the number of newest orders that REST returns.
    """

    def __init__(self, user_id: str, *, seed: object, now: Callable[[], float], history: int) -> None:
        self.user_id = user_id
        self.rest_orders = RestOrders(history)
        self._seed = seed
        self._now = now
        self._orders_begun = 0
        self._plays_begun = 0
        self._sent = 0
        self._missed = 0
        self._last_ms = 0
        self._synced_ms = int(now() * 1000)
        self.wallets = {venue: _lifecycle.Wallet(venue) for venue in _lifecycle.VENUES}

    def copy(self) -> SimulatedUser:
        """Return a copy that later events do not change."""
        duplicate = copy.copy(self)
        duplicate.rest_orders = self.rest_orders.copy()
        duplicate.wallets = {venue: copy.copy(wallet) for venue, wallet in self.wallets.items()}
        return duplicate

    def initial(self) -> SimulatedUser:
        """Return the user without any order, as at the start."""
        return SimulatedUser(self.user_id, seed=self._seed, now=self._now, history=self.rest_orders.size)

    @property
    def books(self) -> Books:
        """The counts of this user's events so far."""
        return Books(self._sent + self._missed, self._sent, self._missed)

    def count(self, *, sent: bool) -> None:
        """Count one event: as sent, or as missed."""
        if sent:
            self._sent += 1
        else:
            self._missed += 1

    def begin_order(self, choices: _lifecycle.Choices) -> _lifecycle.Lifecycle:
        """Return the lifecycle of a new order. Nothing happens until `next_frame` takes its first frame."""
        self._orders_begun += 1
        rng = random.Random(f"{self._seed}/{self.user_id}/order/{self._orders_begun}")
        order, scenario = _lifecycle.draw_order(self.user_id, choices, rng)
        wallet = self.wallets.setdefault(order.venue, _lifecycle.Wallet(order.venue))
        return _lifecycle.Lifecycle(order, wallet, scenario, rng)

    def play_rng(self) -> random.Random:
        """Return the random generator for the user's next play."""
        self._plays_begun += 1
        return random.Random(f"{self._seed}/{self.user_id}/play/{self._plays_begun}")

    def next_frame(self, lifecycle: _lifecycle.Lifecycle) -> str | None:
        """Let the next event of an order happen; return its frame as JSON, or None at the order's end."""
        frame = next(lifecycle.frames, None)
        if frame is None:
            return None
        # Timestamps strictly increase, so that receivers can sort events. A burst runs ahead of the clock.
        self._last_ms = max(int(self._now() * 1000), self._last_ms + 1)
        frame["timestamp"] = self._last_ms
        order = lifecycle.order
        if frame["type"] == "order_submitted":
            order.created_ms = self._last_ms
            self.rest_orders.add(order)
        if frame["type"] == "balance_update":
            self._synced_ms = self._last_ms
        else:
            order.updated_ms = self._last_ms
            self.rest_orders.note_change(order)
        return _encode(frame)

    def as_of(self, ms: int) -> SimulatedUser:
        """Return the user with the orders as they were at a time, in milliseconds since the epoch."""
        duplicate = copy.copy(self)
        duplicate.rest_orders = self.rest_orders.as_of(ms)
        return duplicate

    def override(self, order_id: str, *, status: str | None, filled_raw: int | None, error: str | None) -> None:
        """Let REST return these values of an order instead of the true ones; without any value, the true ones."""
        fields = {"status": status, "filled_raw": filled_raw, "error": error}
        fields = {name: value for name, value in fields.items() if value is not None}
        # This does not change `_last_ms`, so the events' timestamps do not depend on it.
        moment = {"updated_ms": max(int(self._now() * 1000), self._last_ms)} if fields else {}
        self.rest_orders.override(order_id, fields | moment)

    def balances(self) -> dict[str, Any]:
        """Return the balances: `cash` is the sum of all wallets, a position is what a venue has free to trade."""
        total = str(sum(wallet.wallet_cents for wallet in self.wallets.values()) * _lifecycle.UNITS_PER_CENT)
        chain = {**_CHAIN, "balanceRaw": total, "lastSyncedAt": iso(self._synced_ms)}
        return {
            "cash": [{"tokenSymbol": "USDC", "totalRaw": total, "decimals": 6, "chains": [chain]}],
            "positions": [
                {"venue": wallet.venue, "balance": str(wallet.trading_cents * _lifecycle.UNITS_PER_CENT)}
                for wallet in self.wallets.values()
            ],
        }
