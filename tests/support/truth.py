"""A world that knows what really happened to orders, and a client in it that has to find out.

Nothing is real here but the client's catching up: no socket, no thread, no clock. The world has a service with
orders, a stream that loses what is sent while nobody is connected, and REST that trails, fails and moves its
pages. The oracle compares what the handlers were told with what happened.
"""

from __future__ import annotations

import datetime as dt
import heapq
import json
import random
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import attrs

from aggstream import Balances, OrderEvent, OrderRecord, OrdersPage, RestError, RestOptions, Verdict
from aggstream._base.backoff import FullJitter
from aggstream._base.limits import Limits
from aggstream._delivery.queue_items import SizedEvent
from aggstream._protocol.codec import Codec
from aggstream._stream.catch_up import CatchUp, Read, ReadOrders
from aggstream._stream.gaps import Gaps
from aggstream.events import DecodeFailed, Event, Gap, Reconciled, UserEvent, normal_form
from aggstream.health import Continuity, Counters
from aggstream.orders._tracker import Tracker

MARGIN = 5.0
"""Seconds before the first sign-in: what had last changed earlier is history."""
QUIET = 400.0
"""Seconds at the end of a life in which nothing goes wrong."""
_LONGEST_LAG = 55.0
_DECODE = Codec(Limits()).decode

_WRITINGS: dict[str, tuple[str, ...]] = {
    "pending": ("pending", "PENDING"),
    "open": ("open", "OPEN", "order_open"),
    "partially_filled": ("partially_filled_open", "partially_filled", "PARTIALLY_FILLED", "partiallyFilled"),
    "filled": ("filled", "FILLED", "order_filled", "orderFilled"),
    "cancelled": ("cancelled", "canceled", "CANCELLED"),
    "expired": ("expired", "Expired"),
    "failed": ("failed", "order_failed"),
    "rejected": ("rejected", "Rejected"),
    "routing": ("routing", "Routing"),
}
_ENDS = {
    "filled": Verdict.FILLED,
    "cancelled": Verdict.CANCELLED,
    "expired": Verdict.EXPIRED,
    "failed": Verdict.FAILED,
    "rejected": Verdict.FAILED,
}


@attrs.frozen
class Change:
    """One thing that happened to an order."""

    at: float
    word: str
    filled: int


@attrs.define(eq=False)
class TrueOrder:
    """An order as it really is."""

    id: str
    size: int
    changes: list[Change]

    def as_of(self, moment: float) -> Change | None:
        """Return the last change that had happened by a moment."""
        return next((change for change in reversed(self.changes) if change.at <= moment), None)

    @property
    def end(self) -> Change | None:
        """The change that ended it; None if it goes on for ever."""
        last = self.changes[-1]
        return last if last.word in _ENDS else None

    @property
    def verdict(self) -> Verdict:
        """How it ended."""
        if self.end is None:
            return Verdict.UNKNOWN
        verdict = _ENDS[self.end.word]
        return Verdict.PARTIALLY_FILLED if self.end.filled and verdict is not Verdict.FILLED else verdict


@attrs.frozen(order=True)
class _Action:
    at: float
    number: int
    do: Callable[[], None] = attrs.field(order=False)


