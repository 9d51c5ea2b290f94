"""The lives of orders: their shape, their money, and that a seed repeats them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.sync.client import connect
from websockets.typing import Origin

from aggstream.simulator import Simulator
from aggstream.simulator._lifecycle import SCENARIOS, SIDES, VENUES, choose
from aggstream.simulator._user import SimulatedUser

NOON = 1710000000.0
HISTORY = 250
KEYS = {
    "order_submitted": ["type", "venue", "orderId", "side", "price", "size", "outcomeId", "timestamp"],
    "balance_update": ["type", "venue", "tradingBalanceCents", "walletBalanceCents", "timestamp"],
    "order_event": [
        "type",
        "event",
        "userId",
        "orderId",
        "venue",
        "filledAmountRaw",
        "remainingAmountRaw",
        "errorReason",
        "dagRunId",
        "stepId",
        "stepType",
        "templateName",
        "attempt",
        "timestamp",
    ],
}
SETTLED = {"rejected", "filled", "failed", "cancelled", "expired"}

# The words of REST that are not those of the events.
REST_WORDS = {"partially_filled": "partially_filled_open"}


def play(account: SimulatedUser, **choices: Any) -> list[dict[str, Any]]:
    life = account.begin_order(choose(**choices))
    return [json.loads(text) for text in iter(lambda: account.next_frame(life), None)]


def account(seed: object = 1, user_id: str = "usr_demo") -> SimulatedUser:
    return SimulatedUser(user_id, seed=seed, now=lambda: NOON, history=HISTORY)


def names(frames: list[dict[str, Any]]) -> list[str]:
    return [frame.get("event", frame["type"]) for frame in frames]


@given(
    seed=st.integers(),
    scenario=st.none() | st.sampled_from(SCENARIOS),
    side=st.none() | st.sampled_from(SIDES),
    venue=st.sampled_from([None, "kalshi", "limitless", "a_new_one"]),
    price=st.none() | st.integers(1, 9999).map(lambda n: n / 10000),
    size=st.none() | st.integers(1, 10**8).map(lambda n: n / 100),
)
def test_every_life_is_in_order(seed: int, **choices: Any) -> None:
    user = account(seed)
    frames = play(user, **choices)
    (row,) = user.rest_orders.page(status=None, cursor=None, limit=1)["data"]
    for frame in frames:
        keys = KEYS[frame["type"]]
        assert list(frame) == [key for key in keys if key in frame], "the keys stand as on the page"
        if frame["type"] == "order_event":
            event = frame["event"]
            assert ("stepId" in frame) == event.startswith("step_")
            assert ("attempt" in frame) == event.startswith("step_")
            assert ("filledAmountRaw" in frame) == (event in SETTLED | {"partially_filled"})
            assert ("errorReason" in frame) == (event in ("failed", "rejected", "dag_failed", "step_failed"))
        else:
            assert list(frame) == keys
    timestamps = [frame["timestamp"] for frame in frames]
    assert timestamps == sorted(set(timestamps))

    submitted, events = frames[0], [frame for frame in frames if frame["type"] == "order_event"]
    assert submitted["type"] == "order_submitted"
    assert submitted["price"] == choices["price"] or choices["price"] is None
    assert submitted["size"] == choices["size"] or choices["size"] is None
    assert names(events)[0] == "dag_started"
    assert len({"dag_completed", "dag_failed"} & set(names(events))) == 1
    fills = [frame for frame in events if "filledAmountRaw" in frame]
    filled = [int(frame["filledAmountRaw"]) for frame in fills]
    assert filled == sorted(filled)
    size_raw = round(submitted["size"] * 1_000_000)
    assert all(int(f["filledAmountRaw"]) + int(f["remainingAmountRaw"]) == size_raw for f in fills)
    assert [name for name in names(events) if name in SETTLED] == [row["status"]]
    assert row["filledAmountRaw"] == fills[-1]["filledAmountRaw"]
    assert row["errorMessage"] == fills[-1].get("errorReason")

    cost = submitted["price"] * filled[-1] / 10_000
    balances = [frame for frame in frames if frame["type"] == "balance_update"]
    if balances:
        last = balances[-1]
        assert last["tradingBalanceCents"] == last["walletBalanceCents"], "nothing stays reserved"
        paid = (last["walletBalanceCents"] - balances[0]["walletBalanceCents"]) * (
            -1 if submitted["side"] == "buy" else 1
        )
        if submitted["side"] == "buy":
            assert cost - 0.01 <= paid <= cost + 1.01
    assert all(frame["tradingBalanceCents"] >= 0 for frame in balances)


@given(seed=st.integers(), scenario=st.sampled_from(SCENARIOS))
def test_a_snapshot_agrees_with_the_stream_after_every_frame(seed: int, scenario: str) -> None:
    user = account(seed)
    life = user.begin_order(choose(scenario, "kalshi"))
    status, filled, free = "pending", "0", "1000000000"
    assert user.rest_orders.page(status=None, cursor=None, limit=1)["data"] == []
    for text in iter(lambda: user.next_frame(life), None):
        frame = json.loads(text)
        if frame["type"] == "balance_update":
            free = str(frame["tradingBalanceCents"] * 10_000)
        elif "filledAmountRaw" in frame:
            status, filled = REST_WORDS.get(frame["event"], frame["event"]), frame["filledAmountRaw"]
        elif frame.get("event") == "dag_started":
            status = "open"
        (row,) = user.rest_orders.page(status=None, cursor=None, limit=1)["data"]
        assert (row["status"], row["filledAmountRaw"]) == (status, filled)
        assert user.balances()["positions"][0]["balance"] == free


def test_the_page_has_this_very_example() -> None:
    submitted, balance, *_ = play(account(), side="buy", venue="kalshi", price=0.55, size=100)
    assert (submitted["price"], submitted["size"]) == (0.55, 100)
    assert (balance["tradingBalanceCents"], balance["walletBalanceCents"]) == (94500, 100000)


@pytest.mark.parametrize(
    ("scenario", "expected"),
    [
        ("filled", "filled balance_update dag_completed"),
        ("partial", "partially_filled balance_update filled balance_update dag_completed"),
        ("retried", "filled balance_update dag_completed"),
        ("failed", "step_failed dag_failed failed balance_update"),
        ("cancelled", "cancelled balance_update"),
        ("expired", "expired balance_update"),
        ("rejected", "dag_failed rejected balance_update"),
        ("fak", "filled balance_update dag_completed balance_update"),
        ("ioc", "dag_completed cancelled balance_update balance_update"),
    ],
)
def test_a_scenario_ends_as_its_name_says(scenario: str, expected: str) -> None:
    lives = [names(play(account(seed), scenario=scenario, side="buy", price=0.5)) for seed in range(20)]
    assert all(life[:3] == ["order_submitted", "balance_update", "dag_started"] for life in lives)
    if scenario in ("cancelled", "expired"):
        assert all(life.index("dag_completed") < life.index(scenario) for life in lives)
        assert {life.count("partially_filled") for life in lives} == {0, 1, 2}
    if scenario == "partial":
        assert {life.count("partially_filled") for life in lives} == {1, 2, 3}
    if scenario == "retried":
        assert all(life.count("step_retrying") == life.count("step_failed") >= 1 for life in lives)
    assert all(" ".join(life).endswith(expected) for life in lives)


def test_a_retried_step_counts_its_attempts() -> None:
    frames = play(account(), scenario="retried")
    step_id = next(frame["stepId"] for frame in frames if frame.get("event") == "step_retrying")
    step = [(frame["event"], frame["attempt"]) for frame in frames if frame.get("stepId") == step_id]
    assert step[:3] == [("step_started", 0), ("step_failed", 0), ("step_retrying", 1)]
    assert step[-1] == ("step_completed", step[-2][1])


def test_money_is_neither_made_nor_lost() -> None:
    user = account()
    for _ in range(300):
        frames = play(user, venue="myriad")
        for frame in frames:
            if frame["type"] == "balance_update":
                assert 0 <= frame["tradingBalanceCents"] <= frame["walletBalanceCents"]
                last = frame
    positions = {row["venue"]: row["balance"] for row in user.balances()["positions"]}
    assert positions["myriad"] == str(last["tradingBalanceCents"] * 10_000)
    assert last["tradingBalanceCents"] == last["walletBalanceCents"]


def test_what_is_chosen_changes_nothing_else() -> None:
    free = play(account(), scenario="filled")[0]
    chosen = play(account(), scenario="filled", price="0.1234", size=7.5)[0]
    assert chosen == free | {"price": 0.1234, "size": 7.5}


def test_an_account_remembers_its_newest_orders_only() -> None:
    user = account()
    for _ in range(HISTORY + 1):
        user.next_frame(user.begin_order(choose()))
    rows, cursor = 0, None
    while True:
        page = user.rest_orders.page(status=None, cursor=cursor, limit=100)
        rows += len(page["data"])
        cursor = page["nextCursor"]
        if not page["hasMore"]:
            break
    assert rows == HISTORY


@pytest.mark.parametrize(
    "choices",
    [
        {"scenario": "happy"},
        {"side": "hold"},
        {"venue": ""},
        *({"price": price} for price in (0, 1, -0.5, 0.12345, "x", "nan", "inf", True)),
        *({"size": size} for size in (0, -1, 0.001, 10**9, "x")),
    ],
)
def test_an_order_that_cannot_be_played_is_refused(choices: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must"), Simulator() as simulator:
        simulator.place_order(**choices)


@pytest.mark.parametrize(
    "arguments",
    [{"orders": -1}, {"rate": 0}, {"rate": float("inf")}, {"overlap": 0}, {"scenario": "happy"}, {"price": 2}],
)
def test_a_play_that_makes_no_sense_is_refused(arguments: dict[str, Any]) -> None:
    with Simulator() as simulator, pytest.raises(ValueError, match="must"):
        simulator.play(**arguments)


def transcript(seed: object, *, now: float = NOON) -> list[str]:
    """Play something through a socket and return the very texts."""
    with Simulator(seed=seed, now=lambda: now, heartbeat_interval=3600) as simulator:
        url = f"{simulator.url}?appId={simulator.app_id}&token={simulator.sign_in().access_token}"
        with connect(url, origin=Origin(simulator.origin), proxy=None) as socket:
            simulator.place_order(scenario="partial")
            playback = simulator.play(orders=30, overlap=7)
            assert playback.wait(20)
            simulator.push("end")
            return list(iter(lambda: str(socket.recv(timeout=20)), "end"))


def test_the_same_seed_repeats_a_run_byte_for_byte() -> None:
    first = transcript("a seed")
    assert first == transcript("a seed")
    assert first != transcript("another")
    later = transcript("a seed", now=NOON + 1)
    assert first != later
    assert [{**json.loads(text), "timestamp": 0} for text in first] == [
        {**json.loads(text), "timestamp": 0} for text in later
    ]


def test_a_play_overlaps_orders_and_no_more_than_it_may() -> None:
    alive: set[str] = set()
    most = 0
    for text in transcript(1)[1:]:
        frame = json.loads(text)
        if frame["type"] == "order_submitted":
            alive.add(frame["orderId"])
        most = max(most, len(alive))
        if frame.get("event") in SETTLED:
            alive.discard(frame["orderId"])
    assert 3 < most <= 7
    assert not alive


def test_a_play_is_of_orders_as_they_are_chosen() -> None:
    with Simulator() as simulator:
        assert simulator.play(orders=5, scenario="failed", venue="kalshi", side="buy").wait(20)
        played = {(order["venue"], order["side"], order["status"]) for order in simulator.orders()}
        assert len(simulator.orders()) == 5
    assert played == {("kalshi", "buy", "failed")}


def test_a_rate_is_kept() -> None:
    with Simulator() as simulator:
        slow = simulator.play(orders=None, rate=0.001)
        fast = simulator.play("usr_fast", orders=2, rate=10_000)
        assert fast.wait(20)
        assert not slow.wait(0)
        slow.cancel()
        assert slow.emitted == simulator.books().emitted == 1
        slow.cancel()
        assert simulator.books("usr_fast").emitted == fast.emitted > 10


def test_all_venues_come_up() -> None:
    user = account()
    assert {play(user)[0]["venue"] for _ in range(100)} == set(VENUES)
