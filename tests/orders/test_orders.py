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
from aggstream import Order, OrderEvent, OrderRecord, OrderSubmitted, Verdict
from aggstream._protocol.codec import Codec
from aggstream.orders._state import OrderState
from aggstream.simulator import _orders

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
    for number, scenario in enumerate(_orders.SCENARIOS):
        rng = random.Random(number)
        order, _ = _orders.draw("usr_1", _orders.choose(scenario), rng)
        life = _orders.Lifecycle(order, _orders.Wallet(order.venue), scenario, rng)
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
    assert other.contradictions == ()
    assert sorted(other.steps, key=lambda step: step.first_timestamp) == list(in_order.steps)


@given(st.data())
def test_without_its_end_nobody_says_that_it_has_ended(data: st.DataObject) -> None:
    life = data.draw(st.sampled_from(LIVES))
    some = data.draw(st.lists(st.sampled_from(life)))
    has_ended = any(isinstance(e, OrderEvent) and e.is_terminal for e in some)
    assert folded(*some).is_terminal is has_ended


# --- what REST says -------------------------------------------------------------------------------------


def test_rest_adds_what_the_stream_does_not_tell_and_says_where_it_came_from() -> None:
    fold = fold_of(submitted())
    assert fold.fold_record(
        record("filled", amount_text="100", filled_amount_text="100", execution_price=Decimal("0.54")),
        "filled",
        deliver=True,
    )
    order = fold.snapshot()
    assert (order.status, order.amount_raw, order.filled_amount_raw) == ("filled", 100, 100)
    assert (order.remaining_amount_raw, order.execution_price) == (0, Decimal("0.54"))
    assert (order.sources["status"], order.sources["price"]) == ("reconcile", "stream")


def test_a_record_is_news_once() -> None:
    fold = fold_of(submitted())
    said = record("filled", filled_amount_text="100")
    assert [fold.fold_record(said, "filled", deliver=True) for _ in range(2)] == [True, False]


def test_a_record_is_no_news_of_what_the_stream_has_told() -> None:
    fold = fold_of(filled("partially_filled", 30), filled("filled", 100))
    assert not fold.fold_record(record("filled", filled_amount_text="100"), "filled", deliver=True)
    assert not fold.fold_record(
        record("partially_filled", filled_amount_text="30"), "partially_filled", deliver=True
    )
    assert not fold.fold_record(record("submitted"), "submitted", deliver=True)


def test_a_record_that_was_read_in_silence_is_news_to_the_handlers_later() -> None:
    fold = OrderState(ID)
    said = record("filled")
    assert not fold.fold_record(said, "filled", deliver=False)
    assert fold.fold_record(said, "filled", deliver=True)


def test_the_streams_event_only_repeats_what_a_record_was_delivered_for() -> None:
    fold = OrderState(ID)
    fold.fold_record(record("partially_filled", filled_amount_text="60"), "partially_filled", deliver=True)
    assert not fold.fold_event(filled("partially_filled", 30))
    assert fold.fold_event(filled("partially_filled", 60))
    assert not fold.fold_event(filled("partially_filled", 80))
    assert not fold.fold_event(event("step_completed", step_id="s1"))
    fold.fold_record(record("filled", filled_amount_text="100"), "filled", deliver=True)
    assert fold.fold_event(filled("filled", 100))
    assert fold.fold_event(event("filled"))
    read_in_silence = OrderState(ID)
    read_in_silence.fold_record(record("filled"), "filled", deliver=False)
    assert not read_in_silence.fold_event(event("filled"))


def test_a_record_that_lags_behind_is_no_news_and_no_contradiction() -> None:
    fold = fold_of(submitted(), filled("filled", 100))
    for status, amount in (("submitted", "0"), ("partially_filled", "60")):
        assert not fold.fold_record(record(status, filled_amount_text=amount), status, deliver=True)
    assert fold.snapshot().contradictions == ()


def test_another_end_by_rest_is_a_contradiction_and_is_told_once() -> None:
    fold = fold_of(event("failed"))
    told = [fold.fold_record(record("filled"), "filled", deliver=True) for _ in range(2)]
    assert told == [True, False]
    order = fold.snapshot()
    assert (order.status, order.verdict) == ("failed", Verdict.UNKNOWN)
    assert order.contradictions[0].source == "reconcile"


def test_a_status_that_nobody_has_heard_of_is_news_and_no_end() -> None:
    fold = fold_of(submitted())
    assert fold.fold_record(record("settling"), "settling", deliver=True)
    assert fold.snapshot().status == "settling"
    assert not fold.fold_record(record("settling"), "settling", deliver=True)
    assert fold.fold_record(record("filled"), "filled", deliver=True)


# --- the id of an event ---------------------------------------------------------------------------------


def test_the_same_fact_has_the_same_id_by_whatever_way_it_comes() -> None:
    by_stream = decode(
        json.dumps({"type": "order_event", "event": "order_filled", "orderId": ID, "timestamp": 5}), 1
    )
    assert isinstance(by_stream, OrderEvent)
    by_rest = filled("filled", 100, 9, source="reconcile", text='{"other": "text"}')
    assert by_stream.id == by_rest.id == attrs.evolve(by_rest, redelivered=True).id
    assert len(by_stream.id) == 24


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
    fold.fold_record(record("filled", filled_amount_text="9", error_message="late"), "filled", deliver=True)
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
