"""What became of an order, asked of a real stream and a real REST API, over whatever happens to both."""

from __future__ import annotations

import concurrent.futures
import gc
import ssl
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import trustme
from certificates import serving
from clients import BRISK, MakeClient
from waiting import DEADLINE, Until

import aggstream
from aggstream import Continuity, Event, OrderEvent, Reconciled, Verdict
from aggstream.simulator import Simulator

USER = "usr_1"
MakeFollower = Callable[..., aggstream.Client]
VERDICTS = {"filled": Verdict.FILLED, "failed": Verdict.FAILED}


@pytest.fixture(params=["tcp", "tls"])
def agg(request: pytest.FixtureRequest, authority: trustme.CA) -> Iterator[Simulator]:
    context = serving(authority) if request.param == "tls" else None
    with Simulator(seed=5, ssl_context=context) as simulator:
        yield simulator


@pytest.fixture
def follower(agg: Simulator, client_of: MakeClient, trusting: ssl.SSLContext) -> MakeFollower:
    """Make a client that has REST to ask, unless it is told otherwise."""

    def make(**options: Any) -> aggstream.Client:
        settings: dict[str, Any] = {
            "token": agg.sign_in(USER).access_token,
            "rest_url": agg.rest_url,
            "ssl_context": trusting,
            "reconnect": aggstream.ReconnectPolicy(initial=0.01, maximum=0.05, healthy_after=0.01),
        }
        return client_of(agg.url, **{**settings, **options})

    return make


def verdict_of(agg: Simulator, order_id: str) -> Verdict:
    [row] = [row for row in agg.orders(USER) if row["id"] == order_id]
    if row["status"] in ("cancelled", "expired", "failed") and int(row["filledAmountRaw"]):
        return Verdict.PARTIALLY_FILLED
    return Verdict(row["status"])


# --- before, while, and long after ----------------------------------------------------------------------


@pytest.mark.parametrize("scenario", ["filled", "partial", "failed", "cancelled", "expired", "retried"])
def test_the_verdict_is_right_wherever_the_connection_is_cut(
    agg: Simulator, follower: MakeFollower, until: Until, scenario: str
) -> None:
    """One order for each boundary between two messages of its life; the rest of its life is missed."""
    client = follower()
    ends: list[OrderEvent] = []
    client.on("order_event", "filled", "failed", "cancelled", "expired")(ends.append)
    orders = []
    with client:
        at = 0
        while True:
            client.wait_until_caught_up(DEADLINE)
            order = agg.begin_order(USER, scenario=scenario)
            tracked = client.track(order.order_id)
            order.advance(at)
            agg.drop(abort=bool(at % 2))
            order.finish()
            assert tracked.wait(DEADLINE).verdict is verdict_of(agg, order.order_id), f"cut after {at}"
            orders.append(order.order_id)
            until(lambda: client.health().counters.gaps == len(orders))
            if at >= order.total:
                break
            at += 1
        client.wait_until_caught_up(DEADLINE)
    # Each end has reached the handlers once, by one way or the other.
    assert sorted(event.order_id for event in ends) == sorted(orders)
    assert len({event.id for event in ends}) == len(orders)
    assert {event.source for event in ends} == {"stream", "reconcile"}
    assert client.health().counters.gaps == client.health().counters.gaps_resolved


def test_an_order_can_be_tracked_before_it_is_placed_and_long_after_it_has_ended(
    agg: Simulator, follower: MakeFollower
) -> None:
    old = agg.place_orders(USER, 150)[0]
    client = follower()
    before_start = client.track(old)
    coming = agg.begin_order(USER, scenario="filled")
    early = client.track(coming.order_id)
    assert repr(early).endswith("unheard of>")
    assert not early.outcome.is_known
    with client:
        client.wait_until_caught_up(DEADLINE)
        coming.finish()
        assert early.wait(DEADLINE).verdict is Verdict.FILLED
        assert client.track(coming.order_id).wait(0).verdict is Verdict.FILLED
        assert before_start.wait(DEADLINE).verdict is verdict_of(agg, old)
        older = agg.orders(USER)[-1]["id"]
        assert client.track(older).wait(DEADLINE).verdict is verdict_of(agg, older)
    assert early.wait(0).verdict is Verdict.FILLED  # what is known stays known
    assert early.order is not None
    assert early.order.sources["status"] == "stream"


