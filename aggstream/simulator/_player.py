"""Plays the lives of orders to the connections of their users, and keeps the books."""

from __future__ import annotations

import asyncio
import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aggstream.simulator._account import SimulatedUser
from aggstream.simulator._faults import at_least_zero
from aggstream.simulator._orders import Choices
from aggstream.simulator._playback import Playback

if TYPE_CHECKING:
    from collections.abc import Callable

    from aggstream.simulator._connections import Connections
    from aggstream.simulator._orders import Lifecycle

# Events after which a play that never waits lets others run.
_SLICE = 64
# The same for orders that are placed many at a time.
_ORDERS_SLICE = 16
# Seconds that a play fallen behind its rate makes up for; more would be a burst.
_CATCH_UP = 0.1


@dataclass
class _Life:
    """An order that was begun, and how many events of it are still to come."""

    account: SimulatedUser
    life: Lifecycle
    left: int


class Player:
    """All accounts, and what happens to their orders. Belongs to the simulator's event loop."""

    def __init__(self, connections: Connections, *, seed: object, now: Callable[[], float], history: int) -> None:
        self.accounts: dict[str, SimulatedUser] = {}
        self.playbacks: list[Playback] = []
        self._lives: dict[str, _Life] = {}
        self._history = history
        self._connections = connections
        self._seed = seed
        self._now = now

    def account(self, user_id: str) -> SimulatedUser:
        """Return the user's account, opened on first sight.

        Raises:
            ValueError: the id is empty.
        """
        if not user_id:
            raise ValueError("user_id must not be empty")
        if user_id not in self.accounts:
            self.accounts[user_id] = SimulatedUser(user_id, seed=self._seed, now=self._now, history=self._history)
        return self.accounts[user_id]

    async def place_order(self, user_id: str, choices: Choices) -> str:
        """Play one order's whole life with nothing in between; return its id."""
        account = self.account(user_id)
        life = account.begin(choices)
        self._live(account, life)
        await self._room(user_id)
        return life.order.id

    async def place_orders(self, user_id: str, count: int, choices: Choices) -> list[str]:
        """Play the whole lives of many orders, one after the other; return their ids."""
        at_least_zero("count", count)
        account = self.account(user_id)
        ids = []
        for number in range(count):
            life = account.begin(choices)
            self._live(account, life)
            ids.append(life.order.id)
            await self._room(user_id)
            if number % _ORDERS_SLICE == 0:
                await asyncio.sleep(0)
        return ids

    def begin_order(self, user_id: str, choices: Choices) -> tuple[str, int]:
        """Begin an order that others advance; return its id, and how many events its life has."""
        account = self.account(user_id)
        life = account.begin(choices)
        total = life.length()
        self._lives[life.order.id] = _Life(account, life, total)
        return life.order.id, total

    def advance(self, order_id: str, n: int) -> list[dict[str, Any]]:
        """Emit the next events of an order that was begun; return them.

        Raises:
            ValueError: `n` is negative, or no such order was begun.
        """
        at_least_zero("n", n)
        begun = self._begun(order_id)
        texts = []
        for _ in range(min(n, begun.left)):
            texts.append(self._advance(begun.account, begun.life))
            begun.left -= 1
        return [json.loads(text) for text in texts if text is not None]

    def frames_left(self, order_id: str) -> int:
        """Return how many events of an order that was begun are still to come.

        Raises:
            ValueError: no such order was begun.
        """
        return self._begun(order_id).left

    def set_order(self, order_id: str, *, status: str | None, filled_raw: int | None, error: str | None) -> None:
        """Let REST contradict the stream about an order.

        Raises:
            ValueError: REST does not tell of such an order at all.
        """
        for account in self.accounts.values():
            if order_id in account.history:
                account.contradict(order_id, status=status, filled_raw=filled_raw, error=error)
                return
        raise ValueError(f"order_id must be that of an order that was submitted: {order_id!r}")

    async def play(
        self, user_id: str, choices: Choices, *, orders: int | None, rate: float | None, overlap: int
    ) -> Playback:
        """Start a play in the background.

        Raises:
            ValueError: an argument that makes no sense.
        """
        if orders is not None:
            at_least_zero("orders", orders)
        if rate is not None and not 0 < rate < math.inf:
            raise ValueError(f"rate must be positive: {rate}")
        if overlap < 1:
            raise ValueError(f"overlap must be at least 1: {overlap}")
        account = self.account(user_id)
        playback = Playback()
        pause = 0 if rate is None else 1 / rate
        wanted = math.inf if orders is None else orders
        playback.begin(self._play(playback, account, choices, wanted, pause, overlap))
        self.playbacks.append(playback)
        return playback

    def stop(self) -> None:
        """End every play."""
        for playback in self.playbacks:
            playback.stop()

    async def _play(
        self,
        playback: Playback,
        account: SimulatedUser,
        choices: Choices,
        orders: float,
        pause: float,
        overlap: int,
    ) -> None:
        clock = asyncio.get_running_loop().time
        shuffle = account.new_play()
        lives: list[Lifecycle] = []
        due = clock()
        while True:
            while orders > 0 and len(lives) < overlap:
                lives.append(account.begin(choices))
                orders -= 1
            if not lives:
                return
            at = shuffle.randrange(len(lives))
            if self._advance(account, lives[at]) is None:
                del lives[at]
                continue
            playback.emitted += 1
            await self._room(account.user_id)
            due = max(due + pause, clock() - _CATCH_UP)
            ahead = due - clock() if pause else 0
            if ahead > 0 or playback.emitted % _SLICE == 0:
                await asyncio.sleep(max(0, ahead))

    def _begun(self, order_id: str) -> _Life:
        if order_id not in self._lives:
            raise ValueError(f"order_id must be that of an order that was begun: {order_id!r}")
        return self._lives[order_id]

    def _live(self, account: SimulatedUser, life: Lifecycle) -> None:
        while self._advance(account, life) is not None:
            pass

    def _advance(self, account: SimulatedUser, life: Lifecycle) -> str | None:
        """Emit the next event of an order; return its frame, or None when there is none."""
        frame = account.advance(life)
        if frame is None:
            return None
        targets = self._connections.open(account.user_id)
        for connection in targets:
            connection.send(frame)
        account.count(sent=bool(targets))
        return frame

    async def _room(self, user_id: str) -> None:
        """Wait for those of the user's connections that read too slowly."""
        for connection in self._connections.open(user_id):
            await connection.room()
