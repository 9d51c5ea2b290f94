"""The queue of events, and the threads that call the handlers.

With one worker, handlers run one at a time, in the order in which events arrived. With several, that holds for
the events of one order id, which always go to the same worker; events without one go to the first.

With a journal, an event whose handlers failed is tried again, and what follows of its order waits behind it.

Events that arrive together are handed over together. Nothing here takes a lock for an event: what is counted has
one writer each, and the queues are `SimpleQueue`s. Only a balance that may be coalesced has a lock of its own.
"""

from __future__ import annotations

import collections
import contextlib
import logging
import queue
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

import attrs

from aggstream._base.deadline import Deadline
from aggstream._base.greenlets import in_turns, is_patched, note_greenlet
from aggstream._base.text import shown
from aggstream._base.threads import make_thread
from aggstream._delivery.acks import Receipts, described
from aggstream._delivery.registry import Handler, Registry
from aggstream._delivery.retry_lines import Retries
from aggstream.events import BalancesCoalesced, BalanceUpdate, Event, UserEvent, is_users

logger = logging.getLogger("aggstream")

Sized: TypeAlias = "tuple[Event, int]"
"""An event, and about the size of its message."""
ErrorHandler: TypeAlias = "Callable[[BaseException, Event], object]"
Tap: TypeAlias = "Callable[[Event, int, int], None]"

_LOW_WATER = 0.5


@attrs.frozen
class _Item:
    event: Event
    epoch: int
    size: int
    seq: int | None = None
    """Its number in the journal; None if it is in none."""


@attrs.define(eq=False, repr=False)  # and not frozen, which takes four times as long to make
class _Batch:
    events: collections.deque[Sized]
    epoch: int
    seqs: Sequence[int | None] | None
    """Their numbers in the journal; None if none is in it."""

    def items(self) -> Iterator[_Item]:
        """Yield the events, and keep none that was."""
        for seq in self.seqs or (None,) * len(self.events):
            event, size = self.events.popleft()
            yield _Item(event, self.epoch, size, seq)


@attrs.frozen(eq=False, repr=False)
class _Failed:
    """An event some of whose handlers failed, or one that waits behind such a one and was given to none yet."""

    item: _Item
    handlers: tuple[Handler, ...] | None
    attempts: int = 0


@attrs.frozen(eq=False, repr=False)
class _Call:
    function: Callable[[], object]


class _Latest:
    """A place in the queue whose balance is replaced by newer ones of its venue until a worker comes to it."""

    def __init__(self, item: _Item) -> None:
        self._lock = threading.Lock()
        self._item: _Item | None = item
        self._replaced: list[int | None] = []

    def replace(self, item: _Item) -> int | None:
        """Put a newer balance here; return the size of the one before, or None if this place is gone."""
        with self._lock:
            if self._item is None or self._item.epoch != item.epoch:
                return None
            before, self._item = self._item, item
            self._replaced.append(before.seq)
            return before.size

    @property
    def waits(self) -> bool:
        """True until a worker has come."""
        return self._item is not None

    def take(self) -> tuple[_Item, list[int | None]]:
        """Return the newest balance, and the numbers of those that it has replaced."""
        with self._lock:
            item, self._item = self._item, None
            assert item is not None
            return item, self._replaced


@attrs.frozen(eq=False, repr=False)
class _End:
    event: Event


@attrs.frozen(eq=False, repr=False)
class Running:
    """A handler that is running now."""

    handler: str
    """Its qualified name."""
    event: str
    """The type of the event that it was given, fit for a log."""
    since: float
    """When it was called, on the monotonic clock."""
    seconds: float
    """For how long."""
    thread: threading.Thread


class _Worker:
    """One thread, its queue, and its counts, which only this thread changes."""

    def __init__(self, name: str) -> None:
        self.thread: threading.Thread | None = None
        self.name = name
        self.queue: queue.SimpleQueue[_Batch | _Latest | _Call | _End] = queue.SimpleQueue()
        self.retries: Retries[_Failed] = Retries()
        self.begun = 0
        self.done = 0
        self.done_size = 0
        self.delivered = 0
        self.stale = 0
        self.handler_errors = 0
        self.current: tuple[Handler, Event, float] | None = None

    def running(self) -> Running | None:
        current = self.current
        if current is None or self.thread is None:
            return None
        handler, event, since = current
        name = getattr(handler, "__qualname__", None) or repr(handler)
        return Running(name, event.type, since, time.monotonic() - since, self.thread)