def test_nothing_is_guessed_when_the_time_runs_out(agg: Simulator, follower: MakeFollower, until: Until) -> None:
    with follower() as client:
        client.wait_until_caught_up(DEADLINE)
        order = agg.begin_order(USER, scenario="partial")
        tracked = client.track(order.order_id)
        outcome = tracked.wait(0.01)
        assert (outcome.verdict, outcome.order) == (Verdict.UNKNOWN, None)
        assert outcome.reason == "nothing was heard of it"
        order.advance(3)
        until(lambda: tracked.order is not None)
        outcome = tracked.wait(0.01)
        assert outcome.verdict is Verdict.UNKNOWN
        assert outcome.reason == "it has not ended yet"
        assert outcome.order is not None
        assert not outcome.is_known


def test_with_rest_down_the_verdict_is_unknown_and_later_it_is_right(
    agg: Simulator, follower: MakeFollower
) -> None:
    client = follower(catch_up_timeout=0.2)
    seen: list[Reconciled] = []
    client.on(Reconciled)(seen.append)
    with client:
        client.wait_until_caught_up(DEADLINE)
        order = agg.begin_order(USER, scenario="filled")
        tracked = client.track(order.order_id)
        order.advance(4)
        agg.refuse_rest(None)
        agg.drop(abort=True)
        order.finish()
        client.wait_for("reconciled", resolved=False, timeout=DEADLINE) if len(seen) < 2 else None
        outcome = tracked.wait(0.05)
        assert outcome.verdict is Verdict.UNKNOWN
        assert "continuity" in outcome.reason
        assert client.continuity is Continuity.UNKNOWN
        assert any("REST" in problem for problem in client.health().problems)
        with pytest.raises(aggstream.WaitTimeout, match="503"):
            client.wait_until_caught_up(0.05)
        agg.refuse_rest(0)
        assert tracked.wait(DEADLINE).verdict is Verdict.FILLED
        client.wait_until_caught_up(DEADLINE)
        assert client.health().ok
    assert [(event.resolved, event.gaps) for event in seen[-2:]] == [(False, (1,)), (True, (1,))]


def test_without_rest_a_gap_leaves_the_verdict_unknown_and_says_why(
    agg: Simulator, follower: MakeFollower, until: Until
) -> None:
    client = follower(rest_url=None)
    with client:
        client.wait_until_caught_up(DEADLINE)
        order = agg.begin_order(USER, scenario="filled")
        order.advance(4)
        tracked = client.track(order.order_id)
        later = agg.begin_order(USER, scenario="filled")
        early = client.track(later.order_id)
        agg.drop(abort=True)
        order.finish()
        outcome = tracked.wait()  # without a time: it ends because nobody will ever tell
        assert outcome.verdict is Verdict.UNKNOWN
        assert "rest_url" in outcome.reason
        assert tracked.future().result(DEADLINE) == outcome
        assert client.continuity is Continuity.UNKNOWN
        # What is submitted after the gap is complete again, also if it was waited for before.
        client.wait_until_live(DEADLINE)
        assert "rest_url" in early.outcome.reason
        later.advance(2)
        until(lambda: early.order is not None)
        assert "rest_url" not in early.outcome.reason
        later.finish()
        assert early.wait().verdict is Verdict.FILLED
        assert client.track(agg.place_order(USER, scenario="failed")).wait(DEADLINE).verdict is Verdict.FAILED


