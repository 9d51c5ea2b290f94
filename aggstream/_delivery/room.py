"""How much waits for the handlers, and when there is room again."""

from __future__ import annotations

from collections.abc import Callable, Sequence

_LOW_WATER = 0.5


class Tally:
    """The counts of one worker. Only its thread changes them; any thread may read them."""

    __slots__ = ("begun", "delivered", "done", "done_size", "handler_errors", "stale")

    def __init__(self) -> None:
        self.begun = 0
        """Events of which a handler was called, or none was there to call."""
        self.done = 0
        self.done_size = 0
        self.delivered = 0
        self.stale = 0
        """Events that were not delivered because the user was switched."""
        self.handler_errors = 0


class Room:
    """Counts what is put and what is done, without a lock: each count has one writer."""

    def __init__(self, *, queue_size: int, queued_size: int, on_low_water: Callable[[], None]) -> None:
        """Begin empty.

        Args:
            queue_size: the number of waiting events at which the queue is full.
            queued_size: the size of the waiting messages, in bytes, at which it is full as well.
            on_low_water: called by a worker when half of a full queue is done.
        """
        self.put = 0
        """How many events were queued. The I/O thread writes it, likewise `put_size`."""
        self.put_size = 0
        self.tallies: Sequence[Tally] = ()
        """Those of all workers."""
        self.is_awaited = False
        """True while reading pauses. Written by the I/O thread before it looks at the depth again, read by the
        workers after theirs, so that one of the two always sees the other."""
        self.queue_size = queue_size
        self.queued_size = queued_size
        self._on_low_water = on_low_water

    @property
    def depth(self) -> int:
        """How many events wait, or are being handled."""
        left = self.put
        for tally in self.tallies:
            left -= tally.done
        return max(0, left)

    @property
    def size(self) -> int:
        """How large the messages are of the events that wait or are being handled, in bytes, about."""
        left = self.put_size
        for tally in self.tallies:
            left -= tally.done_size
        return max(0, left)

    @property
    def waiting(self) -> int:
        """How many events no handler has been given yet."""
        return max(0, self.put - sum(tally.begun for tally in self.tallies))

    def announce(self) -> None:
        """Call `on_low_water` if there is room again. Workers call it while `is_awaited` is true."""
        if self.is_low():
            self.is_awaited = False
            self._on_low_water()

    def is_low(self) -> bool:
        """Return True if low water is reached; that must be so when nothing waits."""
        depth = self.depth
        return depth <= int(self.queue_size * _LOW_WATER) and (
            depth == 0 or self.size <= self.queued_size * _LOW_WATER
        )
