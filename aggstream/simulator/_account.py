"""The service's account of one user: orders, balances, and the events that were sent. Pure: no I/O."""

from __future__ import annotations

import copy
import json
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aggstream.simulator import _orders
from aggstream.simulator._history import History, iso

if TYPE_CHECKING:
    from collections.abc import Callable

_CHAIN = {"chainId": 137, "tokenAddress": "0x3c499c542cEF5E3811e1192ce70d8cC03d5c3359"}
# An encoder of its own: `json.dumps` makes one for each call that is not by default.
_encode = json.JSONEncoder(separators=(",", ":")).encode


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


class SimulatedUser:
    """One user's orders and balances.

    Args:
        user_id: the user.
        seed: an order's fate follows from the seed, the user and the how-manieth order it is, and from nothing
            else: not from the time, nor from what is played beside it.
        now: seconds since the epoch.
        history: how many of the newest orders REST tells of.
    """

    def __init__(self, user_id: str, *, seed: object, now: Callable[[], float], history: int) -> None:
        self.user_id = user_id
        self.history = History(history)
        self._seed = seed
        self._now = now
        self._begun = 0
        self._plays = 0
        self._sent = 0
        self._missed = 0
        self._last_ms = 0
        self._synced_ms = int(now() * 1000)
        self.wallets = {venue: _orders.Wallet(venue) for venue in _orders.VENUES}

    def copy(self) -> SimulatedUser:
        """Return a copy to read, that nothing happens to."""
        twin = copy.copy(self)
        twin.history = self.history.copy()
        twin.wallets = {venue: copy.copy(wallet) for venue, wallet in self.wallets.items()}
        return twin

    def blank(self) -> SimulatedUser:
        """Return the account as it was before anything happened."""
        return SimulatedUser(self.user_id, seed=self._seed, now=self._now, history=self.history.size)

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
        wallet = self.wallets.setdefault(order.venue, _orders.Wallet(order.venue))
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
            order.created_ms = self._last_ms
            self.history.add(order)
        if frame["type"] == "balance_update":
            self._synced_ms = self._last_ms
        else:
            order.updated_ms = self._last_ms
            self.history.changed(order)
        return _encode(frame)

    def as_of(self, ms: int) -> SimulatedUser:
        """Return the account with its orders as they were at a moment, in milliseconds since the epoch."""
        twin = copy.copy(self)
        twin.history = self.history.as_of(ms)
        return twin

    def contradict(self, order_id: str, *, status: str | None, filled_raw: int | None, error: str | None) -> None:
        """Let REST say something else of an order than what happened; with nothing given, the truth again."""
        said = {"status": status, "filled_raw": filled_raw, "error": error}
        said = {name: value for name, value in said.items() if value is not None}
        # The clock of the events is left alone: their timestamps do not depend on this.
        moment = {"updated_ms": max(int(self._now() * 1000), self._last_ms)} if said else {}
        self.history.contradict(order_id, said | moment)

    def balances(self) -> dict[str, Any]:
        """Return the balances: cash is what all wallets hold, a position what is free to trade at a venue."""
        total = str(sum(wallet.wallet_cents for wallet in self.wallets.values()) * _orders.UNITS_PER_CENT)
        chain = {**_CHAIN, "balanceRaw": total, "lastSyncedAt": iso(self._synced_ms)}
        return {
            "cash": [{"tokenSymbol": "USDC", "totalRaw": total, "decimals": 6, "chains": [chain]}],
            "positions": [
                {"venue": wallet.venue, "balance": str(wallet.trading_cents * _orders.UNITS_PER_CENT)}
                for wallet in self.wallets.values()
            ],
        }
