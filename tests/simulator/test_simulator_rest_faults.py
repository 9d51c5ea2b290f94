"""What goes wrong with the simulator's REST API on demand."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
import urllib3
from rest_api import Api, everything

from aggstream.simulator import Simulator

if TYPE_CHECKING:
    from collections.abc import Iterator

PATHS = ["/execution/orders", "/execution/balances"]


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    with Simulator(heartbeat_interval=3600) as simulator:
        yield simulator


@pytest.fixture
def api(simulator: Simulator) -> Iterator[Api]:
    with urllib3.PoolManager() as pool:
        api = Api(simulator, pool)
        api.sign_in()
        yield api


def calls_are_counted_up_to(simulator: Simulator, n: int) -> None:
    while simulator.counts.rest_calls < n:
        pass


@pytest.mark.parametrize("path", PATHS)
def test_the_next_calls_are_refused_as_told(api: Api, path: str) -> None:
    api.simulator.refuse_rest(2, status=429, retry_after=7)
    response = api.pool.request("GET", api.simulator.rest_url + path, headers=api.headers, retries=False)
    assert (response.status, response.headers["Retry-After"]) == (429, "7")
    api.get(path, 429)
    api.get(path)
    assert (api.simulator.counts.rest_calls, api.simulator.counts.rest_calls_refused) == (3, 2)


def test_all_calls_are_refused_until_told_otherwise(api: Api) -> None:
    api.simulator.refuse_rest(None)
    for _ in range(20):
        api.get("/execution/orders", 503)
    api.simulator.refuse_rest(0)
    api.get("/execution/orders")


def test_refusing_rest_refuses_nothing_else(api: Api) -> None:
    api.simulator.refuse_rest(None)
    api.refresh(api.simulator.sign_in().refresh_token)
    api.get("/control/state")


def test_every_call_is_counted_and_every_page_that_was_given(api: Api) -> None:
    api.simulator.place_orders("usr_demo", 3)
    everything(api, limit="2")
    api.get("/execution/balances")
    api.get("/execution/orders", 400, limit="0")
    api.simulator.expire_tokens()
    api.get("/execution/orders", 401)
    counts = api.simulator.counts
    assert (counts.rest_calls, counts.rest_calls_refused, counts.order_pages) == (5, 2, 2)


def test_a_stalled_call_is_accepted_and_answered_in_the_end(api: Api, simulator: Simulator) -> None:
    first = simulator.place_order()
    simulator.stall_rest()
    with ThreadPoolExecutor() as pool:
        held = [pool.submit(api.get, path) for path in PATHS]
        refused = pool.submit(api.get, "/execution/orders", 400, cursor="x")
        calls_are_counted_up_to(simulator, 3)
        second = simulator.place_order()
        assert not any(call.done() for call in (*held, refused))
        simulator.stall_rest(False)
        # Asked for before the second order was placed, and answered after.
        assert [row["id"] for row in held[0].result(20)["data"]] == [first]
        assert held[1].result(20)["cash"]
        assert refused.result(20)["error"]
    assert [row["id"] for row in everything(api)] == [second, first]


def test_stopping_lets_go_what_is_held_back(api: Api, simulator: Simulator) -> None:
    simulator.stall_rest()
    with ThreadPoolExecutor() as pool:
        held = pool.submit(api.get, "/execution/orders")
        calls_are_counted_up_to(simulator, 1)
        simulator.stop()
        assert held.result(20)["data"] == []
    simulator.start()
    with ThreadPoolExecutor() as pool:
        held = pool.submit(api.get, "/execution/orders")
        calls_are_counted_up_to(simulator, 2)
        assert not held.done(), "the stall outlives the stop"
        simulator.stall_rest(False)
        assert held.result(20)["data"] == []


@pytest.mark.parametrize("path", PATHS)
def test_a_dropped_answer_ends_in_its_middle(
    api: Api, simulator: Simulator, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    whole = len(api.pool.request("GET", simulator.rest_url + path, headers=api.headers).data)
    simulator.drop_rest()
    response = api.pool.request(
        "GET", simulator.rest_url + path, headers=api.headers, retries=False, preload_content=False
    )
    assert (response.status, response.headers["Content-Length"]) == (200, str(whole))
    with pytest.raises(urllib3.exceptions.ProtocolError, match="reset"):
        response.read()
    response.close()
    api.get(path)
    assert simulator.counts.rest_calls_refused == 0
    assert not [record for record in caplog.records if record.levelno > logging.INFO]


def test_a_frozen_rest_lags_behind_the_stream(api: Api, simulator: Simulator) -> None:
    order = simulator.begin_order(scenario="filled", side="buy", venue="kalshi")
    order.advance()
    before: list[Any] = [api.get(path) for path in PATHS]
    simulator.freeze_rest()
    order.finish()
    later = simulator.place_order(venue="a_new_one")
    assert [api.get(path) for path in PATHS] == before
    assert [row["id"] for row in simulator.orders()] == [later, order.order_id], "the truth goes on"
    simulator.set_order(order.order_id, status="lost")
    assert [api.get(path) for path in PATHS] == before
    simulator.freeze_rest()
    assert [row["status"] for row in everything(api, status="lost")] == ["lost"]
    simulator.place_order()
    assert len(everything(api)) == 2
    simulator.freeze_rest(False)
    assert everything(api) == simulator.orders()
    assert len(everything(api)) == 3


def test_who_came_after_the_freeze_has_nothing_yet(simulator: Simulator) -> None:
    simulator.freeze_rest()
    with urllib3.PoolManager() as pool:
        api = Api(simulator, pool)
        api.sign_in("usr_late")
        simulator.place_order("usr_late")
        assert everything(api) == []
        assert {row["balance"] for row in api.get("/execution/balances")["positions"]} == {"1000000000"}


@pytest.mark.parametrize("arguments", [{"n": -1}, {"status": 200}, {"retry_after": -1}])
def test_a_refusal_that_makes_no_sense_is_refused(arguments: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(arguments))):
        Simulator().refuse_rest(**arguments)
    with pytest.raises(ValueError, match="n must"):
        Simulator().drop_rest(-1)
