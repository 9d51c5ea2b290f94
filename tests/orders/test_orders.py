"""Folding what is said of an order, in whatever order and however often it is said."""

from __future__ import annotations

import datetime as dt
import json
import random
from decimal import Decimal
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

import aggstream
from aggstream import BalanceUpdate, Order, OrderEvent, OrderRecord, OrderSubmitted, Outcome, Verdict
from aggstream._protocol.codec import Codec
from aggstream.events import ORDER_EVENTS, OrderEventKind
from aggstream.orders._state import OrderState
from aggstream.simulator import _lifecycle

ID = "ord_1"
decode = Codec(aggstream.Limits()).decode


def submitted(**fields: Any) -> OrderSubmitted:
    known = {
        "venue": "kalshi",
        "side": "buy",
        "price": Decimal("0.55"),
        "size": Decimal(100),
        "outcome_id": "vmo_1",
    }
    return OrderSubmitted(**{"order_id": ID, "timestamp": 1, **known, **fields})


def event(name: str, timestamp: int = 10, **fields: Any) -> OrderEvent:
    return OrderEvent(**{"event": name, "order_id": ID, "timestamp": timestamp, **fields})


def filled(name: str, amount: int, timestamp: int = 10, **fields: Any) -> OrderEvent:
    return event(name, timestamp, filled_amount_text=str(amount), **fields)


def record(status: str, *, updated: int = 20, **fields: Any) -> OrderRecord:
    moment = dt.datetime.fromtimestamp(updated / 1000, dt.timezone.utc)
    return OrderRecord(**{"id": ID, "status": status, "created_at": moment, "updated_at": moment, **fields})


def folded(*said: OrderSubmitted | OrderEvent) -> Order:
    return fold_of(*said).snapshot()


def fold_of(*said: OrderSubmitted | OrderEvent) -> OrderState:
    fold = OrderState(ID)
    for one in said:
        if isinstance(one, OrderSubmitted):
            fold.fold_submitted(one)
        else:
            fold.fold_event(one)
    return fold


# --- what is said ---------------------------------------------------------------------------------------


def test_an_order_is_what_was_said_of_it() -> None:
    order = folded(
        submitted(),
        event("dag_started", 2, dag_run_id="dag_1", venue="kalshi"),
        event("step_started", 3, step_id="s1", step_type="place_order", attempt=0),
        event("step_completed", 4, step_id="s1", step_type="place_order", attempt=0),
        filled("partially_filled", 30, 5, remaining_amount_text="70"),
        filled("filled", 100, 6, remaining_amount_text="0"),
        event("dag_completed", 7, dag_run_id="dag_1"),
    )
    assert (order.order_id, order.status, order.side, order.price) == (ID, "filled", "buy", Decimal("0.55"))
    assert (order.size, order.venue, order.outcome_id) == (Decimal(100), "kalshi", "vmo_1")
    assert (order.filled_amount_raw, order.remaining_amount_raw) == (100, 0)
    assert (order.dag_run_id, order.run_state) == ("dag_1", "completed")
    assert [(step.step_type, step.state, step.attempt) for step in order.steps] == [
        ("place_order", "completed", 0)
    ]
    assert (order.first_timestamp, order.last_timestamp) == (1, 7)
    assert order.is_terminal
    assert order.verdict is Verdict.FILLED
    assert order.contradictions == ()
    assert order.sources["status"] == "stream"
    assert order.first_seen_at == dt.datetime(1970, 1, 1, 0, 0, 0, 1000, tzinfo=dt.timezone.utc)


def test_snapshots_are_immutable_and_do_not_change_with_the_order() -> None:
    fold = fold_of(submitted())
    before = fold.snapshot()
    assert fold.snapshot() is before
    fold.fold_event(event("failed", error_reason="no"))
    assert before.status == "submitted"
    assert fold.snapshot().status == "failed"
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        before.status = "filled"  # type: ignore[misc]


