"""The simulator's REST API, and that it agrees with what was streamed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import jwt
import pytest
import urllib3
from rest_api import Api, everything
from websockets.sync.client import connect
from websockets.typing import Origin

from aggstream.simulator import Simulator

if TYPE_CHECKING:
    from collections.abc import Iterator

# The words of REST that are not those of the events.
REST_WORDS = {"partially_filled": "partially_filled_open"}


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    with Simulator(heartbeat_interval=3600) as simulator:
        yield simulator


@pytest.fixture
def api(simulator: Simulator) -> Iterator[Api]:
    with urllib3.PoolManager() as pool:
        yield Api(simulator, pool)


def test_the_snapshot_says_what_the_stream_said_last(api: Api, simulator: Simulator) -> None:
    token = api.sign_in().access_token
    said: dict[str, dict[str, Any]] = {}
    balances: dict[str, str] = {}
    wallets: dict[str, int] = {}
    url = f"{simulator.url}?appId={simulator.app_id}&token={token}"
    with connect(url, origin=Origin(simulator.origin), proxy=None) as socket:
        socket.recv(timeout=20)
        playback = simulator.play(orders=None, overlap=30)
        received = 0
        while not playback.done or received < playback.emitted:
            frame = json.loads(socket.recv(timeout=20))
            received += 1
            if received == 3000:
                playback.cancel()  # with orders under way
            if frame["type"] == "balance_update":
                balances[frame["venue"]] = str(frame["tradingBalanceCents"] * 10_000)
                wallets[frame["venue"]] = frame["walletBalanceCents"]
                continue
            order = said.setdefault(frame["orderId"], {"status": "pending", "filled": "0"})
            if "filledAmountRaw" in frame:
                status = REST_WORDS.get(frame["event"], frame["event"])
                order |= {"status": status, "filled": frame["filledAmountRaw"]}
            elif frame.get("event") == "dag_started":
                order["status"] = "open"
    rows = everything(api, limit="7")
    assert [row["id"] for row in rows] == list(reversed(said)), "newest first"
    assert {row["id"]: {"status": row["status"], "filled": row["filledAmountRaw"]} for row in rows} == said
    assert {"open", "filled"} <= {row["status"] for row in rows}
    answer = api.get("/execution/balances")
    assert {row["venue"]: row["balance"] for row in answer["positions"]} == balances
    assert answer["cash"][0]["totalRaw"] == str(sum(wallets.values()) * 10_000)


def test_an_order_has_the_shape_of_the_reference(api: Api) -> None:
    api.sign_in()
    api.simulator.place_order(scenario="filled", venue="polymarket", side="buy", price=0.55, size=100)
    api.simulator.place_order(scenario="failed", venue="kalshi")
    failed, filled = everything(api)
    assert filled == {
        "id": filled["id"],
        "venue": "polymarket",
        "status": "filled",
        "side": "buy",
        "amountRaw": "100000000",
        "slippageBps": 50,
        "quotedPriceRaw": "550000",
        "quotedCostRaw": "55000000",
        "filledAmountRaw": "100000000",
        "executionPrice": 0.55,
        "txHash": filled["txHash"],
        "errorMessage": None,
        "createdAt": filled["createdAt"],
        "updatedAt": filled["updatedAt"],
        "venueMarket": {
            "id": filled["venueMarket"]["id"],
            "question": filled["venueMarket"]["question"],
            "image": None,
        },
        "venueMarketOutcome": filled["venueMarketOutcome"],
    }
    assert filled["txHash"].startswith("0x")
    assert filled["createdAt"] < filled["updatedAt"] <= failed["createdAt"]
    assert failed["txHash"] is failed["executionPrice"] is None
    assert failed["errorMessage"]


def test_balances_have_the_shape_of_the_reference(api: Api) -> None:
    api.sign_in()
    answer = api.get("/execution/balances")
    assert list(answer) == ["cash", "positions"]
    (cash,) = answer["cash"]
    assert (cash["tokenSymbol"], cash["totalRaw"], cash["decimals"]) == ("USDC", "8000000000", 6)
    assert list(cash["chains"][0]) == ["chainId", "tokenAddress", "balanceRaw", "lastSyncedAt"]
    assert answer["positions"][0] == {"venue": "kalshi", "balance": "1000000000"}


def test_pages_stand_still_while_orders_come_in(api: Api) -> None:
    api.sign_in()
    ids = [api.simulator.place_order() for _ in range(5)]
    first = api.get("/execution/orders", limit="2")
    api.simulator.place_order()
    second = api.get("/execution/orders", limit="2", cursor=first["nextCursor"])
    third = api.get("/execution/orders", limit="2", cursor=second["nextCursor"])
    assert [row["id"] for page in (first, second, third) for row in page["data"]] == ids[::-1]
    assert (third["hasMore"], third["nextCursor"]) == (False, None)


def test_orders_are_chosen_by_status(api: Api) -> None:
    api.sign_in()
    expired = [api.simulator.place_order(scenario=scenario) for scenario in ("expired", "filled", "expired")]
    assert [row["id"] for row in everything(api, status="expired", limit="1")] == [expired[2], expired[0]]
    assert everything(api, status="unheard_of") == []
    assert len(everything(api, status="", cursor="")) == 3


@pytest.mark.parametrize("limit", ["0", "101", "-1", "x", "", "1.5"])
def test_a_limit_out_of_range_is_refused(api: Api, limit: str) -> None:
    api.sign_in()
    api.get("/execution/orders", 400, limit=limit)


@pytest.mark.parametrize("cursor", ["x", "ä", "b3JkZXJzOng", "eDox", "gICA"])
def test_a_cursor_of_somebody_else_is_refused(api: Api, cursor: str) -> None:
    api.sign_in()
    api.get("/execution/orders", 400, cursor=cursor)


@pytest.mark.parametrize("path", ["/execution/orders", "/execution/balances"])
def test_a_call_needs_the_app_and_a_good_token(api: Api, path: str) -> None:
    api.get(path, 401)
    tokens = api.sign_in()
    api.get(path)
    api.headers["Authorization"] = tokens.access_token
    api.get(path, 401)
    api.sign_in(lifetime=1e-6)
    api.get(path, 401)
    api.sign_in()
    for app_id in ("app_other", ""):
        api.headers["x-app-id"] = app_id
        api.get(path, 403)
    del api.headers["x-app-id"]
    api.get(path, 403)


def test_tokens_are_real_ones_and_no_two_are_alike(api: Api) -> None:
    first, second = api.sign_in(), api.sign_in(lifetime=0.25)
    claims = jwt.decode(second.access_token, options={"verify_signature": False})
    assert jwt.get_unverified_header(second.access_token)["alg"] == "HS256"
    assert set(claims) == {"sub", "iat", "exp", "jti"}
    assert claims["exp"] - claims["iat"] == pytest.approx(0.25, abs=0.002)
    assert first.access_token != second.access_token
    assert first.access_token not in repr(first)
    assert first.refresh_token not in repr(first)
    assert "usr_demo" in repr(first)


def test_expired_tokens_are_refused_and_refreshed_ones_are_good(api: Api) -> None:
    tokens = api.sign_in()
    api.simulator.expire_tokens()
    api.get("/execution/orders", 401)
    answer = api.refresh(tokens.refresh_token)
    assert answer["user"] == {"id": "usr_demo"}
    assert answer["refreshToken"] != tokens.refresh_token
    api.headers["Authorization"] = f"Bearer {answer['accessToken']}"
    api.get("/execution/orders")
    assert api.simulator.counts.refreshes == 1


def test_a_session_keeps_its_lifetime(api: Api) -> None:
    answer = api.refresh(api.sign_in(lifetime=77).refresh_token)
    claims = jwt.decode(answer["accessToken"], options={"verify_signature": False})
    assert claims["exp"] - claims["iat"] == pytest.approx(77)


def test_a_refresh_token_used_twice_ends_the_session(api: Api) -> None:
    tokens, other = api.sign_in(), api.sign_in()
    newer = api.refresh(tokens.refresh_token)["refreshToken"]
    api.refresh(tokens.refresh_token, 401)
    api.refresh(newer, 401)
    api.refresh(other.refresh_token)
    assert api.simulator.counts.refreshes_refused == 2


def test_a_reused_refresh_token_may_be_forgiven(api: Api) -> None:
    with Simulator(reuse_revokes=False) as simulator:
        lenient = Api(simulator, api.pool)
        tokens = lenient.sign_in()
        newer = lenient.refresh(tokens.refresh_token)["refreshToken"]
        lenient.refresh(tokens.refresh_token, 401)
        lenient.refresh(newer)


def test_the_next_refreshes_are_refused_as_told_and_spend_nothing(api: Api) -> None:
    tokens = api.sign_in()
    api.simulator.refuse_refreshes(status=500)
    api.refresh(tokens.refresh_token, 500)
    api.refresh(tokens.refresh_token)


@pytest.mark.parametrize("body", ["", "[]", "{}", '{"refreshToken": 7}'])
def test_a_refresh_without_its_token_is_refused(api: Api, body: str) -> None:
    api.post("/auth/token/refresh", body, 400)


def test_a_refresh_that_is_not_in_order_is_refused(api: Api) -> None:
    api.refresh("rt_unknown", 401)
    api.headers["x-app-id"] = "app_other"
    api.refresh(api.sign_in().refresh_token, 403)


def test_what_is_not_there_is_said_in_json(api: Api) -> None:
    api.get("/nowhere", 404)
    api.post("/execution/orders", {}, 405)


def test_a_plain_request_to_the_socket_is_told_so(api: Api) -> None:
    api.headers["Origin"] = api.simulator.origin
    api.get("/ws", 400, appId=api.simulator.app_id)
