"""Closing gaps from the REST API, without I/O: no socket, no clock, no randomness, no lock.

It stands between the session and the handlers. A look at REST goes:

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

import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

import attrs

from aggstream._base.backoff import is_worth_retrying
from aggstream._base.json_text import to_json
from aggstream._base.times import NS_PER_MS, milliseconds
from aggstream.errors import AggStreamError, DecodeError, RestError
from aggstream.events import DecodeFailed, Event, Gap, OrderEvent, Reconciled, UserEvent, order_event_kind
from aggstream.events._records import Balances, OrderRecord, OrdersPage
from aggstream.health import Continuity
from aggstream.orders._tracker import Tracker
from aggstream.rest._options import RestOptions

# The clocks behind two timestamps of the service need not agree, nor what is read and what is sent.
_OVERLAP_MS = 60_000
# What had happened at the first look has come by then, if it is to come: the rest is from before this client.
_IN_FLIGHT = 5.0
_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 60.0


@attrs.frozen(eq=False, repr=False)
class ReadOrders:
    """Read a page of orders."""

    cursor: str | None


@attrs.frozen(eq=False, repr=False)
class ReadBalances:
    """Read the balances."""


Read: TypeAlias = "ReadOrders | ReadBalances"
"""What is to be read next; its answer names it, so that one that comes too late is nobody's."""

Outgoing: TypeAlias = "tuple[Event, int]"
"""An event for the handlers, and the size of its message."""


@attrs.define(eq=False, repr=False)
class _Held:
    event: UserEvent
    size: int
    # What a record told of its order after it had come.
    then: list[Event] = attrs.field(factory=list)


@attrs.define(eq=False, repr=False)
class _Look:
    """One look at REST."""

    began: float
    gaps: tuple[int, ...]
    since: int | None
    """The service's time up to which everything is known, in milliseconds; None: nothing is known."""
    after: int | None
    """The service's time after which something may be news; None: nothing is."""
    holds_until: float | None
    """When live events are no longer held back; None: they are not."""
    missing: set[str]
    """Orders that are known to be open: they must be found, however far back they are."""
    wanted: set[str]
    """Orders that nothing is known of, and that may not be there at all."""
    looked_for: frozenset[str] = frozenset()
    only: bool = False
    """Only the wanted ones are of interest, and nobody is told."""
    sweeps: bool = False
    """Orders that were open at the first look are of interest, however old they are."""
    problem: DecodeError | None = None
    """Why an order that was read is not understood."""
    cursor: str | None = None
    orders_read: bool = False
    reached: bool = False
    pages: int = 0
    orders: int = 0
    changed: int = 0