def test_an_end_is_not_undone_by_what_comes_late() -> None:
    order = folded(
        filled("filled", 100, 9),
        filled("partially_filled", 30, 5),
        event("step_failed", 4, step_id="s1", error_reason="venue_timeout"),
        event("dag_failed", 6, error_reason="late"),
        submitted(),
    )
    assert (order.status, order.filled_amount_raw, order.verdict) == ("filled", 100, Verdict.FILLED)
    assert order.contradictions == ()


@pytest.mark.parametrize(
    ("end", "amount", "verdict"),
    [
        ("filled", 100, Verdict.FILLED),
        ("order_filled", None, Verdict.FILLED),
        ("failed", None, Verdict.FAILED),
        ("failed", 0, Verdict.FAILED),
        ("failed", 30, Verdict.PARTIALLY_FILLED),
        ("cancelled", 0, Verdict.CANCELLED),
        ("cancelled", 30, Verdict.PARTIALLY_FILLED),
        ("expired", None, Verdict.EXPIRED),
        ("expired", 1, Verdict.PARTIALLY_FILLED),
        ("partially_filled", 30, Verdict.UNKNOWN),
        ("dag_completed", None, Verdict.UNKNOWN),
        ("never_heard_of", None, Verdict.UNKNOWN),
    ],
)
def test_the_verdict_is_what_it_ended_as(end: str, amount: int | None, verdict: Verdict) -> None:
    last = event(end) if amount is None else filled(end, amount)
    assert folded(submitted(), last).verdict is verdict


def test_a_part_that_was_filled_before_a_cancellation_without_amounts_counts() -> None:
    assert folded(filled("partially_filled", 30), event("cancelled", 11)).verdict is Verdict.PARTIALLY_FILLED


def test_two_ends_are_a_contradiction_and_the_verdict_is_unknown() -> None:
    order = folded(event("failed", 5), filled("filled", 100, 6), filled("filled", 100, 6))
    assert order.status == "failed"
    assert order.verdict is Verdict.UNKNOWN
    [contradiction] = order.contradictions
    assert (contradiction.field, contradiction.kept, contradiction.refused) == ("status", "failed", "filled")
    assert (contradiction.source, contradiction.timestamp) == ("stream", 6)


def test_other_facts_that_differ_are_kept_and_visible() -> None:
    order = folded(submitted(), submitted(side="sell", price=Decimal("0.6")))
    assert (order.side, order.price) == ("buy", Decimal("0.55"))
    assert {(c.field, c.refused) for c in order.contradictions} == {("side", "sell"), ("price", "0.6")}


@pytest.mark.parametrize("words", [("failed", "rejected"), ("rejected", "failed")])
def test_two_words_of_one_verdict_are_no_contradiction(words: tuple[str, str]) -> None:
    order = folded(event(words[0]), event(words[1], 20))
    assert (order.verdict, order.status, order.contradictions) == (Verdict.FAILED, words[0], ())


def test_an_amount_only_grows_and_a_newer_smaller_one_is_a_contradiction() -> None:
    order = folded(filled("partially_filled", 60, 10), filled("partially_filled", 30, 5))
    assert (order.filled_amount_raw, order.contradictions) == (60, ())
    order = folded(filled("partially_filled", 60, 10), filled("partially_filled", 30, 15))
    assert order.filled_amount_raw == 60
    assert [c.field for c in order.contradictions] == ["filled_amount_raw"]


def test_a_step_is_as_far_as_its_newest_attempt() -> None:
    step = {"step_id": "s1", "step_type": "bridge"}
    said = [
        event("step_started", 1, attempt=0, **step),
        event("step_failed", 2, attempt=0, error_reason="timeout", **step),
        event("step_retrying", 3, attempt=1, **step),
    ]
    [now] = folded(*said).steps
    assert (now.attempt, now.state, now.error_reason) == (1, "retrying", None)
    [late] = folded(*reversed(said)).steps
    assert late == now
    assert (late.first_timestamp, late.last_timestamp) == (1, 3)


