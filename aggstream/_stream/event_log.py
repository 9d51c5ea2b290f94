"""The journal, as the I/O thread uses it: user events are written before their handlers run."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

from aggstream._delivery.queue_items import SizedEvent
from aggstream.errors import DecodeError, JournalError
from aggstream.events import UserEvent

if TYPE_CHECKING:
    from aggstream.journal import EventStore, StoredEvent

logger = logging.getLogger("aggstream.stream")

T = TypeVar("T")

_PAGE = 500
_TIDY_EVERY = 300.0


class EventLog:
    """Writes to a store of events until it fails, or to none. All but `store_failed` is for the I/O thread.

    Every method that asks the store raises its `JournalError` if the stream is to end with it
    (`on_failure="stop"`). Else the stream goes on without the store, and `on_lost` is called once.
    """

    def __init__(
        self,
        store: EventStore | None,
        name: str,
        *,
        wake: Callable[[], None],
        on_lost: Callable[[JournalError], None],
    ) -> None:
        """Make one.

        Args:
            store: what is written to; None: nothing.
            name: begins the log lines.
            wake: wakes the I/O thread; called by `store_failed`.
            on_lost: called on the I/O thread with the reason when nothing is written any more.
        """
        self.store = store
        """Where events are written; None: nowhere, or nowhere any more."""
        self.failure: JournalError | None = None
        """Why the store is not written to any more."""
        self.tidy_at = None if store is None else time.monotonic() + _TIDY_EVERY
        """When `tidy` is to be called, in monotonic seconds; None: never."""
        self.asked_at: float | None = None
        """When the store was asked to store what it has not stored yet, in monotonic seconds; None: nothing
        waits."""
        self._opened = store
        self._name = name
        self._wake = wake
        self._on_lost = on_lost
        self._kept_history = False
        self._remembered: tuple[int | None, bool] = (None, False)

    def write(
        self, outgoing: Sequence[SizedEvent], *, complete: bool
    ) -> tuple[Sequence[SizedEvent], list[int | None] | None]:
        """Write the user events among some events.

        Args:
            outgoing: the events.
            complete: whether everything is known that happened before them.

        Returns:
            The events without those that the store has already, and their numbers there; None instead of the
            numbers if no event is in the store.
        """
        if self.store is None:
            return outgoing, None
        events = [event for event, _ in outgoing if isinstance(event, UserEvent)]
        if not events:
            return outgoing, None
        self.asked_at = time.monotonic()
        try:
            numbers = self.store.store(events, complete=complete)
        except JournalError as error:
            self._give_up(error)
            return outgoing, None
        finally:
            self.asked_at = None
        if len(events) == len(outgoing) and None not in numbers:
            return outgoing, numbers
        number_of = iter(numbers)
        kept: list[SizedEvent] = []
        seqs: list[int | None] = []
        for entry in outgoing:
            is_users = isinstance(entry[0], UserEvent)
            seq = next(number_of) if is_users else None
            if seq is not None or not is_users:
                kept.append(entry)
                seqs.append(seq)
        return kept, seqs

    def ask(self, question: Callable[[EventStore], T], otherwise: T) -> T:
        """Ask the store something; return the answer, or something else if there is no store."""
        if self.store is None:
            return otherwise
        try:
            return question(self.store)
        except JournalError as error:
            self._give_up(error)
            return otherwise

    def remember(
        self,
        open_orders: Sequence[str],
        *,
        history_until: int | None,
        known_until: int | None,
        is_searched: bool,
    ) -> None:
        """Keep, for later processes, what was found out without an event.

        Args:
            open_orders: orders that are open, and that no event has told of.
            history_until: the service's time up to which all was over before the first process began.
            known_until: the service's time before which a later process need not look.
            is_searched: whether all old open orders were searched for.
        """
        if self._kept_history:
            history_until = None  # the first one counts
        news = (known_until, is_searched)
        if open_orders or history_until is not None or news != self._remembered:
            self._kept_history = self._kept_history or history_until is not None
            self._remembered = news
            self.ask(
                lambda store: store.remember(
                    open_orders=open_orders,
                    history_until=history_until,
                    known_until=known_until,
                    is_searched=is_searched,
                ),
                None,
            )

    def pending(self) -> Iterator[StoredEvent]:
        """Yield the events that an earlier process had not finished, in order."""
        page = self._page_after(0)
        while page:
            yield from page
            page = self._page_after(page[-1].seq)

    def _page_after(self, seq: int) -> Sequence[StoredEvent]:
        return self.ask(lambda store: store.pending(seq, _PAGE), [])

    def set_aside(self, entry: StoredEvent, error: DecodeError) -> None:
        """Give up a stored event that is not understood."""
        logger.error("%s: event %d of the journal is set aside: %s", self._name, entry.seq, error)
        words = str(error)
        self.ask(lambda store: store.failed(entry.seq, words, final=True), None)

    def tidy(self, now: float) -> None:
        """Delete from the store what it need not keep any more, a little at a time."""
        if self.tidy_at is None or now < self.tidy_at:
            return
        self.tidy_at = now  # there may be more
        if not self.ask(lambda store: store.retention(time.time_ns()), 0):
            self.tidy_at = None if self.store is None else now + _TIDY_EVERY

    def store_failed(self, error: JournalError) -> None:
        """Note that a dispatch thread could not write to the store. Called on that thread."""
        if self.failure is None:
            self.failure = error
            self._wake()

    def check(self) -> None:
        """Act on what `store_failed` was told."""
        if self.failure is not None and self.store is not None:
            self._give_up(self.failure)

    def leave(self) -> None:
        """Let go of what the calling thread holds of the store: the I/O thread ends."""
        if self._opened is not None:
            self._opened.leave()

    def go_on_without(self, error: JournalError) -> None:
        """Write nothing from now on, and say so."""
        self.failure = error
        self.store = self.tidy_at = None
        logger.error("%s: the stream goes on without its journal: %s", self._name, error)
        self._on_lost(error)

    def _give_up(self, error: JournalError) -> None:
        assert self.store is not None
        on_failure = self.store.options.on_failure
        if on_failure == "stop":
            self.failure = error
            self.store = self.tidy_at = None
            raise error
        self.go_on_without(error)