class Reconciler:
    """Belongs to the I/O thread. `now` is in seconds on any monotonic clock."""

    def __init__(
        self,
        tracker: Tracker,
        options: RestOptions | None,
        *,
        hold_timeout: float,
        most_held: int,
        most_held_size: int,
        jitter: Callable[[], float],
    ) -> None:
        """Make one.

        Args:
            tracker: what is known.
            options: how REST is read; None: there is no REST, so a gap stays a gap.
            hold_timeout: seconds for which live events are held back at most.
            most_held: how many events are held before reading from the socket should wait.
            most_held_size: the size of their messages at which it should as well.
            jitter: gives numbers between 0 and 1, for pauses.
        """
        self.repeats = 0
        """Live events that were not delivered, because they were delivered as `source="reconcile"` before."""
        self.last_error: AggStreamError | None = None
        """Why the last look failed; None if it did not."""
        self._tracker = tracker
        self._options = options
        self._hold_timeout = hold_timeout
        self._most_held = most_held
        self._most_held_size = most_held_size
        self._jitter = jitter
        self._out: list[Outgoing] = []
        self._found: list[str] = []
        self._held: list[_Held] = []
        self._held_size = 0
        self._held_of: dict[str, list[_Held]] = {}
        self._look: _Look | None = None
        self._asked: Read | None = None
        self.is_connected = False
        """True while a connection of the present user's is live."""
        self._gaps: list[int] = []
        self._lost_gaps = 0
        # Up to when everything was known when something last may have been missed.
        self._since: int | None = None
        self._first_ms: int | None = None
        # What was known when it was over, and when that was.
        self._first_look: tuple[int, float] | None = None
        # The page after those of the first look; None once all further ones were searched for open orders.
        self._sweep_from: str | None = None
        self._wanted: set[str] = set()
        self._balances: Balances | None = None
        self._failures = 0
        self._retry_at: float | None = None

    # --- in ---------------------------------------------------------------------------------------------

    def known_before(self, timestamp: int | None, history_until: int | None = None) -> None:
        """An earlier process knew everything up to a time of the service's, in milliseconds.

        Args:
            timestamp: that time.
            history_until: what the first process of all found to be over before it began; None if it did not look.
        """
        self._since = timestamp
        self._first_look = None if history_until is None else (history_until, -math.inf)

    def connected(self, now: float, wall_ms: int, gap: Gap | None) -> None:
        """A connection is live.

        Args:
            now: monotonic seconds.
            wall_ms: the time of this machine, in milliseconds since the epoch.
            gap: what may have been missed before it, if something may have.
        """
        self.is_connected = True
        self._first_ms = wall_ms if self._first_ms is None else self._first_ms
        if gap is not None:
            self._gaps.append(gap.number)
            # If nothing was ever known, then at least what is older than the first connection is no news.
            self._since = self._first_ms if self._since is None else self._since
        if self._options is not None:
            self._begin(now, self._since, holds=True)
            return
        if gap is not None:
            self._lost_gaps += 1
            self._put(Reconciled(gaps=self._take_gaps(), resolved=False))
        self._publish()

    def disconnected(self) -> None:
        """The connection is gone. What was held back had come all the same."""
        self._note_what_is_known()
        self.is_connected = False
        self._end_look()
        self._retry_at = None
        self._publish()

    def overflowed(self, now: float) -> None:
        """The handlers were so far behind that the server had to wait, and it may not have waited."""
        is_idle = self._look is None or self._look.only
        if self.is_connected and self._options is not None and is_idle and not self._gaps:
            self._note_what_is_known()
            self._begin(now, self._since, holds=True)

    def look_up(self, order_id: str, now: float) -> None:
        """Somebody waits for an order that nothing is known of."""
        if self._options is not None:
            self._wanted.add(order_id)
            self._begin_next(now)

    def stopped(self, gap: Gap | None) -> None:
        """The stream ends: what is open stays open, with the gap that it ends in, if it does."""
        self._end_look()
        if gap is not None:
            self._gaps.append(gap.number)
        if self._gaps:
            self._put(Reconciled(gaps=self._take_gaps(), resolved=False, error=self.last_error))

    def forget(self) -> None:
        """Another user's stream begins."""
        self._end_look()
        self._out.clear()
        self.is_connected = False
        self._gaps.clear()
        self._wanted.clear()
        self._since = self._first_ms = self._first_look = self._sweep_from = None
        self._balances = self._retry_at = self.last_error = None
        self._lost_gaps = self._failures = 0
        self._tracker.forget()

    def receive(self, incoming: Sequence[Outgoing], now: float) -> None:
        """Take what came from the session, in order: events, and the sizes of their messages."""
        repeats = self._tracker.fold([event for event, _ in incoming], now)
        holds = self._look is not None and self._is_holding()
        if not (repeats or holds):
            self._out += incoming
            return
        for at, (event, size) in enumerate(incoming):
            if at in repeats:
                self.repeats += 1
            elif holds and isinstance(event, UserEvent):
                self._hold(event, size)
            else:
                self._out.append((event, size))

    def page_received(self, read: Read, page: OrdersPage, now: float, wall_ns: int) -> None:
        """A page of orders was read."""
        look = self._answered(read)
        if look is None:
            return
        look.pages += 1
        look.orders += len(page.orders)
        for problem in page.problems:
            look.problem = problem
            self._put(DecodeFailed(text="", error=problem, received_ns=wall_ns))
        # Who looks for one order is not told of others: the stream may be about to.
        orders = [order for order in page.orders if self._is_of_interest(look, order)]
        told: set[str] = set()
        new = [record.id for record in orders if not self._tracker.knows(record.id)]
        for record in self._tracker.fold_records(
            orders,
            now,
            wall_ns // NS_PER_MS,
            status_of=self._status_of,
            is_news=lambda record, was_open: self._is_news(look, record, was_open=was_open),
        ):
            self._tell(_event_of(record, self._status_of(record), wall_ns))
            look.changed += 1
            told.add(record.id)
        self._found += (it for it in new if it not in told and self._tracker.is_open(it))
        found = {record.id for record in page.orders}
        look.missing -= found
        look.wanted -= found
        look.reached = look.reached or self._reaches_far_enough(look, page)
        look.cursor = page.next_cursor
        if look.sweeps and look.cursor is not None:
            self._sweep_from = look.cursor
        assert self._options is not None
        is_done = look.reached and not look.missing
        is_last = look.pages >= self._options.max_pages
        if look.cursor is None and look.missing and look.problem is not None:
            words = f"an order that has not ended may be the one that is not understood: {look.problem}"
            self._fail(look, RestError(words), now, again=False)
        elif look.cursor is None or (is_done and (is_last or not look.wanted)) or (look.sweeps and is_last):
            look.orders_read = True
            if look.only:
                self._succeed(look, now)
        elif is_last:
            words = f"what may have changed is further back than {look.pages} pages: see max_pages"
            self._fail(look, RestError(words), now, again=False)

    def balances_received(self, read: Read, balances: Balances, now: float, wall_ns: int) -> None:
        """The balances were read: the look is over."""
        look = self._answered(read)
        if look is None:
            return
        has_changed = self._balances is None or (balances.cash, balances.positions) != (
            self._balances.cash,
            self._balances.positions,
        )
        if look.since is not None and has_changed:
            from aggstream.rest._snapshot import make_snapshot  # noqa: PLC0415  (with what reads REST)

            self._tell(make_snapshot(balances, wall_ns))
            look.changed += 1
        self._balances = balances
        self._succeed(look, now)

    def read_failed(self, read: Read, error: AggStreamError, now: float) -> None:
        """Reading did not work."""
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

    def events(self) -> list[Outgoing]:
        """Return what is for the handlers since the last call, in order."""
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
        """Tell whether the answer to this is still wanted."""
        return read is self._asked

    def next_deadline(self) -> float | None:
        """Return when `handle_deadline` should be called; None: no need."""
        holds_until = None if self._look is None else self._look.holds_until
        return min((at for at in (self._retry_at, holds_until) if at is not None), default=None)

    @property
    def history_until(self) -> int | None:
        """The service's time up to which all was over before anybody looked; None if nobody has looked yet."""
        return None if self._first_look is None else self._first_look[0]

    @property
    def is_behind(self) -> bool:
        """True while REST has still to tell, this process or a later one, what was missed since some time."""
        return self._since is not None and self._tracker.continuity is not Continuity.LIVE

    def is_full(self) -> bool:
        """Tell whether so much is held back that reading from the socket should wait."""
        return len(self._held) >= self._most_held or self._held_size >= self._most_held_size

    # --- a look -----------------------------------------------------------------------------------------

    def _begin(self, now: float, since: int | None, *, holds: bool, only: bool = False) -> _Look:
        self._look = look = _Look(
            began=now,
            gaps=() if only else tuple(self._gaps),
            since=since,
            after=self._after(since, now),
            holds_until=now + self._hold_timeout if holds else None,
            missing=set() if only else self._tracker.open_orders(),
            wanted=set() if since is not None else set(self._wanted),
            looked_for=frozenset(self._wanted),
            only=only,
        )
        self._asked = self._retry_at = None
        self._publish()
        return look

    def _after(self, since: int | None, now: float) -> int | None:
        """Return where to begin to look for news: a while before what is known, but not before the first look.

        What was over then is history, and a program must not take it for what happens now.
        """
        if since is None or self._first_look is None:
            return None if since is None else since - _OVERLAP_MS
        known_until, at = self._first_look
        in_flight = max(0.0, _IN_FLIGHT - (now - at))
        return max(since - _OVERLAP_MS, known_until - round(in_flight * 1000))

    def _begin_next(self, now: float) -> None:
        """Begin the look that is due, if there is one and nothing else goes on."""
        if not self.is_connected or self._look is not None or self._retry_at is not None:
            return
        if self._tracker.continuity is not Continuity.LIVE:
            self._begin(now, self._since, holds=False)
        elif self._wanted:
            self._begin(now, None, holds=False, only=True)
        elif self._sweep_from is not None:
            look = self._begin(now, None, holds=False, only=True)
            look.sweeps, look.cursor = True, self._sweep_from
            look.after = None if self._first_look is None else self._first_look[0]

    def _answered(self, read: Read) -> _Look | None:
        if read is not self._asked:
            return None
        self._asked = None
        return self._look

    def _is_of_interest(self, look: _Look, record: OrderRecord) -> bool:
        if not look.only or record.id in look.wanted:
            return True
        return look.sweeps and (not self._has_ended(record) or self._is_news(look, record, was_open=False))

    def _is_news(self, look: _Look, record: OrderRecord, *, was_open: bool) -> bool:
        """Tell whether the handlers are to be told of what a record says, if it says more than they were told."""
        if look.only and not (look.sweeps and self._has_ended(record)):
            return False
        if was_open:
            return True
        updated = milliseconds(record.updated_at or record.created_at)
        # In doubt an event too many is better than one that is missing.
        return look.after is not None and (updated is None or updated > look.after)

    def _has_ended(self, record: OrderRecord) -> bool:
        kind = order_event_kind(self._status_of(record))
        return kind is not None and kind.is_terminal

    def _reaches_far_enough(self, look: _Look, page: OrdersPage) -> bool:
        """Tell whether nothing that is not known to be open can have changed further back."""
        if look.only:
            return not look.sweeps
        if look.since is None:
            # Nothing is known: the newest orders, and those that are open among the next ones.
            return not any(not self._tracker.is_terminal(record.id) for record in page.orders)
        created = [milliseconds(record.created_at) for record in page.orders]
        oldest = min((at for at in created if at is not None), default=None)
        return oldest is not None and look.after is not None and oldest <= look.after

    def _succeed(self, look: _Look, now: float) -> None:
        self._failures = 0
        self.last_error = None
        if look.sweeps:
            self._sweep_from = None
        elif look.only or look.since is None:
            self._wanted -= look.looked_for
        self._end_look()
        if not look.only:
            self._report(look, now, None)
            self._since = self._tracker.known_until() or 0
            if look.since is None:
                self._first_look = (self._since, now)
                self._sweep_from = look.cursor
            self._gaps = [gap for gap in self._gaps if gap not in look.gaps]
        self._publish(caught_up=True)
        self._begin_next(now)

    def _fail(self, look: _Look, error: AggStreamError, now: float, *, again: bool = True) -> None:
        self.last_error = error
        self._end_look()
        # Of the repetitions only the one that succeeds is news.
        if look.holds_until is not None:
            self._report(look, now, error)
        if again:
            self._retry_at = now + self._pause(error)
        self._publish(caught_up=look.only)

    def _end_look(self) -> None:
        """Let what was held back go on."""
        self._look = self._asked = None
        for held in self._held:
            self._out.append((held.event, held.size))
            self._out += ((event, 0) for event in held.then)
        self._held.clear()
        self._held_of.clear()
        self._held_size = 0

    def _report(self, look: _Look, now: float, error: AggStreamError | None) -> None:
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
        """Return how long to wait before REST is asked again, with full jitter."""
        if is_worth_retrying(error):
            self._failures += 1
            bound = min(_FIRST_PAUSE * 2.0 ** min(self._failures, 16), _LONGEST_PAUSE)
        else:
            bound = _LONGEST_PAUSE
        asked = getattr(error, "retry_after", None) or 0.0
        return max(bound * self._jitter(), min(asked, _LONGEST_PAUSE))

    # --- events -----------------------------------------------------------------------------------------

    def _is_holding(self) -> bool:
        return self._look is not None and self._look.holds_until is not None

    def _hold(self, event: UserEvent, size: int) -> None:
        held = _Held(event, size)
        self._held.append(held)
        self._held_size += size
        order_id = getattr(event, "order_id", None)
        if order_id is not None:
            self._held_of.setdefault(order_id, []).append(held)

    def _tell(self, event: UserEvent) -> None:
        """Deliver what REST told: before what is held back, but after what had happened before to its order.

        Of the order's statuses none overtakes another, whatever the clocks behind them say.
        """
        before = None
        for held in reversed(self._held_of.get(getattr(event, "order_id", ""), [])):
            if _is_status(held.event) or held.event.timestamp <= event.timestamp:
                before = held
                break
        if before is None:
            self._put(event)
        else:
            before.then.append(event)

    def _put(self, event: Event) -> None:
        self._out.append((event, 0))

    def _status_of(self, record: OrderRecord) -> str:
        assert self._options is not None
        name = record.status.lower().removeprefix("order_")
        return self._options.status_names.get(name, name)

    # --- continuity -------------------------------------------------------------------------------------

    def _note_what_is_known(self) -> None:
        if self._tracker.continuity is Continuity.LIVE:
            self._since = self._tracker.known_until() or 0

    def _take_gaps(self) -> tuple[int, ...]:
        gaps, self._gaps = tuple(self._gaps), []
        return gaps

    def _publish(self, *, caught_up: bool = False) -> None:
        if not self.is_connected:
            continuity = Continuity.UNKNOWN
        elif self._options is None:
            continuity = Continuity.UNKNOWN if self._lost_gaps else Continuity.LIVE
        elif self._is_holding():
            continuity = Continuity.CATCHING_UP
        elif caught_up or (self._look is not None and self._look.only):
            continuity = Continuity.LIVE
        else:
            continuity = Continuity.UNKNOWN
        self._tracker.set_continuity(continuity, lost_gaps=self._lost_gaps)