def test_what_a_service_can_say_of_one_order_is_bounded() -> None:
    fold = OrderState(ID)
    for number in range(5000):
        fold.fold_event(event("step_started", number, step_id=f"s{number}"))
        fold.fold_submitted(submitted(side=f"side {number}"))
    order = fold.snapshot()
    assert len(order.steps) <= 256
    assert len(order.contradictions) <= 16


# --- in any order ---------------------------------------------------------------------------------------


def lives() -> list[list[OrderSubmitted | OrderEvent]]:
    """Return the whole lives of orders of every scenario, as the simulator tells them."""
    found = []
    for number, scenario in enumerate(_lifecycle.SCENARIOS):
        rng = random.Random(number)
        order, _ = _lifecycle.draw_order("usr_1", _lifecycle.choose(scenario), rng)
        life = _lifecycle.Lifecycle(order, _lifecycle.Wallet(order.venue), scenario, rng)
        frames = [frame | {"timestamp": at} for at, frame in enumerate(life.frames, 1)]
        events = [decode(json.dumps(frame), 1) for frame in frames]
        found.append([e for e in events if isinstance(e, (OrderSubmitted, OrderEvent))])
    return found


LIVES = lives()


@given(st.data())
def test_whatever_comes_late_twice_or_out_of_order_makes_no_difference(data: st.DataObject) -> None:
    life = data.draw(st.sampled_from(LIVES))
    in_order = folded(*life)
    said = data.draw(st.permutations(life + data.draw(st.lists(st.sampled_from(life), max_size=5))))
    other = folded(*said)
    assert other.verdict is in_order.verdict
    for name in (
        "status",
        "side",
        "price",
        "filled_amount_raw",
        "remaining_amount_raw",
        "error_reason",
        "run_state",
    ):
        assert getattr(other, name) == getattr(in_order, name), name
    assert {c.refused for c in other.contradictions} == {c.refused for c in in_order.contradictions}
    assert sorted(other.steps, key=lambda step: step.first_timestamp) == list(in_order.steps)


@given(st.data())
def test_without_its_end_nobody_says_that_it_has_ended(data: st.DataObject) -> None:
    life = data.draw(st.sampled_from(LIVES))
    some = data.draw(st.lists(st.sampled_from(life)))
    has_ended = any(isinstance(e, OrderEvent) and e.is_terminal for e in some)
    assert folded(*some).is_terminal is has_ended


# --- what REST says -------------------------------------------------------------------------------------


def said(fold: OrderState, status: str, **fields: Any) -> bool:
    """Take a record, and tell of it if it says more than was told; return whether it did."""
    told = record(status, **fields)
    says_more = fold.says_more(status, told.filled_amount_text)
    fold.fold_record(told, status, telling="now" if says_more else "never")
    return says_more


def test_rest_adds_what_the_stream_does_not_tell_and_says_where_it_came_from() -> None:
    fold = fold_of(submitted())
    assert said(
        fold,
        "filled",
        amount_text="100",
        filled_amount_text="100",
        quoted_price_text="5",
        quoted_cost_text="500.0",
        execution_price=Decimal("0.54"),
    )
    order = fold.snapshot()
    assert (order.status, order.amount_raw, order.filled_amount_raw) == ("filled", 100, 100)
    assert (order.quoted_price_raw, order.quoted_cost_raw) == (5, 500)
    assert order.execution_price == Decimal("0.54")
    assert order.remaining_amount_raw is None  # nothing says that the two amounts have one unit
    assert (order.sources["status"], order.sources["price"]) == ("reconcile", "stream")


def test_what_remains_is_told_by_rest_only_where_its_amounts_have_one_unit() -> None:
    fold = OrderState(ID)
    part = record("cancelled", amount_text="100", filled_amount_text="40")
    fold.fold_record(part, "cancelled", telling="now", one_unit=True)
    assert fold.snapshot().remaining_amount_raw == 60


