"""The items in the queue of a worker: batches of events, balances that newer ones replace, calls, the end."""

from __future__ import annotations

import collections
import threading
from collections.abc import Callable, Iterator
from typing import TypeAlias

import attrs

from aggstream.events import BalanceUpdate, Event

SizedEvent: TypeAlias = "tuple[Event, int]"
"""An event, and about the size of its message in bytes."""


@attrs.frozen
class Item:
    """One event in the queue."""

    event: Event
    epoch: int
    """The number of the user whose event it is, if it is a user's."""
    size: int
    seq: int | None = None
    """Its number in the journal; None if it is in none."""


@attrs.define(eq=False, repr=False)  # and not frozen, which takes four times as long to make
class Batch:
    """Events that came together."""

    events: collections.deque[SizedEvent]
    epoch: int
    seqs: collections.deque[int | None] | None
    """Their numbers in the journal; None if none is in it."""

    def items(self) -> Iterator[Item]:
        """Yield the events one by one, and keep none that was yielded."""
        while self.events:
            event, size = self.events.popleft()
            yield Item(event, self.epoch, size, self.seqs.popleft() if self.seqs else None)


class LatestBalance:
    """A place in the queue whose balance is replaced by newer ones of its venue until a worker comes to it."""

    def __init__(self, item: Item) -> None:
        # Guards the two below: the I/O thread replaces, a worker takes.
        self._lock = threading.Lock()
        self._item: Item | None = item
        self._replaced: list[int | None] = []

    def replace(self, item: Item) -> int | None:
        """Put a newer balance here; return the size of the one before, or None if this place is gone."""
        with self._lock:
            if self._item is None or self._item.epoch != item.epoch:
                return None
            before, self._item = self._item, item
            self._replaced.append(before.seq)
            return before.size

    @property
    def venue(self) -> str:
        """The venue whose balance it is, as long as no worker has come; else empty."""
        item = self._item
        return item.event.venue if item is not None and isinstance(item.event, BalanceUpdate) else ""

    @property
    def waits(self) -> bool:
        """True until a worker has come."""
        return self._item is not None

    def take(self) -> tuple[Item, list[int | None]]:
        """Return the newest balance, and the numbers of those that it has replaced."""
        with self._lock:
            item, self._item = self._item, None
            assert item is not None
            return item, self._replaced


class LatestBalances:
    """Where the newest balance of each venue waits, or did. It belongs to the I/O thread."""

    def __init__(self, most: int) -> None:
        """Know of none.

        Args:
            most: how many venues are kept before those are forgotten for which nothing waits.
        """
        self.coalesced = 0
        """How many balances were replaced by newer ones before a handler saw them."""
        self._most = most
        self._places: dict[str, LatestBalance] = {}

    def put(self, event: BalanceUpdate, item: Item) -> tuple[LatestBalance | None, int]:
        """Put a balance where an older one of its venue waits, if one does.

        Returns:
            A new place that is to be queued, and 0; or None, and the size of the balance that was replaced.
        """
        older = self._places.get(event.venue)
        replaced = None if older is None else older.replace(item)
        if replaced is not None:
            self.coalesced += 1
            return None, replaced
        if len(self._places) > self._most:  # a server may invent venues without an end
            self._places = {name: place for name, place in self._places.items() if place.waits}
        self._places[event.venue] = place = LatestBalance(item)
        return place, 0


@attrs.frozen(eq=False, repr=False)
class Call:
    """A function that is called where handlers run."""

    function: Callable[[], object]


@attrs.frozen(eq=False, repr=False)
class End:
    """Nothing follows; `event` is the very last one."""

    event: Event


QueueItem: TypeAlias = "Batch | LatestBalance | Call | End"
