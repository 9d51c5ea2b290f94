"""What is made of messages as a service may write them, over real sockets: words, amounts, users, and what is
broken."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from clients import BRISK, MakeClient
from line import Line
from raw_server import frame
from waiting import DEADLINE, Until

import aggstream
from aggstream import Continuity, OrderEvent, Verdict
from aggstream._base.moments import moment
from aggstream._stream.catch_up import ReadBalances
from aggstream.simulator import Simulator

USER = "usr_1"
Say = Callable[..., None]


@pytest.fixture
def agg() -> Iterator[Simulator]:
    with Simulator() as simulator:
        yield simulator


@pytest.fixture
def client(agg: Simulator, client_of: MakeClient) -> aggstream.Client:
    return client_of(
        agg.url,
        token=lambda: agg.sign_in(USER).access_token,
        rest_url=agg.rest_url,
        rest=aggstream.RestOptions(attempts=1, status_names={"Settled": "filled"}),
        reconnect=BRISK,
    )


@pytest.fixture
def say(agg: Simulator) -> Say:
    """Send an order_event to the user, as the service might write it."""
    moments = iter(range(10**6))

    def say(event: str, order_id: str = "ord_1", *, user: str | None = USER, **fields: Any) -> None:
        message = {"type": "order_event", "event": event, "orderId": order_id, **fields}
        if user is not None:
            message["userId"] = user
        agg.push(message | {"timestamp": 1_710_000_000_000 + next(moments)}, user_id=USER)

    return say


@pytest.mark.parametrize(
    "word", ["partially_filled_open", "PARTIALLY_FILLED", "partiallyFilled", "order_partially-filled"]
)
def test_a_handler_is_called_once_for_every_writing_of_its_word(
    client: aggstream.Client, say: Say, until: Until, word: str
) -> None:
    parts: list[OrderEvent] = []
    client.on("order_event", "partially_filled", "PARTIALLY_FILLED_OPEN")(parts.append)
    ends: list[OrderEvent] = []
    client.on("order_event", "Cancelled")(ends.append)
    with client:
        client.wait_until_caught_up(DEADLINE)
        tracked = client.track("ord_1")
        say(word, filledAmountRaw="4e2", remainingAmountRaw="600.0")
        say("canceled")
        outcome = tracked.wait(DEADLINE)
        assert (outcome.verdict, outcome.filled_amount_raw) == (Verdict.PARTIALLY_FILLED, 400)
        until(lambda: ends)
    assert [(event.event, event.sub_event) for event in parts] == [(word, "partially_filled")]
    assert client.off(parts.append, "order_event", "partiallyFilledOpen", "partially_filled") == 1


def test_a_word_that_nobody_knows_is_named_once_in_health_and_in_the_reason(
    client: aggstream.Client, say: Say, until: Until, caplog: pytest.LogCaptureFixture
) -> None:
    with client:
        client.wait_until_caught_up(DEADLINE)
        tracked = client.track("ord_1")
        say("Routing")
        say("routing", "ord_2", filledAmountRaw="7")
        until(lambda: "ord_2" in client.orders)
        assert client.health().unknown_statuses == ("routing",)
        assert "'routing' is no status that aggstream knows" in tracked.wait(0).reason
        assert "status_names" in tracked.wait(0).reason
        assert client.orders["ord_2"].filled_amount_raw == 7
        say("FILLED", filledAmountRaw="1")
        assert tracked.wait(DEADLINE).verdict is Verdict.FILLED
    assert caplog.text.count("is no status that aggstream knows") == 1


def test_a_status_that_the_user_has_named_means_what_its_name_says(
    client: aggstream.Client, say: Say, until: Until
) -> None:
    seen: list[str] = []
    client.on("order_event", "filled")(lambda event: seen.append(f"filled {event.event}"))
    client.on("order_event", "settled")(lambda event: seen.append(f"settled {event.event}"))
    with client:
        client.wait_until_caught_up(DEADLINE)
        say("SETTLED", filledAmountRaw="5", remainingAmountRaw="0")
        assert client.track("ord_1").wait(DEADLINE).verdict is Verdict.FILLED
        until(lambda: len(seen) == 2)
    assert seen == ["filled SETTLED", "settled SETTLED"]


def test_a_message_that_names_another_user_is_nobody_s_and_is_told(
    client: aggstream.Client, say: Say, until: Until, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[aggstream.Event] = []
    client.on("*")(seen.append)
    with client:
        client.wait_until_caught_up(DEADLINE)
        looks = client.health().counters
        assert looks.foreign_events == 0
        say("filled", "theirs", user="usr_2")
        say("filled", "theirs", user="usr_2")
        say("dag_started", "ours", user=None)
        until(lambda: "ours" in client.orders)
        until(lambda: client.health().counters.foreign_events == 2)
        until(lambda: client.continuity is Continuity.LIVE)
        assert "theirs" not in client.orders
        assert not client.health().ok
        assert any("another user" in problem for problem in client.health().problems)
    ids = [event.order_id for event in seen if isinstance(event, OrderEvent)]
    assert ids == ["ours"]
    assert [event.user_id for event in seen if isinstance(event, aggstream.UserEvent)] == [USER]
    assert caplog.text.count("names the user") == 1


def test_an_end_that_was_not_understood_is_told_by_rest(
    agg: Simulator, client: aggstream.Client, until: Until
) -> None:
    ends: list[OrderEvent] = []
    client.on("order_event", "filled")(ends.append)
    failures: list[aggstream.DecodeFailed] = []
    client.on(aggstream.DecodeFailed)(failures.append)
    with client:
        client.wait_until_caught_up(DEADLINE)
        order = agg.begin_order(USER, scenario="filled")
        order.advance(3)
        until(lambda: order.order_id in client.orders)
        agg.set_order(order.order_id, status="filled", filled_raw=5)
        agg.push(
            {"type": "order_event", "event": "filled", "orderId": order.order_id, "timestamp": "soon"},
            user_id=USER,
        )
        assert client.track(order.order_id).wait(DEADLINE).verdict is Verdict.FILLED
        until(lambda: ends)
        until(lambda: client.continuity is Continuity.LIVE)
    assert [event.source for event in ends] == ["reconcile"]
    assert [failure.error.message_type for failure in failures] == ["order_event"]


@pytest.mark.parametrize(
    "message",
    [
        {"type": "order_event", "event": "filled", "orderId": "ord_1", "timestamp": "soon"},
        {"type": "order_event", "event": "filled", "orderId": "theirs", "timestamp": 5, "userId": "usr_2"},
        {
            "type": "order_event",
            "event": "filled",
            "orderId": "ord_1",
            "timestamp": 5,
            "filledAmountRaw": "40",
            "remainingAmountRaw": "60",
        },
    ],
    ids=["not understood", "another user's", "against its own amounts"],
)
def test_a_single_message_that_is_a_doubt_is_looked_at_before_anything_else_is_due(
    message: dict[str, Any],
) -> None:
    line = Line(rest=aggstream.RestOptions(), rest_url="http://127.0.0.1:9", slow_handler_duration=None)
    try:
        pipeline, session = line.stream.pipeline, line.session
        now = moment()
        pipeline.catch_up.connected(now, None, USER)
        while (read := pipeline.catch_up.request()) is not None:
            if isinstance(read, ReadBalances):
                pipeline.catch_up.balances_received(read, aggstream.Balances(), now, 1)
            else:
                pipeline.catch_up.page_received(read, aggstream.OrdersPage(orders=()), now, 1)
        pipeline.step(session.token, time.monotonic())
        line.send(frame(json.dumps(message).encode()))
        assert line.connection.ready(writable=False)  # so the stream is stepped at once
        assert session.has_doubt or pipeline.catch_up.request() is not None
    finally:
        line.close()


def test_messages_of_types_that_are_not_known_raise_no_doubt(
    agg: Simulator, client: aggstream.Client, until: Until
) -> None:
    seen: list[str] = []
    client.on("*")(lambda event: seen.append(event.type))
    with client:
        client.wait_until_caught_up(DEADLINE)
        until(lambda: agg.counts.order_pages == 4)  # the newest, and those that are open, by three words
        pages = agg.counts.order_pages
        agg.push({"type": "withdrawal_update", "state": 5}, user_id=USER)
        agg.push({"type": "heartbeat", "ts": "never"}, user_id=USER)
        until(lambda: "decode_failed" in seen)
        assert client.continuity is Continuity.LIVE
        assert agg.counts.order_pages == pages


@pytest.mark.parametrize("scenario", ["fak", "ioc"])
def test_an_order_that_is_filled_in_part_at_once_is_never_called_filled(
    agg: Simulator, client: aggstream.Client, until: Until, scenario: str
) -> None:
    with client:
        client.wait_until_caught_up(DEADLINE)
        order = agg.begin_order(USER, scenario=scenario)
        tracked = client.track(order.order_id)
        order.finish()
        assert tracked.wait(DEADLINE).verdict in (Verdict.UNKNOWN, Verdict.PARTIALLY_FILLED)
        until(lambda: tracked.outcome.verdict is Verdict.PARTIALLY_FILLED)


def test_what_rest_trails_by_is_waited_for(agg: Simulator, client_of: MakeClient, until: Until) -> None:
    client = client_of(
        agg.url,
        token=lambda: agg.sign_in(USER).access_token,
        rest_url=agg.rest_url,
        reconnect=BRISK,
        rest_lag=1.0,
    )
    ends: list[OrderEvent] = []
    client.on("order_event", "filled")(ends.append)
    agg.trail_rest(1.0)
    with client:
        client.wait_until_caught_up(DEADLINE)
        order = agg.begin_order(USER, scenario="filled")
        tracked = client.track(order.order_id)
        order.advance(4)
        until(lambda: tracked.order is not None)
        agg.drop(abort=True)
        order.finish()
        assert tracked.wait(DEADLINE).verdict is Verdict.FILLED
        until(lambda: ends)
    assert [event.source for event in ends] == ["reconcile"]


def test_what_is_held_for_rest_is_counted_named_and_is_no_silence(
    agg: Simulator, client_of: MakeClient, until: Until
) -> None:
    client = client_of(
        agg.url,
        token=lambda: agg.sign_in(USER).access_token,
        rest_url=agg.rest_url,
        reconnect=BRISK,
        catch_up_timeout=3.0,
    )
    pulled = client.events("order_submitted", timeout=0.05)
    with client:
        client.wait_until_caught_up(DEADLINE)
        agg.stall_rest()
        agg.drop(abort=True)
        until(lambda: client.health().counters.connections == 2 and client.health().phase == "live")
        placed = [agg.place_order(USER, scenario="failed") for _ in range(2)]
        until(lambda: client.health().held > 5)
        assert any("wait for what the REST API says" in problem for problem in client.health().problems)
        with pytest.raises(aggstream.WaitTimeout, match="events wait for what the REST API says of a gap"):
            client.wait_for("order_submitted", timeout=0.01)
        assert [event.order_id for event in pulled] == placed
        agg.stall_rest(False)