def _is_status(event: UserEvent) -> bool:
    """Tell whether an event is about its order itself, and not about its run or a step of that."""
    return not isinstance(event, OrderEvent) or event.family not in ("run", "step")


def _event_of(record: OrderRecord, status: str, wall_ns: int) -> OrderEvent:
    """Return a record as the event that would have told of it. Its text is that event's, so it can be stored."""
    filled, amount = record.filled_amount_raw, record.amount_raw
    remaining = None
    if filled is not None and amount is not None and amount >= filled:
        remaining = str(amount - filled)
    timestamp = milliseconds(record.updated_at or record.created_at)
    if timestamp is None:
        timestamp = wall_ns // NS_PER_MS
    message = {
        "type": OrderEvent.TYPE,
        "event": status,
        "orderId": record.id,
        "venue": record.venue,
        "filledAmountRaw": record.filled_amount_text,
        "remainingAmountRaw": remaining,
        "errorReason": record.error_message,
        "timestamp": timestamp,
        "order": record.raw,
    }
    return OrderEvent(
        event=status,
        order_id=record.id,
        venue=record.venue,
        filled_amount_text=record.filled_amount_text,
        remaining_amount_text=remaining,
        error_reason=record.error_message,
        timestamp=timestamp,
        source="reconcile",
        received_ns=wall_ns,
        raw=message,
        text=to_json(message),
    )