def test_a_record_says_more_once() -> None:
    fold = fold_of(submitted())
    assert [said(fold, "filled", filled_amount_text="100") for _ in range(2)] == [True, False]


def test_a_record_says_no_more_than_what_the_stream_has_told() -> None:
    fold = fold_of(filled("partially_filled", 30), filled("filled", 100))
    assert not said(fold, "filled", filled_amount_text="100.0")
    assert not said(fold, "partially_filled", filled_amount_text="30")
    assert not said(fold, "open")
    assert said(fold, "filled", filled_amount_text="101")


def test_a_record_that_is_owed_to_the_handlers_says_more_later_and_one_that_is_history_does_not() -> None:
    for telling, says_more in (("later", True), ("never", False)):
        fold = OrderState(ID)
        fold.fold_record(record("filled"), "filled", telling=telling)  # type: ignore[arg-type]
        assert fold.says_more("filled", None) is says_more


def test_what_was_owed_and_has_lapsed_is_not_told_any_more() -> None:
    fold = OrderState(ID)
    fold.fold_record(record("partially_filled", filled_amount_text="4"), "partially_filled", telling="later")
    fold.settle_debt()
    assert not fold.says_more("partially_filled", "4")
    assert fold.says_more("partially_filled", "5")


def test_the_streams_event_only_repeats_what_rest_has_told_with_as_much_of_its_amount() -> None:
    fold = OrderState(ID)
    assert said(fold, "partially_filled", filled_amount_text="60")
    assert fold.fold_event(filled("partially_filled", 30))
    assert fold.fold_event(filled("partially_filled", 60))
    assert not fold.fold_event(filled("partially_filled", 80))
    assert not fold.fold_event(event("step_completed", step_id="s1"))
    assert said(fold, "filled", filled_amount_text="100")
    assert fold.fold_event(filled("filled", 100))
    assert fold.fold_event(event("filled"))
    assert not fold.fold_event(filled("filled", 120))
    for telling in ("later", "never"):
        other = OrderState(ID)
        other.fold_record(record("filled"), "filled", telling=telling)
        assert not other.fold_event(event("filled"))


def test_an_end_that_rest_has_told_without_an_amount_is_told_with_it_by_the_stream() -> None:
    fold = OrderState(ID)
    assert said(fold, "filled")
    assert not fold.fold_event(filled("filled", 100))


def test_a_record_that_lags_behind_says_no_more_and_is_no_contradiction() -> None:
    fold = fold_of(submitted(), filled("filled", 100))
    for status, amount in (("open", "0"), ("partially_filled", "60"), ("settling", "60")):
        assert not said(fold, status, filled_amount_text=amount)
    assert fold.snapshot().contradictions == ()


def test_another_end_by_rest_is_a_contradiction_and_is_told_once() -> None:
    fold = fold_of(event("failed"))
    assert [said(fold, "filled") for _ in range(2)] == [True, False]
    order = fold.snapshot()
    assert (order.status, order.verdict) == ("failed", Verdict.UNKNOWN)
    assert order.contradictions[0].source == "reconcile"


def test_a_status_that_nobody_has_heard_of_says_more_once_and_is_no_end() -> None:
    fold = fold_of(submitted())
    assert [said(fold, "settling") for _ in range(2)] == [True, False]
    assert (fold.snapshot().status, fold.snapshot().unknown_status) == ("settling", "settling")
    assert not fold.is_open  # nobody knows
    assert said(fold, "filled")
    assert fold.snapshot().unknown_status is None


def test_a_known_status_by_rest_takes_the_place_of_the_streams_word_for_the_same_change() -> None:
    for updated, unknown in ((59_000, None), (50_000, "accepted")):
        fold = fold_of(event("accepted", 60_000))
        said(fold, "open", updated=updated)
        assert (fold.snapshot().unknown_status, fold.is_open) == (unknown, unknown is None)


