"""The I/O thread's side of delivery: it queues events for the workers, and knows how many wait.

With one worker, handlers run one at a time, in the order in which events arrived. With several, that holds for
the events of one order id, which always go to the same worker; events without one go to the first.

With a journal, an event whose handlers failed is tried again, and what follows of its order waits behind it.

Events that arrive together are handed over together. Nothing here takes a lock for an event: what is counted has
one writer each, and the queues are `SimpleQueue`s. Only a balance that may be coalesced has a lock of its own.
"""

from __future__ import annotations

import collections
import threading
import zlib
from collections.abc import Callable, Sequence

from aggstream._base.deadline import Deadline
from aggstream._base.text import shown
from aggstream._base.threads import Gate
from aggstream._delivery.acks import Acks
from aggstream._delivery.handler_calls import HandlerCalls, Running
from aggstream._delivery.journaled_worker import JournaledWorker
from aggstream._delivery.queue_items import Batch, Call, End, Item, LatestBalances, SizedEvent
from aggstream._delivery.registry import Registry
from aggstream._delivery.room import Room
from aggstream._delivery.worker import Worker
from aggstream.events import BalanceUpdate, Event


class Dispatcher:
    """Hands events to handlers. `put`, `put_all` and `close` are for the I/O thread, the rest for any."""

    def __init__(
        self,
        registry: Registry,
        *,
        workers: int,
        queue_size: int,
        queued_size: int,
        coalesce_balances: bool,
        name: str,
        shown: Callable[[str], str] = shown,
        on_low_water: Callable[[], None],
        on_fatal: Callable[[BaseException], None],
        on_end: Callable[[], None],
    ) -> None:
        """Make one whose threads are not started.

        Args:
            registry: finds the handlers of an event.
            workers: the number of threads.
            queue_size: the number of waiting events at which `is_full` becomes true.
            queued_size: the size of the waiting messages, in bytes, at which it does as well.
            coalesce_balances: let a newer balance of a venue replace one that still waits.
            name: begins the threads' names and the log lines.
            shown: makes a type that the server has invented fit for a log.
            on_low_water: called by a worker when half of a full queue is done.
            on_fatal: called by a worker with an exception that is to end the stream (`SystemExit`, say).
            on_end: called by the first worker when nothing more will be delivered.
        """
        self.calls = HandlerCalls(registry, name=name, shown=shown, on_fatal=on_fatal)
        """The state that all workers share: handlers, taps, and the number of the present user."""
        self._room = Room(queue_size=queue_size, queued_size=queued_size, on_low_water=on_low_water)
        self._balances = LatestBalances(most=queue_size) if coalesce_balances else None
        self._on_end = on_end
        suffixes = [""] if workers == 1 else [f"-{number}" for number in range(1, workers + 1)]
        self._names = [f"{name}-dispatch{suffix}" for suffix in suffixes]
        self._acks: Acks | None = None
        self._workers: Sequence[Worker] = self._made(None)

    def start(self, acks: Acks | None = None, gate: Gate | None = None) -> None:
        """Start the threads.

        Args:
            acks: tells the journal what becomes of its events; None: there is no journal.
            gate: where they wait until all threads of the client are there; None: nowhere.

        Raises:
            RuntimeError: one cannot be started; `reset` ends those that were.
        """
        if acks is not None:
            self._acks = acks
            self.calls.is_outage = acks.is_outage
            self._workers = self._made(acks)
        if gate is None:
            gate = Gate()
            gate.open()
        first, *others = self._workers
        first.start(gate, self._deliver_last, self._on_end)
        for worker in others:
            worker.start(gate, lambda end: None, lambda: None)

    def reset(self) -> None:
        """Wait for the threads to end, whose gate was cancelled; then it is as if `start` had not been called."""
        for worker in self._workers:
            worker.reset()
        if self._acks is not None:
            self._acks = None
            self._workers = self._made(None)

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
        batch = Batch(collections.deque(events), epoch, seqs)
        if len(self._workers) == 1 and self._balances is None:
            self._enqueue(self._workers[0], batch)
        else:
            self._share_out(batch)

    def is_wanted(self, event: Event) -> bool:
        """Return True if there is a handler to give an event to."""
        return self.calls.is_wanted(event)

    def call(self, function: Callable[[], object]) -> None:
        """Let a function be called where handlers are, after what is queued."""
        self._workers[0].queue.put(Call(function))

    def close(self, last: Event) -> None:
        """Let the workers end once all that is queued is done, with `last` as the very last event."""
        for worker in self._workers:
            worker.queue.put(End(last))

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
        return sum(worker.tally.delivered for worker in self._workers)

    @property
    def stale(self) -> int:
        """How many user events were not delivered because the user was switched."""
        return sum(worker.tally.stale for worker in self._workers)

    @property
    def to_retry(self) -> int:
        """How many events wait to be tried again, those behind them included; the journal keeps them."""
        return sum(worker.to_retry for worker in self._workers)

    @property
    def dead(self) -> int:
        """How many events the journal has set aside, because their handlers failed too often."""
        return 0 if self._acks is None else self._acks.dead

    @property
    def handler_errors(self) -> int:
        """How many exceptions handlers have raised."""
        return sum(worker.tally.handler_errors for worker in self._workers)

    def threads(self) -> dict[str, bool]:
        """Return which threads are alive, by name."""
        return {worker.name: worker.is_alive() for worker in self._workers}

    def running(self) -> list[Running]:
        """Return the handlers that are running now."""
        return [running for worker in self._workers if (running := worker.running())]

    def is_own_thread(self) -> bool:
        """Return True if the calling thread is one that runs handlers."""
        return any(worker.thread is threading.current_thread() for worker in self._workers)

    def join(self, deadline: Deadline) -> bool:
        """Wait until all threads have ended; return True if they have. Never waits for the calling thread."""
        for worker in self._workers:
            thread = worker.thread
            if thread is not None and thread.ident is not None and thread is not threading.current_thread():
                thread.join(deadline.remaining())
        return not any(self.threads().values())

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

    # --- inside -----------------------------------------------------------------------------------------

    def _made(self, acks: Acks | None) -> Sequence[Worker]:
        workers = [
            Worker(name, self.calls, self._room)
            if acks is None
            else JournaledWorker(name, self.calls, self._room, acks)
            for name in self._names
        ]
        self._room.tallies = [worker.tally for worker in workers]
        return workers

    def _deliver_last(self, end: End) -> None:
        """Deliver the very last event, on the first worker's thread, once the other workers have ended."""
        first, *others = self._workers
        for other in others:
            if other.thread is not None:  # it may not have been possible to start it
                other.thread.join()
        self.calls.call(first, end.event, self.calls.epoch, 0)

    def _enqueue(self, worker: Worker, batch: Batch) -> None:
        # Counted first: a worker is never ahead.
        room = self._room
        room.put += len(batch.events)
        room.put_size += sum([size for _, size in batch.events])
        worker.queue.put(batch)

    def _share_out(self, batch: Batch) -> None:
        """Queue the events for the workers that they belong to, balances where they may be replaced."""
        shares: dict[Worker, list[Item]] = {}
        for item in batch.items():
            worker = self._worker_for(item.event)
            share = shares.setdefault(worker, [])
            if self._balances is None or not isinstance(item.event, BalanceUpdate):
                share.append(item)
                continue
            place, replaced = self._balances.put(item.event, item)
            self._room.put_size += item.size - replaced
            if place is not None:
                self._enqueue_share(worker, share)
                self._room.put += 1
                worker.queue.put(place)
        for worker, share in shares.items():
            self._enqueue_share(worker, share)

    def _enqueue_share(self, worker: Worker, share: list[Item]) -> None:
        """Queue one worker's share, and empty it."""
        if share:
            seqs = [item.seq for item in share]
            events = collections.deque((item.event, item.size) for item in share)
            self._enqueue(worker, Batch(events, share[0].epoch, None if set(seqs) <= {None} else seqs))
            share.clear()

    def _worker_for(self, event: Event) -> Worker:
        if len(self._workers) == 1:
            return self._workers[0]
        order_id = getattr(event, "order_id", None) or event.raw.get("orderId")
        if not isinstance(order_id, str):
            return self._workers[0]
        return self._workers[zlib.crc32(order_id.encode(errors="surrogatepass")) % len(self._workers)]
