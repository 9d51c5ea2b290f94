"""Live events that wait until a look at REST has ended, and REST's own events in their places among them."""

from __future__ import annotations

import attrs

from aggstream._delivery.queue_items import SizedEvent
from aggstream.events import Event, OrderEvent, UserEvent


@attrs.define(eq=False, repr=False)
class _Held:
    event: UserEvent
    size: int
    # The events that REST told of its order after it had come.
    followers: list[Event] = attrs.field(factory=list)


class HeldEvents:
    """The events of one look, in order. It belongs to the I/O thread."""

    def __init__(self, *, most: int, most_size: int) -> None:
        """Hold nothing yet.

        Args:
            most: how many events are held at most.
            most_size: the size of their messages, in bytes, at most.
        """
        self._most = most
        self._most_size = most_size
        self._held: list[_Held] = []
        self._size = 0
        self._of_order: dict[str, list[_Held]] = {}

    def __len__(self) -> int:
        return len(self._held)

    def hold(self, event: UserEvent, size: int) -> None:
        """Hold a live event back."""
        held = _Held(event, size)
        self._held.append(held)
        self._size += size
        order_id = getattr(event, "order_id", None)
        if order_id is not None:
            self._of_order.setdefault(order_id, []).append(held)

    def insert(self, event: UserEvent) -> bool:
        """Put an event that REST tells behind the held events that had happened to its order before.

        Of an order's statuses none overtakes another, whatever the clocks behind them say.

        Returns:
            True if the event is held now; False if it comes before all that is held of its order.
        """
        for held in reversed(self._of_order.get(getattr(event, "order_id", ""), [])):
            if _is_status(held.event) or held.event.timestamp <= event.timestamp:
                held.followers.append(event)
                return True
        return False

    def release(self) -> list[SizedEvent]:
        """Return all held events in order, and hold none of them any more."""
        released: list[SizedEvent] = []
        for held in self._held:
            released.append((held.event, held.size))
            released += ((event, 0) for event in held.followers)
        self._held.clear()
        self._of_order.clear()
        self._size = 0
        return released

    def is_full(self) -> bool:
        """Return True if so much is held that it must be released."""
        return len(self._held) >= self._most or self._size >= self._most_size


def _is_status(event: UserEvent) -> bool:
    """Return True if an event is about its order itself, and not about the order's run or a step."""
    return not isinstance(event, OrderEvent) or event.family not in ("run", "step")