class Dispatcher:
    """Hands events to handlers. `put` and `close` are for the I/O thread, the rest for any."""

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
        """Make one.

        Args:
            registry: who handles what.
            workers: the number of threads.
            queue_size: the number of waiting events at which `is_full` becomes true.
            queued_size: the size of the waiting messages at which it does as well.
            coalesce_balances: let a newer balance of a venue replace one that still waits.
            name: the threads' name.
            shown: makes of a type that the server has invented what is fit for a log.
            on_low_water: called by a worker when half of a full queue is done.
            on_fatal: called by a worker with an exception that is to end the stream (`SystemExit`, say).
            on_end: called by the first worker when nothing more will be delivered.
        """
        self.error_handlers: tuple[ErrorHandler, ...] = ()
        self.taps: tuple[Tap, ...] = ()
        """Called with each event and its epoch before its handlers, on the dispatch thread."""
        self.epoch = 0
        """Raised when the user is switched: user events that were queued before it are not delivered."""
        self.receipts: Receipts | None = None
        """Who is told what became of the events that are in the journal."""

        self._registry = registry
        self._queue_size = queue_size
        self._queued_size = queued_size
        self._coalesce_balances = coalesce_balances
        self._shown = shown
        self._on_low_water = on_low_water
        self._on_fatal = on_fatal
        self._on_end = on_end
        suffixes = [""] if workers == 1 else [f"-{number}" for number in range(1, workers + 1)]
        self._workers = [_Worker(f"{name}-dispatch{suffix}") for suffix in suffixes]
        self._put = 0
        self._put_size = 0
        # Written by the I/O thread only: where the newest balance of each venue waits, or did.
        self._latest: dict[str, _Latest] = {}
        self.coalesced = 0
        """How many balances were replaced by newer ones before a handler saw them."""
        self._abandoned = False
        self._deliver = in_turns(self._call_handlers) if is_patched() else self._call_handlers
        # Written by the I/O thread before it looks at the depth again, read by the workers after theirs, so
        # that one of the two always sees the other.
        self._waiting_for_room = False

    def start(self) -> None:
        """Start the threads.

        Raises:
            RuntimeError: one cannot be started; those that were end with `close`.
        """
        for worker in self._workers:
            worker.thread = make_thread(self._run, worker, name=worker.name)
            try:
                worker.thread.start()
            except RuntimeError:
                worker.thread = None
                raise

    def put(self, event: Event, epoch: int, size: int = 0, seq: int | None = None) -> None:
        """Queue an event for its handlers; never blocks, so look at `is_full` from time to time.

        Args:
            event: the event.
            epoch: whose it is, if it is a user's.
            size: of its message, about.
            seq: its number in the journal, if it is in one.
        """
        self.put_all([(event, size)], epoch, None if seq is None else [seq])

    def put_all(self, events: Sequence[Sized], epoch: int, seqs: Sequence[int | None] | None = None) -> None:
        """Queue events, in order; as `put` does.

        Args:
            events: the events, and about the sizes of their messages.
            epoch: whose they are.
            seqs: their numbers in the journal; None: none is in it.
        """
        batch = _Batch(collections.deque(events), epoch, seqs)
        if len(self._workers) == 1 and not self._coalesce_balances:
            self._enqueue(self._workers[0], batch)
        else:
            self._distribute(batch)

    def _enqueue(self, worker: _Worker, batch: _Batch) -> None:
        # Counted first: a worker is never ahead.
        self._put += len(batch.events)
        self._put_size += sum([size for _, size in batch.events])
        worker.queue.put(batch)

    def _distribute(self, batch: _Batch) -> None:
        """Queue the events for the workers that they belong to, balances where they may be replaced."""
        shares: dict[_Worker, list[_Item]] = {}
        for item in batch.items():
            worker = self._worker_for(item.event)
            share = shares.setdefault(worker, [])
            if not (self._coalesce_balances and isinstance(item.event, BalanceUpdate)):
                share.append(item)
                continue
            place = self._place_for(item.event.venue, item)
            self._put_size += item.size
            if place is not None:
                self._enqueue_share(worker, share)
                self._put += 1
                worker.queue.put(place)
        for worker, share in shares.items():
            self._enqueue_share(worker, share)

    def _enqueue_share(self, worker: _Worker, share: list[_Item]) -> None:
        """Queue what is one worker's, and let it begin anew."""
        if share:
            seqs = [item.seq for item in share]
            events = collections.deque((item.event, item.size) for item in share)
            self._enqueue(worker, _Batch(events, share[0].epoch, None if set(seqs) <= {None} else seqs))
            share.clear()

    def is_wanted(self, event: Event) -> bool:
        """Tell whether there is anybody to give an event to."""
        return bool(self.taps) or self._registry.is_handled(event)

    def call(self, function: Callable[[], object]) -> None:
        """Let a function be called where handlers are, after what is queued."""
        self._workers[0].queue.put(_Call(function))

    def close(self, last: Event) -> None:
        """Let the workers end once all that is queued is done, with `last` as the very last event."""
        for worker in self._workers:
            worker.queue.put(_End(last))

    def is_full(self) -> bool:
        """Tell whether reading should pause; if so, `on_low_water` will be called."""
        waiting, size = self._put, self._put_size
        for worker in self._workers:
            waiting -= worker.done
            size -= worker.done_size
        self._waiting_for_room = waiting >= self._queue_size or size >= self._queued_size
        return self._waiting_for_room and not self._has_room()

    @property
    def depth(self) -> int:
        """How many events wait, or are being handled."""
        left = self._put
        for worker in self._workers:
            left -= worker.done
        return max(0, left)

    @property
    def size(self) -> int:
        """How large the messages are of the events that wait or are being handled, about."""
        left = self._put_size
        for worker in self._workers:
            left -= worker.done_size
        return max(0, left)

    def _has_room(self) -> bool:
        """Tell whether low water is reached; that must be so when nothing waits."""
        depth = self.depth
        return depth <= int(self._queue_size * _LOW_WATER) and (
            depth == 0 or self.size <= self._queued_size * _LOW_WATER
        )

    @property
    def waiting(self) -> int:
        """How many events no handler has been given yet."""
        return max(0, self._put - sum(worker.begun for worker in self._workers))

    @property
    def delivered(self) -> int:
        """How many events were handed to their handlers."""
        return sum(worker.delivered for worker in self._workers)

    @property
    def stale(self) -> int:
        """How many user events were not delivered because the user was switched."""
        return sum(worker.stale for worker in self._workers)

    @property
    def to_retry(self) -> int:
        """How many events wait to be tried again, those behind them included; the journal keeps them."""
        return sum(len(worker.retries) for worker in self._workers)

    @property
    def dead(self) -> int:
        """How many events the journal has set aside, because their handlers failed too often."""
        return 0 if self.receipts is None else self.receipts.dead

    @property
    def handler_errors(self) -> int:
        """How many exceptions handlers have raised."""
        return sum(worker.handler_errors for worker in self._workers)

    def threads(self) -> dict[str, bool]:
        """Return which threads are alive."""
        return {w.name: w.thread is not None and w.thread.is_alive() for w in self._workers}

    def running(self) -> list[Running]:
        """Return the handlers that are running now."""
        return [
            attrs.evolve(running, event=self._in_a_log(running.event))
            for worker in self._workers
            if (running := worker.running())
        ]

    def is_own_thread(self) -> bool:
        """Tell whether the calling thread is one that runs handlers."""
        return any(worker.thread is threading.current_thread() for worker in self._workers)

    def join(self, deadline: Deadline) -> bool:
        """Wait until all threads have ended; tell whether they have. Never waits for the calling thread."""
        for worker in self._workers:
            thread = worker.thread
            if thread is not None and thread.ident is not None and thread is not threading.current_thread():
                thread.join(deadline.remaining())
        return not any(self.threads().values())

    def abandon(self) -> int:
        """Deliver nothing more, not even what is queued; return how many events that leaves."""
        self._abandoned = True
        return self.waiting

    def after_fork_in_child(self) -> None:
        """Deliver nothing more: a handler that has forked, and greenlets, go on in the child."""
        self._abandoned = True
        self.epoch += 1  # also not to the handlers after the one that is running
        if self.receipts is not None:
            self.receipts.after_fork_in_child()

    # --- on the workers' threads ------------------------------------------------------------------------

    def _place_for(self, venue: str, item: _Item) -> _Latest | None:
        """Return a new place in the queue for a balance; None if it has taken that of an older one."""
        older = self._latest.get(venue)
        replaced = None if older is None else older.replace(item)
        if replaced is not None:
            self._put_size -= replaced
            self.coalesced += 1
            return None
        if len(self._latest) > self._queue_size:  # a server may invent venues without an end
            self._latest = {name: place for name, place in self._latest.items() if place.waits}
        self._latest[venue] = place = _Latest(item)
        return place

    def _worker_for(self, event: Event) -> _Worker:
        if len(self._workers) == 1:
            return self._workers[0]
        order_id = getattr(event, "order_id", None) or event.raw.get("orderId")
        if not isinstance(order_id, str):
            return self._workers[0]
        return self._workers[zlib.crc32(order_id.encode(errors="surrogatepass")) % len(self._workers)]

    def _run(self, worker: _Worker) -> None:
        note_greenlet()
        try:
            while not isinstance(place := self._next(worker), _End):
                self._go_through(worker, place)
            if worker is self._workers[0]:
                for other in self._workers[1:]:
                    if other.thread is not None:  # it may not have been possible to start it
                        other.thread.join()
                self._deliver(worker, place.event, self.epoch, 0)
        except BaseException as error:  # a thread of ours must not die unheard
            self._on_fatal(error)
            raise
        finally:
            if worker is self._workers[0]:
                if self.receipts is not None:
                    self.receipts.write()
                self._on_end()
            if self.receipts is not None:
                self.receipts.leave()

    def _next(self, worker: _Worker) -> _Batch | _Latest | _Call | _End:
        """Return what is next, and use the time until it comes."""
        if self.receipts is None:
            return worker.queue.get()
        while True:
            try:
                return worker.queue.get_nowait()
            except queue.Empty:
                self.receipts.write()
            due = worker.retries.next_due()
            with contextlib.suppress(queue.Empty):
                return worker.queue.get(timeout=None if due is None else max(0.0, due - time.monotonic()))
            # Out here, so that what a handler raises has no exception of ours for its context.
            self._retry_what_is_due(worker)

    def _call(self, item: _Call) -> None:
        try:
            item.function()
        except Exception:  # it is the user's
            logger.exception("what was to be called at an order's end failed")
        except BaseException as leaving:
            self._on_fatal(leaving)

    def _go_through(self, worker: _Worker, place: _Batch | _Latest | _Call) -> None:
        if isinstance(place, _Batch):
            if place.seqs is None:
                self._take_all(worker, place)
            else:
                for item in place.items():
                    self._take(worker, item)
        elif isinstance(place, _Latest):
            self._take_latest(worker, *place.take())
        else:
            self._call(place)

    def _take_all(self, worker: _Worker, batch: _Batch) -> None:
        """Take events that are in no journal: nothing of them is written down, or tried again."""
        epoch, deliver, events = batch.epoch, self._deliver, batch.events
        retries = None if self.receipts is None else worker.retries
        while events:
            event, size = events.popleft()  # what is done is not kept
            if not self._abandoned:
                worker.begun += 1
                if epoch != self.epoch and is_users(event):
                    worker.stale += 1
                else:
                    deliver(worker, event, epoch, size)
                    worker.delivered += 1
            worker.done += 1
            worker.done_size += size
            if self._waiting_for_room:
                self._tell_of_room()
            if retries:
                self._retry_what_is_due(worker)

    def _take_latest(self, worker: _Worker, item: _Item, replaced: list[int | None]) -> None:
        if replaced and not self._is_stale(item):
            assert isinstance(item.event, BalanceUpdate)
            told = BalancesCoalesced(venue=item.event.venue, count=len(replaced))
            self._deliver(worker, told, item.epoch, 0)
            for seq in replaced:
                self._succeeded(seq)
        self._take(worker, item)

    def _take(self, worker: _Worker, item: _Item) -> None:
        failed = _Failed(item, None)
        if item.seq is None or not worker.retries or not worker.retries.join(_line_of(item.event), failed):
            again = self._handle(worker, failed)
            if again is None:
                self._is_done(worker, item.size)
            else:
                worker.retries.begin(_line_of(item.event), *again)
        self._retry_what_is_due(worker)

    def _retry_what_is_due(self, worker: _Worker) -> None:
        while worker.retries and (key := worker.retries.take_due(time.monotonic())) is not None:
            while (failed := worker.retries.first(key)) is not None:
                again = self._handle(worker, failed)
                if again is not None:
                    worker.retries.replace_first(key, again[0])
                    worker.retries.again(key, again[1])
                    break
                worker.retries.leave(key)
                self._is_done(worker, failed.item.size)

    def _is_done(self, worker: _Worker, size: int) -> None:
        worker.done += 1
        worker.done_size += size
        if self._waiting_for_room:
            self._tell_of_room()

    def _tell_of_room(self) -> None:
        if self._has_room():
            self._waiting_for_room = False
            self._on_low_water()

    def _handle(self, worker: _Worker, failed: _Failed) -> tuple[_Failed, float] | None:
        """Call the handlers of an event; return what is to be tried again, and when, or None if it is done."""
        if self._abandoned:
            return None
        item = failed.item
        worker.begun += not failed.attempts
        if self._is_stale(item):
            worker.stale += 1
            return None
        errors = self._deliver(worker, item.event, item.epoch, item.size, failed.handlers)
        worker.delivered += not failed.attempts
        if not errors or item.seq is None or self.receipts is None or self._abandoned:
            if not self._abandoned:
                self._succeeded(item.seq)
            return None
        attempts = failed.attempts + 1
        pause = self.receipts.failed(item.seq, [error for _, error in errors], attempts)
        if pause is None:
            return None
        event = attrs.evolve(item.event, redelivered=True) if isinstance(item.event, UserEvent) else item.event
        again = _Failed(attrs.evolve(item, event=event), tuple(handler for handler, _ in errors), attempts)
        return again, time.monotonic() + pause

    def _succeeded(self, seq: int | None) -> None:
        if seq is not None and self.receipts is not None:
            self.receipts.succeeded(seq)

    def _in_a_log(self, name: str) -> str:
        return self._shown(name)[1:-1]  # without the quotes

    def _is_stale(self, item: _Item) -> bool:
        return item.epoch != self.epoch and is_users(item.event)

    def _call_handlers(
        self, worker: _Worker, event: Event, epoch: int, size: int, handlers: Sequence[Handler] | None = None
    ) -> Sequence[tuple[Handler, BaseException]]:
        """Call an event's handlers, all or some of them; return those that failed."""
        if self._abandoned:
            return ()
        if handlers is None:
            for tap in self.taps:
                tap(event, epoch, size)
            handlers = self._registry.handlers(event)
        failed: list[tuple[Handler, BaseException]] | None = None
        for handler in handlers:
            # The handler before, or another thread, may have switched the user.
            if epoch != self.epoch and is_users(event):
                break
            worker.current = (handler, event, time.monotonic())
            try:
                handler(event)
            except BaseException as error:  # the next handler and the next event must run
                worker.current = None
                worker.handler_errors += 1
                failed = [*(failed or ()), (handler, error)]
                self._handler_failed(error, handler, event, epoch)
        worker.current = None
        if self._registry.by_order:
            self._registry.forget_ended(event)
        return failed or ()

    def _handler_failed(self, error: BaseException, handler: Handler, event: Event, epoch: int) -> None:
        if not isinstance(error, Exception):
            # sys.exit() in a handler means the program, not a thread that nobody would miss.
            self._on_fatal(error)
            return
        name = self._in_a_log(event.type)
        if self.receipts is not None and self.receipts.is_outage(error):
            # Without a traceback, because it is told again and again, and the place is not to blame.
            logger.warning(
                "handler %r failed on %s, for what it needs is away: %s", handler, name, described(error)
            )
        else:
            logger.error("handler %r failed on %s", handler, name, exc_info=error)
        for on_error in self.error_handlers:
            if epoch != self.epoch and is_users(event):
                return
            try:
                on_error(error, event)
            except Exception:
                logger.exception("on_error %r failed", on_error)
            except BaseException as leaving:
                self._on_fatal(leaving)


def _line_of(event: Event) -> str:
    """Return what an event may not overtake: another one of its order, or of its venue's balance."""
    if isinstance(event, BalanceUpdate):
        return f"balance of {event.venue}"
    return f"order {getattr(event, 'order_id', '')}"
