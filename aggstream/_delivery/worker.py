"""A thread that calls handlers, and its queue."""

from __future__ import annotations

import collections
import queue
import threading
import time
from collections.abc import Callable

from aggstream._base.greenlets import note_greenlet
from aggstream._base.threads import Gate, make_thread
from aggstream._delivery.handler_calls import Caller, HandlerCalls, Running
from aggstream._delivery.queue_items import Batch, Call, End, Item, LatestBalance, QueueItem
from aggstream._delivery.room import Room
from aggstream.events import BalancesCoalesced, BalanceUpdate, is_users


class Worker(Caller):
    """Delivers events that are in no journal: nothing of them is written down or tried again."""

    def __init__(self, name: str, calls: HandlerCalls, room: Room) -> None:
        """Make one that is not started.

        Args:
            name: the thread's name.
            calls: calls the handlers.
            room: is told of room that was waited for.
        """
        super().__init__()
        self.thread: threading.Thread | None = None
        self.name = name
        self.queue: queue.SimpleQueue[QueueItem] = queue.SimpleQueue()
        self._calls = calls
        self._room = room

    def start(self, gate: Gate, at_end: Callable[[End], object], on_exit: Callable[[], object]) -> None:
        """Start the thread.

        Args:
            gate: where it waits until all threads are there.
            at_end: called on it when the queue has come to its end.
            on_exit: called on it after that, however the thread ends.

        Raises:
            RuntimeError: it cannot be started.
        """
        thread = make_thread(gate.run, self._run, at_end, on_exit, name=self.name)
        thread.start()
        self.thread = thread

    def reset(self) -> None:
        """Wait for the thread to end, whose gate was cancelled; then it is as if it had never been started."""
        if self.thread is not None:
            self.thread.join()
            self.thread = None

    def is_alive(self) -> bool:
        """Return True if the thread runs."""
        return self.thread is not None and self.thread.is_alive()

    @property
    def to_retry(self) -> int:
        """How many events wait to be tried again, those behind them included."""
        return 0

    def running(self) -> Running | None:
        """Return the handler that runs now; None if none does."""
        current = self.current
        if current is None or self.thread is None:
            return None
        handler, event, since = current
        name = getattr(handler, "__qualname__", None) or repr(handler)
        seconds = time.monotonic() - since
        return Running(name, self._calls.in_a_log(event.type), since, seconds, self.thread)

    # --- on the thread ----------------------------------------------------------------------------------

    def _run(self, at_end: Callable[[End], object], on_exit: Callable[[], object]) -> None:
        note_greenlet()
        try:
            while not isinstance(item := self._next(), End):
                self._take(item)
            at_end(item)
        except BaseException as error:  # a thread of ours must not die unheard
            self._calls.on_fatal(error)
            raise
        finally:
            self._finish()
            on_exit()
            self._leave()

    def _next(self) -> QueueItem:
        """Return the next item of the queue; wait for it as long as it takes."""
        return self.queue.get()

    def _take(self, item: Batch | LatestBalance | Call) -> None:
        if isinstance(item, Batch):
            self._take_batch(item)
        elif isinstance(item, LatestBalance):
            self._take_balance(*item.take())
        else:
            self._calls.call_function(item.function)

    def _take_batch(self, batch: Batch) -> None:
        calls, tally, room = self._calls, self.tally, self._room
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

    def _take_balance(self, item: Item, replaced: list[int | None]) -> None:
        self._deliver_coalesced(item, replaced)
        self._take_item(item)

    def _deliver_coalesced(self, item: Item, replaced: list[int | None]) -> bool:
        """Deliver the event that tells how many balances were replaced; return True if there is one."""
        if not replaced or self._calls.is_stale(item.event, item.epoch):
            return False
        assert isinstance(item.event, BalanceUpdate)
        told = BalancesCoalesced(venue=item.event.venue, count=len(replaced))
        self._calls.call(self, told, item.epoch, 0)
        return True

    def _take_item(self, item: Item) -> None:
        self._take_batch(Batch(collections.deque([(item.event, item.size)]), item.epoch, None))

    def _finish(self) -> None:
        """Do the last work: there is none."""

    def _leave(self) -> None:
        """Let go of what only this thread holds: there is nothing."""