def test_a_contradiction_between_stream_and_rest_is_no_verdict(agg: Simulator, follower: MakeFollower) -> None:
    with follower() as client:
        client.wait_until_caught_up(DEADLINE)
        order_id = agg.place_order(USER, scenario="failed")
        tracked = client.track(order_id)
        assert tracked.wait(DEADLINE).verdict in (Verdict.FAILED, Verdict.PARTIALLY_FILLED)
        agg.set_order(order_id, status="filled")
        agg.drop(abort=True)
        told = client.wait_for("order_event", event="filled", order_id=order_id, timeout=DEADLINE)
        assert told.source == "reconcile"
        assert tracked.outcome.verdict is Verdict.UNKNOWN
        assert "two ways" in tracked.outcome.reason
        assert tracked.order is not None
        assert [c.refused for c in tracked.order.contradictions if c.field == "status"] == ["filled"]


def test_a_rest_that_lags_behind_undoes_nothing(agg: Simulator, follower: MakeFollower) -> None:
    with follower() as client:
        client.wait_until_caught_up(DEADLINE)
        order = agg.begin_order(USER, scenario="filled")
        order.advance(3)
        agg.freeze_rest()
        order.finish()
        tracked = client.track(order.order_id)
        assert tracked.wait(DEADLINE).verdict is Verdict.FILLED
        agg.drop(abort=True)
        client.wait_for("reconciled", timeout=DEADLINE)
        assert tracked.wait(0).verdict is Verdict.FILLED
        assert tracked.order is not None
        assert tracked.order.contradictions == ()


def test_an_end_that_rest_told_first_is_not_told_again_by_the_stream_and_is_counted(
    agg: Simulator, follower: MakeFollower, until: Until
) -> None:
    ends: list[str] = []
    with follower() as client:
        client.on("order_event", "filled")(lambda event: ends.append(event.source))
        client.wait_until_caught_up(DEADLINE)
        order = agg.begin_order(USER, scenario="filled")
        order.advance(3)
        agg.refuse_connections(2)
        agg.drop(abort=True)
        [end] = [frame for frame in order.finish() if frame.get("event") == "filled"]
        until(lambda: ends)
        agg.push(end, user_id=USER)  # late, from the service's other half
        until(lambda: client.health().counters.repeats == 1)
    assert ends == ["reconcile"]


# --- several --------------------------------------------------------------------------------------------


def test_several_orders_can_be_waited_for(agg: Simulator, follower: MakeFollower) -> None:
    with follower() as client:
        client.wait_until_caught_up(DEADLINE)
        orders = [agg.begin_order(USER, scenario=scenario) for scenario in ("filled", "failed", "filled")]
        tracked = [client.track(order.order_id) for order in orders]
        results = aggstream.as_completed(tracked, timeout=DEADLINE)
        for at in (2, 0):
            orders[at].finish()
            assert next(results).order_id == orders[at].order_id
        orders[1].finish()
        [last] = results
        assert last.verdict is Verdict.FAILED
        outcomes = aggstream.wait_all(tracked, timeout=DEADLINE)
        assert [outcome.order_id for outcome in outcomes] == [order.order_id for order in orders]
        assert aggstream.wait_all([]) == []


def test_those_that_have_not_ended_in_time_come_last_and_unknown(agg: Simulator, follower: MakeFollower) -> None:
    with follower() as client:
        ended = client.track(agg.place_order(USER, scenario="filled"))
        waiting = client.track(agg.begin_order(USER).order_id)
        ended.wait(DEADLINE)
        verdicts = [outcome.verdict for outcome in aggstream.as_completed([waiting, ended], timeout=0.05)]
        assert verdicts == [Verdict.FILLED, Verdict.UNKNOWN]


def test_a_future_is_done_on_the_dispatch_thread(agg: Simulator, follower: MakeFollower) -> None:
    threads: list[str] = []
    with follower() as client:
        client.wait_until_caught_up(DEADLINE)
        order = agg.begin_order(USER, scenario="filled")
        future = client.track(order.order_id).future()
        future.add_done_callback(lambda _: threads.append(threading.current_thread().name))
        assert not future.done()
        order.finish()
        done, _ = concurrent.futures.wait([future], DEADLINE)
        assert done == {future}
        assert future.result().verdict is Verdict.FILLED
        again = client.track(order.order_id).future()
        assert again.result(DEADLINE).verdict is Verdict.FILLED
    assert threads == ["aggstream-dispatch"]