# --- the words of an end, and its amounts ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "amounts", "verdict", "doubt"),
    [
        ("filled", ("1000", "0"), Verdict.FILLED, ""),
        ("filled", ("1e3", "0.0"), Verdict.FILLED, ""),
        ("filled", (None, None), Verdict.FILLED, ""),
        ("filled", ("1000", None), Verdict.FILLED, ""),
        ("filled", ("400", "600"), Verdict.UNKNOWN, "disagree"),
        ("filled", (None, "600"), Verdict.UNKNOWN, "disagree"),
        ("filled", ("0", None), Verdict.UNKNOWN, "disagree"),
        ("filled", ("400", "0.5"), Verdict.UNKNOWN, "unreadable"),
        ("filled", ("4.5", "0"), Verdict.FILLED, ""),
        ("cancelled", (None, None), Verdict.CANCELLED, ""),
        ("cancelled", ("0", "1000"), Verdict.CANCELLED, ""),
        ("canceled", ("400", "600"), Verdict.PARTIALLY_FILLED, ""),
        ("expired", ("400", None), Verdict.PARTIALLY_FILLED, ""),
        ("failed", ("1000", "0"), Verdict.UNKNOWN, "disagree"),
        ("cancelled", ("4.5", None), Verdict.UNKNOWN, "unreadable"),
        ("cancelled", ("", "0"), Verdict.UNKNOWN, "unreadable"),
        ("expired", ("-4", "6"), Verdict.UNKNOWN, "unreadable"),
        ("rejected", (None, None), Verdict.FAILED, ""),
        ("REJECTED", ("0x10", None), Verdict.UNKNOWN, "unreadable"),
    ],
)
def test_no_verdict_rests_on_a_word_against_its_own_amounts_or_on_an_amount_that_cannot_be_read(
    word: str, amounts: tuple[str | None, str | None], verdict: Verdict, doubt: str
) -> None:
    order = folded(event(word, filled_amount_text=amounts[0], remaining_amount_text=amounts[1]))
    assert (order.verdict, order.amounts_doubt) == (verdict, doubt)
    assert order.is_terminal
    assert bool(order.contradictions) is (doubt == "disagree")


def test_an_amount_that_cannot_be_read_counts_wherever_it_stands() -> None:
    order = folded(event("partially_filled_open", filled_amount_text="4.5"), event("cancelled", 2))
    assert (order.verdict, order.unreadable_amount) == (Verdict.UNKNOWN, "4.5")
    order = folded(event("step_completed", step_id="s", filled_amount_text="400"), event("cancelled", 2))
    assert (order.verdict, order.filled_amount_raw) == (Verdict.PARTIALLY_FILLED, 400)
    order = folded(event("settling", filled_amount_text="400"), event("cancelled", 2))
    assert (order.verdict, order.filled_amount_raw) == (Verdict.PARTIALLY_FILLED, 400)


def test_an_amount_that_can_be_read_takes_the_place_of_an_older_one_that_cannot() -> None:
    newer = [event("partially_filled", 1, filled_amount_text="x"), event("cancelled", 2, filled_amount_text="5")]
    order = folded(*newer)
    assert (order.verdict, order.filled_amount_raw, order.unreadable_amount) == (Verdict.PARTIALLY_FILLED, 5, None)
    order = folded(event("cancelled", 2, filled_amount_text="x"), filled("partially_filled", 5, 1))
    assert (order.verdict, order.unreadable_amount) == (Verdict.UNKNOWN, "x")


def test_that_a_part_was_filled_counts_also_without_an_amount() -> None:
    assert folded(event("partially_filled"), event("expired", 2)).verdict is Verdict.PARTIALLY_FILLED


