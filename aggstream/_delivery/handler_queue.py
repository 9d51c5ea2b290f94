"""Events of one stream that wait for their handlers, and are handled one at a time."""

from __future__ import annotations

import collections
import logging
import threading
from collections.abc import Callable

from aggstream._delivery.handler_calls import Caller, HandlerCalls, Running
from aggstream._delivery.queue_items import Batch, Call, End, Item, LatestBalance, QueueItem
from aggstream._delivery.room import Room
from aggstream._delivery.workers import Workers
from aggstream.events import BalancesCoalesced, BalanceUpdate, is_users

logger = logging.getLogger("aggstream.delivery")


class HandlerQueue(Caller):
    """A queue whose events are in no journal: nothing of them is written down or tried again.

    `put` is for any thread; a thread of the workers serves it.
    """

    def __init__(
        self, workers: Workers, calls: HandlerCalls, room: Room, at_end: Callable[[Caller, End], None]
    ) -> None:
        """Make one that is empty.

        Args:
            workers: serve it.
            calls: calls the handlers.
            room: is told of room that was waited for.
            at_end: called on a thread of the workers when the queue has come to its end.
        """
        super().__init__()
        self.is_ended = False
        """True once the queue has come to its end."""
        self._workers = workers
        self._calls = calls
        self._room = room
        self._at_end = at_end
        self._items: collections.deque[QueueItem] = collections.deque()
        # Held while a thread serves the queue, or is about to.
        self._claim = threading.Lock()
        self._thread: threading.Thread | None = None

    def put(self, item: QueueItem) -> None:
        """Append an item, and have the queue served."""
        self._items.append(item)
        if self._claim.acquire(blocking=False):
            self._workers.put(self)

    def claim(self) -> bool:
        """Return True if no thread serves it, and none is about to: then the caller is to have it served."""
        return self._claim.acquire(blocking=False)

    @property
    def to_retry(self) -> int:
        """How many events wait to be tried again, those behind them included."""
        return 0

    def running(self) -> list[Running]:
        """Return the handler that runs now, if one does."""
        return self._calls.running(self, self._thread)

    def after_fork_in_child(self) -> None:
        """Do nothing: its lock is never waited for."""

    # --- on a thread of the workers ---------------------------------------------------------------------

    def serve(self, thread: threading.Thread) -> None:
        """Handle what is in the queue; leave the rest for later if other queues wait for a thread."""
        while True:
            self._thread = thread
            if not self._handle_items():
                return  # a thread comes back to it, and it stays claimed until then
            self._thread = None
            self._claim.release()
            # An event that came meanwhile found the queue claimed, so nobody else serves it.
            if not self._has_more() or not self._claim.acquire(blocking=False):
                return

    def _handle_items(self) -> bool:
        """Handle items until there are none; return False if the others' turn has come before that."""
        items, workers = self._items, self._workers
        try:
            while items:
                item = items.popleft()
                if isinstance(item, End):
                    self._end(item)
                else:
                    self._take(item)
                if workers.is_shared and items and workers.others_wait():
                    self._thread = None
                    workers.put(self)
                    return False
            self._rest()
        except BaseException as error:  # a defect of ours must not go unheard
            self.current = None
            logger.critical("%s: a defect while events were handled", self._calls.name, exc_info=error)
            self._calls.on_fatal(error)
        return True

    def _take(self, item: Batch | LatestBalance | Call) -> None:
        if isinstance(item, Batch):
            self._take_batch(item)
        elif isinstance(item, LatestBalance):
            self._take_balance(*item.take())
        else:
            self._calls.call_function(item.function)

    def _take_batch(self, batch: Batch) -> None:
        calls, tally, room, workers = self._calls, self.tally, self._room, self._workers
        epoch, call, events = batch.epoch, calls.call, batch.events
        while events:
            event, size = events.popleft()  # what is done is not kept
            if not calls.is_abandoned:
                tally.begun += 1
                if epoch != calls.epoch and is_users(event):
                    tally.stale += 1
                else:
                    call(self, event, epoch, size)
                    tally.delivered += 1
            tally.done += 1
            tally.done_size += size
            if room.is_awaited:
                room.announce()
            if workers.is_shared and events and workers.others_wait():
                self._items.appendleft(batch)
                return

    def _take_balance(self, item: Item, replaced: list[int | None]) -> None:
        self._deliver_coalesced(item, replaced)
        self._take_item(item)

    def _deliver_coalesced(self, item: Item, replaced: list[int | None]) -> bool:
        """Deliver the event that tells how many balances were replaced; return True if there is one."""
        if not replaced or self._calls.is_stale(item.event, item.epoch):
            return False
        assert isinstance(item.event, BalanceUpdate)
        told = BalancesCoalesced(venue=item.event.venue, count=len(replaced), account=item.event.account)
        self._calls.call(self, told, item.epoch, 0)
        return True

    def _take_item(self, item: Item) -> None:
        self._take_batch(Batch(collections.deque([(item.event, item.size)]), item.epoch, None))

    def _has_more(self) -> bool:
        """Return True if there is something to do now."""
        return bool(self._items)

    def _rest(self) -> None:
        """Do what is to be done when nothing waits: nothing is."""

    def _end(self, end: End) -> None:
        self.is_ended = True
        self._rest()
        self._at_end(self, end)
