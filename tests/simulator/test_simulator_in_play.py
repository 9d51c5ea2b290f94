"""Orders whose lives a test advances, many orders at once, and what REST says of them in the end."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import urllib3
from hypothesis import given
from hypothesis import strategies as st
from rest_api import Api, everything
from websockets.sync.client import connect
from websockets.typing import Origin

from aggstream.simulator import Simulator
from aggstream.simulator._lifecycle import SCENARIOS, SIDES, choose
from aggstream.simulator._rest_orders import RestOrders
from aggstream.simulator._user import SimulatedUser

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    with Simulator(heartbeat_interval=3600) as simulator:
        yield simulator


@pytest.fixture
def api(simulator: Simulator) -> Iterator[Api]:
    with urllib3.PoolManager() as pool:
        yield Api(simulator, pool)


def without_time(frame: dict[str, Any]) -> dict[str, Any]:
    return {**frame, "timestamp": 0}


def test_nothing_has_happened_to_an_order_that_was_only_begun(simulator: Simulator) -> None:
    order = simulator.begin_order(scenario="filled")
    assert (order.frames_left, order.done) == (order.total, False)
    assert simulator.orders() == []
    assert simulator.books().emitted == 0


def test_each_step_sends_what_it_returns(simulator: Simulator) -> None:
    url = f"{simulator.url}?appId={simulator.app_id}&token={simulator.sign_in().access_token}"
    with connect(url, origin=Origin(simulator.origin), proxy=None) as socket:
        socket.recv(timeout=20)
        order = simulator.begin_order(scenario="partial", side="buy")
        for number in range(order.total):
            assert order.frames_left == order.total - number
            assert order.advance() == [json.loads(socket.recv(timeout=20))]
        assert order.done
        assert order.advance(5) == order.finish() == []
        assert simulator.books().sent == order.total


def test_a_life_goes_on_without_connections_and_without_a_server(simulator: Simulator) -> None:
    order = simulator.begin_order(scenario="failed")
    first = order.advance(2)
    simulator.stop()
    rest = order.finish()
    assert (first[0]["orderId"], rest[-1]["timestamp"]) == (
        order.order_id,
        max(f["timestamp"] for f in first + rest),
    )
    assert simulator.books().missed == len(first + rest) == order.total
    assert simulator.terminal_orders() == {order.order_id: "failed"}
    assert repr(order) == f"<OrderInPlay {order.order_id} {order.total} of {order.total} events>"


@given(seed=st.integers(), scenario=st.sampled_from(SCENARIOS), side=st.sampled_from(SIDES))
def test_the_length_of_a_life_is_known_before_it_begins(seed: int, scenario: str, side: str) -> None:
    counted, lived = (SimulatedUser("usr_demo", seed=seed, now=lambda: 1.0, history=10) for _ in range(2))
    life, same = counted.begin_order(choose(scenario, side=side)), lived.begin_order(choose(scenario, side=side))
    total = life.length()
    texts = list(iter(lambda: counted.next_frame(life), None))
    assert len(texts) == total
    assert texts == list(iter(lambda: lived.next_frame(same), None)), "counting has disturbed nothing"


def test_two_orders_take_turns_as_told(simulator: Simulator) -> None:
    first, second = simulator.begin_order(scenario="filled"), simulator.begin_order(scenario="filled")
    assert second.advance()[0]["orderId"] == second.order_id
    assert first.advance()[0]["orderId"] == first.order_id
    assert [row["id"] for row in simulator.orders()] == [first.order_id, second.order_id], "as they were submitted"
    first.finish()
    assert simulator.terminal_orders() == {first.order_id: "filled"}
    with pytest.raises(ValueError, match="n must"):
        second.advance(-1)
    assert second.frames_left == second.total - 1


def test_an_order_is_the_same_whoever_advances_it() -> None:
    with Simulator(seed=3) as stepped, Simulator(seed=3) as placed:
        frames = stepped.begin_order().finish()
        order_id = placed.place_order()
        assert frames[0]["orderId"] == order_id
        assert placed.books().emitted == len(frames)
        assert placed.terminal_orders() == stepped.terminal_orders()


def test_orders_placed_together_are_as_if_placed_one_by_one() -> None:
    with Simulator(seed=3, now=lambda: 1.0) as many, Simulator(seed=3, now=lambda: 1.0) as few:
        ids = many.place_orders("usr_a", 40, venue="kalshi")
        assert ids == [few.place_order("usr_a", venue="kalshi") for _ in range(40)]
        assert many.orders("usr_a") == few.orders("usr_a")
        assert many.books("usr_a") == few.books("usr_a")
        assert many.place_orders("usr_a", 0) == []
        with pytest.raises(ValueError, match="count"):
            many.place_orders("usr_a", -1)


def test_ten_thousand_orders_stand_behind_a_hundred_pages(api: Api, simulator: Simulator) -> None:
    api.sign_in()
    ids = simulator.place_orders("usr_demo", 10_000, scenario="filled", side="sell")
    rows = everything(api, limit="100")
    assert [row["id"] for row in rows] == ids[::-1]
    assert simulator.counts.order_pages == 100
    assert rows == simulator.orders()


def test_a_page_costs_its_own_length_wherever_it_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    user = SimulatedUser("usr_demo", seed=1, now=lambda: 1.0, history=1000)
    for _ in range(1000):
        user.next_frame(user.begin_order(choose()))
    looked_at = []
    newest = RestOrders._newest

    def counting(orders: RestOrders, below: int) -> Iterator[Any]:
        for found in newest(orders, below):
            looked_at.append(found)
            yield found

    monkeypatch.setattr(RestOrders, "_newest", counting)
    cursor = None
    for _ in range(9):
        cursor = user.rest_orders.page(status=None, cursor=cursor, limit=100)["nextCursor"]
        assert len(looked_at) == 101
        looked_at.clear()


def test_a_history_is_as_long_as_it_was_made() -> None:
    with Simulator(history=3) as simulator:
        ids = simulator.place_orders("usr_demo", 5)
        assert [row["id"] for row in simulator.orders()] == ids[:1:-1]
        simulator.set_order(ids[2], status="lost")
        with pytest.raises(ValueError, match="order_id"):
            simulator.set_order(ids[0], status="lost")
    with pytest.raises(ValueError, match="history"):
        Simulator(history=0)


def test_rest_contradicts_the_stream_until_it_tells_the_truth_again(api: Api, simulator: Simulator) -> None:
    api.sign_in()
    order = simulator.begin_order(scenario="filled", venue="kalshi")
    with pytest.raises(ValueError, match="order_id"):
        simulator.set_order(order.order_id, status="failed")  # it was not submitted yet
    order.advance()
    emitted = simulator.books().emitted
    simulator.set_order(order.order_id, status="failed", filled_raw=10**30, error="nobody knows")
    assert simulator.books().emitted == emitted, "no event tells of it"
    order.finish()
    (row,) = everything(api, status="failed")
    said = (row["status"], row["filledAmountRaw"], row["errorMessage"])
    assert said == ("failed", str(10**30), "nobody knows")
    assert everything(api, status="filled") == []
    assert simulator.terminal_orders() == {order.order_id: "failed"}
    simulator.set_order(order.order_id, filled_raw=0)
    (row,) = simulator.orders()
    assert (row["status"], row["filledAmountRaw"], row["errorMessage"]) == ("filled", "0", None)
    simulator.set_order(order.order_id)
    (row,) = everything(api, status="filled")
    assert row["filledAmountRaw"] == row["amountRaw"]


def test_a_contradiction_changes_no_event() -> None:
    with Simulator(seed=5) as told, Simulator(seed=5) as untold:
        order, same = told.begin_order(scenario="partial"), untold.begin_order(scenario="partial")
        frames, expected = order.advance(), same.advance()
        told.set_order(order.order_id, status="expired", filled_raw=1)
        frames, expected = frames + order.finish(), expected + same.finish()
        assert [without_time(frame) for frame in frames] == [without_time(frame) for frame in expected]
