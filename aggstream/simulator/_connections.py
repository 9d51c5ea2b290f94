"""The connections that are open at the moment, and waiting until there are as many as one wants."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from aggstream.simulator._connection import ServerConnection


class Connections:
    """Belongs to the simulator's event loop, as all that is in it."""

    def __init__(self) -> None:
        # A dict, because it keeps the order in which they came: runs can be repeated.
        self._present: dict[ServerConnection, None] = {}
        self._waiters: dict[asyncio.Future[None], Callable[[], bool]] = {}

    def add(self, connection: ServerConnection) -> None:
        """Take in a connection whose handshake is done."""
        self._present[connection] = None
        self.changed()

    def remove(self, connection: ServerConnection) -> None:
        """Forget a connection that has ended."""
        del self._present[connection]
        self.changed()

    def present(self) -> list[ServerConnection]:
        """Return all connections, those that are closing as well."""
        return list(self._present)

    def open(self, user_id: str | None = None) -> list[ServerConnection]:
        """Return the connections that are not closing: all, or those that get the user's events."""
        return [
            connection
            for connection in self._present
            if not connection.closing and user_id in (None, connection.user_id)
        ]

    def count(self, *, authenticated: bool) -> int:
        """Return how many connections are not closing, or how many of these have a user."""
        return sum(not authenticated or connection.user_id is not None for connection in self.open())

    def changed(self) -> None:
        """Wake those that have waited for this; call it after each change of a connection's user or state."""
        for waiter, reached in self._waiters.items():
            if not waiter.done() and reached():
                waiter.set_result(None)

    async def wait_until(self, reached: Callable[[], bool], timeout: float) -> bool:
        """Wait until `reached()` is true at some moment, however short; False after `timeout` seconds."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiters[waiter] = reached
        self.changed()
        try:
            await asyncio.wait_for(waiter, timeout)
        except asyncio.TimeoutError:
            return False
        finally:
            del self._waiters[waiter]
        return True
