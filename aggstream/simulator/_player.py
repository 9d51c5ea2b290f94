"""Plays the lives of orders to the connections of their users, and keeps the books."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING

from aggstream.simulator._account import Account
from aggstream.simulator._orders import Choices, choose
from aggstream.simulator._playback import Playback

if TYPE_CHECKING:
    from collections.abc import Callable

    from aggstream.simulator._connections import Connections
    from aggstream.simulator._orders import Lifecycle

# Events after which a play that never waits lets others run.
_SLICE = 64
# Seconds that a play fallen behind its rate makes up for; more would be a burst.
_CATCH_UP = 0.1


class Player:
    """All accounts, and what happens to their orders. Belongs to the simulator's event loop."""

    def __init__(self, connections: Connections, *, seed: object, now: Callable[[], float]) -> None:
        self.accounts: dict[str, Account] = {}
        self.playbacks: list[Playback] = []
        self._connections = connections
        self._seed = seed
        self._now = now

    def account(self, user_id: str) -> Account:
        """Return the user's account, opened on first sight.

        Raises:
            ValueError: the id is empty.
        """
        if not user_id:
            raise ValueError("user_id must not be empty")
        if user_id not in self.accounts:
            self.accounts[user_id] = Account(user_id, seed=self._seed, now=self._now)
        return self.accounts[user_id]

    async def place_order(self, user_id: str, choices: Choices) -> str:
        """Play one order's whole life with nothing in between; return its id."""
        account = self.account(user_id)
        life = account.begin(choices)
        while self._advance(account, life):
            pass
        await self._room(user_id)
        return life.order.id

    async def play(self, user_id: str, *, orders: int | None, rate: float | None, overlap: int) -> Playback:
        """Start a play in the background.

        Raises:
            ValueError: an argument that makes no sense.
        """
        if orders is not None and orders < 0:
            raise ValueError(f"orders must not be negative: {orders}")
        if rate is not None and not 0 < rate < math.inf:
            raise ValueError(f"rate must be positive: {rate}")
        if overlap < 1:
            raise ValueError(f"overlap must be at least 1: {overlap}")
        account = self.account(user_id)
        playback = Playback()
        pause = 0 if rate is None else 1 / rate
        playback.begin(self._play(playback, account, math.inf if orders is None else orders, pause, overlap))
        self.playbacks.append(playback)
        return playback

    def stop(self) -> None:
        """End every play."""
        for playback in self.playbacks:
            playback.stop()

    async def _play(self, playback: Playback, account: Account, orders: float, pause: float, overlap: int) -> None:
        clock = asyncio.get_running_loop().time
        shuffle = account.new_play()
        lives: list[Lifecycle] = []
        anything = choose()
        due = clock()
        while True:
            while orders > 0 and len(lives) < overlap:
                lives.append(account.begin(anything))
                orders -= 1
            if not lives:
                return
            at = shuffle.randrange(len(lives))
            if not self._advance(account, lives[at]):
                del lives[at]
                continue
            playback.emitted += 1
            await self._room(account.user_id)
            due = max(due + pause, clock() - _CATCH_UP)
            ahead = due - clock() if pause else 0
            if ahead > 0 or playback.emitted % _SLICE == 0:
                await asyncio.sleep(max(0, ahead))

    def _advance(self, account: Account, life: Lifecycle) -> bool:
        """Emit the next event of an order; False when there is none."""
        frame = account.advance(life)
        if frame is None:
            return False
        targets = self._connections.open(account.user_id)
        for connection in targets:
            connection.send(frame)
        account.count(sent=bool(targets))
        return True

    async def _room(self, user_id: str) -> None:
        """Wait for those of the user's connections that read too slowly."""
        for connection in self._connections.open(user_id):
            await connection.room()