def test_futures_and_waits_end_with_the_stream(agg: Simulator, follower: MakeFollower) -> None:
    client = follower()
    client.start()
    tracked = client.track("never")
    future = tracked.future()
    client.stop()
    assert "before the stream ended" in future.result(DEADLINE).reason
    assert "before the stream ended" in tracked.wait().reason
    assert "before the stream ended" in tracked.future().result(DEADLINE).reason
    assert [o.verdict for o in aggstream.as_completed([tracked])] == [Verdict.UNKNOWN]


def test_a_future_is_done_although_nobody_keeps_what_it_was_made_of(
    agg: Simulator, follower: MakeFollower
) -> None:
    with follower() as client:
        client.wait_until_caught_up(DEADLINE)
        order = agg.begin_order(USER, scenario="filled")
        future = client.track(order.order_id).future()
        gc.collect()
        order.finish()
        assert future.result(DEADLINE).verdict is Verdict.FILLED


def test_a_future_of_an_order_that_has_ended_is_done_at_once_also_in_a_handler(
    agg: Simulator, follower: MakeFollower
) -> None:
    done: list[bool] = []
    handled = threading.Event()
    client = follower()

    @client.on("order_event", "filled")
    def filled(event: OrderEvent) -> None:
        done.append(client.track(event.order_id).future().done())
        handled.set()

    with client:
        client.wait_until_caught_up(DEADLINE)
        agg.place_order(USER, scenario="filled")
        assert handled.wait(DEADLINE)
    assert done == [True]


def test_what_waits_for_an_order_ends_when_another_user_is_signed_in(
    agg: Simulator, follower: MakeFollower
) -> None:
    with follower() as client:
        client.wait_until_caught_up(DEADLINE)
        tracked = client.track(agg.begin_order(USER).order_id)
        future = tracked.future()
        client.switch_user(agg.sign_in("usr_2").access_token)
        assert "another user" in future.result(DEADLINE).reason
        assert "another user" in tracked.wait().reason
        assert [o.verdict for o in aggstream.as_completed([tracked])] == [Verdict.UNKNOWN]


def test_what_ended_the_stream_is_in_the_outcome(agg: Simulator, follower: MakeFollower) -> None:
    agg.refuse_tokens(2)
    client = follower()
    client.start()
    outcome = client.track("never").wait()
    assert isinstance(outcome.error, aggstream.AuthenticationRejected)
    with pytest.raises(aggstream.AuthenticationRejected):
        client.wait_until_caught_up(DEADLINE)


def test_a_handler_can_be_for_one_order(agg: Simulator, follower: MakeFollower, until: Until) -> None:
    seen: list[Event] = []
    with follower() as client:
        client.wait_until_caught_up(DEADLINE)
        one, other = (agg.begin_order(USER, scenario="filled") for _ in range(2))

        @client.track(one.order_id).on
        def mine(event: Event) -> None:
            seen.append(event)

        quiet = client.track(one.order_id)
        quiet.on(seen.append)
        unwanted: list[Event] = []
        quiet.on(unwanted.append)
        quiet.off(unwanted.append)
        one.advance(1)
        other.finish()
        one.finish()
        quiet.wait(DEADLINE)
        until(lambda: not client._registry.by_order)  # nothing is kept of an order that has ended
    assert not unwanted
    names = [event.sub_event or event.type for event in seen]
    assert names[:2] == ["order_submitted"] * 2
    assert names[-2:] == ["filled"] * 2
    assert {getattr(event, "order_id", None) for event in seen} == {one.order_id}


def test_a_handler_may_wait_for_a_verdict(agg: Simulator, follower: MakeFollower) -> None:
    outcomes: list[aggstream.Outcome] = []
    handled = threading.Event()
    client = follower()

    @client.on("order_submitted")
    def submitted(event: aggstream.OrderSubmitted) -> None:
        outcomes.append(client.track(event.order_id).wait(DEADLINE))
        handled.set()

    with client:
        client.wait_until_caught_up(DEADLINE)
        agg.place_order(USER, scenario="filled")
        assert handled.wait(DEADLINE)
    assert outcomes[0].verdict is Verdict.FILLED


