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

What handlers are told of a record is decided by one function, `_judge`.
"""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Sequence
from typing import TypeAlias

import attrs

from aggstream._base.backoff import FullJitter, is_worth_retrying
from aggstream._base.deadline import nearest
from aggstream._base.times import milliseconds
from aggstream._delivery.queue_items import SizedEvent
from aggstream._stream.gaps import LATE, MARGIN, OVERLAP_MS, Gaps
from aggstream._stream.held_events import HeldEvents
from aggstream._stream.looks import DoubtLook, FirstLook, LateLook, Look, Search, Sweep
from aggstream.errors import AggStreamError, RestError
from aggstream.events import DecodeFailed, Event, Gap, Reconciled, UserEvent, normal_form, order_event_kind
from aggstream.events._records import Balances, OrderRecord, OrdersPage
from aggstream.health import Counters
from aggstream.orders._state import Telling
from aggstream.orders._tracker import Tracker
from aggstream.rest._as_event import as_event
from aggstream.rest._options import RestOptions

logger = logging.getLogger("aggstream.stream")

# So many failures in a row that the pauses are as long as they get.
_FOR_LONG = 16
# While suspects are left, looks are repeated so many seconds after the doubt.
_REPEATED_AFTER = (2.0, 6.0, 14.0, 30.0)
# Doubts that messages raise one after the other are looked at ever less often, up to so many seconds.
_LONGEST_PAUSE = 60.0
_MOST_LATE_LOOKS = 8
# An order whose last word nobody knows may have ended. It is sought for so long, and then no more: if it is the
# service's word for an end, there are ever more such orders.
_UNCLEAR_FOR_MS = 3_600_000
# So many of the newest orders of a look are kept, to know what stands above them in a later one.
_MOST_LISTED = 200


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


@attrs.define(eq=False)
class _Late:
    """A late look that is to come."""

    at: float
    known_until: int | None
    is_mild: bool
    """True for the first sign-in's: a later process need not do it in this one's place."""


@attrs.define(eq=False)
class _Tally:
    """What the looks of one doubt came to."""

    began: float
    orders: set[str] = attrs.field(factory=set)
    pages: int = 0
    changed: int = 0
    has_failed: bool = False
    """True once handlers were told that REST does not answer."""


class CatchUp:
    """Decides when REST is read, and what is told of it. It belongs to the I/O thread.

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
        """Make one.

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
        self._pauses = pauses
        self._rest_lag = rest_lag
        self._name = name
        self._user_id: str | None = None
        self._out: list[SizedEvent] = []
        self._reports: list[Reconciled] = []
        self._found: list[str] = []
        self._held = HeldEvents(most=most_held, most_size=most_held_size)
        self._holds_until: float | None = None
        self._look: Look | None = None
        self._asked: Read | None = None
        # Of the doubt that is there: what its looks came to, when the next one is due, and how many were repeated.
        self._tally: _Tally | None = None
        self._due_at: float | None = None
        self._repeated = 0
        # How often in a row messages have raised a doubt, and when one was last looked at for it.
        self._doubtful_messages = 0
        self._doubted_at = self._looked_at = 0.0
        # True if there is a gap, and nothing tells what was known before it.
        self._is_blind = False
        # A sweep that had to make way for another look.
        self._sweep: Sweep | None = None
        # The newest orders of the last complete look; None before it.
        self._listed: frozenset[str] | None = None
        self._known_for_later: int | None = None
        self._late: list[_Late] = []
        # Told by nobody yet, and until when somebody may still tell.
        self._owed: set[str] = set()
        self._owed_until: float | None = None
        self._wanted: set[str] = set()
        self._is_filter_reliable = True
        self._balances: Balances | None = None
        self._failures = 0
        self._retry_at: float | None = None

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
        self._retry_at = None
        if self._options is None:
            if gap is not None:
                gaps.raise_doubt(now, set(), gap=gap)
                self._put(Reconciled(gaps=gaps.give_up_all(now), resolved=False))
        elif is_first and gap is None:
            gaps.raise_doubt(now, set(), is_mild=True)
            self._begin_doubt(now, holds=False)
        elif gap is not None or gaps.doubt is not None or not gaps.was_read:
            self._is_blind = self._is_blind or is_first
            gaps.raise_doubt(now, self._tracker.open_orders(), gap=gap)
            self._begin_doubt(now, holds=True)
        self._publish()

    def disconnected(self, heard_at: float) -> None:
        """Stop reading: the connection is gone. The events that were held back are released.

        Args:
            heard_at: the moment of the last sign of life.
        """
        self._gaps.disconnected(heard_at)
        self._drop_look()
        self._retry_at = None
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
        # A server may send such a message each second: they share one look, and the pauses between looks grow.
        if now - self._doubted_at > LATE:
            self._doubtful_messages = 0
        self._doubted_at = now
        self._doubtful_messages += 1
        again = self._doubtful_messages - 2
        at = now if again < 0 else max(now, self._looked_at + min(2.0 ** min(again, 6), _LONGEST_PAUSE))
        if is_new:
            self._tally = _Tally(now)
            self._repeated = 0
            self._due_at = at
        elif self._due_at is None or self._due_at > at:
            self._due_at = at
        self._begin_next(now)
        self._publish()

    def search_for(self, order_id: str, now: float) -> None:
        """Search REST for an order that nothing is known of, and that a program waits for."""
        if self._options is not None:
            self._wanted.add(order_id)
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
        self._out.clear()
        self._reports.clear()
        self._found.clear()
        self._late.clear()
        self._owed.clear()
        self._wanted.clear()
        self._balances = self._retry_at = self._due_at = self._owed_until = self.last_error = self._tally = None
        self._listed = self._sweep = self._known_for_later = None
        self._failures = self._doubtful_messages = 0
        self._looked_at = self._doubted_at = 0.0
        self._is_blind = False
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
                self._be_blind(look)
                look = self._look
                assert look is not None
        for problem in page.problems:
            look.problem = problem
            self._put(DecodeFailed(text="", error=problem, received_ns=wall_ns))
        if isinstance(look, Sweep) and not self._is_as_filtered(look, page):
            logger.info("%s: the REST API does not filter orders by status: all pages are read", self._name)
            self._is_filter_reliable = False
            look.go_without_filter()
            self._publish()
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
            self._is_filter_reliable = False
            look.go_without_filter()
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
        look = self._look
        if look is None or self._asked is not None:
            return None
        self._asked = ReadBalances() if look.orders_read else ReadOrders(look.cursor, look.status)
        return self._asked

    def awaits(self, read: Read) -> bool:
        """Return True if the answer to this is still wanted."""
        return read is self._asked

    def next_deadline(self) -> float | None:
        """Return when `handle_deadline` should be called; None: no need."""
        return nearest(
            self._holds_until, self._owed_until if self._gaps.doubt is None else None, self._next_look_at()
        )

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
        return (
            (doubt is not None and not doubt.is_mild)
            or self._gaps.lost > 0
            or any(not late.is_mild for late in self._late)
        )

    @property
    def known_for_later(self) -> int | None:
        """The service's time, in milliseconds, before which a later process need not look; None: unknown."""
        return self._known_for_later

    # --- looks ------------------------------------------------------------------------------------------

    def _begin_doubt(self, now: float, *, holds: bool) -> None:
        """Look at once. Events are held back for the first look of a doubt, and never for longer than told."""
        self._drop_look()
        self._tally = self._tally or _Tally(now)
        self._repeated = 0
        self._due_at = now
        self._retry_at = None
        self._holds_until = now + self._hold_timeout if holds else None
        self._begin_next(now)

    def _next_look_at(self) -> float | None:
        """Return when the next look begins; None if none is due, or one goes on that must end first."""
        if not self._gaps.is_connected or self._options is None:
            return None
        if self._look is not None and not isinstance(self._look, Sweep):
            return None
        at = nearest(self._due_at, *(late.at for late in self._late))
        if self._look is None and (self._wanted or self._must_sweep()):
            at = -math.inf
        return at if at is None or self._retry_at is None else max(at, self._retry_at)

    def _must_sweep(self) -> bool:
        return self._gaps.was_read and not self._gaps.is_searched

    def _begin_next(self, now: float) -> None:
        """Begin the look that is due, if there is one. A sweep makes way for any other, and goes on after it."""
        at = self._next_look_at()
        if at is None or now < at:
            return
        self._retry_at = None
        self._put_off_sweep()
        self._asked = None
        self._look = self._look_due(now)
        self._publish()

    def _look_due(self, now: float) -> Look:
        known_until = self._gaps.known_until(now)
        if self._due_at is not None and now >= self._due_at:
            return self._doubt_look(now)
        late = min(self._late, key=lambda late: late.at, default=None)
        if late is not None and now >= late.at:
            wanted = self._sought(late.known_until)
            return LateLook(began=now, known_until=late.known_until, overlap_ms=OVERLAP_MS, wanted=wanted)
        if self._wanted:
            wanted = set(self._wanted)
            return Search(began=now, wanted=wanted, looked_for=frozenset(wanted), known_until=known_until)
        sweep, self._sweep = self._sweep, None
        # An order that has ended meanwhile is not among those that are open.
        is_filter_enough = self._is_filter_reliable and not self._gaps.had_doubt
        if sweep is None or (sweep.is_filtered and not is_filter_enough):
            sweep = Sweep(began=now, known_until=known_until)
            if is_filter_enough:
                sweep.begin_next()
            else:
                sweep.go_without_filter()
        return sweep

    def _put_off_sweep(self) -> None:
        if isinstance(self._look, Sweep):
            self._sweep, self._look = self._look, None

    def _doubt_look(self, now: float) -> Look:
        doubt = self._gaps.doubt
        assert doubt is not None
        self._looked_at = now
        known_until = self._gaps.known_until(now)
        if doubt.is_mild or self._is_blind:
            looked_for = frozenset(self._wanted)
            return FirstLook(began=now, wanted=self._tracker.open_orders() | looked_for, looked_for=looked_for)
        settles = now >= doubt.until + self._rest_lag
        wanted = {id_ for id_ in doubt.suspects if self._tracker.is_open(id_)} | self._tracker.doubtful_orders()
        wanted |= self._unclear(known_until)
        return DoubtLook(
            began=now,
            known_until=known_until,
            overlap_ms=OVERLAP_MS,
            wanted=wanted,
            settles=settles,
            reads_balances=settles or not self._repeated,
        )

    def _be_blind(self, look: DoubtLook) -> None:
        """Go on as if nothing had been known before: nothing tells the service's time."""
        self._is_blind = True
        self._look = FirstLook(began=look.began, wanted=look.wanted)

    def _sought(self, known_until: int | None) -> set[str]:
        """Return the orders that may have ended unseen."""
        return self._tracker.open_orders() | self._unclear(known_until)

    def _unclear(self, known_until: int | None) -> set[str]:
        return self._tracker.unclear_orders(None if known_until is None else known_until - _UNCLEAR_FOR_MS)

    def _answered(self, read: Read) -> Look | None:
        if read is not self._asked:
            return None
        self._asked = None
        return self._look

    def _is_as_filtered(self, look: Sweep, page: OrdersPage) -> bool:
        """Return True unless the page holds an order of another status than was asked for."""
        if look.status is None:
            return True
        wanted = normal_form(look.status)
        return all(normal_form(record.status) == wanted for record in page.orders)

    def _fold_page(self, look: Look, page: OrdersPage, now: float, wall_ns: int) -> None:
        """Fold the orders of a page that the look is about, and emit what is news of them."""
        assert self._options is not None
        records = [it for it in page.orders if not isinstance(look, Search) or it.id in look.wanted]
        before = look.changed
        new = [record.id for record in records if not self._tracker.knows(record.id)]
        told, owed = self._tracker.fold_records(
            records,
            now,
            status_of=self._status_of,
            judge=lambda record, known, more: self._judge(look, record, now, is_known=known, says_more=more),
            one_unit=self._options.amounts_in_one_unit,
        )
        for record in told:
            named_as = self._options.status_names.get(normal_form(record.status), "")
            self._emit(
                as_event(
                    record, wall_ns, self._user_id, named_as=named_as, one_unit=self._options.amounts_in_one_unit
                )
            )
        look.changed += len(told)
        if owed:
            self._owed.update(owed)
            self._owed_until = now + LATE
        if isinstance(look, LateLook) and look.changed > before:
            logger.warning("%s: REST trailed the stream by more than rest_lag (%g s)", self._name, self._rest_lag)
        ids = {record.id for record in told}
        found = [id_ for id_ in new if id_ not in ids and self._tracker.is_open(id_)]
        self._found += found
        if (doubt := self._gaps.doubt) is not None and not doubt.is_mild:
            doubt.suspects.update(id_ for id_ in new if self._tracker.is_open(id_))

    def _judge(self, look: Look, record: OrderRecord, now: float, *, is_known: bool, says_more: bool) -> Telling:
        """Decide whether handlers are told of a record. It is the one place where that is decided."""
        gaps = self._gaps
        changed = milliseconds(record.updated_at or record.created_at)
        if changed is not None and not gaps.clock.is_time(changed, now):
            changed = None
        history_until = gaps.history_until
        if changed is not None and history_until is not None and changed <= history_until:
            return "never"
        if isinstance(look, FirstLook):
            return "never" if changed is None else "later"
        if isinstance(look, (Search, Sweep)) and gaps.doubt is None:
            # The stream is about to tell, or has nothing to tell; but of an order that was open before anything
            # was known, and ended in a gap, nothing else tells.
            is_lost = isinstance(look, Sweep) and says_more and self._has_ended(record) and self._is_old(record)
            return "now" if is_lost else "later"
        is_above = changed is None and self._is_above_listed(look, record)
        if is_known:
            return "now" if says_more else "never"
        return "now" if is_above or self._is_news(look, record, changed) else "never"

    def _is_news(self, look: Look, record: OrderRecord, changed: int | None) -> bool:
        """Return True if an order that nothing was known of may have come about unseen.

        Args:
            look: the look that has read it.
            record: what REST says of it.
            changed: the service's time, in milliseconds, when it last changed; None if nothing tells.
        """
        if changed is None:
            return False
        # What a late look still owes is told by whichever look finds it first.
        known = [at for at in (look.known_until, *(late.known_until for late in self._late)) if at is not None]
        if not known or changed > min(known) - OVERLAP_MS:
            return True
        return self._is_old(record)

    def _is_old(self, record: OrderRecord) -> bool:
        """Return True if an order is older than all that is known, and was not searched for yet."""
        created, history_until = milliseconds(record.created_at), self._gaps.history_until
        is_old = created is not None and history_until is not None and created <= history_until
        return is_old and not self._gaps.is_searched

    def _is_above_listed(self, look: Look, record: OrderRecord) -> bool:
        """Return True if a record without a time stands above the newest orders of the last complete look."""
        if self._listed is None:
            return False
        look.is_below_listed = look.is_below_listed or record.id in self._listed
        return not look.is_below_listed

    def _succeed(self, look: Look, now: float) -> None:
        self._failures = 0
        self.last_error = None
        gaps = self._gaps
        self._look = self._asked = None
        gaps.has_failed = False
        if isinstance(look, (FirstLook, DoubtLook)):
            self._doubt_looked(look, now)
        elif isinstance(look, LateLook):
            self._late = [late for late in self._late if late.at > look.began]
        elif isinstance(look, Sweep):
            gaps.is_searched = True
        self._wanted -= look.looked_for
        if isinstance(look, (FirstLook, DoubtLook, LateLook)):
            self._listed = frozenset(itertools.islice(look.records, _MOST_LISTED))
            self._remember_known(look)
        self._publish()
        self._begin_next(now)

    def _remember_known(self, look: Look) -> None:
        # REST trails by at most LATE, so a look shows all that had happened so long before it began.
        began = self._gaps.clock.at(look.began)
        if began is not None:
            self._known_for_later = max(self._known_for_later or 0, began - OVERLAP_MS)

    def _doubt_looked(self, look: Look, now: float) -> None:
        """Go on after a complete look for the doubt: settle it, or say when the next look is due."""
        gaps, doubt, tally = self._gaps, self._gaps.doubt, self._tally
        assert doubt is not None
        assert tally is not None
        gaps.was_read = True
        self._end_holding()
        tally.orders |= look.records.keys()
        tally.pages += look.pages
        tally.changed += look.changed
        lag = 0.0 if isinstance(look, FirstLook) else self._rest_lag
        settles = look.began >= doubt.until + lag
        if not settles:
            self._due_at = self._repeat_at(doubt.until, doubt.suspects, now)
            self._repeated += 1
            return
        unlisted: tuple[str, ...] = ()
        if isinstance(look, DoubtLook):
            self._tracker.confirm_amounts(look.records.values())
            unlisted = tuple(sorted(id_ for id_ in look.wanted if self._tracker.is_open(id_)))
            self._tracker.set_unlisted(unlisted)
        known_until = gaps.known_until(look.began)
        until = gaps.settle(now).until
        is_blind, self._is_blind = self._is_blind, False
        self._due_at = self._tally = None
        self._add_late_look(until + LATE + MARGIN, known_until, is_mild=doubt.is_mild)
        self._reports.append(
            Reconciled(
                gaps=doubt.gaps,
                resolved=not is_blind,
                error=RestError("nothing tells up to when everything was known before the gap")
                if is_blind
                else None,
                orders=len(tally.orders),
                pages=tally.pages,
                changed=tally.changed,
                took=now - tally.began,
                unlisted=unlisted,
            )
        )

    def _repeat_at(self, until: float, suspects: set[str], now: float) -> float:
        """Return when the doubt is looked at again."""
        settling = until + self._rest_lag + MARGIN
        if any(self._tracker.is_open(order_id) for order_id in suspects):
            again = next((until + after for after in _REPEATED_AFTER if until + after > now), settling)
            return min(again, settling)
        return settling

    def _add_late_look(self, at: float, known_until: int | None, *, is_mild: bool) -> None:
        if len(self._late) >= _MOST_LATE_LOOKS:
            last = self._late[-1]
            last.at, last.is_mild = at, last.is_mild and is_mild
            if last.known_until is not None:
                last.known_until = None if known_until is None else min(last.known_until, known_until)
        else:
            self._late.append(_Late(at, known_until, is_mild))

    def _fail(self, look: Look, error: AggStreamError, now: float, *, is_passing: bool) -> None:
        self.last_error = error
        self._look = self._asked = None
        self._sweep = None
        is_for_doubt = isinstance(look, (FirstLook, DoubtLook))
        # An error that asking again does not mend is asked about as rarely as if it had failed for long.
        self._failures += 1 if is_passing else _FOR_LONG
        self._retry_at = now + self._pauses.pause(self._failures, getattr(error, "retry_after", None))
        if is_for_doubt:
            self._gaps.has_failed = True
            if self._holds_until is None or self._failures > 1:
                self._end_holding()
                self._report_failure(error, now)
        self._publish()

    def _report_failure(self, error: AggStreamError, now: float) -> None:
        """Tell that REST does not say what was missed: once for each doubt."""
        tally = self._tally
        if tally is None or tally.has_failed:
            return
        tally.has_failed = True
        self._reports.append(
            Reconciled(
                gaps=self._gaps.open,
                resolved=False,
                orders=len(tally.orders),
                pages=tally.pages,
                changed=tally.changed,
                took=now - tally.began,
                error=error,
            )
        )

    def _drop_look(self) -> None:
        self._put_off_sweep()
        self._look = self._asked = None
        self._end_holding()

    def _end_holding(self) -> None:
        """Release the events that were held back. That costs nothing: what REST tells later is told once."""
        self._holds_until = None
        self._out += self._held.release()

    # --- events -----------------------------------------------------------------------------------------

    def _emit(self, event: UserEvent) -> None:
        """Deliver an event that REST tells: before the held events, but behind those that had happened first."""
        if not self._held.insert(event):
            self._put(event)

    def _put(self, event: Event) -> None:
        self._out.append((event, 0))

    def _status_of(self, record: OrderRecord) -> str:
        assert self._options is not None
        name = normal_form(record.status)
        return normal_form(self._options.status_names.get(name, name))

    def _has_ended(self, record: OrderRecord) -> bool:
        kind = order_event_kind(self._status_of(record))
        return kind is not None and kind.is_terminal

    def _note_date(self, date_ms: int | None, now: float) -> None:
        if date_ms is not None:
            self._gaps.clock.read_date(date_ms, now)

    def _publish(self) -> None:
        self._tracker.set_continuity(self._gaps.continuity(), lost_gaps=self._gaps.lost)


def _is_refusal(error: AggStreamError) -> bool:
    """Return True if the REST API takes the request itself for wrong, and not the token or the moment."""
    return isinstance(error, RestError) and error.status in (400, 404, 422)
