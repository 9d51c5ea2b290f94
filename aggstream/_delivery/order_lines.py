"""Events of one account of many that wait for their handlers: a line for each order.

Several threads may be at them, each at another order. A handler that hangs holds up its own order, and keeps one
thread. An account has a bound on the threads that it may keep, so that it cannot take all of them from the others.
"""

from __future__ import annotations

import collections
import heapq
import itertools
import logging
import threading
import time
from collections.abc import Callable
from typing import TypeAlias

from aggstream._delivery.acks import Acks
from aggstream._delivery.attempt import Attempt, line_of, line_of_balance, try_handlers
from aggstream._delivery.handler_calls import Caller, HandlerCalls, Running
from aggstream._delivery.queue_items import Batch, Call, End, LatestBalance, QueueItem
from aggstream._delivery.room import Room
from aggstream._delivery.workers import Workers
from aggstream.events import BalancesCoalesced, BalanceUpdate

logger = logging.getLogger("aggstream.delivery")

_Entry: TypeAlias = "Attempt | LatestBalance | Call"
# The line of the functions that are called where handlers are.
_CALLS = ""


class _Post(Caller):
    """The place of one thread that is at the lines."""

    def __init__(self) -> None:
        super().__init__()
        self.thread: threading.Thread | None = None


class OrderLines:
    """The lines of one account. `put` is for any thread; threads of the workers serve them."""

    def __init__(
        self,
        workers: Workers,
        calls: HandlerCalls,
        room: Room,
        at_end: Callable[[Caller, End], None],
        acks: Acks | None,
        *,
        most: int,
    ) -> None:
        """Make lines that are empty.

        Args:
            workers: serve them.
            calls: calls the handlers.
            room: is told of room that was waited for.
            at_end: called on a thread of the workers when all lines have come to their end.
            acks: tells a journal what became of its events; None: there is none.
            most: how many threads may be at them at once.
        """
        self._workers = workers
        self._calls = calls
        self._room = room
        self._at_end = at_end
        self._acks = acks
        self._most = most
        # Guards everything below. No handler runs, and nothing blocks, while it is held.
        self._lock = threading.Lock()
        # What waits, by the name of the line. The first of a line is being handled, or is ready, or waits for its
        # next attempt.
        self._lines: dict[str, collections.deque[_Entry]] = {}
        self._ready: collections.deque[str] = collections.deque()
        self._due: list[tuple[float, int, str]] = []
        self._numbers = itertools.count()
        self._served_at: float | None = None
        # How many threads are at the lines, or are about to be.
        self._threads = 0
        self._posts: tuple[_Post, ...] = ()
        self._free: list[_Post] = []
        self._end: End | None = None

    # --- for any thread ---------------------------------------------------------------------------------

    def put(self, item: QueueItem) -> None:
        """Append to the lines, and have them served."""
        with self._lock:
            if isinstance(item, End):
                self._end = item
                self._call_threads(at_least=1)
                return
            if isinstance(item, Batch):
                for one in item.items():
                    self._append(line_of(one.event), Attempt(one))
            elif isinstance(item, LatestBalance):
                self._append(line_of_balance(item.venue), item)
            else:
                self._append(_CALLS, item)
            self._call_threads()

    def claim(self) -> bool:
        """Return True if a thread is to come for a retry that is due."""
        with self._lock:
            if self._threads >= self._most or self._is_ended:
                return False
            self._threads += 1
            return True

    @property
    def to_retry(self) -> int:
        """How many events wait to be tried again, those behind them included."""
        with self._lock:
            return sum(len(self._lines[key]) for _, _, key in self._due)

    def running(self) -> list[Running]:
        """Return the handlers that run now."""
        return [running for post in self._posts for running in self._calls.running(post, post.thread)]

    def after_fork_in_child(self) -> None:
        """Replace the lock, which a thread of the parent may hold."""
        self._lock = threading.Lock()

    def _append(self, key: str, entry: _Entry) -> None:
        line = self._lines.get(key)
        if line is None:
            self._lines[key] = collections.deque((entry,))
            self._ready.append(key)
        else:
            line.append(entry)

    def _call_threads(self, at_least: int = 0) -> None:
        """Have as many threads come as there are lines that are ready, and as may come."""
        wanted = max(len(self._ready) - len(self._free_threads()), at_least if not self._threads else 0)
        for _ in range(min(wanted, self._most - self._threads)):
            self._threads += 1
            self._workers.put(self)

    def _free_threads(self) -> range:
        """Return the threads that come, and have no line yet."""
        at_work = sum(post.thread is not None for post in self._posts)
        return range(self._threads - at_work)

    @property
    def _is_ended(self) -> bool:
        return self._end is not None and self._threads == 0 and not self._ready

    # --- on a thread of the workers ---------------------------------------------------------------------

    def serve(self, thread: threading.Thread) -> None:
        """Handle the first of one line after the other; leave the rest for later if other accounts wait."""
        post = self._take_post(thread)
        end: End | None = None
        try:
            while (taken := self._take(post)) is not None:
                self._handle(post, *taken)
                if self._workers.others_wait():
                    self._leave_for_others(post)
                    return
            end = self._leave(post)
        except BaseException as error:  # a defect of ours must not go unheard
            logger.critical("%s: a defect while events were handled", self._calls.name, exc_info=error)
            self._calls.on_fatal(error)
        if self._acks is not None:
            self._acks.write()
        if end is not None:
            self._at_end(post, end)

    def _take_post(self, thread: threading.Thread) -> _Post:
        with self._lock:
            if self._free:
                post = self._free.pop()
            else:
                post = _Post()
                self._posts = (*self._posts, post)
                self._room.tallies = (*self._room.tallies, post.tally)
            post.thread = thread
            return post

    def _take(self, post: _Post) -> tuple[str, _Entry] | None:
        """Return the name of the next line and its first; None if none is ready."""
        with self._lock:
            while self._due and self._due[0][0] <= time.monotonic() and self._end is None:
                self._ready.append(heapq.heappop(self._due)[2])
            if not self._ready:
                return None
            key = self._ready.popleft()
            return key, self._lines[key][0]

    def _handle(self, post: _Post, key: str, entry: _Entry) -> None:
        again: tuple[Attempt, float] | None = None
        size: int | None = None
        if isinstance(entry, Call):
            self._calls.call_function(entry.function)
        elif isinstance(entry, LatestBalance):
            attempt = self._newest(post, entry)
            size, again = attempt.item.size, try_handlers(attempt, post, self._calls, self._acks)
        else:
            size, again = entry.item.size, try_handlers(entry, post, self._calls, self._acks)
        if again is not None:
            self._try_later(key, *again)
            return
        if size is not None:
            post.tally.done += 1
            post.tally.done_size += size
        self._go_on(key)
        if self._room.is_awaited:
            self._room.announce()

    def _newest(self, post: _Post, place: LatestBalance) -> Attempt:
        """Return the balance that a place has now; tell first how many it has replaced."""
        item, replaced = place.take()
        event = item.event
        assert isinstance(event, BalanceUpdate)
        if replaced and not self._calls.is_stale(event, item.epoch):
            told = BalancesCoalesced(venue=event.venue, count=len(replaced), account=event.account)
            self._calls.call(post, told, item.epoch, 0)
            for seq in replaced:
                if seq is not None and self._acks is not None:
                    self._acks.succeeded(seq)
        return Attempt(item)

    def _go_on(self, key: str) -> None:
        """Let the next of a line be ready: its first is done."""
        with self._lock:
            line = self._lines[key]
            line.popleft()
            if line:
                self._ready.append(key)
            else:
                del self._lines[key]

    def _try_later(self, key: str, attempt: Attempt, due: float) -> None:
        with self._lock:
            self._lines[key][0] = attempt
            heapq.heappush(self._due, (due, next(self._numbers), key))

    def _leave_for_others(self, post: _Post) -> None:
        """Come again after the other accounts that wait."""
        with self._lock:
            post.thread = None
            self._free.append(post)
            self._workers.put(self)

    def _leave(self, post: _Post) -> End | None:
        """Leave the lines, none of which is ready; return the end if this was the last thread."""
        with self._lock:
            post.thread = None
            self._free.append(post)
            self._threads -= 1
            # Another thread may have made one ready since this one has looked.
            self._call_threads()
            if self._end is not None and self._is_ended:
                return self._end
            due = self._due[0][0] if self._due else None
            if due == self._served_at:
                return None
            self._served_at = due
        if due is not None:
            # Without the lock: the workers hold one of their own when they ask these lines whether they are due.
            self._workers.serve_at(self, due)
        return None