class World:
    """A service, its user's orders, a bad network, and one client after the other."""

    def __init__(self, rng: random.Random, *, restarts: bool = True) -> None:
        """Draw a life.

        Args:
            rng: draws it.
            restarts: whether the client's process may end and begin again, with what a journal keeps.
        """
        self.rng = rng
        self.ahead = rng.uniform(-3600, 3600)
        self.now = 1000.0
        self.rest_works = True
        self.lag = rng.choice([0.0, rng.uniform(0, 8), rng.uniform(0, _LONGEST_LAG)])
        self.page_size = rng.choice([2, 3, 10, 100])
        self.first_sign_in = 1000.0 + rng.uniform(0, 300)
        self.over = self.first_sign_in + rng.uniform(60, 600)
        self.orders: list[TrueOrder] = []
        self.told: list[tuple[OrderEvent, float]] = []
        self.sent: Counter[tuple[str, str, int]] = Counter()
        self.looks = 0
        self.blind_until = 0.0
        """Up to when a process has said that it cannot know what happened before it."""
        self.problems: list[str] = []
        self._restarts = restarts
        self._actions: list[_Action] = []
        self._count = 0
        self._messages: dict[tuple[str, Change], list[float]] = {}
        self.client = Client(self)
        self._draw()

    # --- what happens ------------------------------------------------------------------------------------

    def at(self, moment: float, do: Callable[[], None]) -> None:
        """Let something happen at a moment."""
        self._count += 1
        heapq.heappush(self._actions, _Action(moment, self._count, do))

    def run(self) -> None:
        """Live the life to its end."""
        end = self.over + QUIET
        while self._actions and self._actions[0].at <= end:
            action = heapq.heappop(self._actions)
            self.now = action.at
            action.do()
            self.client.go_on()

    def _draw(self) -> None:
        rng = self.rng
        at = self.first_sign_in
        self.at(at, self.client.connect)
        # Most of what goes wrong goes wrong where something begins or ends.
        turns = [at]
        while rng.random() < 0.75 and at < self.over - 10:
            lost = at + rng.uniform(1, (self.over - at) / 2)
            back = lost + rng.choice([rng.uniform(0.1, 3), rng.uniform(3, 90)])
            if back > self.over:
                break
            self.at(lost, self.restart if self._restarts and rng.random() < 0.3 else self.client_lost)
            self.at(back, self._connect)
            turns += [lost, back]
            at = back
        for number in range(rng.choice([1, 3, 8, 20])):
            self._draw_order(f"ord_{number}", turns)
        for _ in range(rng.randint(0, 3)):
            begins = rng.uniform(self.first_sign_in - 5, self.over)
            self.at(begins, lambda: self._set_rest(works=False))
            self.at(min(begins + rng.uniform(0.1, 60), self.over), lambda: self._set_rest(works=True))
        for _ in range(rng.randint(0, 3)):
            self.at(rng.uniform(1000, self.over), self._draw_lag)
        if rng.random() < 0.3:
            self.at(rng.uniform(self.first_sign_in, self.over), self._misunderstand)
        # In the quiet at the end REST comes to trail no more than any may.
        self.at(self.over, self._calm_down)

    def _draw_moment(self, after: float, turns: list[float]) -> float:
        """Return a moment after another one: right after it, near a turn of the connection, or anywhere."""
        rng = self.rng
        near = rng.choice(turns) + rng.uniform(-6, 6)
        return max(after + 0.001, rng.choice([after + rng.uniform(0, 2), near, near, after + rng.uniform(0, 200)]))

    def _draw_order(self, order_id: str, turns: list[float]) -> None:
        rng = self.rng
        size = rng.randint(1, 1000)
        filled = 0
        moment = self._draw_moment(rng.choice([0.0, self.first_sign_in - 20]), turns)
        if rng.random() < 0.4:
            moment = rng.uniform(0, self.first_sign_in)
        changes = [Change(moment, rng.choice(["pending", "open"]), 0)]
        while rng.random() < 0.6:
            moment = self._draw_moment(moment, turns)
            word = rng.choice(["open", "routing", "partially_filled", "partially_filled"])
            if word == "partially_filled" and filled < size - 1:
                filled = rng.randint(filled + 1, size - 1)
            elif word == "partially_filled" or changes[-1].word not in ("pending", "open", "routing"):
                continue
            changes.append(Change(moment, word, filled))
        if rng.random() < 0.8:
            moment = self._draw_moment(moment, turns)
            word = rng.choice(list(_ENDS))
            if word in ("rejected", "failed") and filled:
                word = "cancelled"
            changes.append(Change(moment, word, size if word == "filled" else filled))
        changes = [change for change in changes if change.at < self.over]
        if not changes:
            return
        order = TrueOrder(order_id, size, changes)
        self.orders.append(order)
        for change in changes:
            times = 2 if rng.random() < 0.1 else 1
            for _ in range(times):
                self.at(
                    change.at + rng.choice([0.0, rng.uniform(0, 0.5), rng.uniform(0, MARGIN - 0.1)]),
                    lambda order=order, change=change: self._send(order, change),  # type: ignore[misc]
                )

    def _send(self, order: TrueOrder, change: Change) -> None:
        if not self.client.is_connected:
            return
        self.sent[order.id, change.word, change.filled] += 1
        self.client.receive(
            {
                "type": "order_event",
                "event": self.rng.choice(_WRITINGS[change.word]),
                "userId": "usr_1",
                "orderId": order.id,
                "filledAmountRaw": self.write(change.filled),
                "remainingAmountRaw": self.write(order.size - change.filled),
                "timestamp": self.service_ms(change.at),
            }
        )

    def write(self, amount: int) -> str:
        """Return an amount in one of its writings."""
        return self.rng.choice([str(amount), f"{amount}.00", f"{amount}e0", f"0{amount}"])

    def client_lost(self) -> None:
        """The connection is lost."""
        self.client.lose()

    def _connect(self) -> None:
        self.client.connect()

    def _misunderstand(self) -> None:
        self.client.misunderstand()

    def restart(self) -> None:
        """The process ends, and another one takes up what its journal has kept."""
        self.client.lose()
        self.client = Client(self, self.client)

    def _set_rest(self, *, works: bool) -> None:
        self.rest_works = works

    def _draw_lag(self) -> None:
        self.lag = self.rng.choice([0.0, self.rng.uniform(0, 8), self.rng.uniform(0, _LONGEST_LAG)])

    def _calm_down(self) -> None:
        self.rest_works = True
        if not self.client.is_connected:
            self.client.connect()

    # --- the service -------------------------------------------------------------------------------------

    def service_ms(self, moment: float) -> int:
        """Return the service's clock at a moment."""
        return 1_710_000_000_000 + round((moment + self.ahead) * 1000)

    def answer(self, read: Read, asked_at: float) -> OrdersPage | Balances | RestError:
        """Return what REST answers."""
        if not self.rest_works or self.rng.random() < 0.03:
            return RestError("no answer", status=503)
        date_ms = self.service_ms(self.now) // 1000 * 1000
        if not isinstance(read, ReadOrders):
            return Balances(date_ms=date_ms)
        shown = self.now - self.lag
        rows = [(order, change) for order in self.orders if (change := order.as_of(shown)) is not None]
        rows.sort(key=lambda row: -row[0].changes[0].at)
        if read.status is not None:
            rows = [row for row in rows if normal_form(read.status) == row[1].word]
        begin = 0 if read.cursor is None else int(read.cursor)
        page = rows[
            max(0, begin - self.rng.randint(0, 1)) : begin + self.page_size
        ]  # rows may repeat over a border
        more = begin + self.page_size < len(rows)
        return OrdersPage(
            orders=tuple(self._record(order, change, read.status) for order, change in page),
            next_cursor=str(begin + self.page_size) if more else None,
            date_ms=date_ms,
        )

    def _record(self, order: TrueOrder, change: Change, status: str | None) -> OrderRecord:
        return OrderRecord(
            id=order.id,
            status=status or self.rng.choice(_WRITINGS[change.word]),
            amount_text=str(order.size),
            filled_amount_text=self.write(change.filled),
            created_at=_moment(self.service_ms(order.changes[0].at)),
            updated_at=_moment(self.service_ms(change.at)),
        )

    # --- the oracle --------------------------------------------------------------------------------------

    def judge(self) -> list[str]:
        """Return what is wrong with what was told; call it after `run`."""
        self.problems += [*self._told_twice(), *self._told_though_history(), *self._missing(), *self._misjudged()]
        if self.client.tracker.continuity is not Continuity.LIVE:
            self.problems.append(f"in the end it is {self.client.tracker.continuity}")
        if self.client.unresolved:
            self.problems.append(f"the gaps {self.client.unresolved} are unresolved")
        return self.problems

    def _ends_told(self) -> set[str]:
        return {event.order_id for event, _ in self.told if event.is_terminal}

    def _told_twice(self) -> Iterator[str]:
        facts = [
            ((event.order_id, event.sub_event, event.filled_amount_raw or 0), event.source)
            for event, _ in self.told
        ]
        by_rest = Counter(fact for fact, source in facts if source == "reconcile")
        by_stream = Counter(fact for fact, source in facts if source == "stream")
        for fact, times in by_rest.items():
            if times > 1 or by_stream[fact]:
                yield f"{fact} was told {times} times by REST and {by_stream[fact]} by the stream"
        for fact, times in by_stream.items():
            if times > self.sent[fact]:
                yield f"{fact} was told {times} times, and sent {self.sent[fact]} times"

    def _told_though_history(self) -> Iterator[str]:
        for event, _ in self.told:
            changed = event.timestamp - self.service_ms(self.first_sign_in)
            # A `Date` is a whole number of seconds.
            if event.source == "reconcile" and changed <= -MARGIN * 1000 - 1000:
                yield f"{event.order_id} {event.sub_event} is history, by {changed} ms"

    def _missing(self) -> Iterator[str]:
        ends = self._ends_told()
        known_from = max(self.first_sign_in, self.blind_until)
        for order in self.orders:
            first = order.as_of(self.first_sign_in)
            # What is open by a word that nobody knows, no filter finds.
            is_found = first is None or first.word != "routing"
            if is_found and order.end is not None and order.end.at > known_from and order.id not in ends:
                yield f"the end of {order.id} is missing: {order.end}"

    def _misjudged(self) -> Iterator[str]:
        ends, tracker = self._ends_told(), self.client.tracker
        for order in self.orders:
            if order.end is not None and tracker.is_open(order.id):
                yield f"{order.id} is open for ever"
            # What an earlier process has known of an order is in its journal.
            is_known = order.id in tracker.orders()
            verdict = tracker.outcome(tracker.track(order.id)).verdict
            if verdict not in (Verdict.UNKNOWN, order.verdict):
                yield f"{order.id} is {order.verdict}, and {verdict} was said"
            if verdict is Verdict.UNKNOWN and order.id in ends and is_known:
                yield f"{order.id} has ended, and nobody says how"


