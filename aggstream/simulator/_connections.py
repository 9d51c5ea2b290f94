"""The registry of the present WebSocket connections. Callers can wait until it is as they want it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from aggstream.simulator._connection import ServerConnection


class Connections:
    """The present connections. Only the simulator's event loop may use it and them."""

    def __init__(self) -> None:
        # A dict, because it keeps the order of arrival. With a set, two runs could differ.
        self._connections: dict[ServerConnection, None] = {}
        self._waiters: dict[asyncio.Future[None], Callable[[], bool]] = {}

    def add(self, connection: ServerConnection) -> None:
        """Add a connection after its handshake."""
        self._connections[connection] = None
        self.notify()

    def remove(self, connection: ServerConnection) -> None:
        """Remove a connection that has ended."""
        del self._connections[connection]
        self.notify()

    def all_present(self) -> list[ServerConnection]:
        """Return all connections, including those that are closing."""
        return list(self._connections)

    def open_to(self, user_id: str | None = None) -> list[ServerConnection]:
        """Return the connections that are not closing: those of the user, or all if `user_id` is None."""
        return [
            connection
            for connection in self._connections
            if not connection.closing and user_id in (None, connection.user_id)
        ]

    def count(self, *, authenticated: bool) -> int:
        """Return the number of connections that are not closing; if `authenticated`, only of those with a user."""
        return sum(not authenticated or connection.user_id is not None for connection in self.open_to())

    def notify(self) -> None:
        """Wake the waiters whose condition is true. Call this after a connection's user or state has changed."""
        for waiter, condition in self._waiters.items():
            if not waiter.done() and condition():
                waiter.set_result(None)

    async def wait_until(self, condition: Callable[[], bool], timeout: float) -> bool:
        """Wait until `condition()` is true, even for a moment only; return False after `timeout` seconds."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiters[waiter] = condition
        self.notify()
        try:
            await asyncio.wait_for(waiter, timeout)
        except asyncio.TimeoutError:
            return False
        finally:
            del self._waiters[waiter]
        return True
