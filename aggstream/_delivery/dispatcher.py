"""The I/O thread's side of delivery: it queues the events of one stream, and knows how many wait.

With one worker, handlers run one at a time, in the order in which events arrived. With several, that holds for
the events of one order id, which always go to the same queue; events without one go to the first.

With a journal, an event whose handlers failed is tried again, and what follows of its order waits behind it.

Events that arrive together are handed over together. Nothing here takes a lock for an event: what is counted has
one writer each, and the queues are `SimpleQueue`s. Only a balance that may be coalesced has a lock of its own.
"""

from __future__ import annotations

import collections
import threading
import zlib
from collections.abc import Callable, Sequence

from aggstream._base.text import shown
from aggstream._delivery.acks import Acks
from aggstream._delivery.handler_calls import Caller, HandlerCalls, Running
from aggstream._delivery.handler_queue import HandlerQueue
from aggstream._delivery.journaled_queue import JournaledQueue
from aggstream._delivery.order_lines import OrderLines
from aggstream._delivery.queue_items import Batch, Call, End, Item, LatestBalances, SizedEvent
from aggstream._delivery.registry import Registry
from aggstream._delivery.room import Room
from aggstream._delivery.workers import Workers
from aggstream.events import BalanceUpdate, Event


class Dispatcher:
    """Hands the events of one stream to handlers.

    `put`, `put_all` and `close` are for the I/O thread, the rest for any.
    """

    def __init__(
        self,
        registry: Registry,
        workers: Workers,
        *,
        queue_size: int,
        queued_size: int,
        coalesce_balances: bool,
        name: str,
        shown: Callable[[str], str] = shown,
        on_low_water: Callable[[], None],
        on_fatal: Callable[[BaseException], None],
        on_end: Callable[[], None],
        most_workers: int | None = None,
    ) -> None:
        """Make one.

        Args:
            registry: finds the handlers of an event.
            workers: the threads that call them.
            queue_size: the number of waiting events at which `is_full` becomes true.
            queued_size: the size of the waiting messages, in bytes, at which it does as well.
            coalesce_balances: let a newer balance of a venue replace one that still waits.
            name: begins the log lines.
            shown: makes a type that the server has invented fit for a log.
            on_low_water: called by a worker when half of a full queue is done.
            on_fatal: called by a worker with an exception that is to end the stream (`SystemExit`, say).
            on_end: called by a worker when nothing more will be delivered.
            most_workers: how many of the threads may be at its events at once; None: all, and each has the orders
                that are shared out to it. With a number a thread takes the next order that waits.
        """
        self.calls = HandlerCalls(registry, name=name, shown=shown, on_fatal=on_fatal)
        """The state that all queues share: handlers, taps, and the number of the present user."""
        self._workers = workers
        self._room = Room(queue_size=queue_size, queued_size=queued_size, on_low_water=on_low_water)
        self._balances = LatestBalances(most=queue_size) if coalesce_balances else None
        self._on_end = on_end
        self._acks: Acks | None = None
        self._most_workers = most_workers
        # As many as there are workers; each is made when the first event comes for it. The I/O thread makes them.
        # With `most_workers` there is one, with a line for each order.
        self._queues: dict[int, HandlerQueue | OrderLines] = {}
        # Guards how many of them have not come to their end; None: the end was not asked for.
        self._lock = threading.Lock()
        self._unended: int | None = None

    def acknowledge(self, acks: Acks | None) -> None:
        """Tell a journal what becomes of its events, from the start on; None: there is no journal."""
        self._acks = acks
        if acks is not None:
            self.calls.is_outage = acks.is_outage
            self._workers.on_leave.append(acks.leave)

    def put(self, event: Event, epoch: int, size: int = 0, seq: int | None = None) -> None:
        """Queue an event for its handlers; never blocks, so look at `is_full` from time to time.

        Args:
            event: the event.
            epoch: the number of the user whose event it is, if it is a user's.
            size: of its message, in bytes, about.
            seq: its number in the journal, if it is in one.
        """
        self.put_all([(event, size)], epoch, None if seq is None else [seq])

    def put_all(self, events: Sequence[SizedEvent], epoch: int, seqs: Sequence[int | None] | None = None) -> None:
        """Queue events, in order; as `put` does.

        Args:
            events: the events, and about the sizes of their messages.
            epoch: the number of the user whose events they are.
            seqs: their numbers in the journal; None: none is in it.
        """
        batch = Batch(collections.deque(events), epoch, None if seqs is None else collections.deque(seqs))
        if self._balances is None and self._has_one_queue:
            self._enqueue(self._queue(0), batch)
        else:
            self._share_out(batch)

    def is_wanted(self, event: Event) -> bool:
        """Return True if there is a handler to give an event to."""
        return self.calls.is_wanted(event)

    def call(self, function: Callable[[], object]) -> None:
        """Let a function be called where handlers are, after what is queued."""
        self._queue(0).put(Call(function))

    def close(self, last: Event) -> None:
        """Let the delivery end once all that is queued is done, with `last` as the very last event."""
        self._queue(0)  # so that there is one
        with self._lock:
            queues = tuple(self._queues.values())
            self._unended = len(queues)
        for queue in queues:
            queue.put(End(last))

    def is_full(self) -> bool:
        """Return True if reading should pause; if so, `on_low_water` will be called."""
        room = self._room
        waiting, size = room.put, room.put_size
        for tally in room.tallies:
            waiting -= tally.done
            size -= tally.done_size
        room.is_awaited = waiting >= room.queue_size or size >= room.queued_size
        return room.is_awaited and not room.is_low()

    @property
    def depth(self) -> int:
        """How many events wait, or are being handled."""
        return self._room.depth

    @property
    def waiting(self) -> int:
        """How many events no handler has been given yet."""
        return self._room.waiting

    @property
    def coalesced(self) -> int:
        """How many balances were replaced by newer ones before a handler saw them."""
        return 0 if self._balances is None else self._balances.coalesced

    @property
    def delivered(self) -> int:
        """How many events were handed to their handlers."""
        return sum(tally.delivered for tally in self._room.tallies)

    @property
    def stale(self) -> int:
        """How many user events were not delivered because the user was switched."""
        return sum(tally.stale for tally in self._room.tallies)

    @property
    def to_retry(self) -> int:
        """How many events wait to be tried again, those behind them included; the journal keeps them."""
        return sum(queue.to_retry for queue in self._made())

    @property
    def dead(self) -> int:
        """How many events the journal has set aside, because their handlers failed too often."""
        return 0 if self._acks is None else self._acks.dead

    @property
    def handler_errors(self) -> int:
        """How many exceptions handlers have raised."""
        return sum(tally.handler_errors for tally in self._room.tallies)

    def running(self) -> list[Running]:
        """Return the handlers that are running now."""
        return [running for queue in self._made() for running in queue.running()]

    def abandon(self) -> int:
        """Deliver nothing more, not even what is queued; return how many events that leaves."""
        self.calls.is_abandoned = True
        return self.waiting

    def after_fork_in_child(self) -> None:
        """Deliver nothing more: a handler that has forked, and greenlets, go on in the child."""
        self.calls.is_abandoned = True
        self.calls.epoch += 1  # also not to the handlers after the one that is running
        if self._acks is not None:
            self._acks.after_fork_in_child()
        for queue in self._made():
            queue.after_fork_in_child()

    # --- inside -----------------------------------------------------------------------------------------

    @property
    def _has_one_queue(self) -> bool:
        return self._workers.count == 1 or self._most_workers is not None

    def _made(self) -> tuple[HandlerQueue | OrderLines, ...]:
        return tuple(self._queues.values())

    def _queue(self, number: int) -> HandlerQueue | OrderLines:
        queue = self._queues.get(number)
        if queue is None:
            queue = self._make_queue(number)
        return queue

    def _make_queue(self, number: int) -> HandlerQueue | OrderLines:
        with self._lock:  # `call` is for any thread
            if number in self._queues:
                return self._queues[number]
            common = (self._workers, self.calls, self._room, self._queue_ended)
            queue: HandlerQueue | OrderLines
            if self._most_workers is not None:
                queue = OrderLines(*common, self._acks, most=self._most_workers)
            elif self._acks is not None:
                queue = JournaledQueue(*common, self._acks)
            else:
                queue = HandlerQueue(*common)
            if isinstance(queue, HandlerQueue):
                self._room.tallies = (*self._room.tallies, queue.tally)
            self._queues[number] = queue
            return queue

    def _queue_ended(self, caller: Caller, end: End) -> None:
        """Deliver the very last event once all queues have come to their end. Called on a worker's thread."""
        with self._lock:
            assert self._unended is not None
            self._unended -= 1
            if self._unended:
                return
        try:
            self.calls.call(caller, end.event, self.calls.epoch, 0)
        finally:
            self._on_end()

    def _enqueue(self, queue: HandlerQueue | OrderLines, batch: Batch) -> None:
        # Counted first: a worker is never ahead.
        room = self._room
        room.put += len(batch.events)
        room.put_size += sum([size for _, size in batch.events])
        queue.put(batch)

    def _share_out(self, batch: Batch) -> None:
        """Put the events into the queues that they belong to, balances where they may be replaced."""
        shares: dict[HandlerQueue | OrderLines, list[Item]] = {}
        for item in batch.items():
            queue = self._queue_for(item.event)
            share = shares.setdefault(queue, [])
            if self._balances is None or not isinstance(item.event, BalanceUpdate):
                share.append(item)
                continue
            place, replaced = self._balances.put(item.event, item)
            self._room.put_size += item.size - replaced
            if place is not None:
                self._enqueue_share(queue, share)
                self._room.put += 1
                queue.put(place)
        for queue, share in shares.items():
            self._enqueue_share(queue, share)

    def _enqueue_share(self, queue: HandlerQueue | OrderLines, share: list[Item]) -> None:
        """Put one queue's share into it, and empty the share."""
        if share:
            seqs = collections.deque(item.seq for item in share)
            events = collections.deque((item.event, item.size) for item in share)
            self._enqueue(queue, Batch(events, share[0].epoch, None if set(seqs) <= {None} else seqs))
            share.clear()

    def _queue_for(self, event: Event) -> HandlerQueue | OrderLines:
        if self._has_one_queue:
            return self._queue(0)
        order_id = getattr(event, "order_id", None) or event.raw.get("orderId")
        if not isinstance(order_id, str):
            return self._queue(0)
        return self._queue(zlib.crc32(order_id.encode(errors="surrogatepass")) % self._workers.count)