def test_a_doubt_about_amounts_ends_when_the_whole_is_told_and_is_confirmed_by_the_last_look() -> None:
    whole = fold_of(event("filled", filled_amount_text="400", remaining_amount_text="600"))
    said(whole, "filled", filled_amount_text="700")
    assert whole.snapshot().verdict is Verdict.UNKNOWN
    said(whole, "filled", filled_amount_text="1000")
    assert whole.snapshot().verdict is Verdict.FILLED
    part = fold_of(event("filled", filled_amount_text="400", remaining_amount_text="600"))
    part.confirm_amounts(700)
    assert part.snapshot().verdict is Verdict.UNKNOWN
    part.confirm_amounts(400)
    order = part.snapshot()
    assert (order.verdict, [c.field for c in order.contradictions]) == (Verdict.PARTIALLY_FILLED, ["amounts"])


def test_what_remains_counts_for_every_word_that_tells_the_same_filled_amount() -> None:
    part = event("step_completed", 1, step_id="s", filled_amount_text="40", remaining_amount_text="60")
    order = folded(part, event("filled", 2, filled_amount_text="40.0"))
    assert (order.verdict, order.amounts_doubt) == (Verdict.UNKNOWN, "disagree")
    assert folded(part, event("filled", 2, filled_amount_text="100")).verdict is Verdict.FILLED
    order = folded(part, event("filled", 2, filled_amount_text="40", remaining_amount_text="0"))
    assert (order.verdict, order.remaining_amount_raw) == (Verdict.FILLED, 0)
    order = folded(event("filled", 2, filled_amount_text="40", remaining_amount_text="0"), part)
    assert (order.verdict, order.remaining_amount_raw) == (Verdict.FILLED, 0)


def test_what_the_last_look_has_confirmed_is_not_doubted_again_when_it_is_said_once_more() -> None:
    part = event("filled", filled_amount_text="40", remaining_amount_text="60")
    fold = fold_of(part)
    fold.confirm_amounts(40)
    fold.fold_event(part)
    whole = record("filled", amount_text="100", filled_amount_text="40")
    fold.fold_record(whole, "filled", telling="never", one_unit=True)
    fold.fold_record(whole, "filled", telling="never")
    assert fold.snapshot().verdict is Verdict.PARTIALLY_FILLED
    fold.fold_event(event("filled", 11, filled_amount_text="70", remaining_amount_text="30"))
    assert fold.snapshot().verdict is Verdict.UNKNOWN


def test_a_snapshot_can_be_kept_in_a_set() -> None:
    orders = [folded(submitted(), event("filled", 2)) for _ in range(2)]
    assert orders[0] is not orders[1]
    assert len(set(orders)) == 1
    outcomes = {Outcome(order_id=ID, verdict=order.verdict, order=order) for order in orders}
    assert len(outcomes) == 1


# --- the id of an event ---------------------------------------------------------------------------------


def test_the_same_fact_has_the_same_id_by_whatever_way_it_comes() -> None:
    text = {
        "type": "order_event",
        "event": "order_FILLED",
        "orderId": ID,
        "timestamp": 5,
        "filledAmountRaw": "1e2",
    }
    by_stream = decode(json.dumps(text), 1)
    assert isinstance(by_stream, OrderEvent)
    by_rest = filled("filled", 100, 9, source="reconcile", venue="kalshi", text='{"other": "text"}')
    assert by_stream.id == by_rest.id == attrs.evolve(by_rest, redelivered=True).id
    assert len(by_stream.id) == 24


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({}, {"filled_amount_text": "4"}),
        ({"filled_amount_text": "4.5"}, {"filled_amount_text": "4.6"}),
        ({"filled_amount_text": ""}, {"filled_amount_text": "-"}),
        ({"filled_amount_text": "?4"}, {"filled_amount_text": "4"}),
        ({"user_id": "usr_1"}, {"user_id": "usr_2"}),
        ({"user_id": "usr_1"}, {}),
    ],
)
@pytest.mark.parametrize("word", ["partially_filled", "filled", "settling"])
def test_another_amount_or_user_makes_another_event(word: str, one: dict[str, Any], other: dict[str, Any]) -> None:
    assert event(word, **one).id != event(word, **other).id


