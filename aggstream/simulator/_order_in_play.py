"""The handle of an order whose lifecycle the caller advances."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


class OrderInPlay:
    """The handle of an order whose events happen when the caller says so. `Simulator.begin_order` returns it.

    Every thread except the simulator's own may call the methods. They also work while the simulator is stopped; no
    client gets those events.

    Attributes:
        order_id: the order's id. It is known before the first event.
        total: the number of events of the order's whole life.
    """

    def __init__(
        self,
        order_id: str,
        total: int,
        *,
        advance: Callable[[int], list[dict[str, Any]]],
        frames_left: Callable[[], int],
    ) -> None:
        self.order_id = order_id
        self.total = total
        self._advance = advance
        self._frames_left = frames_left

    def __repr__(self) -> str:
        return f"<OrderInPlay {self.order_id} {self.total - self.frames_left} of {self.total} events>"

    @property
    def frames_left(self) -> int:
        """The number of events that have not happened yet."""
        return self._frames_left()

    @property
    def done(self) -> bool:
        """True once all events of the order have happened."""
        return self.frames_left == 0

    def advance(self, n: int = 1) -> list[dict[str, Any]]:
        """Let the next events happen, with no other event of the user in between. Waits for no connection.

        Args:
            n: the number of events. If fewer are left, all of them happen.

        Returns:
            The messages of these events, in order.

        Raises:
            ValueError: `n` is negative.
        """
        return self._advance(n)

    def finish(self) -> list[dict[str, Any]]:
        """Let all remaining events happen; return their messages, in order."""
        return self._advance(self.total)
