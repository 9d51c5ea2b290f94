"""Driving the simulator over HTTP, as a test in another language does."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
import urllib3
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Origin

from aggstream.simulator import Simulator

if TYPE_CHECKING:
    from collections.abc import Iterator

JSON = "application/json"


class Control:
    """Posts JSON to /control."""

    def __init__(self, simulator: Simulator, pool: urllib3.PoolManager) -> None:
        self.simulator = simulator
        self.pool = pool

    def __call__(self, name: str, status: int = 200, /, **body: Any) -> Any:
        return self.post(name, json.dumps(body), status)

    def post(self, name: str, body: str, status: int, content_type: str = JSON) -> Any:
        headers = {"Content-Type": content_type}
        url = f"{self.simulator.rest_url}/control/{name}"
        response = self.pool.request("POST", url, body=body, headers=headers, timeout=20, retries=False)
        assert response.status == status, response.data
        return response.json()

    def state(self) -> Any:
        return self.get("/control/state")

    def get(self, path: str, **headers: str) -> Any:
        return self.pool.request("GET", self.simulator.rest_url + path, headers=headers, timeout=20).json()


@pytest.fixture
def control() -> Iterator[Control]:
    with Simulator(heartbeat_interval=3600) as simulator, urllib3.PoolManager() as pool:
        yield Control(simulator, pool)


@contextmanager
def signed_in(control: Control, **body: Any) -> Iterator[ClientConnection]:
    simulator = control.simulator
    url = f"{simulator.url}?appId={simulator.app_id}&token={control('sign-in', 200, **body)['accessToken']}"
    with connect(url, origin=Origin(simulator.origin), proxy=None) as socket:
        assert json.loads(socket.recv(timeout=20))["type"] == "connected"
        yield socket


def test_an_order_is_signed_in_for_and_placed(control: Control) -> None:
    with signed_in(control, userId="usr_a", lifetime=60) as socket:
        order = {
            "userId": "usr_a",
            "scenario": "filled",
            "venue": "kalshi",
            "side": "sell",
            "price": "0.25",
            "size": 3,
        }
        order_id = control("orders", 200, **order)["orderId"]
        submitted = json.loads(socket.recv(timeout=20))
        assert submitted["orderId"] == order_id
        assert (submitted["side"], submitted["price"], submitted["size"]) == ("sell", 0.25, 3)
        state = control.state()
        assert state["connections"] == [{"userId": "usr_a", "stalled": False}]
        assert state["books"]["usr_a"]["sent"] == state["books"]["usr_a"]["emitted"] > 5
        assert state["counts"]["handshakes"] == 1


def test_an_order_is_begun_and_advanced(control: Control) -> None:
    begun = control("begin-order", userId="usr_a", scenario="failed", price="0.25")
    answer = control("advance-order", orderId=begun["orderId"])
    assert [frame["type"] for frame in answer["frames"]] == ["order_submitted"]
    assert answer["framesLeft"] == begun["total"] - 1
    rest = control("advance-order", orderId=begun["orderId"], n=1000)
    assert (len(rest["frames"]), rest["framesLeft"]) == (begun["total"] - 1, 0)
    known = control.get("/control/orders?userId=usr_a")
    assert [row["id"] for row in known["orders"]] == [begun["orderId"]]
    assert known["terminal"] == {begun["orderId"]: "failed"}


def test_many_orders_are_placed_at_once(control: Control) -> None:
    order_ids = control("orders", count=30, scenario="expired")["orderIds"]
    assert control.get("/control/orders")["terminal"] == dict.fromkeys(order_ids, "expired")


def test_rest_goes_wrong_as_told(control: Control) -> None:
    headers = {
        "x-app-id": control.simulator.app_id,
        "Authorization": f"Bearer {control('sign-in')['accessToken']}",
    }

    def orders() -> Any:
        return control.get("/execution/orders", **headers)

    order_id = control("orders", scenario="filled")["orderId"]
    control("refuse", rest=None, status=500)
    assert "error" in orders()
    control("refuse", rest=0)
    control("rest", frozen=True)
    control("set-order", orderId=order_id, status="expired", filledRaw=7, error="so it goes")
    assert orders()["data"][0]["status"] == "filled"
    control("rest", frozen=False)
    (row,) = orders()["data"]
    assert (row["status"], row["filledAmountRaw"], row["errorMessage"]) == ("expired", "7", "so it goes")
    control("rest", stalled=True)
    with ThreadPoolExecutor() as pool:
        held = pool.submit(orders)
        while control.state()["counts"]["rest_calls"] < 4:
            pass
        assert not held.done()
        control("rest", stalled=False)
        assert held.result(20)["data"] == [row]
    control("rest", drop=1)
    with pytest.raises(urllib3.exceptions.HTTPError):
        control.pool.request(
            "GET", f"{control.simulator.rest_url}/execution/orders", headers=headers, retries=False
        )


def test_a_play_is_started_and_cancelled(control: Control) -> None:
    assert control("play", orders=None, rate=0.5, overlap=2) == {"playback": 0}
    assert control("play", userId="usr_b", orders=1, scenario="expired") == {"playback": 1}
    assert control("play", cancel=0) == {"playback": 0}
    state = control.state()
    while not all(playback["done"] for playback in state["playbacks"]):
        state = control.state()
    assert state["playbacks"][1]["emitted"] == state["books"]["usr_b"]["emitted"] > 5
    assert list(control.get("/control/orders?userId=usr_b")["terminal"].values()) == ["expired"]
    control("play", 400, cancel=2)
    control("play", 400, cancel=0, orders=1)


def test_frames_are_pushed_and_connections_dropped(control: Control) -> None:
    with signed_in(control) as socket:
        assert control("push", frame="no json {") == {"connections": 1}
        assert socket.recv(timeout=20) == "no json {"
        assert control("push", frame={"type": "new"}, userId="usr_other") == {"connections": 0}
        assert control("drop", userId="usr_demo", code=4000, reason="so it goes") == {"connections": 1}
        with pytest.raises(ConnectionClosed) as caught:
            socket.recv(timeout=20)
        assert caught.value.rcvd is not None
        assert (caught.value.rcvd.code, caught.value.rcvd.reason) == (4000, "so it goes")
    with signed_in(control) as socket:
        assert control("drop", abort=True) == {"connections": 1}
        with pytest.raises(ConnectionClosed):
            socket.recv(timeout=20)


def test_faults_are_switched_on(control: Control) -> None:
    control("refuse", connections=1, status=429, retryAfter=3)
    with pytest.raises(InvalidStatus) as caught, signed_in(control):
        pass
    assert caught.value.response.headers["Retry-After"] == "3"
    control("refuse", tokens=1)
    with pytest.raises(InvalidStatus), signed_in(control):
        pass
    control("refuse", refreshes=1)
    body = json.dumps({"refreshToken": control("sign-in")["refreshToken"]})
    headers = {"x-app-id": control.simulator.app_id}
    url = f"{control.simulator.rest_url}/auth/token/refresh"
    assert [control.pool.request("POST", url, body=body, headers=headers).status for _ in range(2)] == [503, 200]
    with signed_in(control) as socket:
        control("heartbeats", stalled=True)
        control("heartbeats", stalled=False)
        control("stall")
        assert control.state()["connections"][0]["stalled"]
        control("stall", stalled=False)
        control("expire", userId="usr_demo")
        assert json.loads(socket.recv(timeout=20))["code"] == "token_expired"


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"]
)
def test_what_a_web_page_could_post_is_refused(control: Control, content_type: str) -> None:
    assert "Content-Type" in control.post("orders", "{}", 400, content_type)["error"]
    assert control.state()["books"] == {}


@pytest.mark.parametrize("body", ["", "{", "[]", "null", "[" * 100_000])
def test_a_body_that_is_no_object_is_refused(control: Control, body: str) -> None:
    assert "object" in control.post("orders", body, 400)["error"]


@pytest.mark.parametrize(
    ("name", "body", "said"),
    [
        ("sign-in", {"userId": 7}, "userId"),
        ("sign-in", {"userId": ""}, "user_id"),
        ("sign-in", {"lifetime": 0}, "lifetime"),
        ("sign-in", {"lifetime": True}, "lifetime"),
        ("orders", {"scenario": "happy"}, "scenario"),
        ("orders", {"price": 2}, "price"),
        ("orders", {"prize": 2}, "unknown fields: prize"),
        ("play", {"orders": -1}, "orders"),
        ("play", {"orders": "ten"}, "orders"),
        ("play", {"scenario": "happy"}, "scenario"),
        ("push", {}, "frame"),
        ("push", {"frame": 7}, "frame"),
        ("drop", {"code": 7}, "code"),
        ("drop", {"abort": 1}, "abort"),
        ("refuse", {"tokens": -1}, "n must"),
        ("refuse", {"connections": 1, "status": 200}, "status"),
        ("refuse", {"connections": 1, "retryAfter": -1}, "retry_after"),
        ("heartbeats", {"stalled": "yes"}, "stalled"),
        ("orders", {"count": -1}, "count"),
        ("begin-order", {"side": "hold"}, "side"),
        ("advance-order", {"orderId": "ord_unknown"}, "order_id"),
        ("advance-order", {}, "order_id"),
        ("set-order", {"orderId": "ord_unknown"}, "order_id"),
        ("set-order", {"filledRaw": "7"}, "filledRaw"),
        ("refuse", {"rest": -1}, "n must"),
        ("rest", {"drop": -1}, "n must"),
        ("rest", {"frozen": 1}, "frozen"),
    ],
)
def test_a_bad_field_is_refused_by_name(control: Control, name: str, body: dict[str, Any], said: str) -> None:
    assert said in control(name, 400, **body)["error"]


def test_an_unknown_command_is_told_so(control: Control) -> None:
    assert control("dance", 404)["error"]
