"""The way of events through the I/O thread: past gaps and catch-up, into the journal, to the handlers' queue."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from aggstream._base.backoff import FullJitter
from aggstream._base.blocking_calls import CallQueue
from aggstream._base.deadline import nearest
from aggstream._base.moments import moment
from aggstream._delivery.dispatcher import Dispatcher
from aggstream._delivery.queue_items import SizedEvent
from aggstream._delivery.watchdog import HandlerWatch
from aggstream._stream.catch_up import CatchUp
from aggstream._stream.event_log import EventLog
from aggstream._stream.gaps import Gaps
from aggstream._stream.options import Options
from aggstream._stream.pace import Turn
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
from aggstream.events._base import set_account
from aggstream.events._user import with_status_name
from aggstream.health import Continuity, Counters
from aggstream.orders._tracker import Tracker
from aggstream.tokens._credentials import Credentials
from aggstream.tokens._token import Token

if TYPE_CHECKING:
    from aggstream._stream.rest_reader import RestReader
    from aggstream.journal import EventStore, StoredEvent
    from aggstream.rest._calls import Calls

logger = logging.getLogger("aggstream.stream")

# Between two looks at a REST API that fails, in seconds.
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0
# Seconds that a call of REST may take beyond all its time-outs.
_SLACK = 5.0


class Pipeline:
    """Takes events from the connection, from REST and from the stream itself. It belongs to the I/O thread.

    An event leaves the I/O thread at one line, in `_hand_on`. Every method raises a `JournalError` if an event
    could not be written down first, and the stream is to end then.
    """

    def __init__(
        self,
        options: Options,
        tracker: Tracker,
        dispatcher: Dispatcher,
        watch: HandlerWatch,
        counters: Counters,
        *,
        calls: Calls | None,
        credentials: Credentials,
        rest_calls: CallQueue,
        wake: Callable[[], None],
        account: str,
        rest_turn: Turn,
    ) -> None:
        """Make one.

        Args:
            options: the client's.
            tracker: what is known of each order.
            dispatcher: takes the events.
            watch: looks after the handlers while they have something to do.
            counters: count them.
            calls: how REST is asked; None: not at all.
            credentials: have the token for REST.
            rest_calls: makes the calls of REST.
            wake: wakes the I/O thread; for other threads.
            account: the name of the account whose events these are; empty if it has none.
            rest_turn: says when REST may be asked.
        """
        self._account = account
        self.epoch = 0
        """The number of the user whose events are handed on from now on."""
        self.gaps = Gaps(has_rest=calls is not None)
        self.catch_up = CatchUp(
            tracker,
            self.gaps,
            None if calls is None else calls.options,
            counters,
            hold_timeout=options.catch_up_timeout,
            most_held=options.queue_size,
            most_held_size=options.session.limits.queued_size,
            pauses=FullJitter(_FIRST_PAUSE, _LONGEST_PAUSE),
            rest_lag=options.rest_lag,
            name=options.name,
        )
        # What `moment()` is ahead of the monotonic clock, which stands still while the machine is suspended.
        self._ahead = moment() - time.monotonic()
        self._status_names = options.session.status_names
        self._name = options.name
        self._tracker = tracker
        self._dispatcher = dispatcher
        self._watch = watch
        self._counters = counters
        self._wake = wake
        self.log = self._log_to(None)
        # The events that an earlier process had not handled; None before they are looked for.
        self._pending: Iterator[StoredEvent] | None = None
        self._reader: RestReader | None = None
        if calls is not None:
            from aggstream._stream.rest_reader import RestReader  # noqa: PLC0415  (with an HTTP client)

            # A request, another token, and the request once more; each has a time-out for connecting and reading.
            longest = 4 * calls.options.timeout + options.token_timeout + _SLACK
            self._reader = RestReader(
                self.catch_up,
                calls,
                credentials,
                rest_calls,
                rest_turn,
                longest_call=longest,
                name=options.name,
            )

    @property
    def has_rest(self) -> bool:
        """True if there is a REST API to ask."""
        return self._reader is not None

    @property
    def is_in_the_dark(self) -> bool:
        """True while something may be missing, and REST was asked in vain."""
        continuity = self._tracker.continuity
        is_failing = self.catch_up.last_error is not None and continuity is not Continuity.LIVE
        return is_failing or continuity is Continuity.UNKNOWN

    @property
    def held_for_at_most(self) -> float | None:
        """Seconds for which live events are held back for REST at most; None if none is."""
        return self.catch_up.held_for_at_most(moment())

    @property
    def doubt_lasts_for(self) -> float | None:
        """Seconds for which something may be missing, and REST was not asked in vain; None if nothing is."""
        return self.catch_up.doubt_lasts_for(moment())

    # --- the way of an event ----------------------------------------------------------------------------

    def take(self, incoming: Sequence[SizedEvent], now: float) -> bool:
        """Take events from the session, in order.

        Args:
            incoming: the events, and the sizes of their messages.
            now: monotonic seconds.

        Returns:
            True if the stream is to be stepped: reading should pause, or REST is to be looked at, which does not
            wait for the next deadline.
        """
        self._emit(self.catch_up.passed(incoming, now + self._ahead))
        return self._dispatcher.is_full() or self.gaps.has_new_doubt

    def raise_doubt(self) -> None:
        """Look at REST: a user message came that was not understood, or that names another user."""
        self.catch_up.raise_doubt(moment())
        self._emit(self.catch_up.events())

    def put(self, event: Event) -> None:
        """Take an event of the stream's own."""
        self._emit([(event, 0)])

    def should_pause(self) -> bool:
        """Return True if reading should wait for the handlers."""
        return self._dispatcher.is_full()

    def _emit(self, outgoing: Sequence[SizedEvent]) -> None:
        if not outgoing:
            return
        seqs: list[int | None] | None = None
        if self.log.store is not None:
            written, seqs = self.log.write(outgoing, complete=not self.catch_up.has_more_to_tell)
            if written is not outgoing:
                told = _told_by_rest(outgoing) - _told_by_rest(written)
                self.catch_up.count_repeats(len(outgoing) - len(written), told=told)
                outgoing = written
        users = 0
        has_heartbeat = False
        for event, _ in outgoing:
            if isinstance(event, UserEvent):
                users += 1
            elif isinstance(event, Heartbeat):
                has_heartbeat = True
            else:
                self._count(event)
        self._counters.user_events += users
        if has_heartbeat and seqs is None:
            outgoing = [entry for entry in outgoing if not self._is_unheard(entry[0])]
        if outgoing:
            self._hand_on(outgoing, seqs)

    def _hand_on(self, outgoing: Sequence[SizedEvent], seqs: Sequence[int | None] | None) -> None:
        if account := self._account:
            for event, _ in outgoing:
                set_account(event, account)
        self._dispatcher.put_all(outgoing, self.epoch, seqs)
        if not self._watch.is_on:
            self._watch.begin()

    def _is_unheard(self, event: Event) -> bool:
        """Return True for a heartbeat that no handler wants: it need not wake the handlers' thread."""
        return isinstance(event, Heartbeat) and not self._dispatcher.is_wanted(event)

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

    # --- the journal ------------------------------------------------------------------------------------

    def write_to(self, store: EventStore | None, failure: JournalError | None) -> None:
        """Write to a store from now on.

        Args:
            store: the store; None: none.
            failure: why there is none, although there should be one.
        """
        self.log = self._log_to(store)
        if failure is not None:
            self.log.go_on_without(failure)

    def has_taken_up(self) -> bool:
        """Take up where an earlier process has ended: in a gap, with its open orders and its unhandled events.

        Returns:
            True if that is done. Else the handlers are behind, and it is to be called again when they wake the
            stream.
        """
        if self._pending is None:
            self.log.ask(self._take_up, None)
            self._pending = self.log.pending()
        while not self._dispatcher.is_full():
            entry = next(self._pending, None)
            if entry is None:
                return True
            self.redeliver(entry)
        return False

    def redeliver(self, entry: StoredEvent) -> None:
        """Hand a stored event on, whether or not the handlers are behind."""
        try:
            event = self._named(entry.event)
        except DecodeError as error:
            self.log.set_aside(entry, error)
            self._hand_on([(DecodeFailed(text=entry.text, error=error), 0)], None)
            return
        self._hand_on([(event, len(entry.text))], [entry.seq])
        self._counters.redelivered += 1

    def find_out(self, order_id: str, now: float) -> None:
        """Find out what is known of an order that nothing was heard of: from the journal, else from REST."""
        if self._tracker.knows(order_id):
            return
        is_recalled = self.log.ask(lambda store: self._recall(store, order_id), otherwise=False)
        # Of an order whose last word nobody knows, REST may know more.
        if not is_recalled or not (self._tracker.is_terminal(order_id) or self._tracker.is_open(order_id)):
            self.catch_up.search_for(order_id, now + self._ahead)

    def _log_to(self, store: EventStore | None) -> EventLog:
        return EventLog(store, self._name, wake=self._wake, on_lost=self._emit_journal_failed)

    def _emit_journal_failed(self, error: JournalError) -> None:
        self._hand_on([(JournalFailed(error=error), 0)], None)

    def _take_up(self, store: EventStore) -> None:
        memory = store.recall()
        if memory.last_received_ns is None:
            return
        self.gaps.begin_in_gap(max(memory.last_received_ns, memory.closed_ns or 0))
        known = [at for at in (memory.last_timestamp, memory.known_until) if at is not None]
        self.gaps.known_before(max(known, default=None), memory.history_until, is_searched=memory.is_searched)
        for order_id in memory.open_orders:
            self._tracker.expect(order_id)
            self._recall(store, order_id)

    def _recall(self, store: EventStore, order_id: str) -> bool:
        """Rebuild one order from the journal; return True if it has events there and all were understood."""
        stored = store.events_of(order_id)
        if not stored:
            return False
        from aggstream.journal._stored import understood  # noqa: PLC0415  (most streams have no journal)

        events = [self._named(event) for event in understood(stored)]
        self._tracker.expect(order_id)
        self._tracker.fold(events, time.monotonic())
        return len(events) == len(stored)

    def _named(self, event: UserEvent) -> UserEvent:
        """Return an event of the store with the name that the user gives to its status."""
        return with_status_name(event, self._status_names)

    # --- gaps -------------------------------------------------------------------------------------------

    def step(self, token: Token, now: float) -> None:
        """Let what is read from REST, and what waits for it, go on.

        Args:
            token: the one that the stream uses; REST takes the same.
            now: monotonic seconds.
        """
        self.gaps.has_new_doubt = False
        self.log.tidy(now)
        if self._reader is not None:
            self._ahead = moment() - time.monotonic()
            self._reader.step(token)
            self.catch_up.handle_deadline(moment())
            # Ask at once for what the answer or the deadline has made necessary.
            self._reader.step(token)
            self._emit_told()
            self.log.remember(
                self.catch_up.found(),
                history_until=self.gaps.history_to_keep,
                known_until=self.catch_up.known_for_later,
                is_searched=self.gaps.is_searched,
            )

    def _emit_told(self) -> None:
        """Hand on what REST tells, and then what it comes to: a journal may have had some of it."""
        self._emit(self.catch_up.events())
        self._emit([(report, 0) for report in self.catch_up.reports()])

    def next_deadline(self) -> float | None:
        """Return when `step` should be called if nothing happens before, in monotonic seconds; None: no need."""
        at = self.catch_up.next_deadline()
        return nearest(
            None if at is None else at - self._ahead,
            None if self._reader is None else self._reader.next_deadline(),
            self.log.tidy_at,
        )

    def connected(self, token: Token, user_id: str | None, now: float, attempts: int) -> None:
        """Tell what may have been missed, and begin to find out: the user is signed in.

        Args:
            token: the one that the service has accepted.
            user_id: the user, by the service's word.
            now: monotonic seconds.
            attempts: how often connecting was tried.
        """
        if not self.gaps.is_connected:  # else it is the same user's next token
            told = self.gaps.resume(token, user_id, now, attempts)
            self._emit([(event, 0) for event in told])
            gap = next((event for event in told if isinstance(event, Gap)), None)
            if gap is not None and not self.has_rest:
                logger.warning(
                    "%s: what was missed until now is not found out: set rest_url, or AGGSTREAM_REST_URL",
                    self._name,
                )
            self.catch_up.connected(moment(), gap, user_id)
            self._emit(self.catch_up.events())
        self.gaps.signed_in(token)

    def disconnected(self, now: float, heard_at: float, *, is_wanted: bool) -> None:
        """Release what was held back: the connection is gone.

        Args:
            now: monotonic seconds.
            heard_at: when it gave its last sign of life, in monotonic seconds.
            is_wanted: whether the stream was asked to stop; else a gap begins.
        """
        if not is_wanted:
            self.gaps.connection_lost(now)
        self.catch_up.disconnected(heard_at + self._ahead)
        self._emit_told()
        if self._reader is not None:
            self._reader.abandon()

    def overflowed(self, now: float, since: float) -> None:
        """Look at REST: reading had paused for the handlers, so the server had to wait, and may not have.

        Args:
            now: when reading goes on, in monotonic seconds.
            since: when it paused, likewise.
        """
        self.catch_up.overflowed(now + self._ahead, since + self._ahead)

    def forget(self, epoch: int) -> None:
        """Begin anew with another user.

        Args:
            epoch: the number of the new user.
        """
        self.epoch = epoch
        self.catch_up.forget()

    def end(self) -> None:
        """Hand over what is still here, and tell of the gap that the stream ends in."""
        gap = self.gaps.end_in_gap()
        self.catch_up.stopped(gap, moment())
        if self._reader is not None:
            self._reader.abandon()
            self._reader.close()
        self.log.check()
        reports = [(report, 0) for report in self.catch_up.reports()]
        self._emit([*([] if gap is None else [(gap, 0)]), *reports, *self.catch_up.events()])


def _told_by_rest(events: Sequence[SizedEvent]) -> int:
    return sum(isinstance(event, UserEvent) and event.source == "reconcile" for event, _ in events)
