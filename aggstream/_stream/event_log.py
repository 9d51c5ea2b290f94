"""What leaves the I/O thread for the handlers: counted, written to the journal if there is one, and queued."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from aggstream._delivery.acks import Receipts
from aggstream._delivery.dispatcher import Dispatcher
from aggstream._stream.catch_up import Outgoing
from aggstream.errors import DecodeError, JournalError
from aggstream.events import (
    DecodeFailed,
    Event,
    Gap,
    Heartbeat,
    JournalFailed,
    Reconciled,
    Resumed,
    TokenRefreshed,
    UserEvent,
)
from aggstream.health import Counters

if TYPE_CHECKING:
    from aggstream.journal import EventStore, StoredEvent

logger = logging.getLogger("aggstream")

T = TypeVar("T")

_PAGE = 500
_TIDY_EVERY = 300.0


class Outbox:
    """Belongs to the I/O thread, but for `journal_failed`."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        counters: Counters,
        journal: EventStore | None,
        name: str,
        *,
        is_complete: Callable[[], bool],
        wake: Callable[[], None],
    ) -> None:
        self.epoch = 0
        """Whose events are put from now on."""
        self.journal = journal
        """Where they are written first; None: nowhere, or nowhere any more."""
        self.failure: JournalError | None = None
        """Why the journal is not written to any more, which is for the owner of this to tell."""
        self._history_until: int | None = None
        self._opened = journal
        self._dispatcher = dispatcher
        self._counters = counters
        self._name = name
        # Whether everything is known that happened before what is put now.
        self._is_complete = is_complete
        self._wake = wake
        self.tidy_at = None if journal is None else time.monotonic() + _TIDY_EVERY
        """When `tidy` is to be called; None: never."""
        if journal is not None:
            dispatcher.receipts = Receipts(journal, self.journal_failed)

    def put(self, event: Event, size: int = 0) -> None:
        """Send an event on its way to the handlers.

        Raises:
            JournalError: it could not be written down first, and the stream is to end then.
        """
        self.put_all([(event, size)])

    def put_all(self, outgoing: Sequence[Outgoing]) -> bool:
        """Send events on their way, in order; tell whether any were queued. With a journal, no repeat is.

        Raises:
            JournalError: they could not be written down first, and the stream is to end then.
        """
        if not outgoing:
            return False
        seqs: list[int | None] | None = None
        if self.journal is not None:
            outgoing, seqs = self._written_down(self.journal, outgoing)
        users = 0
        unheard = False
        for event, _ in outgoing:
            if isinstance(event, UserEvent):
                users += 1
            else:
                self._count(event)
                unheard = unheard or self._is_unheard(event)
        self._counters.user_events += users
        if unheard and seqs is None:
            outgoing = [entry for entry in outgoing if not self._is_unheard(entry[0])]
        if outgoing:
            self._dispatcher.put_all(outgoing, self.epoch, seqs)
        return bool(outgoing)

    def _is_unheard(self, event: Event) -> bool:
        """Tell whether an event need not wake the handlers' thread: a heartbeat that nobody listens to."""
        return isinstance(event, Heartbeat) and not self._dispatcher.is_wanted(event)

    def follow(self, order_ids: Sequence[str]) -> None:
        """Write down which orders are open that no event has told of.

        Raises:
            JournalError: that does not work, and the stream is to end then.
        """
        if self.journal is None or not order_ids:
            return
        try:
            self.journal.follow(order_ids)
        except JournalError as error:
            self._give_up(error)

    def note_history(self, until: int | None) -> None:
        """Let later processes know what was over before the first one began.

        Raises:
            JournalError: that does not work, and the stream is to end then.
        """
        if until is not None and until != self._history_until:
            self._history_until = until
            self.ask(lambda journal: journal.note_history(until), None)

    def ask(self, question: Callable[[EventStore], T], otherwise: T) -> T:
        """Ask the journal something; return the answer, or something else if there is no journal.

        Raises:
            JournalError: it cannot answer, and the stream is to end then.
        """
        if self.journal is None:
            return otherwise
        try:
            return question(self.journal)
        except JournalError as error:
            self._give_up(error)
            return otherwise

    def redeliver(self, wait_until: Callable[[Callable[[], bool]], None]) -> None:
        """Send on what an earlier process had not finished, in order.

        Args:
            wait_until: waits until a condition holds.

        Raises:
            JournalError: it cannot be read, and the stream is to end then.
        """
        after = 0
        while self.journal is not None:
            try:
                stored = self.journal.pending(after, _PAGE)
            except JournalError as error:
                self._give_up(error)
                break
            if not stored:
                break
            for entry in stored:
                after = entry.seq
                wait_until(lambda: not self._dispatcher.is_full())
                self.put_again(entry)

    def put_again(self, entry: StoredEvent) -> None:
        """Send a pending event on its way, whether or not the handlers are behind.

        Raises:
            JournalError: it is not understood, that cannot be written down, and the stream is to end then.
        """
        try:
            event = entry.event
        except DecodeError as error:
            logger.error("%s: event %d of the journal is set aside: %s", self._name, entry.seq, error)  # noqa: TRY400
            words = str(error)
            self.ask(lambda journal: journal.skip(entry.seq, words), None)
            self._dispatcher.put(DecodeFailed(text=entry.text, error=error), self.epoch)
            return
        self._dispatcher.put(event, self.epoch, len(entry.text), entry.seq)
        self._counters.redelivered += 1

    def tidy(self, now: float) -> None:
        """Delete from the journal what it need not keep any more, a little at a time.

        Raises:
            JournalError: that does not work, and the stream is to end then.
        """
        if self.journal is None or self.tidy_at is None or now < self.tidy_at:
            return
        try:
            is_done = not self.journal.retention(time.time_ns())
        except JournalError as error:
            self._give_up(error)
        else:
            self.tidy_at = now + _TIDY_EVERY if is_done else now

    def journal_failed(self, error: JournalError) -> None:
        """A dispatch thread could not write to the journal."""
        if self.failure is None:
            self.failure = error
            self._wake()

    def leave(self) -> None:
        """The I/O thread ends."""
        if self._opened is not None:
            self._opened.leave()

    def check(self) -> None:
        """Act on what `journal_failed` was told.

        Raises:
            JournalError: the stream is to end then.
        """
        if self.failure is not None and self.journal is not None:
            self._give_up(self.failure)

    def _written_down(
        self, journal: EventStore, outgoing: Sequence[Outgoing]
    ) -> tuple[Sequence[Outgoing], list[int | None] | None]:
        """Write the user's events to the journal; return what is no repeat, with the numbers there."""
        events = [event for event, _ in outgoing if isinstance(event, UserEvent)]
        try:
            numbers = iter(journal.store(events, complete=self._is_complete()))
        except JournalError as error:
            self._give_up(error)
            return outgoing, None
        kept: list[Outgoing] = []
        seqs: list[int | None] = []
        for event, size in outgoing:
            seq = next(numbers) if isinstance(event, UserEvent) else None
            if seq is None and isinstance(event, UserEvent):
                self._counters.repeats += 1
                continue
            kept.append((event, size))
            seqs.append(seq)
        return kept, seqs if events else None

    def _give_up(self, error: JournalError) -> None:
        assert self.journal is not None
        on_failure = self.journal.options.on_failure
        self.failure = error
        self.journal = self.tidy_at = None
        if on_failure == "stop":
            raise error
        self.go_on_without(error)

    def go_on_without(self, error: JournalError) -> None:
        """Say loudly that there is no journal any more."""
        self.failure = error
        logger.error("%s: the stream goes on without its journal: %s", self._name, error)
        self._dispatcher.put(JournalFailed(error=error), self.epoch)

    def _count(self, event: Event) -> None:
        counters = self._counters
        if isinstance(event, DecodeFailed):
            counters.decode_failures += 1
            logger.warning("%s: a message was not understood: %s", self._name, event.error)
        elif isinstance(event, TokenRefreshed):
            counters.refreshes += 1
        elif isinstance(event, Gap):
            counters.gaps += 1
        elif isinstance(event, Reconciled) and event.resolved:
            counters.gaps_resolved += len(event.gaps)
        elif isinstance(event, Resumed):
            counters.reconnects += 1
