"""Closing gaps from the REST API, without I/O: no socket, no clock, no randomness, no lock.

Events pass it on their way from the session to the handlers. A look at REST goes:

1. Live events are held back.
2. The state is read: orders, the newest first, as far back as anything may have changed; then balances.
3. What had changed is delivered, as events with `source="reconcile"`.
4. The held events are released, and from there on they pass through.

The first look reads the newest orders only; the older ones are searched in the background for those that are open.

Live events are folded into the tracker as they come, held or not, so that a record is only news if it says more
than all that had come when it was read; and a live event is only a repeat if a record was delivered for it. So an
order's events stay in order, and its end is delivered once, whichever way is faster.

If REST does not answer, the held events are released, the gap stays open, and REST is asked again and again, now
without holding anything back.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import attrs

from aggstream._base.backoff import FullJitter, is_worth_retrying
from aggstream._base.times import NS_PER_MS
from aggstream._delivery.queue_items import SizedEvent
from aggstream._stream.gaps import Gaps
from aggstream._stream.held_events import HeldEvents
from aggstream._stream.looks import FirstLook, GapLook, Look, Search, Sweep
from aggstream.errors import AggStreamError, RestError
from aggstream.events import DecodeFailed, Event, Gap, Reconciled, UserEvent, order_event_kind
from aggstream.events._records import Balances, OrderRecord, OrdersPage
from aggstream.health import Continuity, Counters
from aggstream.orders._tracker import Tracker
from aggstream.rest._as_event import as_event
from aggstream.rest._options import RestOptions

# So many failures in a row that the pauses are as long as they get.
_FOR_LONG = 16


@attrs.frozen(eq=False, repr=False)
class ReadOrders:
    """Read a page of orders."""

    cursor: str | None


@attrs.frozen(eq=False, repr=False)
class ReadBalances:
    """Read the balances."""


Read: TypeAlias = "ReadOrders | ReadBalances"
"""A question to REST. Its answer names it, so that an answer that comes too late is known by it."""


class CatchUp:
    """Decides when REST is read, and what is told of it. It belongs to the I/O thread.

    `now` is in seconds on any monotonic clock.
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
    ) -> None:
        """Make one.

        Args:
            tracker: what is known of each order.
            gaps: what may have been missed.
            options: how REST is read; None: there is no REST, so a gap stays a gap.
            counters: count the repeats.
            hold_timeout: seconds for which live events are held back at most.
            most_held: how many events are held before reading from the socket should wait.
            most_held_size: the size of their messages, in bytes, at which it should as well.
            pauses: tells how long to wait before REST is asked again.
        """
        self.last_error: AggStreamError | None = None
        """Why the last look failed; None if it did not."""
        self.is_holding = False
        """True while live events are held back."""
        self._tracker = tracker
        self._gaps = gaps
        self._options = options
        self._counters = counters
        self._hold_timeout = hold_timeout
        self._pauses = pauses
        self._out: list[SizedEvent] = []
        self._found: list[str] = []
        self._held = HeldEvents(most=most_held, most_size=most_held_size)
        self._look: Look | None = None
        self._asked: Read | None = None
        # The page after those of the first look; None once all further ones were searched for open orders.
        self._sweep_from: str | None = None
        self._wanted: set[str] = set()
        self._balances: Balances | None = None
        self._failures = 0
        self._retry_at: float | None = None

    # --- in ---------------------------------------------------------------------------------------------

    def connected(self, now: float, wall_ms: int, gap: Gap | None) -> None:
        """Begin to catch up: a connection is live.

        Args:
            now: monotonic seconds.
            wall_ms: the time of this machine, in milliseconds since the epoch.
            gap: what may have been missed before it; None if nothing was.
        """
        self._gaps.connected(wall_ms, gap)
        if self._options is not None:
            self._begin_reading(now, holds=True)
            return
        if gap is not None:
            self._put(Reconciled(gaps=self._gaps.give_up_all(), resolved=False))
        self._publish()

    def disconnected(self) -> None:
        """Stop reading: the connection is gone. The events that were held back are released."""
        self._note_what_is_known()
        self._gaps.is_connected = self._gaps.is_caught_up = False
        self._end_look()
        self._retry_at = None
        self._publish()

    def overflowed(self, now: float) -> None:
        """Look at REST again: the handlers were so far behind that the server had to wait, and it may not have."""
        is_idle = self._look is None or not self._look.reads_balances
        if self._gaps.is_connected and self._options is not None and is_idle and not self._gaps.open:
            self._note_what_is_known()
            self._begin_reading(now, holds=True)

    def search_for(self, order_id: str, now: float) -> None:
        """Search REST for an order that nothing is known of, and that a program waits for."""
        if self._options is not None:
            self._wanted.add(order_id)
            self._begin_next(now)

    def stopped(self, gap: Gap | None) -> None:
        """Give up the gaps that are open: the stream ends.

        Args:
            gap: the one that the stream ends in; None if it ends in none.
        """
        self._end_look()
        if gap is not None:
            self._gaps.opened(gap)
        if self._gaps.open:
            self._put(Reconciled(gaps=self._gaps.give_up_all(), resolved=False, error=self.last_error))

    def forget(self) -> None:
        """Begin anew with another user."""
        self._end_look()
        self._out.clear()
        self._wanted.clear()
        self._sweep_from = self._balances = self._retry_at = self.last_error = None
        self._failures = 0
        self._gaps.forget()
        self._tracker.forget()
        self._publish()

    def passed(self, incoming: Sequence[SizedEvent], now: float) -> Sequence[SizedEvent]:
        """Take events from the session; return those that go on to the handlers now, in order.

        Repeats of what REST has told are dropped, and user events may be held back.
        """
        repeats = self._tracker.fold([event for event, _ in incoming], now)
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
        return passed

    def count_repeats(self, number: int) -> None:
        """Count events that are not delivered because the same fact was: found here, or in the journal."""
        self._counters.repeats += number

    def page_received(self, read: Read, page: OrdersPage, now: float, wall_ns: int) -> None:
        """Take a page of orders.

        Args:
            read: the question that it answers.
            page: the page.
            now: monotonic seconds.
            wall_ns: when it was read, in nanoseconds since the epoch.
        """
        look = self._answered(read)
        if look is None:
            return
        assert self._options is not None
        look.pages += 1
        look.orders += len(page.orders)
        for problem in page.problems:
            look.problem = problem
            self._put(DecodeFailed(text="", error=problem, received_ns=wall_ns))
        self._fold_page(look, page, now, wall_ns)
        look.page_read(page, self._tracker)
        if isinstance(look, Sweep) and look.cursor is not None:
            self._sweep_from = look.cursor
        try:
            look.orders_read = look.has_read_enough(self._options.max_pages)
        except RestError as error:
            self._fail(look, error, now, again=False)
            return
        if look.orders_read and not look.reads_balances:
            self._succeed(look, now)

    def balances_received(self, read: Read, balances: Balances, now: float, wall_ns: int) -> None:
        """Take the balances: the look is over. The arguments are those of `page_received`."""
        look = self._answered(read)
        if look is None:
            return
        known = self._balances
        has_changed = known is None or (balances.cash, balances.positions) != (known.cash, known.positions)
        if isinstance(look, GapLook) and has_changed:
            from aggstream.rest._snapshot import make_snapshot  # noqa: PLC0415  (with what reads REST)

            self._emit(make_snapshot(balances, wall_ns))
            look.changed += 1
        self._balances = balances
        self._succeed(look, now)

    def read_failed(self, read: Read, error: AggStreamError, now: float) -> None:
        """Take the failure of a question to REST."""
        look = self._answered(read)
        if look is None:
            return
        self.last_error = error
        pause = self._pause(error)
        if is_worth_retrying(error) and look.holds_until is not None and now + pause < look.holds_until:
            self._retry_at = now + pause
        else:
            self._fail(look, error, now)

    def handle_deadline(self, now: float) -> None:
        """Act on every deadline that has come."""
        if self._retry_at is not None and now >= self._retry_at:
            self._retry_at = None
            if self._look is None:
                self._begin_next(now)
        look = self._look
        if look is not None and look.holds_until is not None and now >= look.holds_until:
            problem = self.last_error or RestError("REST did not tell the state within catch_up_timeout")
            self._fail(look, problem, now)

    # --- out --------------------------------------------------------------------------------------------

    def events(self) -> list[SizedEvent]:
        """Return the events for the handlers since the last call, in order."""
        out, self._out = self._out, []
        return out

    def found(self) -> list[str]:
        """Return the orders, since the last call, that turned out to be open and that no event tells of."""
        found, self._found = self._found, []
        return found

    def request(self) -> Read | None:
        """Return, once, what is to be read next. Answer with `…_received` or `read_failed`."""
        if self._look is None or self._asked is not None or self._retry_at is not None:
            return None
        self._asked = ReadBalances() if self._look.orders_read else ReadOrders(self._look.cursor)
        return self._asked

    def awaits(self, read: Read) -> bool:
        """Return True if the answer to this is still wanted."""
        return read is self._asked

    def next_deadline(self) -> float | None:
        """Return when `handle_deadline` should be called; None: no need."""
        holds_until = None if self._look is None else self._look.holds_until
        return min((at for at in (self._retry_at, holds_until) if at is not None), default=None)

    @property
    def has_more_to_tell(self) -> bool:
        """True while REST has still to tell, this process or a later one, what was missed since some time."""
        return self._gaps.since is not None and self._tracker.continuity is not Continuity.LIVE

    def is_full(self) -> bool:
        """Return True if so much is held back that reading from the socket should wait."""
        return self._held.is_full()

    # --- a look -----------------------------------------------------------------------------------------

    def _begin_reading(self, now: float, *, holds: bool) -> None:
        """Begin a look at all that may have changed."""
        is_first = self._gaps.since is None
        self._gaps.is_caught_up = False
        self._begin(
            (FirstLook if is_first else GapLook)(
                began=now,
                gaps=self._gaps.open,
                news_after=self._gaps.news_after(now),
                holds_until=now + self._hold_timeout if holds else None,
                missing=self._tracker.open_orders(),
                wanted=set(self._wanted) if is_first else set(),
                looked_for=frozenset(self._wanted),
            )
        )

    def _begin_next(self, now: float) -> None:
        """Begin the look that is due, if there is one and nothing else goes on."""
        if not self._gaps.is_connected or self._look is not None or self._retry_at is not None:
            return
        looked_for = frozenset(self._wanted)
        if self._tracker.continuity is not Continuity.LIVE:
            self._begin_reading(now, holds=False)
        elif self._wanted:
            self._begin(Search(began=now, wanted=set(looked_for), looked_for=looked_for))
        elif self._sweep_from is not None:
            self._begin(Sweep(began=now, cursor=self._sweep_from, news_after=self._gaps.history_until))

    def _begin(self, look: Look) -> None:
        self._look = look
        self.is_holding = look.holds_until is not None
        self._asked = self._retry_at = None
        self._publish()

    def _answered(self, read: Read) -> Look | None:
        if read is not self._asked:
            return None
        self._asked = None
        return self._look

    def _fold_page(self, look: Look, page: OrdersPage, now: float, wall_ns: int) -> None:
        """Fold the orders of a page that the look is about, and emit what is news of them."""
        orders = [it for it in page.orders if look.is_of_interest(it, has_ended=self._has_ended(it))]
        told: set[str] = set()
        new = [record.id for record in orders if not self._tracker.knows(record.id)]
        for record in self._tracker.fold_records(
            orders,
            now,
            wall_ns // NS_PER_MS,
            status_of=self._status_of,
            is_news=lambda it, was_open: look.is_news(it, was_open=was_open, has_ended=self._has_ended(it)),
        ):
            self._emit(as_event(record, self._status_of(record), wall_ns))
            look.changed += 1
            told.add(record.id)
        self._found += (it for it in new if it not in told and self._tracker.is_open(it))

    def _succeed(self, look: Look, now: float) -> None:
        self._failures = 0
        self.last_error = None
        if isinstance(look, Sweep):
            self._sweep_from = None
        elif not isinstance(look, GapLook):
            self._wanted -= look.looked_for
        self._end_look()
        if look.reads_balances:
            self._report(look, now, None)
            self._gaps.since = self._tracker.known_until() or 0
            if isinstance(look, FirstLook):
                self._gaps.first_look_done(now)
                self._sweep_from = look.cursor
            self._gaps.closed(look.gaps)
        self._gaps.is_caught_up = True
        self._publish()
        self._begin_next(now)

    def _fail(self, look: Look, error: AggStreamError, now: float, *, again: bool = True) -> None:
        self.last_error = error
        self._end_look()
        # Of the repetitions only the one that succeeds is news.
        if look.holds_until is not None:
            self._report(look, now, error)
        if again:
            self._retry_at = now + self._pause(error)
        self._publish()

    def _end_look(self) -> None:
        """End the look, and release the events that were held back for it."""
        self._look = self._asked = None
        self.is_holding = False
        self._out += self._held.release()

    def _report(self, look: Look, now: float, error: AggStreamError | None) -> None:
        self._put(
            Reconciled(
                gaps=look.gaps,
                resolved=error is None,
                orders=look.orders,
                pages=look.pages,
                changed=look.changed,
                took=now - look.began,
                error=error,
            )
        )

    def _pause(self, error: AggStreamError) -> float:
        """Return how long to wait before REST is asked again."""
        # An error that asking again does not mend is asked about as rarely as if it had failed for long.
        self._failures += 1 if is_worth_retrying(error) else _FOR_LONG
        return self._pauses.pause(self._failures, getattr(error, "retry_after", None))

    # --- events -----------------------------------------------------------------------------------------

    def _emit(self, event: UserEvent) -> None:
        """Deliver an event that REST tells: before the held events, but behind those that had happened first."""
        if not self._held.insert(event):
            self._put(event)

    def _put(self, event: Event) -> None:
        self._out.append((event, 0))

    def _status_of(self, record: OrderRecord) -> str:
        assert self._options is not None
        name = record.status.lower().removeprefix("order_")
        return self._options.status_names.get(name, name)

    def _has_ended(self, record: OrderRecord) -> bool:
        kind = order_event_kind(self._status_of(record))
        return kind is not None and kind.is_terminal

    # --- continuity -------------------------------------------------------------------------------------

    def _note_what_is_known(self) -> None:
        if self._tracker.continuity is Continuity.LIVE:
            self._gaps.since = self._tracker.known_until() or 0

    def _publish(self) -> None:
        continuity = self._gaps.continuity(is_holding=self.is_holding)
        self._tracker.set_continuity(continuity, lost_gaps=self._gaps.lost)