# --- orders ---------------------------------------------------------------------------------------------


def test_orders_is_a_mapping_of_what_is_known(agg: Simulator, follower: MakeFollower) -> None:
    before = agg.place_order(USER, scenario="filled")
    client = follower()
    assert dict(client.orders) == {}
    with client:
        client.wait_until_caught_up(DEADLINE)
        after = agg.place_order(USER, scenario="failed")
        client.track(after).wait(DEADLINE)
        orders = client.orders
        assert set(orders) == {before, after}
        assert orders[before].sources["status"] == "reconcile"
        assert orders[after].steps
        assert orders.get("nowhere") is None
        assert repr(orders) == "<2 orders>"


def test_orders_that_have_ended_are_forgotten_by_number(
    agg: Simulator, follower: MakeFollower, until: Until
) -> None:
    ends: list[OrderEvent] = []
    client = follower(orders_kept=3)
    client.on(OrderEvent)(ends.append)
    with client:
        client.wait_until_caught_up(DEADLINE)
        kept = client.track(agg.place_order(USER, scenario="filled"))
        kept.wait(DEADLINE)
        ids = agg.place_orders(USER, 10)
        until(lambda: set(client.orders) == set(ids[-3:]))
        assert kept.wait(0).verdict is Verdict.FILLED  # who holds on to it keeps it
        agg.drop(abort=True)
        client.wait_for("reconciled", timeout=DEADLINE)
        assert not any(event.source == "reconcile" for event in ends)
        assert set(client.orders) == set(ids[-3:])


def test_another_user_begins_with_nothing(agg: Simulator, follower: MakeFollower) -> None:
    with follower() as client:
        client.wait_until_caught_up(DEADLINE)
        mine = client.track(agg.place_order(USER, scenario="filled"))
        mine.wait(DEADLINE)
        theirs = agg.place_order("usr_2", scenario="failed")
        client.switch_user(agg.sign_in("usr_2").access_token)
        client.wait_for("reconciled", timeout=DEADLINE) if theirs not in client.orders else None
        client.wait_until_caught_up(DEADLINE)
        assert set(client.orders) == {theirs}


# --- misuse ---------------------------------------------------------------------------------------------


def test_misuse_is_refused_with_what_would_work(client_of: MakeClient) -> None:
    client = client_of("ws://localhost:9/ws", reconnect=BRISK)
    for wrong in ("", None, 7):
        with pytest.raises(aggstream.ConfigurationError, match="order_id"):
            client.track(wrong)  # type: ignore[arg-type]
    with pytest.raises(aggstream.StateError, match="not started"):
        client.track("a").wait(1)
    with pytest.raises(aggstream.StateError, match="not started"):
        aggstream.as_completed([client.track("a")])
    with pytest.raises(aggstream.ConfigurationError, match=r"client\.track"):
        aggstream.wait_all(["a"])  # type: ignore[list-item]
    with pytest.raises(aggstream.ConfigurationError, match="rest_url is given"):
        client_of("ws://localhost:9/ws", rest_url="http://localhost:9", rest=None)
    with pytest.raises(aggstream.ConfigurationError, match="RestOptions"):
        client_of("ws://localhost:9/ws", rest="http://localhost:9")
    with pytest.raises(aggstream.ConfigurationError, match="allow_insecure"):
        client_of("ws://localhost:9/ws", rest_url="http://elsewhere.example")


def test_a_token_is_sent_to_the_public_rest_api_only_by_a_client_of_the_public_stream(
    client_of: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AGGSTREAM_REST_URL", raising=False)
    assert not client_of("ws://localhost:9/ws")._stream.pipeline.has_rest
    public = client_of("wss://ws.agg.market/ws")
    assert public._stream.pipeline._reader is not None
    assert public._stream.pipeline._reader._calls.base == "https://api.agg.market"
    monkeypatch.setenv("AGGSTREAM_REST_URL", "http://localhost:8/")
    configured = client_of("ws://localhost:9/ws")._stream.pipeline._reader
    assert configured is not None
    assert configured._calls.base == "http://localhost:8"
