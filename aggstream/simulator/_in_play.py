"""The handle of an order whose life the caller advances."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


class OrderInPlay:
    """An order whose life goes on when it is told to, as `Simulator.begin_order` returns it.

    Every method may be called in any thread but the simulator's own, and also while the simulator is stopped: what
    happens then is missed by everybody.

    Attributes:
        order_id: the order's id, known before anything has happened.
        total: how many events its whole life has.
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
        """How many events are still to come."""
        return self._frames_left()

    @property
    def done(self) -> bool:
        """Whether nothing is to come any more."""
        return self.frames_left == 0

    def advance(self, n: int = 1) -> list[dict[str, Any]]:
        """Let the next events happen, with nothing of the user in between. It waits for no connection.

        Args:
            n: how many; at the end of the order's life there are fewer.

        Returns:
            The messages that went out, in order.

        Raises:
            ValueError: `n` is negative.
        """
        return self._advance(n)

    def finish(self) -> list[dict[str, Any]]:
        """Let all happen that is still to come; return the messages that went out."""
        return self._advance(self.total)