def test_the_table_of_words_has_no_say_in_an_id(monkeypatch: pytest.MonkeyPatch) -> None:
    told = event("settling", filled_amount_text="4")
    before = told.id
    monkeypatch.setitem(ORDER_EVENTS, "settling", OrderEventKind("terminal", is_terminal=True))
    assert (told.is_terminal, told.id) == (True, before)
    assert attrs.evolve(told, event="Settling", named_as="filled", timestamp=7).id == before


def test_two_users_balances_are_two_events() -> None:
    text = '{"type":"balance_update","venue":"v","tradingBalanceCents":1,"walletBalanceCents":1,"timestamp":1}'
    balance = decode(text, 1)
    assert isinstance(balance, BalanceUpdate)
    assert len({attrs.evolve(balance, user_id=user).id for user in ("usr_1", "usr_2", None)}) == 3


def test_different_facts_have_different_ids() -> None:
    facts = [
        filled("filled", 100),
        filled("failed", 100),
        filled("partially_filled", 30),
        filled("partially_filled", 60),
        filled("filled", 100, order_id="ord_2"),
        submitted(),
        submitted(timestamp=2),
        event("step_started", step_id="s1"),
        event("step_started", step_id="s2"),
        event("settling", source="reconcile"),
    ]
    assert len({fact.id for fact in facts}) == len(facts)


def test_the_words_of_a_hundred_thousand_orders_are_kept_once() -> None:
    text = '{"type":"order_event","event":"step_started","orderId":"a","stepType":"place_order","timestamp":1}'
    steps = [OrderState(ID) for _ in range(2)]
    for fold in steps:
        told = decode(text, 0)
        assert isinstance(told, OrderEvent)
        fold.fold_event(told)
    first, second = (fold.snapshot().steps[0] for fold in steps)
    assert first.step_type is second.step_type
    assert first.state is second.state


def test_where_the_facts_come_from_is_kept() -> None:
    fold = fold_of(submitted(), filled("partially_filled", 5))
    said(fold, "filled", filled_amount_text="9", error_message="late")
    sources = fold.snapshot().sources
    assert {name for name, source in sources.items() if source == "reconcile"} == {
        "status",
        "filled_amount_raw",
        "error_reason",
    }
    assert {name for name, source in sources.items() if source == "stream"} == {
        "venue",
        "side",
        "price",
        "size",
        "outcome_id",
    }


def test_amounts_from_before_a_fill_that_is_told_by_its_word_alone_are_not_those_of_the_end() -> None:
    partly = filled("partially_filled", 40, 5, remaining_amount_text="60")
    for amount in (None, "1.5"):
        order = folded(submitted(), partly, event("filled", 6, filled_amount_text=amount))
        assert order.verdict is Verdict.FILLED
        assert (order.filled_amount_raw, order.remaining_amount_raw) == (None, None)
        assert not {"filled_amount_raw", "remaining_amount_raw"} & order.sources.keys()
        # Nor is what comes late, but what the service says of the end later.
        state = fold_of(partly, event("filled", 6, filled_amount_text=amount))
        state.fold_event(filled("partially_filled", 50, 5, remaining_amount_text="50"))
        assert state.snapshot().filled_amount_raw is None
        state.fold_record(record("filled", filled_amount_text="100"), "filled", telling="now")
        assert (state.snapshot().verdict, state.snapshot().filled_amount_raw) == (Verdict.FILLED, 100)


def test_amounts_that_are_those_of_the_end_stay() -> None:
    whole = filled("partially_filled", 100, 5, remaining_amount_text="0")
    assert folded(whole, event("filled", 6)).filled_amount_raw == 100
    partly = filled("partially_filled", 40, 5, remaining_amount_text="60")
    assert folded(partly, event("filled", 6, remaining_amount_text="0")).filled_amount_raw == 40
    assert folded(partly, filled("filled", 100, 6)).filled_amount_raw == 100
    assert folded(partly, event("cancelled", 6)).filled_amount_raw == 40
