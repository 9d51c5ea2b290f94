"""A queue beside a journal: it acknowledges events, and calls handlers that failed again."""

from __future__ import annotations

import time
from collections.abc import Callable

from aggstream._delivery.acks import Acks
from aggstream._delivery.attempt import Attempt, line_of, try_handlers
from aggstream._delivery.handler_calls import Caller, HandlerCalls
from aggstream._delivery.handler_queue import HandlerQueue
from aggstream._delivery.queue_items import Batch, End, Item
from aggstream._delivery.retry_lines import RetryLines
from aggstream._delivery.room import Room
from aggstream._delivery.workers import Workers


class JournaledQueue(HandlerQueue):
    """Delivers events of the journal at least once, each order's in their order."""

    def __init__(
        self,
        workers: Workers,
        calls: HandlerCalls,
        room: Room,
        at_end: Callable[[Caller, End], None],
        acks: Acks,
    ) -> None:
        """Make one that is empty; `acks` tells the journal, the rest is as for `HandlerQueue`."""
        super().__init__(workers, calls, room, at_end)
        self._acks = acks
        self._lines: RetryLines[Attempt] = RetryLines()
        # When the workers come for a retry, in monotonic seconds.
        self._served_at: float | None = None

    @property
    def to_retry(self) -> int:
        """How many events wait to be tried again, those behind them included; the journal keeps them."""
        return len(self._lines)

    def _has_more(self) -> bool:
        due = self._lines.next_due()
        return super()._has_more() or (not self.is_ended and due is not None and due <= time.monotonic())

    def _rest(self) -> None:
        """Write acks, run due retries, and have the next one run when it is due."""
        if not self.is_ended:
            self._run_due_retries()
        self._acks.write()
        due = self._lines.next_due()
        if due is not None and due != self._served_at and not self.is_ended:
            self._served_at = due
            self._workers.serve_at(self, due)

    def _take_batch(self, batch: Batch) -> None:
        if batch.seqs is None and not self._lines:
            super()._take_batch(batch)
            return
        for item in batch.items():
            self._take_item(item)
            if self._workers.is_shared and batch.events and self._workers.others_wait():
                self._items.appendleft(batch)
                return

    def _take_balance(self, item: Item, replaced: list[int | None]) -> None:
        if self._deliver_coalesced(item, replaced):
            for seq in replaced:
                self._succeeded(seq)
        self._take_item(item)

    def _take_item(self, item: Item) -> None:
        attempt = Attempt(item)
        if item.seq is None or not self._lines or not self._lines.join(line_of(item.event), attempt):
            again = self._try(attempt)
            if again is None:
                self._is_done(item.size)
            else:
                self._lines.begin(line_of(item.event), *again)
        self._run_due_retries()

    def _run_due_retries(self) -> None:
        while self._lines and (key := self._lines.take_due(time.monotonic())) is not None:
            while (attempt := self._lines.first(key)) is not None:
                again = self._try(attempt)
                if again is not None:
                    self._lines.replace_first(key, again[0])
                    self._lines.again(key, again[1])
                    break
                self._lines.leave(key)
                self._is_done(attempt.item.size)

    def _try(self, attempt: Attempt) -> tuple[Attempt, float] | None:
        return try_handlers(attempt, self, self._calls, self._acks)

    def _succeeded(self, seq: int | None) -> None:
        if seq is not None:
            self._acks.succeeded(seq)

    def _is_done(self, size: int) -> None:
        self.tally.done += 1
        self.tally.done_size += size
        if self._room.is_awaited:
            self._room.announce()