class Client:
    """One process of a client, as far as catching up goes."""

    def __init__(self, world: World, before: Client | None = None) -> None:
        self.world = world
        self.tracker = Tracker(kept=1000, kept_for=1e9)
        self.gaps = Gaps(has_rest=True)
        self.catch_up = CatchUp(
            self.tracker,
            self.gaps,
            RestOptions(max_pages=1000),
            Counters(),
            hold_timeout=10.0,
            most_held=20,
            most_held_size=10**6,
            pauses=FullJitter(1.0, 60.0, world.rng.random),
        )
        self.is_connected = False
        self.unresolved: set[int] = set()
        self._number = 0
        self._since_gap = before is not None
        self._asked: Read | None = None
        self._deadline: float | None = None
        # The journal.
        self.stored: dict[str, UserEvent] = {}
        self.open_orders: set[str] = set()
        self.last_timestamp: int | None = None
        self.known_until: int | None = None
        self.history_until: int | None = None
        self.is_searched = False
        if before is not None:
            self._take_up(before)

    def _take_up(self, before: Client) -> None:
        self.stored, self.open_orders = before.stored, before.open_orders
        self.last_timestamp, self.known_until = before.last_timestamp, before.known_until
        self.history_until, self.is_searched = before.history_until, before.is_searched
        known = [at for at in (self.last_timestamp, self.known_until) if at is not None]
        self.gaps.known_before(max(known, default=None), self.history_until, is_searched=self.is_searched)
        ended = {e.order_id for e in self.stored.values() if isinstance(e, OrderEvent) and e.is_terminal}
        ids = {e.order_id for e in self.stored.values() if isinstance(e, OrderEvent)} | self.open_orders
        for order_id in ids - ended:
            self.tracker.expect(order_id)
            events = [e for e in self.stored.values() if isinstance(e, OrderEvent) and e.order_id == order_id]
            self.tracker.fold(events, self.world.now)

    def connect(self) -> None:
        """Sign in."""
        if self.is_connected:
            return
        self.is_connected = True
        gap = None
        if self._number or self._since_gap:
            self._number += 1
            gap = Gap(number=self._number, started_ns=0, ended_ns=1)
            self.unresolved.add(self._number)
        elif self.gaps.known_until(self.world.now) is None:
            self._since_gap = True  # the next one follows a gap
        self.catch_up.connected(self.world.now, gap, "usr_1")
        if self.catch_up._schedule._is_blind:
            self.world.blind_until = self.world.now

    def lose(self) -> None:
        """Lose the connection."""
        if self.is_connected:
            self.is_connected = False
            self.catch_up.disconnected(self.world.now)
            self._asked = None
            self._hand_on()

    def receive(self, message: dict[str, Any]) -> None:
        """Take a message of the stream."""
        event = _DECODE(json.dumps(message), 1)
        self._emit(self.catch_up.passed([(event, 100)], self.world.now))

    def misunderstand(self) -> None:
        """Get a message that is not understood."""
        if self.is_connected:
            self.catch_up.raise_doubt(self.world.now)

    def go_on(self) -> None:
        """Do what is due."""
        world = self.world
        self.catch_up.handle_deadline(world.now)
        self._hand_on()
        if self._asked is not None and not self.catch_up.awaits(self._asked):
            self._asked = None
        if self._asked is None and (read := self.catch_up.request()) is not None:
            self._asked = read
            world.looks += 1
            world.at(world.now + world.rng.uniform(0.01, 1.5), lambda: self._answered(read, world.now))
        at = self.catch_up.next_deadline()
        if at is not None and at != self._deadline:
            self._deadline = at
            world.at(max(at, world.now), lambda: None)

    def _answered(self, read: Read, asked_at: float) -> None:
        world = self.world
        if self._asked is not read or world.client is not self:
            return
        self._asked = None
        answer = world.answer(read, asked_at)
        if isinstance(answer, RestError):
            self.catch_up.read_failed(read, answer, world.now)
        elif isinstance(answer, OrdersPage):
            self.catch_up.page_received(read, answer, world.now, 1)
        else:
            self.catch_up.balances_received(read, answer, world.now, 1)
        self._hand_on()

    def _hand_on(self) -> None:
        self._emit(self.catch_up.events())
        for report in self.catch_up.reports():
            self._note(report)
        self.open_orders.update(self.catch_up.found())
        if self.history_until is None and (self.gaps.clock.has_date or self.gaps.has_failed):
            self.history_until = self.gaps.history_until
        later = self.catch_up.known_for_later
        if later is not None:
            self.known_until = max(later, self.known_until or 0)
        self.is_searched = self.is_searched or self.gaps.is_searched

    def _emit(self, events: list[SizedEvent] | Any) -> None:
        is_complete = not self.catch_up.has_more_to_tell
        for event, _ in events:
            if isinstance(event, OrderEvent):
                self._deliver(event, is_complete=is_complete)
            elif isinstance(event, Reconciled):
                self._note(event)
            elif isinstance(event, DecodeFailed):
                self.world.problems.append(f"it was not understood: {event.error}")

    def _deliver(self, event: OrderEvent, *, is_complete: bool) -> None:
        if event.id in self.stored and self.world._restarts:
            return  # as a journal does
        self.stored[event.id] = event
        if event.is_terminal:
            self.open_orders.discard(event.order_id)
        if is_complete:
            self.last_timestamp = max(self.last_timestamp or 0, event.timestamp)
        self.world.told.append((event, self.world.now))

    def _note(self, report: Event) -> None:
        # A process that begins before anything tells the service's time says that it cannot know.
        is_blind = isinstance(report, Reconciled) and "nothing tells" in str(report.error)
        if isinstance(report, Reconciled) and (report.resolved or is_blind):
            self.unresolved -= set(report.gaps)


def _moment(ms: int) -> dt.datetime:
    return dt.datetime.fromtimestamp(ms / 1000, dt.timezone.utc)


def live(seed: int, *, restarts: bool = True) -> World:
    """Live a life to its end, and judge it."""
    world = World(random.Random(seed), restarts=restarts)
    world.run()
    world.judge()
    return world
