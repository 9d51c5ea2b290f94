"""Plays the lives of orders: sends their events to the users' connections, and counts them."""

from __future__ import annotations

import asyncio
import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aggstream.simulator._checks import not_negative
from aggstream.simulator._lifecycle import Choices
from aggstream.simulator._playback import Playback
from aggstream.simulator._user import SimulatedUser

if TYPE_CHECKING:
    from collections.abc import Callable

    from aggstream.simulator._connections import Connections
    from aggstream.simulator._lifecycle import Lifecycle

# The number of events after which a play without pauses lets other tasks of the loop run.
_EVENTS_PER_TURN = 64
# The same for `place_orders`, as a number of orders.
_ORDERS_PER_TURN = 16
# A play that is late makes up for this many seconds at most. More would be a burst.
_MAX_BEHIND = 0.1


@dataclass
class _BegunOrder:
    """An order that was begun, and the number of its events that have not happened yet."""

    user: SimulatedUser
    lifecycle: Lifecycle
    left: int


class Player:
    """Owns all users, and lets their orders happen. Only the simulator's event loop may use it."""

    def __init__(self, connections: Connections, *, seed: object, now: Callable[[], float], history: int) -> None:
        self.users: dict[str, SimulatedUser] = {}
        self.playbacks: list[Playback] = []
        self._begun_orders: dict[str, _BegunOrder] = {}
        self._history = history
        self._connections = connections
        self._seed = seed
        self._now = now

    def user(self, user_id: str) -> SimulatedUser:
        """Return the user with this id. A new id makes a new user.

        Raises:
            ValueError: the id is empty.
        """
        if not user_id:
            raise ValueError("user_id must not be empty")
        if user_id not in self.users:
            self.users[user_id] = SimulatedUser(user_id, seed=self._seed, now=self._now, history=self._history)
        return self.users[user_id]

    async def place_order(self, user_id: str, choices: Choices) -> str:
        """Play one order's whole life with no other event in between; return its id."""
        user = self.user(user_id)
        lifecycle = user.begin_order(choices)
        self._play_to_end(user, lifecycle)
        await self._wait_for_room(user_id)
        return lifecycle.order.id

    async def place_orders(self, user_id: str, count: int, choices: Choices) -> list[str]:
        """Play the whole lives of many orders, one after the other; return their ids."""
        not_negative("count", count)
        user = self.user(user_id)
        ids = []
        for number in range(count):
            lifecycle = user.begin_order(choices)
            self._play_to_end(user, lifecycle)
            ids.append(lifecycle.order.id)
            await self._wait_for_room(user_id)
            if number % _ORDERS_PER_TURN == 0:
                await asyncio.sleep(0)
        return ids

    def begin_order(self, user_id: str, choices: Choices) -> tuple[str, int]:
        """Begin an order that `advance` continues; return its id, and the number of events of its whole life."""
        user = self.user(user_id)
        lifecycle = user.begin_order(choices)
        total = lifecycle.length()
        self._begun_orders[lifecycle.order.id] = _BegunOrder(user, lifecycle, total)
        return lifecycle.order.id, total

    def advance(self, order_id: str, n: int) -> list[dict[str, Any]]:
        """Emit the next `n` events of an order that was begun; return their messages.

        Raises:
            ValueError: `n` is negative, or no order with this id was begun.
        """
        not_negative("n", n)
        begun = self._begun_order(order_id)
        texts = []
        for _ in range(min(n, begun.left)):
            texts.append(self._emit_next(begun.user, begun.lifecycle))
            begun.left -= 1
        return [json.loads(text) for text in texts if text is not None]

    def frames_left(self, order_id: str) -> int:
        """Return the number of events that an order that was begun still has.

        Raises:
            ValueError: no order with this id was begun.
        """
        return self._begun_order(order_id).left

    def set_order(self, order_id: str, *, status: str | None, filled_raw: int | None, error: str | None) -> None:
        """Let REST return other values of an order than the stream.

        Raises:
            ValueError: REST does not return an order with this id.
        """
        for user in self.users.values():
            if order_id in user.rest_orders:
                user.override(order_id, status=status, filled_raw=filled_raw, error=error)
                return
        raise ValueError(f"order_id must be the id of a submitted order that REST still returns, got {order_id!r}")

    async def play(
        self, user_id: str, choices: Choices, *, orders: int | None, rate: float | None, overlap: int
    ) -> Playback:
        """Start a play in the background.

        Raises:
            ValueError: `orders` is negative, `rate` is not a number above 0, or `overlap` is below 1.
        """
        if orders is not None:
            not_negative("orders", orders)
        if rate is not None and not 0 < rate < math.inf:
            raise ValueError(f"rate must be a number above 0, got {rate}")
        if overlap < 1:
            raise ValueError(f"overlap must be at least 1, got {overlap}")
        user = self.user(user_id)
        playback = Playback()
        pause = 0 if rate is None else 1 / rate
        wanted = math.inf if orders is None else orders
        playback.begin(self._play(playback, user, choices, wanted, pause, overlap))
        self.playbacks.append(playback)
        return playback

    def stop(self) -> None:
        """Ask every play to end."""
        for playback in self.playbacks:
            playback.stop()

    async def _play(
        self,
        playback: Playback,
        user: SimulatedUser,
        choices: Choices,
        orders: float,
        pause: float,
        overlap: int,
    ) -> None:
        clock = asyncio.get_running_loop().time
        rng = user.play_rng()
        lifecycles: list[Lifecycle] = []
        due = clock()
        while True:
            while orders > 0 and len(lifecycles) < overlap:
                lifecycles.append(user.begin_order(choices))
                orders -= 1
            if not lifecycles:
                return
            at = rng.randrange(len(lifecycles))
            if self._emit_next(user, lifecycles[at]) is None:
                del lifecycles[at]
                continue
            playback.emitted += 1
            await self._wait_for_room(user.user_id)
            due = max(due + pause, clock() - _MAX_BEHIND)
            ahead = due - clock() if pause else 0
            if ahead > 0 or playback.emitted % _EVENTS_PER_TURN == 0:
                await asyncio.sleep(max(0, ahead))

    def _begun_order(self, order_id: str) -> _BegunOrder:
        if order_id not in self._begun_orders:
            raise ValueError(f"order_id must be the id of an order that was begun, got {order_id!r}")
        return self._begun_orders[order_id]

    def _play_to_end(self, user: SimulatedUser, lifecycle: Lifecycle) -> None:
        while self._emit_next(user, lifecycle) is not None:
            pass

    def _emit_next(self, user: SimulatedUser, lifecycle: Lifecycle) -> str | None:
        """Emit the next event of an order; return its frame, or None at the order's end."""
        frame = user.next_frame(lifecycle)
        if frame is None:
            return None
        targets = self._connections.open_to(user.user_id)
        for connection in targets:
            connection.send(frame)
        user.count(sent=bool(targets))
        return frame

    async def _wait_for_room(self, user_id: str) -> None:
        """Wait while one of the user's connections reads too slowly."""
        for connection in self._connections.open_to(user_id):
            await connection.wait_for_room()
