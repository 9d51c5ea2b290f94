"""Closing gaps, with a clock that the test moves: what is read, what is held back, what is delivered, and when."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Sequence
from typing import Any

import attrs
import pytest

import aggstream
from aggstream import (
    Balances,
    BalanceSnapshot,
    Continuity,
    DecodeError,
    DecodeFailed,
    Event,
    Gap,
    OrderEvent,
    OrderRecord,
    OrdersPage,
    Reconciled,
    RestError,
    RestOptions,
    UserEvent,
    VenueBalance,
    Verdict,
)
from aggstream._base.backoff import FullJitter
from aggstream._base.deadline import Deadline
from aggstream._base.json_text import Parser
from aggstream._delivery.queue_items import SizedEvent
from aggstream._protocol.codec import Codec
from aggstream._stream.catch_up import CatchUp, Read, ReadBalances, ReadOrders
from aggstream._stream.gaps import Gaps
from aggstream.errors import AuthenticationRejected
from aggstream.health import Counters
from aggstream.orders._tracker import Tracker

MINUTE = 60_000
DAY = 86_400_000
NOW_MS = 1_710_000_000_000
decode = Codec(aggstream.Limits()).decode
DOWN = RestError("no answer", status=503)


def order_event(name: str, order_id: str = "a", *, at: int = 0, filled: int | None = None) -> Event:
    message: dict[str, Any] = {"type": "order_event", "event": name, "orderId": order_id, "timestamp": NOW_MS + at}
    if filled is not None:
        message["filledAmountRaw"] = str(filled)
    return decode(json.dumps(message), (NOW_MS + min(at, DAY)) * 1_000_000)


def submitted(order_id: str = "a", *, at: int = 0) -> Event:
    message = {"type": "order_submitted", "venue": "kalshi", "orderId": order_id, "side": "buy", "price": 0.5}
    return decode(
        json.dumps(message | {"size": 1, "outcomeId": "o", "timestamp": NOW_MS + at}), (NOW_MS + at) * 1_000_000
    )


def record(
    order_id: str, status: str, *, at: int = 0, created: int | None = None, filled: int | None = None
) -> OrderRecord:
    def moment(ms: int) -> dt.datetime:
        return dt.datetime.fromtimestamp((NOW_MS + ms) / 1000, dt.timezone.utc)

    return OrderRecord(
        id=order_id,
        status=status,
        filled_amount_text=None if filled is None else str(filled),
        created_at=moment(at if created is None else created),
        updated_at=moment(at),
    )


class Life:
    """A catch_up, its clock, and what the handlers get. The service's clock shows NOW_MS when the client's shows
    100."""

    def __init__(
        self,
        options: RestOptions | None = None,
        *,
        rest: bool = True,
        rest_lag: float = 0.0,
        dated: bool = True,
        gaps: Gaps | None = None,
    ) -> None:
        self.tracker = Tracker(kept=1000, kept_for=1e9)
        self.options = (options or RestOptions()) if rest else None
        self.counters = Counters()
        self.catch_up = CatchUp(
            self.tracker,
            gaps or Gaps(has_rest=rest),
            self.options,
            self.counters,
            hold_timeout=10.0,
            most_held=5,
            most_held_size=1000,
            pauses=FullJitter(1.0, 60.0, lambda: 1.0),
            rest_lag=rest_lag,
        )
        self.passed: list[SizedEvent] = []
        self.now = 100.0
        self.gaps = 0
        self.dated = dated

    def connect(self, *, gap: bool = False) -> None:
        told = None
        if gap:
            self.gaps += 1
            told = Gap(number=self.gaps, started_ns=0, ended_ns=1)
        self.catch_up.connected(self.now, told, "usr_1")
        self.drain()

    def disconnect(self) -> None:
        self.catch_up.disconnected(self.now)
        self.drain()

    @property
    def service_ms(self) -> int | None:
        return NOW_MS + round((self.now - 100.0) * 1000) if self.dated else None

    def drain(self) -> None:
        """Take what is there, as the pipeline does after each step."""
        self.passed += self.catch_up.events()
        self.passed += [(report, 0) for report in self.catch_up.reports()]

    def live(self, *events: Event) -> None:
        self.passed += self.catch_up.passed([(event, 10) for event in events], self.now)

    def asked(self) -> Read:
        read = self.catch_up.request()
        assert read is not None
        return read

    def page(self, *orders: OrderRecord, cursor: str | None = None, problems: Sequence[DecodeError] = ()) -> None:
        read = self.asked()
        assert isinstance(read, ReadOrders)
        page = OrdersPage(orders=orders, next_cursor=cursor, problems=tuple(problems), date_ms=self.service_ms)
        self.catch_up.page_received(read, page, self.now, (NOW_MS + DAY) * 1_000_000)
        self.drain()

    def balances(self, balances: Balances | None = None) -> None:
        read = self.asked()
        assert isinstance(read, ReadBalances)
        self.catch_up.balances_received(read, balances or Balances(), self.now, (NOW_MS + DAY) * 1_000_000)
        self.drain()

    def rest(self, *orders: OrderRecord) -> None:
        """REST tells everything in one page, and then that there are no old open orders."""
        self.page(*orders)
        self.balances()
        self.sweep()

    def sweep(self, *orders: OrderRecord) -> None:
        """REST tells which orders are open, if that is what it is asked for."""
        while (read := self.catch_up.request()) is not None:
            assert isinstance(read, ReadOrders)
            shown = tuple(order for order in orders if read.status in (None, order.status))
            page = OrdersPage(orders=shown, date_ms=self.service_ms)
            self.catch_up.page_received(read, page, self.now, (NOW_MS + DAY) * 1_000_000)
            self.drain()

    def fail(self, error: aggstream.AggStreamError = DOWN) -> None:
        self.catch_up.read_failed(self.asked(), error, self.now)
        self.drain()

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.catch_up.handle_deadline(self.now)
        self.drain()

    def told(self) -> list[str]:
        """Return what the handlers got since the last call."""
        return [self.in_words(event) for event in self.events()]

    def events(self) -> list[Event]:
        self.drain()
        passed, self.passed = self.passed, []
        return [event for event, _ in passed]

    @staticmethod
    def in_words(event: Event) -> str:
        if isinstance(event, Reconciled):
            return f"{'resolved' if event.resolved else 'unresolved'} {list(event.gaps)}"
        if isinstance(event, UserEvent):
            name = f"{getattr(event, 'order_id', '')} {event.sub_event or event.type}".strip()
            return name if event.source == "stream" else f"{name} (rest)"
        return event.type

    def continuity(self) -> Continuity:
        return self.tracker.continuity


@pytest.fixture
def life() -> Life:
    """A life that has caught up at the start, with one order open."""
    life = Life()
    life.connect()
    life.rest()
    life.live(submitted("a"))
    life.told()
    assert life.continuity() is Continuity.LIVE
    return life


# --- the first look -------------------------------------------------------------------------------------


def test_the_first_look_learns_what_is_there_and_delivers_nothing_of_it() -> None:
    life = Life()
    assert life.continuity() is Continuity.UNKNOWN
    life.connect()
    assert life.continuity() is Continuity.CATCHING_UP
    life.rest(record("a", "open"), record("b", "filled", at=-1))
    assert life.told() == ["resolved []"]
    assert life.continuity() is Continuity.LIVE
    assert life.tracker.open_orders() == {"a"}
    assert life.tracker.orders()["b"].status == "filled"


def test_the_first_look_goes_back_as_long_as_pages_have_open_orders() -> None:
    life = Life()
    life.connect()
    life.page(record("a", "filled"), record("b", "open"), cursor="2")
    life.page(record("c", "filled"), cursor="3")
    life.balances()
    assert life.tracker.open_orders() == {"b"}


def test_the_first_look_ends_after_so_many_pages_of_open_orders() -> None:
    life = Life(RestOptions(max_pages=2))
    life.connect()
    life.page(record("b", "open", at=-1), cursor="2")
    life.page(record("a", "open", at=-2), cursor="3")
    life.balances()
    assert life.told() == ["resolved []"]
    assert life.continuity() is Continuity.LIVE


def test_an_order_of_the_first_look_that_ends_live_is_delivered_by_the_stream() -> None:
    life = Life()
    life.connect()
    life.rest(record("a", "filled", filled=5))  # REST was faster than the socket
    life.live(order_event("filled", "a", filled=5))
    assert life.told() == ["resolved []", "a filled"]


def test_an_end_that_the_first_look_saw_and_the_stream_lost_is_delivered_after_the_gap() -> None:
    life = Life()
    life.connect()
    life.rest(record("a", "filled", filled=5))
    life.disconnect()
    life.connect(gap=True)
    life.rest(record("a", "filled", filled=5))
    assert life.told() == ["resolved []", "a filled (rest)", "resolved [1]"]


# --- after a gap ----------------------------------------------------------------------------------------


def test_what_happened_in_a_gap_is_delivered_before_what_is_held_back(life: Life) -> None:
    life.disconnect()
    assert life.continuity() is Continuity.UNKNOWN
    life.connect(gap=True)
    life.live(submitted("c", at=2))
    assert life.told() == []
    life.rest(record("b", "failed", at=1), record("a", "filled", at=1))
    assert life.told() == ["b failed (rest)", "a filled (rest)", "c order_submitted", "resolved [1]"]
    assert life.continuity() is Continuity.LIVE


def test_what_the_stream_tells_itself_is_not_told_by_rest_as_well(life: Life) -> None:
    life.disconnect()
    life.connect(gap=True)
    life.live(order_event("filled", "a", at=2, filled=5))
    life.rest(record("a", "filled", at=2, filled=5))
    assert life.told() == ["a filled", "resolved [1]"]


def test_what_rest_has_told_is_not_told_by_the_stream_as_well(life: Life) -> None:
    life.disconnect()
    life.connect(gap=True)
    life.rest(record("a", "filled", at=2, filled=5))
    life.live(order_event("filled", "a", at=2, filled=5), order_event("dag_completed", "a", at=3))
    assert life.told() == ["a filled (rest)", "resolved [1]", "a dag_completed"]
    assert life.counters.repeats == 1


def test_an_orders_events_stay_in_order(life: Life) -> None:
    life.disconnect()
    life.connect(gap=True)
    life.live(order_event("partially_filled", "a", at=1, filled=3), submitted("b", at=2))
    life.page(record("a", "filled", at=4, filled=5))
    life.live(order_event("dag_completed", "a", at=5))
    life.balances()
    expected = ["a partially_filled", "a filled (rest)", "b order_submitted", "a dag_completed", "resolved [1]"]
    assert life.told() == expected


def test_a_gap_is_read_back_to_where_everything_is_known(life: Life) -> None:
    life.pass_time(600)
    life.page(record("a", "open"))  # the late look
    life.live(order_event("filled", "a", at=10 * MINUTE))
    life.told()
    life.disconnect()
    life.connect(gap=True)
    life.page(record("d", "filled", at=12 * MINUTE), record("c", "filled", at=11 * MINUTE), cursor="2")
    life.page(record("old", "filled", at=5 * MINUTE), cursor="3")
    life.balances()
    assert life.told() == ["d filled (rest)", "c filled (rest)", "resolved [1]"]


def test_an_open_order_is_looked_for_however_far_back_it_is(life: Life) -> None:
    life.live(submitted("z", at=1))
    life.told()
    life.disconnect()
    life.connect(gap=True)
    life.page(record("z", "open", at=1), cursor="2")
    life.page(record("old", "filled", at=-99 * MINUTE), cursor="3")
    life.page(record("a", "cancelled", at=2, created=-100 * MINUTE), cursor="4")
    life.balances()
    assert life.told() == ["a cancelled (rest)", "resolved [1]"]


def test_pages_are_bounded_and_a_gap_that_is_too_deep_stays_open() -> None:
    life = Life(RestOptions(max_pages=2))
    life.connect()
    life.rest(record("a", "open"))
    life.told()
    life.disconnect()
    life.connect(gap=True)
    life.page(record("y", "filled", at=2), cursor="2")
    life.page(record("x", "filled", at=1), cursor="3")
    assert life.told() == ["y filled (rest)", "x filled (rest)", "unresolved [1]"]
    assert life.continuity() is Continuity.UNKNOWN
    assert "max_pages" in str(life.catch_up.last_error)
    assert life.catch_up.next_deadline() == life.now + 60.0


def test_several_gaps_are_resolved_together(life: Life) -> None:
    for _ in range(2):
        life.disconnect()
        life.connect(gap=True)
    life.rest(record("a", "filled", at=1))
    assert life.told() == ["a filled (rest)", "resolved [1, 2]"]


def test_a_connection_that_is_lost_in_the_middle_of_a_look_loses_nothing(life: Life) -> None:
    life.disconnect()
    life.connect(gap=True)
    life.live(submitted("b", at=1))
    life.page(record("a", "partially_filled", at=1, filled=2), cursor="2")
    late = life.asked()
    life.disconnect()
    assert life.told() == ["a partially_filled (rest)", "b order_submitted"]
    page = OrdersPage(orders=(record("a", "filled", at=2),))
    life.catch_up.page_received(late, page, life.now, 0)  # its connection is gone, and so is the question
    life.connect(gap=True)
    life.rest(record("b", "filled", at=3), record("a", "filled", at=2, filled=5))
    assert life.told() == ["b filled (rest)", "a filled (rest)", "resolved [1, 2]"]


def test_a_service_that_is_not_on_time_hides_nothing(life: Life) -> None:
    """A timestamp far ahead of the clock must not count as what is known."""
    life.live(order_event("step_started", "a", at=400 * DAY))
    life.disconnect()
    life.connect(gap=True)
    life.rest(record("b", "filled", at=DAY + 1))
    assert "b filled (rest)" in life.told()


def test_an_order_that_is_not_understood_is_told_and_the_gap_stays_open_if_it_may_be_one_that_counts(
    life: Life,
) -> None:
    life.disconnect()
    life.connect(gap=True)
    life.page(problems=[DecodeError("missing", path="$.data[0].status")])
    assert life.told() == ["decode_failed", "unresolved [1]"]
    life.disconnect()
    life.connect(gap=True)
    life.page(record("a", "filled", at=1), problems=[DecodeError("missing", path="$.data[1].id")])
    life.balances()
    events = life.events()
    assert [type(event) for event in events] == [DecodeFailed, OrderEvent, Reconciled]


def test_statuses_with_other_names_are_translated() -> None:
    life = Life(RestOptions(status_names={"DONE": "filled"}))
    life.connect()
    life.rest(record("a", "ORDER_OPEN"))
    life.disconnect()
    life.connect(gap=True)
    life.rest(record("a", "Done", at=1))
    assert life.told()[1:] == ["a filled (rest)", "resolved [1]"]


def test_an_event_of_rest_can_be_stored_and_made_again(life: Life) -> None:
    life.disconnect()
    life.connect(gap=True)
    life.rest(record("a", "filled", at=1, filled=5))
    [event] = [event for event in life.events() if isinstance(event, OrderEvent)]
    again = decode(event.text, event.received_ns)
    assert again == event
    assert event.raw["orderId"] == "a"


# --- balances -------------------------------------------------------------------------------------------


def test_balances_that_changed_are_delivered_after_a_gap(life: Life) -> None:
    for number, expected in ((1, ["balance_snapshot (rest)"]), (2, [])):
        life.disconnect()
        life.connect(gap=True)
        life.page(record("a", "open"))
        balances = Balances(positions=(VenueBalance(venue="kalshi", balance_text="7"),), raw={"positions": []})
        life.balances(balances)
        assert life.told() == [*expected, f"resolved [{number}]"]


def test_a_snapshot_of_balances_can_be_stored_and_made_again() -> None:
    from aggstream.rest._decoding import decode_balances
    from aggstream.rest._snapshot import decode_snapshot, make_snapshot

    text = '{"cash": [{"tokenSymbol": "USDC", "totalRaw": "1", "decimals": 6}], "positions": []}'
    snapshot = make_snapshot(decode_balances(text), 5_000_000)
    again = decode_snapshot(snapshot.text, 5_000_000, Parser(aggstream.Limits()))
    assert isinstance(again, BalanceSnapshot)
    assert again == snapshot
    assert again.id == snapshot.id
    with pytest.raises(DecodeError):
        decode_snapshot('{"type": "balance_snapshot"}', 1, Parser(aggstream.Limits()))


# --- REST fails -----------------------------------------------------------------------------------------


def test_a_failure_is_tried_again_while_events_are_held_back(life: Life) -> None:
    life.disconnect()
    life.connect(gap=True)
    life.fail()
    assert life.catch_up.request() is None
    life.pass_time(1.0)
    life.rest(record("a", "filled", at=1))
    assert life.told() == ["a filled (rest)", "resolved [1]"]


def test_held_events_are_released_when_rest_takes_too_long_and_the_gap_is_closed_later(life: Life) -> None:
    life.disconnect()
    life.connect(gap=True)
    life.live(submitted("b", at=2))
    late = life.asked()
    life.pass_time(9.9)
    assert life.told() == []
    life.pass_time(0.2)
    assert life.told() == ["b order_submitted", "unresolved [1]"]
    assert life.continuity() is Continuity.UNKNOWN
    assert life.catch_up.awaits(late)  # what it says is still wanted
    life.live(order_event("dag_started", "b", at=3))
    assert life.told() == ["b dag_started"]
    life.catch_up.read_failed(late, DOWN, life.now)
    life.pass_time(60.0)
    life.page(record("a", "filled", at=1))
    assert life.told() == ["a filled (rest)"]  # nothing waits for the balances
    life.balances()
    assert life.told() == ["resolved [1]"]
    assert life.continuity() is Continuity.LIVE


def test_the_pauses_grow_and_a_retry_after_is_honoured(life: Life) -> None:
    life.disconnect()
    life.connect(gap=True)
    pauses = []
    for _ in range(12):
        life.fail()
        at = life.catch_up.next_deadline()
        assert at is not None
        pauses.append(at - life.now)
        life.pass_time(at - life.now)
    assert pauses[:3] == [1.0, 2.0, 4.0]
    assert pauses[-1] == 60.0
    life.fail(RestError("busy", status=429, retry_after=45.0))
    assert life.catch_up.next_deadline() == life.now + 60.0


def test_what_will_not_get_better_ends_the_look_at_once_and_is_tried_again_seldom(life: Life) -> None:
    life.disconnect()
    life.connect(gap=True)
    life.fail(AuthenticationRejected("no"))
    assert life.told() == ["unresolved [1]"]
    assert life.catch_up.next_deadline() == life.now + 60.0


def test_a_gap_that_is_open_when_the_stream_ends_is_told_so(life: Life) -> None:
    life.disconnect()
    life.connect(gap=True)
    life.live(submitted("b"))
    life.catch_up.stopped(None, life.now)
    assert life.told() == ["b order_submitted", "unresolved [1]"]


# --- without REST ---------------------------------------------------------------------------------------


def test_without_rest_a_gap_stays_a_gap() -> None:
    life = Life(rest=False)
    life.connect()
    assert life.continuity() is Continuity.LIVE
    life.live(submitted("a"))
    life.disconnect()
    life.connect(gap=True)
    life.live(submitted("b", at=1))
    assert life.told() == ["a order_submitted", "unresolved [1]", "b order_submitted"]
    assert life.continuity() is Continuity.UNKNOWN
    assert life.catch_up.request() is None


# --- looking for one order ------------------------------------------------------------------------------


def test_an_order_that_nothing_is_known_of_is_looked_for_and_nobody_is_told(life: Life) -> None:
    tracked = life.tracker.track("old")
    life.catch_up.search_for("old", life.now)
    assert life.continuity() is Continuity.LIVE
    life.live(submitted("b"))
    life.page(record("b", "open"), cursor="2")
    life.page(record("old", "filled", at=-99 * MINUTE), record("older", "failed", at=-100 * MINUTE), cursor="3")
    assert life.catch_up.request() is None
    assert life.told() == ["b order_submitted"]
    assert life.tracker.outcome(tracked).verdict is aggstream.Verdict.FILLED


def test_an_order_that_is_nowhere_costs_no_more_pages_than_there_are(life: Life) -> None:
    life.catch_up.search_for("nowhere", life.now)
    life.page(record("a", "open"), cursor="2")
    life.page(record("b", "filled"))
    assert life.catch_up.request() is None
    assert life.continuity() is Continuity.LIVE


def test_what_is_looked_for_before_the_first_connection_is_looked_for_with_it() -> None:
    life = Life()
    tracked = life.tracker.track("old")
    life.catch_up.search_for("old", life.now)
    assert life.catch_up.request() is None
    life.connect()
    life.page(record("b", "filled"), cursor="2")
    life.page(record("old", "expired"))
    life.balances()
    life.sweep()
    assert life.tracker.outcome(tracked).verdict is aggstream.Verdict.EXPIRED


def test_an_order_that_was_open_long_before_the_start_is_found_in_the_background() -> None:
    life = Life()
    life.connect()
    life.page(record("b", "filled", at=2), cursor="2")
    life.balances()
    assert life.continuity() is Continuity.LIVE
    life.page(record("c", "filled", at=1), cursor="3")
    life.fail()
    life.pass_time(60.0)
    life.page(record("old", "open", at=-99 * MINUTE), record("older", "failed", at=-100 * MINUTE))
    assert life.catch_up.request() is None
    assert life.told() == ["resolved []"]
    assert life.tracker.open_orders() == {"old"}
    life.disconnect()
    life.connect(gap=True)
    life.page(record("d", "filled", at=3 * MINUTE), record("b", "filled", at=2), cursor="2")
    life.page(record("old", "filled", at=3 * MINUTE, created=-99 * MINUTE), cursor="3")
    life.balances()
    assert life.told() == ["d filled (rest)", "old filled (rest)", "resolved [1]"]


def test_what_ended_before_the_first_look_is_history_and_not_news() -> None:
    life = Life()
    life.connect()
    life.rest(record("a", "filled", at=-5001), record("b", "filled", at=-6000))
    life.disconnect()
    life.connect(gap=True)
    life.rest(record("c", "filled", at=3), record("a", "filled", at=-5001), record("z", "filled", at=-5000))
    assert life.told() == ["resolved []", "c filled (rest)", "resolved [1]"]


# --- behind ---------------------------------------------------------------------------------------------


def test_after_handlers_were_behind_it_looks_again(life: Life) -> None:
    life.catch_up.overflowed(life.now, life.now - 1)
    assert life.continuity() is Continuity.CATCHING_UP
    life.rest(record("a", "filled", at=1))
    assert life.told() == ["a filled (rest)", "resolved []"]


def test_so_much_is_held_back_and_then_it_goes_on(life: Life) -> None:
    life.disconnect()
    life.connect(gap=True)
    life.live(*[submitted(str(number)) for number in range(4)])
    assert (life.told(), life.catch_up.held) == ([], 4)
    life.live(submitted("4"), submitted("5"))
    assert life.told() == [f"{number} order_submitted" for number in range(6)]
    assert (life.catch_up.held, life.catch_up.is_holding) == (0, False)
    life.rest(record("a", "open"))
    assert life.told() == ["resolved [1]"]


def test_nothing_of_a_user_is_left_once_another_one_is_signed_in(life: Life) -> None:
    life.disconnect()
    life.connect(gap=True)
    life.live(submitted("b"))
    life.catch_up.forget()
    assert life.told() == []
    assert life.tracker.orders() == {}
    life.connect()
    life.rest(record("theirs", "open"))
    assert life.told() == ["resolved []"]


def test_what_is_history_for_another_user_is_not_told_when_a_live_stream_is_switched(life: Life) -> None:
    assert life.tracker.continuity is Continuity.LIVE
    life.catch_up.forget()
    life.disconnect()  # the connection of the user before ends after the switch
    life.connect()
    life.rest(record("theirs", "filled", at=-DAY))
    assert life.told() == ["resolved []"]


def test_late_news_of_an_order_that_was_forgotten_brings_nothing_back() -> None:
    life = Life()
    life.tracker._kept = 1
    life.connect()
    life.rest()
    life.live(order_event("filled", "a"), order_event("filled", "b"))
    assert set(life.tracker.orders()) == {"b"}
    life.live(order_event("dag_completed", "a", at=1))
    assert set(life.tracker.orders()) == {"b"}
    assert life.tracker.open_orders() == set()
    life.disconnect()
    life.connect(gap=True)
    life.rest(record("b", "filled", at=1), record("a", "filled", at=1))
    assert life.told() == ["resolved []", "a filled", "b filled", "a dag_completed", "resolved [1]"]
    # Who asks for it finds it again.
    tracked = life.tracker.track("a")
    life.catch_up.search_for("a", life.now)
    life.page(record("a", "filled"))
    assert life.tracker.outcome(tracked).verdict is aggstream.Verdict.FILLED


# --- REST trails ----------------------------------------------------------------------------------------


def lagging() -> Life:
    """Return a life whose REST may trail by ten seconds. One order is open, and it has caught up."""
    life = Life(rest_lag=10.0)
    life.connect()
    life.rest()
    life.live(submitted("a"))
    life.told()
    life.disconnect()
    life.connect(gap=True)
    return life


def test_one_look_is_no_proof_while_an_order_may_have_ended() -> None:
    life = lagging()
    life.rest(record("a", "open"))
    assert (life.told(), life.continuity()) == ([], Continuity.CATCHING_UP)
    moments = []
    while life.catch_up.request() is None:
        at = life.catch_up.next_deadline()
        assert at is not None
        life.pass_time(at - life.now)
        moments.append(at - 100.0)
        if len(moments) < 4:
            life.page(record("a", "open"))
            if moments[-1] >= 10:
                life.balances()
                break
    assert moments == [2.0, 6.0, 14.0]
    assert life.told() == ["resolved [1]"]
    assert life.continuity() is Continuity.LIVE


def test_an_end_that_rest_shows_a_second_later_is_told_when_it_does() -> None:
    life = lagging()
    life.rest(record("a", "open"))
    life.pass_time(2.0)
    life.page(record("a", "filled", at=1, filled=5))
    assert life.told() == ["a filled (rest)"]
    assert life.catch_up.next_deadline() == 115.0  # nothing is open any more; the last look is for what is unknown
    life.pass_time(13.0)
    life.page(record("b", "cancelled", at=1), record("a", "filled", at=1, filled=5))
    life.balances()
    assert life.told() == ["b cancelled (rest)", "resolved [1]"]


def test_what_rest_shows_after_a_minute_is_told_and_holds_and_delays_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    life = lagging()
    life.rest(record("a", "open"))
    life.pass_time(14.0)
    life.page(record("a", "open"))
    life.balances()
    assert life.told() == ["resolved [1]"]
    at = life.catch_up.next_deadline()
    assert at == 165.0
    life.pass_time(at - life.now)
    life.live(submitted("c", at=65_000))
    assert life.told() == ["c order_submitted"]
    life.page(record("c", "open", at=65_000), record("b", "filled", at=1), record("a", "failed", at=2))
    assert life.told() == ["b filled (rest)", "a failed (rest)"]
    assert life.continuity() is Continuity.LIVE
    assert "rest_lag" in caplog.text
    assert life.catch_up.next_deadline() is None


def test_an_order_that_the_last_look_does_not_list_is_named_and_keeps_nothing_from_live(life: Life) -> None:
    tracked = life.tracker.track("a")
    life.disconnect()
    life.connect(gap=True)
    life.rest(record("b", "open", at=1))
    [report] = [event for event in life.events() if isinstance(event, Reconciled)]
    assert (report.resolved, report.unlisted) == (True, ("a",))
    assert life.continuity() is Continuity.LIVE
    outcome = life.tracker.wait(tracked, Deadline(None))  # it returns, though nobody tells of an end
    assert outcome.verdict is aggstream.Verdict.UNKNOWN
    assert "does not list it" in outcome.reason
    life.live(order_event("filled", "a", at=2))
    assert life.tracker.outcome(tracked).verdict is aggstream.Verdict.FILLED


# --- doubts ---------------------------------------------------------------------------------------------


def test_a_message_that_was_not_understood_is_looked_at_like_a_gap_but_holds_nothing(life: Life) -> None:
    life.catch_up.raise_doubt(life.now)
    assert life.continuity() is Continuity.CATCHING_UP
    life.live(submitted("b", at=1))
    assert life.told() == ["b order_submitted"]
    life.page(record("b", "open", at=1), record("a", "filled", at=1))
    life.balances()
    life.sweep()
    assert life.told() == ["a filled (rest)", "resolved []"]
    assert life.continuity() is Continuity.LIVE


def test_doubts_that_come_each_second_are_looked_at_ever_less_often(life: Life) -> None:
    looks = []
    for second in range(600):
        life.catch_up.raise_doubt(life.now)
        if (read := life.catch_up.request()) is not None:
            looks.append(second)
            assert isinstance(read, ReadOrders)
            page = OrdersPage(orders=(record("a", "open"),), date_ms=life.service_ms)
            life.catch_up.page_received(read, page, life.now, 0)
            if life.catch_up.request() is not None:
                life.catch_up.balances_received(life.catch_up._asked, Balances(), life.now, 0)  # type: ignore[arg-type]
        life.pass_time(1.0)
    assert len(looks) < 40
    assert life.continuity() is not Continuity.LIVE or looks[-1] > 500


def test_an_end_whose_word_and_amounts_disagree_is_looked_at_and_confirmed(life: Life) -> None:
    tracked = life.tracker.track("a")
    message = {"type": "order_event", "event": "filled", "orderId": "a", "timestamp": NOW_MS + 1}
    text = json.dumps(message | {"filledAmountRaw": "400", "remainingAmountRaw": "600"})
    life.live(decode(text, 1))
    assert life.told() == ["a filled"]  # as it came
    assert life.tracker.outcome(tracked).verdict is aggstream.Verdict.UNKNOWN
    life.page(record("a", "filled", at=1, filled=400))
    life.balances()
    outcome = life.tracker.outcome(tracked)
    assert outcome.verdict is aggstream.Verdict.PARTIALLY_FILLED
    assert outcome.order is not None
    assert outcome.order.contradictions


@pytest.mark.parametrize("at", [-DAY, -1000])
def test_an_end_that_only_rest_tells_is_confirmed_once_rest_has_known_it_for_long_enough(at: int) -> None:
    life = Life(RestOptions(amounts_in_one_unit=True))
    life.connect()
    part = attrs.evolve(record("a", "filled", at=at, filled=40), amount_text="100")
    life.rest(part)
    outcome = life.tracker.outcome(life.tracker.track("a"))
    assert outcome.verdict is (Verdict.PARTIALLY_FILLED if at == -DAY else Verdict.UNKNOWN)
    life.pass_time(66)
    life.page(part)
    assert life.tracker.outcome(life.tracker.track("a")).verdict is Verdict.PARTIALLY_FILLED


def test_an_amount_that_cannot_be_read_is_known_once_the_last_look_has_told_it(life: Life) -> None:
    ended = {"type": "order_event", "event": "cancelled", "orderId": "a", "filledAmountRaw": "4.5"}
    life.live(decode(json.dumps(ended | {"timestamp": NOW_MS + 1500}), 1))
    outcome = life.tracker.outcome(life.tracker.track("a"))
    assert (outcome.verdict, outcome.order and outcome.order.unreadable_amount) == (Verdict.UNKNOWN, "4.5")
    # The service has changed the order a moment before it sent the message.
    life.rest(record("a", "cancelled", at=1200, created=0, filled=4))
    assert life.told() == ["a cancelled", "a cancelled (rest)", "resolved []"]
    outcome = life.tracker.outcome(life.tracker.track("a"))
    assert (outcome.verdict, outcome.filled_amount_raw) == (Verdict.PARTIALLY_FILLED, 4)


def test_a_pause_of_reading_is_a_doubt_from_where_it_began(life: Life) -> None:
    life.pass_time(600.0)
    life.page(record("a", "open"))
    life.catch_up.overflowed(life.now, life.now - 300.0)
    life.page(record("b", "filled", at=301_000), record("a", "open"))
    life.balances()
    assert life.told() == ["b filled (rest)", "resolved []"]


# --- whose clock ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("hours", [-1, 0, 1])
def test_neither_machine_need_know_what_time_it_is(hours: int) -> None:
    ahead = hours * 60 * MINUTE
    life = Life()
    life.now += ahead / 1000  # of the service's clock by the client's
    life.connect()
    life.rest(record("old", "filled", at=ahead - 6000), record("a", "open", at=ahead - 6000))
    life.disconnect()
    life.connect(gap=True)
    old = record("old", "filled", at=ahead - 6000)
    life.rest(record("new", "filled", at=ahead + 1), old, record("a", "open", at=ahead - 6000))
    assert life.told() == ["resolved []", "new filled (rest)", "resolved [1]"]


def test_without_a_date_the_messages_tell_the_service_s_time() -> None:
    life = Life(dated=False)
    life.connect()
    life.rest(record("old", "filled", at=-6000))
    life.live(submitted("a"))
    life.disconnect()
    life.connect(gap=True)
    life.rest(record("b", "filled", at=1), record("a", "open"), record("old", "filled", at=-6000))
    assert life.told() == ["resolved []", "a order_submitted", "b filled (rest)", "resolved [1]"]


def test_if_nothing_tells_the_service_s_time_a_gap_is_not_resolved_and_the_next_one_is() -> None:
    life = Life(dated=False)
    life.connect()
    life.fail()
    life.disconnect()
    life.connect(gap=True)
    life.rest(record("b", "filled", at=-6000))
    events = life.events()
    assert [event.resolved for event in events if isinstance(event, Reconciled)] == [False, False]
    assert "nothing tells" in str(events[-1].error)  # type: ignore[attr-defined]
    life.live(submitted("a", at=2))
    life.told()
    life.disconnect()
    life.connect(gap=True)
    life.rest(record("a", "filled", at=3), record("b", "filled", at=-6000))
    assert life.told() == ["a filled (rest)", "resolved [2]"]


def test_records_without_a_time_are_news_above_what_was_listed_before() -> None:
    life = Life()
    bare = {"created_at": None, "updated_at": None}
    life.connect()
    life.rest(OrderRecord(id="x", status="filled", **bare), OrderRecord(id="y", status="filled", **bare))  # type: ignore[arg-type]
    life.disconnect()
    life.connect(gap=True)
    life.page(
        OrderRecord(id="new", status="filled", **bare),  # type: ignore[arg-type]
        OrderRecord(id="x", status="filled", **bare),  # type: ignore[arg-type]
        OrderRecord(id="older", status="filled", **bare),  # type: ignore[arg-type]
    )
    life.balances()
    assert life.told() == ["resolved []", "new filled (rest)", "resolved [1]"]


def test_an_old_order_without_the_time_of_its_last_change_is_told_to_have_ended_in_a_gap() -> None:
    life = Life()
    life.connect()
    resting = attrs.evolve(record("a", "open", created=-DAY), updated_at=None)
    over = attrs.evolve(record("b", "filled", created=-DAY), updated_at=None)
    life.rest(resting, over)
    life.told()
    life.disconnect()
    life.connect(gap=True)
    life.rest(attrs.evolve(resting, status="filled"), over)
    assert life.told() == ["a filled (rest)", "resolved [1]"]


def test_old_orders_without_the_time_of_their_last_change_are_history_where_they_are_searched_for() -> None:
    life = Life()
    life.connect()
    life.page()
    life.balances()
    life.told()
    over = attrs.evolve(record("b", "filled", created=-DAY), updated_at=None)
    life.page(over)  # it was asked for those that are pending, so the filter is not relied on
    life.page(over)
    assert life.told() == []


def test_a_time_that_lies_ahead_of_the_service_s_own_clock_is_no_time(life: Life) -> None:
    life.disconnect()
    life.connect(gap=True)
    life.rest(record("b", "filled", at=10 * MINUTE), record("a", "filled", at=10 * MINUTE))
    assert life.told() == ["b filled (rest)", "a filled (rest)", "resolved [1]"]


# --- pages that lead nowhere ----------------------------------------------------------------------------


def test_pages_in_a_circle_end_the_look_with_words_and_are_asked_for_again_later(life: Life) -> None:
    life.disconnect()
    life.connect(gap=True)
    life.page(record("b", "filled", at=2), cursor="2")
    life.page(record("c", "filled", at=1), cursor="2")
    assert life.told() == ["b filled (rest)", "c filled (rest)", "unresolved [1]"]
    assert "circle" in str(life.catch_up.last_error)
    life.pass_time(60.0)
    life.rest(record("a", "open"))
    assert life.told() == ["resolved [1]"]


def test_empty_pages_that_say_there_are_more_are_believed_for_a_while(life: Life) -> None:
    life.disconnect()
    life.connect(gap=True)
    for number in range(3):
        life.page(cursor=str(number))
    assert life.told() == ["unresolved [1]"]
    assert "empty pages" in str(life.catch_up.last_error)


def test_rows_that_repeat_over_a_page_s_border_are_counted_once(life: Life) -> None:
    life.disconnect()
    life.connect(gap=True)
    life.page(record("c", "filled", at=2), record("b", "filled", at=1), cursor="2")
    life.page(record("b", "filled", at=1), record("a", "open", created=-MINUTE * 9))
    life.balances()
    events = life.events()
    report = events[-1]
    assert isinstance(report, Reconciled)
    assert (report.orders, report.pages, report.changed) == (3, 2, 2)


# --- the search for old open orders ---------------------------------------------------------------------


def test_the_search_for_old_open_orders_goes_by_status_and_goes_on_after_failures_and_gaps() -> None:
    life = Life()
    life.connect()
    life.page(record("b", "filled"), cursor="2")
    life.balances()
    first = life.asked()
    assert isinstance(first, ReadOrders)
    assert first.status == "pending"
    life.catch_up.read_failed(first, DOWN, life.now)
    life.disconnect()
    life.connect(gap=True)
    life.page(record("b", "filled"), record("older", "filled", at=-99 * MINUTE))
    life.balances()
    # After a gap one that was open may have ended, so that no filter finds it.
    read = life.asked()
    assert isinstance(read, ReadOrders)
    assert (read.status, read.cursor) == (None, None)


def test_each_status_is_searched_for_in_as_many_pages() -> None:
    life = Life(RestOptions(max_pages=2))
    life.connect()
    life.page()
    life.balances()
    for status in ("pending", "open", "partially_filled_open"):
        for number in range(2):
            life.page(record(f"{status} {number}", status, at=-DAY), cursor=f"{status} {number}")
    assert life.catch_up.request() is None
    assert len(life.tracker.open_orders()) == 6


def test_a_filter_that_is_not_heeded_is_not_relied_on() -> None:
    life = Life()
    life.connect()
    life.page(record("b", "filled"), cursor="2")
    life.balances()
    life.page(record("b", "filled"), cursor="2")
    read = life.asked()
    assert isinstance(read, ReadOrders)
    assert (read.status, read.cursor) == (None, None)
    page = OrdersPage(orders=(record("old", "open", at=-99 * MINUTE),), date_ms=life.service_ms)
    life.catch_up.page_received(read, page, life.now, 0)
    assert life.catch_up.request() is None
    assert life.tracker.open_orders() == {"old"}


def test_nothing_is_told_after_a_gap_of_orders_to_which_nothing_has_happened() -> None:
    life = Life()
    life.connect()
    life.rest(record("a", "open", at=-6000), record("b", "partially_filled_open", at=-7000, filled=3))
    life.disconnect()
    life.connect(gap=True)
    life.rest(record("a", "open", at=-6000), record("b", "partially_filled_open", at=-7000, filled=3))
    assert life.told() == ["resolved []", "resolved [1]"]
