"""The faults of the calls under /execution: refused, held back, cut off, or answered with old data."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from aggstream.simulator._checks import not_negative
from aggstream.simulator._refusals import Refusals

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from aggstream.simulator._user import SimulatedUser


class RestFaults:
    """Keeps the faults that are switched on. Only the simulator's event loop may use it."""

    def __init__(self, now: Callable[[], float]) -> None:
        """Start with no fault switched on.

        Args:
            now: returns the time in seconds since the epoch.
        """
        self._refusals = Refusals()
        self._drops = 0
        self._stalled = False
        self._frozen: dict[str, SimulatedUser] | None = None
        self._trail = 0.0
        self._now = now
        # The calls that wait for the end of a stall. An `asyncio.Event` would not do: it belongs to one loop.
        self._stalled_calls: set[asyncio.Future[None]] = set()

    def refuse(self, n: int | None, status: int, retry_after: int | None) -> None:
        """Refuse the next `n` calls; None: refuse every call until the next `refuse`."""
        self._refusals = Refusals(n, status, retry_after)

    def drop(self, n: int) -> None:
        """Cut the next `n` answers off in the middle."""
        self._drops = not_negative("n", n)

    def stall(self, stalled: bool) -> None:
        """Hold answers back; or, with `stalled` False, send all of them."""
        self._stalled = stalled
        if not stalled:
            self.release_stalled()

    def release_stalled(self) -> None:
        """Send the answers that are held back now."""
        for waiter in self._stalled_calls:
            if not waiter.done():
                waiter.set_result(None)

    def freeze(self, users: Mapping[str, SimulatedUser] | None) -> None:
        """Answer with the data of these users as it is now; None: with the present data at each call."""
        copies = None if users is None else {user_id: user.copy() for user_id, user in users.items()}
        self._frozen = copies

    def trail(self, seconds: float, users: Mapping[str, SimulatedUser]) -> None:
        """Answer with the orders as they were this many seconds ago; 0: with the present orders."""
        self._trail = not_negative("seconds", seconds)
        if seconds:
            for user in users.values():
                user.rest_orders.keep_versions()

    def take_refusal(self) -> None:
        """Return if the call may pass.

        Raises:
            Refused: the call is one of those to refuse.
        """
        self._refusals.take()

    def view_of(self, user: SimulatedUser) -> SimulatedUser:
        """Return the user's data that REST answers with."""
        if self._frozen is None:
            if not self._trail:
                return user
            user.rest_orders.keep_versions()
            return user.as_of(int((self._now() - self._trail) * 1000))
        # A user who came after the freeze had no data then.
        return self._frozen.get(user.user_id) or user.initial()

    async def wait_while_stalled(self) -> None:
        """Return at once, or at the end of a stall."""
        if not self._stalled:
            return
        waiter = asyncio.get_running_loop().create_future()
        self._stalled_calls.add(waiter)
        try:
            await waiter
        finally:
            self._stalled_calls.discard(waiter)

    def take_drop(self) -> bool:
        """Return True if this answer must be cut off, and count it as done."""
        if not self._drops:
            return False
        self._drops -= 1
        return True
