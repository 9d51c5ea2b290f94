"""Faults of the calls under /execution: refused, held back, cut off, or answered from the past."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from aggstream.simulator._faults import Refusals, at_least_zero

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from aggstream.simulator._account import SimulatedUser


class RestFaults:
    """Belongs to the simulator's event loop."""

    def __init__(self, now: Callable[[], float]) -> None:
        """Begin without a fault.

        Args:
            now: seconds since the epoch.
        """
        self._refused = Refusals()
        self._drops = 0
        self._stalled = False
        self._frozen: dict[str, SimulatedUser] | None = None
        self._lag = 0.0
        self._now = now
        # Those who wait for the end of a stall. Futures and no event: that would belong to one loop for ever.
        self._held: set[asyncio.Future[None]] = set()

    def refuse(self, n: int | None, status: int, retry_after: int | None) -> None:
        """Refuse the next `n` calls; None: until told otherwise."""
        self._refused = Refusals(n, status, retry_after)

    def drop(self, n: int) -> None:
        """Cut off the next `n` answers."""
        self._drops = at_least_zero("n", n)

    def stall(self, stalled: bool) -> None:
        """Hold answers back, or let them all go."""
        self._stalled = stalled
        if not stalled:
            self.release()

    def release(self) -> None:
        """Let go what is held back at the moment."""
        for waiter in self._held:
            if not waiter.done():
                waiter.set_result(None)

    def freeze(self, accounts: Mapping[str, SimulatedUser] | None) -> None:
        """Answer from these accounts as they are now; None: from what is."""
        copies = None if accounts is None else {user_id: account.copy() for user_id, account in accounts.items()}
        self._frozen = copies

    def trail(self, seconds: float, accounts: Mapping[str, SimulatedUser]) -> None:
        """Answer with the orders as they were so many seconds ago."""
        self._lag = at_least_zero("seconds", seconds)
        if seconds:
            for account in accounts.values():
                account.history.keep_past()

    def check(self) -> None:
        """Let a call pass.

        Raises:
            Refused: it is one of those to be refused.
        """
        self._refused.take()

    def seen(self, account: SimulatedUser) -> SimulatedUser:
        """Return the account as REST sees it."""
        if self._frozen is None:
            if not self._lag:
                return account
            account.history.keep_past()
            return account.as_of(int((self._now() - self._lag) * 1000))
        # A user who came later was not there then.
        return self._frozen.get(account.user_id) or account.blank()

    async def held(self) -> None:
        """Wait while answers are held back."""
        if not self._stalled:
            return
        waiter = asyncio.get_running_loop().create_future()
        self._held.add(waiter)
        try:
            await waiter
        finally:
            self._held.discard(waiter)

    def take_drop(self) -> bool:
        """Return True if this answer is to be cut off, and count it."""
        if not self._drops:
            return False
        self._drops -= 1
        return True
