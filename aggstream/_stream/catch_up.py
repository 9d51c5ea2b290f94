"""Closing gaps from the REST API, without I/O: no socket, no clock, no randomness, no lock.

Events pass it on their way from the session to the handlers. Words used here:

- What had last changed before the user's first sign-in is *history*. Handlers are never told of it.
- A *doubt* is a time in which something may have been missed: an outage, a message that was not understood, a
  pause of reading. `gaps.py` keeps it.
- A *look* is a pass over REST. REST may trail the stream, so one look is no proof. While an order is open that may
  have ended in the doubt, looks are repeated; the one that begins `rest_lag` after the doubt settles it; and one
  that begins a minute after it finds what REST has shown later still.
- A *suspect* is an order that was known to be open when the doubt ended, or was found open since.
- What REST tells in the first look is *owed*: it is told by the stream, or by a later look.

`judge.py` decides what handlers are told of a record; `look_schedule.py` decides which look comes next.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TypeAlias

import attrs

from aggstream._base.backoff import FullJitter, is_worth_retrying
from aggstream._base.deadline import nearest
from aggstream._base.times import milliseconds
from aggstream._delivery.queue_items import SizedEvent
from aggstream._stream.gaps import LATE, OVERLAP_MS, Gaps
from aggstream._stream.held_events import HeldEvents
from aggstream._stream.judge import Judge
from aggstream._stream.look_schedule import LookSchedule
from aggstream._stream.looks import DoubtLook, FirstLook, LateLook, Look, Search, Sweep
from aggstream._stream.tally import Tally
from aggstream.errors import AggStreamError, RestError
from aggstream.events import DecodeFailed, Event, Gap, Reconciled, UserEvent
from aggstream.events._records import Balances, OrdersPage
from aggstream.health import Counters
from aggstream.orders._tracker import Tracker
from aggstream.rest._as_event import as_event
from aggstream.rest._options import RestOptions

logger = logging.getLogger("aggstream.stream")


@attrs.frozen(eq=False, repr=False)
class ReadOrders:
    """Read a page of orders."""

    cursor: str | None
    status: str | None = None


@attrs.frozen(eq=False, repr=False)
class ReadBalances:
    """Read the balances."""


Read: TypeAlias = "ReadOrders | ReadBalances"
"""A question to REST. Its answer names it, so that an answer that comes too late is known by it."""


class CatchUp:
    """Reads REST when something may have been missed, and tells what is news. It belongs to the I/O thread.

    `now` is in seconds on any clock that nobody sets and that goes on while the machine is suspended.
    """

    def __init__(
        self,
        tracker: Tracker,
        gaps: Gaps,
        options: RestOptions | None,
        counters: Counters,
        *,
        hold_timeout: float,
        most_held: int,
        most_held_size: int,
        pauses: FullJitter,
        rest_lag: float = 10.0,
        name: str = "aggstream",
    ) -> None:
        """Know nothing yet.

        Args:
            tracker: what is known of each order.
            gaps: what may have been missed.
            options: how REST is read; None: there is no REST, so a gap stays a gap.
            counters: count the repeats.
            hold_timeout: seconds for which live events are held back at most.
            most_held: how many events are held back at most.
            most_held_size: the size of their messages, in bytes, at most.
            pauses: tells how long to wait before REST is asked again.
            rest_lag: seconds by which REST usually trails the stream, at most.
            name: begins the log lines.
        """
        self.last_error: AggStreamError | None = None
        """Why the last look failed; None if it did not."""
        self._tracker = tracker
        self._gaps = gaps
        self._options = options
        self._counters = counters
        self._hold_timeout = hold_timeout
        self._rest_lag = rest_lag
        self._name = name
        self._judge = Judge(gaps, {} if options is None else options.status_names)
        self._schedule = LookSchedule(tracker, gaps, pauses=pauses, rest_lag=rest_lag)
        self._held = HeldEvents(most=most_held, most_size=most_held_size)
        self._holds_until: float | None = None
        self._user_id: str | None = None
        self._out: list[SizedEvent] = []
        self._reports: list[Reconciled] = []
        self._found: list[str] = []
        # The question to REST that is not answered yet.
        self._asked: Read | None = None
        # What the looks of the present doubt came to.
        self._tally: Tally | None = None
        self._known_for_later: int | None = None
        # Orders that handlers were not told of, and until when the stream, or a later look, may still do it.
        self._owed: set[str] = set()
        self._owed_until: float | None = None
        self._balances: Balances | None = None

    # --- in ---------------------------------------------------------------------------------------------

    def connected(self, now: float, gap: Gap | None, user_id: str | None = None) -> None:
        """Begin to catch up: a connection is live.

        Args:
            now: the moment.
            gap: what may have been missed before it; None if nothing was.
            user_id: the user who is signed in, by the service's word.
        """
        self._user_id = user_id
        gaps = self._gaps
        is_first = gaps.connected(now)
        self._schedule.retry_at_once()
        if self._options is None:
            if gap is not None:
                gaps.raise_doubt(now, set(), gap=gap)
                self._put(Reconciled(gaps=gaps.give_up_all(now), resolved=False))
        elif is_first and gap is None:
            gaps.raise_doubt(now, set(), is_mild=True)
            self._begin_doubt(now, holds=False)
        elif gap is not None or gaps.doubt is not None or not gaps.was_read:
            gaps.raise_doubt(now, self._tracker.open_orders(), gap=gap)
            self._begin_doubt(now, holds=True, is_blind=is_first)
        self._publish()

    def disconnected(self, heard_at: float) -> None:
        """Stop reading: the connection is gone. The events that were held back are released.

        Args:
            heard_at: the moment of the last sign of life.
        """
        self._gaps.disconnected(heard_at)
        self._drop_look()
        self._schedule.retry_at_once()
        self._publish()

    def overflowed(self, now: float, since: float) -> None:
        """Look at REST: reading had paused for the handlers, so the server had to wait, and may not have.

        Args:
            now: the moment at which reading goes on.
            since: the moment at which it paused.
        """
        if self._gaps.is_connected and self._options is not None:
            self._gaps.stand_still(since)
            self._gaps.raise_doubt(now, self._tracker.open_orders())
            self._begin_doubt(now, holds=True)
            self._publish()

    def raise_doubt(self, now: float) -> None:
        """Look at REST: a message was not understood, contradicts itself, or names another user."""
        if not self._gaps.is_connected or self._options is None:
            return
        suspects = self._tracker.open_orders()
        is_new = self._gaps.doubt is None or self._gaps.doubt.is_mild
        self._gaps.stand_still(now)
        self._gaps.raise_doubt(now, suspects)
        self._schedule.doubt_message(now, is_new=is_new)
        if is_new:
            self._tally = Tally(now)
        self._begin_next(now)
        self._publish()

    def search_for(self, order_id: str, now: float) -> None:
        """Search REST for an order that nothing is known of, and that a program waits for."""
        if self._options is not None:
            self._schedule.search_for(order_id)
            self._begin_next(now)

    def stopped(self, gap: Gap | None, now: float) -> None:
        """Give up the gaps that are open: the stream ends.

        Args:
            gap: the one that the stream ends in; None if it ends in none.
            now: the moment.
        """
        self._drop_look()
        if gap is not None:
            self._gaps.raise_doubt(now, set(), gap=gap)
        if self._gaps.open:
            self._put(Reconciled(gaps=self._gaps.open, resolved=False, error=self.last_error))

    def forget(self) -> None:
        """Begin anew with another user."""
        self._drop_look()
        self._schedule.forget()
        self._judge.forget()
        self._out.clear()
        self._reports.clear()
        self._found.clear()
        self._owed.clear()
        self._balances = self._owed_until = self.last_error = self._tally = self._known_for_later = None
        self._gaps.forget()
        self._tracker.forget()
        self._publish()

    def passed(self, incoming: Sequence[SizedEvent], now: float) -> Sequence[SizedEvent]:
        """Take events from the session; return those that go on to the handlers now, in order.

        Repeats of what REST has told are dropped, and user events may be held back.
        """
        repeats = self._tracker.fold([event for event, _ in incoming], now)
        if self._tracker.has_doubtful_end:
            self._tracker.has_doubtful_end = False
            self.raise_doubt(now)
        if isinstance(last := incoming[-1][0], UserEvent):
            self._gaps.last_message = (last.timestamp, now)
        if not (repeats or self.is_holding):
            return incoming
        self.count_repeats(len(repeats))
        passed = []
        for at, (event, size) in enumerate(incoming):
            if at in repeats:
                continue
            if self.is_holding and isinstance(event, UserEvent):
                self._held.hold(event, size)
            else:
                passed.append((event, size))
        if self._held.is_full():
            self._end_holding()
            released, self._out = self._out, []
            passed += released
        return passed

    def count_repeats(self, number: int, *, told: int = 0) -> None:
        """Count events that are not delivered because the same fact was: found here, or in the journal.

        Args:
            number: how many.
            told: how many of them REST has told.
        """
        self._counters.repeats += number
        if told and self._tally is not None:
            self._tally.changed -= told

    def page_received(self, read: Read, page: OrdersPage, now: float, wall_ns: int) -> None:
        """Take a page of orders.

        Args:
            read: the question that it answers.
            page: the page.
            now: the moment.
            wall_ns: when it was read, in nanoseconds since the epoch.
        """
        look = self._answered(read)
        self._note_date(page.date_ms, now)
        if look is None:
            return
        assert self._options is not None
        if isinstance(look, DoubtLook) and look.known_until is None:
            look.known_until = self._gaps.known_until(now)
            if look.known_until is None:
                look = self._schedule.be_blind()
        for problem in page.problems:
            look.problem = problem
            self._put(DecodeFailed(text="", error=problem, received_ns=wall_ns))
        if isinstance(look, Sweep) and not look.is_as_filtered(page):
            logger.info("%s: the REST API does not filter orders by status: all pages are read", self._name)
            self._schedule.distrust_filter(look)
            return
        self._fold_page(look, page, now, wall_ns)
        try:
            look.page_read(page, self._tracker, most_pages=self._options.max_pages)
        except RestError as error:
            self._fail(look, error, now, is_passing=False)
            return
        if isinstance(look, Sweep) and look.orders_read and look.begin_next():
            return
        if look.orders_read and not look.reads_balances:
            self._succeed(look, now)

    def balances_received(self, read: Read, balances: Balances, now: float, wall_ns: int) -> None:
        """Take the balances: the look is over. The arguments are those of `page_received`."""
        look = self._answered(read)
        self._note_date(balances.date_ms, now)
        if look is None:
            return
        known = self._balances
        has_changed = known is None or (balances.cash, balances.positions) != (known.cash, known.positions)
        if isinstance(look, DoubtLook) and has_changed:
            from aggstream.rest._snapshot import make_snapshot  # noqa: PLC0415  (with what reads REST)

            self._emit(make_snapshot(balances, wall_ns, self._user_id))
            look.changed += 1
        self._balances = balances
        self._succeed(look, now)

    def read_failed(self, read: Read, error: AggStreamError, now: float) -> None:
        """Take the failure of a question to REST."""
        look = self._answered(read)
        if look is None:
            return
        if isinstance(look, Sweep) and look.is_filtered and _is_refusal(error):
            self._schedule.distrust_filter(look)
            return
        self._fail(look, error, now, is_passing=is_worth_retrying(error))

    def handle_deadline(self, now: float) -> None:
        """Act on every deadline that has come."""
        if self._holds_until is not None and now >= self._holds_until:
            self.last_error = self.last_error or RestError("REST did not tell the state within catch_up_timeout")
            self._gaps.has_failed = True
            self._end_holding()
            self._report_failure(self.last_error, now)
            self._publish()
        if self._owed_until is not None and now >= self._owed_until and self._gaps.doubt is None:
            self._tracker.settle_debts(self._owed)
            self._owed.clear()
            self._owed_until = None
        self._begin_next(now)

    # --- out --------------------------------------------------------------------------------------------

    def events(self) -> list[SizedEvent]:
        """Return the events for the handlers since the last call, in order."""
        out, self._out = self._out, []
        return out

    def reports(self) -> list[Reconciled]:
        """Return what looks came to, since the last call; after what `events` returns was handed on."""
        reports, self._reports = self._reports, []
        return reports

    def found(self) -> list[str]:
        """Return the orders, since the last call, that turned out to be open and that no event tells of."""
        found, self._found = self._found, []
        return found

    def request(self) -> Read | None:
        """Return, once, what is to be read next. Answer with `…_received` or `read_failed`."""
        look = self._schedule.look
        if look is None or self._asked is not None:
            return None
        self._asked = ReadBalances() if look.orders_read else ReadOrders(look.cursor, look.status)
        return self._asked

    @property
    def wants_answer(self) -> bool:
        """True if something is to be read that was not asked for yet."""
        return self._schedule.look is not None and self._asked is None

    @property
    def urgency(self) -> int:
        """How soon REST should be asked: 0 if live events wait for it, 1 if something may be missing, else 2."""
        if self.is_holding:
            return 0
        return 1 if self._gaps.doubt is not None else 2

    def awaits(self, read: Read) -> bool:
        """Return True if the answer to this is still wanted."""
        return read is self._asked

    def next_deadline(self) -> float | None:
        """Return when `handle_deadline` should be called; None: no need."""
        if self._options is None:
            return None
        lapse_at = self._owed_until if self._gaps.doubt is None else None
        return nearest(self._holds_until, lapse_at, self._schedule.next_at())

    @property
    def is_holding(self) -> bool:
        """True while live events are held back."""
        return self._holds_until is not None

    def doubt_lasts_for(self, now: float) -> float | None:
        """Return the seconds for which something has been in doubt; None if nothing is."""
        return None if self._tally is None or self._gaps.doubt is None else now - self._tally.began

    @property
    def held(self) -> int:
        """How many live events are held back."""
        return len(self._held)

    def held_for_at_most(self, now: float) -> float | None:
        """Return the seconds for which live events are held back at most; None if none is."""
        until = self._holds_until
        return None if until is None or not self._held else max(0.0, until - now)

    @property
    def has_more_to_tell(self) -> bool:
        """True while REST has still to tell, this process or a later one, what may have been missed."""
        doubt = self._gaps.doubt
        return (doubt is not None and not doubt.is_mild) or self._gaps.lost > 0 or self._schedule.owes

    @property
    def known_for_later(self) -> int | None:
        """The service's time, in milliseconds, before which a later process need not look; None: unknown."""
        return self._known_for_later

    # --- looks ------------------------------------------------------------------------------------------

    def _begin_doubt(self, now: float, *, holds: bool, is_blind: bool = False) -> None:
        """Look at once. Events are held back for the first look of a doubt, and never for longer than told."""
        self._drop_look()
        self._tally = self._tally or Tally(now)
        self._schedule.begin_doubt(now, is_blind=is_blind)
        self._holds_until = now + self._hold_timeout if holds else None
        self._begin_next(now)

    def _begin_next(self, now: float) -> None:
        if self._options is not None and self._schedule.begin_next(now):
            self._asked = None

    def _drop_look(self) -> None:
        self._schedule.drop()
        self._asked = None
        self._end_holding()

    def _answered(self, read: Read) -> Look | None:
        if read is not self._asked:
            return None
        self._asked = None
        return self._schedule.look

    def _fold_page(self, look: Look, page: OrdersPage, now: float, wall_ns: int) -> None:
        """Fold the orders of a page that the look is about, and emit what is news of them."""
        assert self._options is not None
        judge, tracker, one_unit = self._judge, self._tracker, self._options.amounts_in_one_unit
        known_until = self._schedule.known_until(look)
        records = [it for it in page.orders if not isinstance(look, Search) or it.id in look.wanted]
        new = [record.id for record in records if not tracker.knows(record.id)]
        told, owed = tracker.fold_records(
            records,
            now,
            status_of=judge.status_of,
            judge=lambda record, known, more: judge.telling(
                look, record, now, known_until, is_known=known, says_more=more
            ),
            one_unit=one_unit,
        )
        for record in told:
            named_as = judge.named_as(record)
            self._emit(as_event(record, wall_ns, self._user_id, named_as=named_as, one_unit=one_unit))
        look.changed += len(told)
        if told and isinstance(look, LateLook):
            logger.warning("%s: REST trailed the stream by more than rest_lag (%g s)", self._name, self._rest_lag)
        if owed:
            self._owed.update(owed)
            self._owed_until = now + LATE
        ids = {record.id for record in told}
        self._found += (id_ for id_ in new if id_ not in ids and tracker.is_open(id_))
        if (doubt := self._gaps.doubt) is not None and not doubt.is_mild:
            doubt.suspects.update(id_ for id_ in new if tracker.is_open(id_))

    def _succeed(self, look: Look, now: float) -> None:
        self.last_error = self._asked = None
        self._gaps.has_failed = False
        self._schedule.succeed()
        if isinstance(look, (FirstLook, DoubtLook)):
            self._doubt_looked(look, now)
        elif isinstance(look, Sweep):
            self._gaps.is_searched = True
        if not isinstance(look, DoubtLook):
            self._confirm_amounts(look)
        if isinstance(look, (FirstLook, DoubtLook, LateLook)):
            self._judge.note_listed(look)
            # REST trails by at most LATE, so a look shows all that had happened so long before it began.
            began = self._gaps.clock.at(look.began)
            if began is not None:
                self._known_for_later = max(self._known_for_later or 0, began - OVERLAP_MS)
        self._publish()
        self._begin_next(now)

    def _doubt_looked(self, look: Look, now: float) -> None:
        """Go on after a complete look for the doubt: settle the doubt, or let another look come."""
        gaps, doubt, tally = self._gaps, self._gaps.doubt, self._tally
        assert doubt is not None
        assert tally is not None
        gaps.was_read = True
        self._end_holding()
        tally.add(look)
        if not self._schedule.settles(look):
            self._schedule.repeat(now)
            return
        unlisted: tuple[str, ...] = ()
        if isinstance(look, DoubtLook):
            self._tracker.confirm_amounts(look.records.values())
            unlisted = tuple(sorted(id_ for id_ in look.wanted if self._tracker.is_open(id_)))
            self._tracker.set_unlisted(unlisted)
        known_until = gaps.known_until(look.began)
        gaps.settle(now)
        is_blind = self._schedule.settled(doubt.until, known_until, is_mild=doubt.is_mild)
        error = RestError("nothing tells up to when everything was known before the gap") if is_blind else None
        self._reports.append(tally.report(doubt.gaps, now, resolved=not is_blind, error=error, unlisted=unlisted))
        self._tally = None

    def _confirm_amounts(self, look: Look) -> None:
        """Take for certain what a look says of the amounts of orders that REST has known for long enough."""
        if (began := self._gaps.clock.at(look.began)) is not None:
            long_ago = began - OVERLAP_MS
            records = look.records.values()
            self._tracker.confirm_amounts(r for r in records if (milliseconds(r.updated_at) or began) <= long_ago)

    def _fail(self, look: Look, error: AggStreamError, now: float, *, is_passing: bool) -> None:
        self.last_error = error
        self._asked = None
        failures = self._schedule.fail(now, error, is_passing=is_passing)
        if isinstance(look, (FirstLook, DoubtLook)):
            self._gaps.has_failed = True
            if self._holds_until is None or failures > 1:
                self._end_holding()
                self._report_failure(error, now)
        self._publish()

    def _report_failure(self, error: AggStreamError, now: float) -> None:
        """Tell that REST does not say what was missed: once for each doubt."""
        tally = self._tally
        if tally is not None and not tally.has_failed:
            tally.has_failed = True
            self._reports.append(tally.report(self._gaps.open, now, resolved=False, error=error))

    # --- events -----------------------------------------------------------------------------------------

    def _emit(self, event: UserEvent) -> None:
        """Deliver an event that REST tells: before the held events, but behind those that had happened first."""
        if not self._held.insert(event):
            self._put(event)

    def _put(self, event: Event) -> None:
        self._out.append((event, 0))

    def _end_holding(self) -> None:
        """Release the events that were held back. That costs nothing: what REST tells later is told once."""
        self._holds_until = None
        self._out += self._held.release()

    def _note_date(self, date_ms: int | None, now: float) -> None:
        if date_ms is not None:
            self._gaps.clock.read_date(date_ms, now)

    def _publish(self) -> None:
        self._tracker.set_continuity(self._gaps.continuity(), lost_gaps=self._gaps.lost)


def _is_refusal(error: AggStreamError) -> bool:
    """Return True if the REST API takes the request itself for wrong, and not the token or the moment."""
    return isinstance(error, RestError) and error.status in (400, 404, 422)
