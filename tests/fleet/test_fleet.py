"""Many accounts: whose event it is, coming and going, and that none ends another."""

from __future__ import annotations

import collections
import logging
import pickle
import threading
from typing import Any

import pytest
from fleets import MakeFleet, Record
from waiting import DEADLINE, Until

import aggstream
from aggstream import Account, Continuity, Event, Resting
from aggstream.simulator import Simulator


def test_every_event_says_whose_it_is(simulator: Simulator, fleet_of: MakeFleet, until: Until) -> None:
    fleet = fleet_of(accounts=["alice", Account("bob"), "carol"])
    record = Record(fleet)
    with fleet:
        fleet.wait_until_live(DEADLINE)
        placed = {name: [simulator.place_order(f"usr_{name}") for _ in range(3)] for name in ("alice", "bob")}
        for name, orders in placed.items():
            for order_id in orders:
                assert fleet.account(name).track(order_id).wait(DEADLINE).is_known
        for name in placed:
            fleet.account(name).wait_until_caught_up(DEADLINE)
            assert fleet.account(name).continuity is Continuity.LIVE
        assert set(fleet.account("carol").orders) == set()
    for name, orders in placed.items():
        assert set(fleet.account(name).orders) == set(orders)
        assert {event.order_id for event in record.of(name)} == set(orders)
        assert {event.user_id for event in record.of(name)} == {f"usr_{name}"}
        assert record.events[name][-1].type == "stopped"
    assert set(record.events) == {"alice", "bob", "carol"}


def test_a_single_clients_events_have_the_name_that_was_given(simulator: Simulator, until: Until) -> None:
    options: Any = {"app_id": simulator.app_id, "origin": simulator.origin, "url": simulator.url}
    token = simulator.sign_in().access_token
    seen: dict[str, set[str]] = {}
    for account in ("", "alice"):
        client = aggstream.Client(token=token, account=account, **options)
        names = seen.setdefault(account, set())

        def note(event: Event, names: set[str] = names) -> None:
            names.add(event.account)

        client.on("*")(note)
        with client:
            client.wait_until_live(DEADLINE)
            simulator.place_order()
    assert seen == {"": {""}, "alice": {"alice"}}


def test_the_account_is_in_no_id(simulator: Simulator) -> None:
    event = aggstream.BalanceUpdate(
        venue="v", trading_balance_cents=1, wallet_balance_cents=2, timestamp=3, text="{}", account="a"
    )
    other = aggstream.BalanceUpdate(
        venue="v", trading_balance_cents=1, wallet_balance_cents=2, timestamp=3, text="{}", account="b"
    )
    assert (event.id, event) == (other.id, other)
    assert pickle.loads(pickle.dumps(event)).account == "a"  # noqa: S301
    assert "account='a'" in repr(event)


def test_accounts_come_and_go_with_the_functions_answer(
    simulator: Simulator, fleet_of: MakeFleet, until: Until
) -> None:
    names = ["alice"]
    fleet = fleet_of(accounts=lambda: [Account(name) for name in names], refresh_interval=3600)
    record = Record(fleet)
    with fleet:
        until(lambda: fleet.health().phases == {"live": 1})
        names.append("bob")
        fleet.refresh()
        until(lambda: fleet.health().phases == {"live": 2})
        fleet.add("carol")
        until(lambda: fleet.health().phases == {"live": 3})
        names.remove("alice")
        fleet.refresh()
        until(lambda: fleet.health().phases == {"live": 2})
        assert set(fleet.accounts) == {"bob", "carol"}
        until(lambda: record.of("alice", aggstream.Stopped))
        names.append("alice")
        fleet.refresh()
        until(lambda: fleet.health().phases == {"live": 3})
        assert fleet.health().ok


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (LookupError("with a secret"), "LookupError"),
        ([], "no account"),
        (None, "NoneType"),
        ([Account("alice"), "alice"], "two accounts have the name 'alice'"),
        ([5], "int"),
        ("alice", "str"),
        ([Account("bob", token=lambda: "t", user_id="u"), ""], "the name of an account"),
    ],
)
def test_an_answer_that_cannot_be_used_leaves_all_accounts_as_they_are(
    fleet_of: MakeFleet, until: Until, caplog: pytest.LogCaptureFixture, answer: Any, why: str
) -> None:
    answers: list[Any] = [["alice", "bob"]]

    def accounts() -> Any:
        if isinstance(answers[-1], Exception):
            raise answers[-1]
        return answers[-1]

    fleet = fleet_of(accounts=accounts, refresh_interval=3600)
    with fleet:
        until(lambda: fleet.health().phases == {"live": 2})
        answers.append(answer)
        fleet.refresh()
        until(lambda: any(why in problem for problem in fleet.health().problems))
        assert set(fleet.accounts) == {"alice", "bob"}
        fleet.refresh()
        answers.append(["alice", "bob", "carol"])
        fleet.refresh()
        until(lambda: fleet.health().phases == {"live": 3})
        until(lambda: fleet.health().ok)
    assert "secret" not in caplog.text
    assert caplog.text.count("the list of accounts is not up to date") == 1


def test_a_function_that_hangs_is_given_up_and_asked_again(fleet_of: MakeFleet, until: Until) -> None:
    release, calls = threading.Event(), []

    def accounts() -> list[str]:
        calls.append(1)
        if len(calls) == 2:
            release.wait(DEADLINE)
        return ["alice", "bob"][: len(calls)]

    fleet = fleet_of(accounts=accounts, refresh_interval=3600, token_timeout=0.2)
    with fleet:
        until(lambda: fleet.health().phases == {"live": 1})
        fleet.refresh()
        until(lambda: any("has not returned within" in problem for problem in fleet.health().problems))
        fleet.refresh()
        until(lambda: fleet.health().phases == {"live": 2})
        release.set()


def test_an_account_is_removed_while_its_handler_runs_and_added_again(
    simulator: Simulator, fleet_of: MakeFleet, until: Until
) -> None:
    fleet = fleet_of(accounts=["alice", "bob"])
    entered, release = threading.Event(), threading.Event()
    ends: list[Event] = []

    @fleet.on("order_submitted")
    def slow(event: Event) -> None:
        if event.account == "alice" and not entered.is_set():
            entered.set()
            release.wait(DEADLINE)

    fleet.on("stopped")(ends.append)
    with fleet:
        fleet.wait_until_live(DEADLINE)
        simulator.place_order("usr_alice")
        assert entered.wait(DEADLINE)
        assert fleet.remove("alice")
        assert not fleet.remove("alice")
        with pytest.raises(aggstream.ConfigurationError, match="no account 'alice'"):
            fleet.account("alice")
        until(lambda: fleet.health().phases == {"live": 1})
        fleet.add("alice")
        until(lambda: fleet.health().phases == {"live": 2})
        assert ends == []
        release.set()
        until(lambda: ends)
        order_id = simulator.place_order("usr_alice")
        assert fleet.account("alice").track(order_id).wait(DEADLINE).is_known
    assert sorted(event.account for event in ends) == ["alice", "alice", "bob"]


def test_a_handler_may_add_and_remove_accounts(simulator: Simulator, fleet_of: MakeFleet, until: Until) -> None:
    fleet = fleet_of(accounts=["alice"])

    @fleet.on("order_submitted")
    def replace(event: Event) -> None:
        if event.account == "alice":
            fleet.add("bob")
            fleet.remove("alice")

    with fleet:
        fleet.wait_until_live(DEADLINE)
        simulator.place_order("usr_alice")
        until(lambda: fleet.accounts == ("bob",))
        until(lambda: fleet.health().phases == {"live": 1})


def test_a_name_that_comes_back_with_another_user_is_refused(
    simulator: Simulator, fleet_of: MakeFleet, until: Until
) -> None:
    token = [simulator.sign_in("usr_alice").access_token]
    fleet = fleet_of(accounts=[Account("alice", token=lambda: token[0])])
    record = Record(fleet)
    with fleet:
        fleet.wait_until_live(DEADLINE)
        token[0] = simulator.sign_in("usr_mallory").access_token
        fleet.remove("alice")
        again = fleet.add(Account("alice", token=lambda: token[0]))
        until(lambda: record.of("alice", Resting))
        simulator.place_order("usr_mallory")
        [resting] = record.of("alice", Resting)
        assert isinstance(resting.error, aggstream.UserMismatch)
        assert record.of("alice") == []
        assert fleet.health().failed == ("alice",)
        token[0] = simulator.sign_in("usr_alice").access_token
        until(lambda: again.phase == "live")
        assert fleet.health().failed == ()


def test_the_user_that_was_named_is_the_only_one_who_is_taken(
    simulator: Simulator, fleet_of: MakeFleet, until: Until
) -> None:
    fleet = fleet_of(accounts=[Account("alice", user_id="usr_alice"), Account("bob", user_id="usr_other")])
    with fleet:
        fleet.wait_until_live(DEADLINE)
        assert (fleet.account("alice").phase, fleet.account("bob").phase) == ("live", "failed")
        assert isinstance(fleet.account("bob").health().last_error, aggstream.UserMismatch)


def test_an_account_whose_token_is_refused_rests_until_it_has_another_one(
    simulator: Simulator, fleet_of: MakeFleet, until: Until, caplog: pytest.LogCaptureFixture
) -> None:
    tokens = {"alice": simulator.sign_in("usr_alice").access_token, "bob": "refused.for.good"}
    asked = []

    def token(account: str) -> str:
        asked.append(account)
        return tokens[account]

    fleet = fleet_of(accounts=["alice", "bob"], token=token)
    record = Record(fleet)
    with fleet:
        fleet.wait_until_live(DEADLINE)
        bob = fleet.account("bob")
        assert bob.phase == "must sign in again"
        assert fleet.health().must_sign_in == ("bob",)
        assert any("must sign in again: 'bob'" in problem for problem in fleet.health().problems)
        before = simulator.counts.authentications_refused
        until(lambda: asked.count("bob") > 6)  # it is asked again, but the same token is not sent again
        assert simulator.counts.authentications_refused == before
        assert [event.state for event in record.of("bob", Resting)] == ["must sign in again"]
        order_id = simulator.place_order("usr_alice")
        assert fleet.account("alice").track(order_id).wait(DEADLINE).is_known
        tokens["bob"] = simulator.sign_in("usr_bob").access_token
        until(lambda: bob.phase == "live")
        assert fleet.health().ok
    assert "refused.for.good" not in caplog.text
    assert record.of("alice", Resting) == []


def test_a_list_with_another_token_wakes_an_account_that_rests(
    simulator: Simulator, fleet_of: MakeFleet, until: Until
) -> None:
    tokens = ["refused.for.good"]
    fleet = fleet_of(
        accounts=lambda: [Account("alice", token=tokens[-1])],
        refresh_interval=3600,
        reconnect=aggstream.ReconnectPolicy(initial=0.01, maximum=3600),
    )
    with fleet:
        until(lambda: fleet.health().must_sign_in == ("alice",))
        tokens.append(simulator.sign_in("usr_alice").access_token)
        fleet.refresh()
        until(lambda: fleet.health().ok)


def test_an_account_that_is_refused_for_another_reason_is_tried_again(
    simulator: Simulator, fleet_of: MakeFleet, until: Until
) -> None:
    fleet = fleet_of(accounts=["alice"])
    record = Record(fleet)
    simulator.refuse_connections(3, status=403)
    with fleet:
        until(lambda: fleet.health().phases == {"live": 1})
        [resting] = record.of("alice", Resting)
        assert (resting.state, type(resting.error)) == ("failed", aggstream.HandshakeRejected)


def test_tokens_of_different_accounts_are_asked_for_at_once_and_of_one_account_one_by_one(
    simulator: Simulator, fleet_of: MakeFleet, until: Until
) -> None:
    now: collections.Counter[str] = collections.Counter()
    most: collections.Counter[str] = collections.Counter()
    lock, both = threading.Lock(), threading.Barrier(2)

    def token(account: str) -> str:
        with lock:
            now[account] += 1
            most[account] = max(most[account], now[account])
        both.wait(DEADLINE)  # it breaks, and the test fails, unless two accounts are asked for at once
        with lock:
            now[account] -= 1
        return simulator.sign_in(f"usr_{account}").access_token

    fleet = fleet_of(accounts=["alice", "bob"], token=token)
    with fleet:
        fleet.wait_until_live(DEADLINE)
        assert not both.broken
    assert most == {"alice": 1, "bob": 1}


def test_an_error_of_ours_in_one_stream_ends_no_other(
    simulator: Simulator, fleet_of: MakeFleet, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet = fleet_of(accounts=["alice", "bob"])
    with fleet:
        fleet.wait_until_live(DEADLINE)
        stream = fleet.account("bob")._parts.stream

        def fail(*_: object) -> None:
            raise ZeroDivisionError

        monkeypatch.setattr(stream.pipeline, "step", fail)
        stream.wake()
        until(lambda: fleet.account("bob")._parts.stream is not stream)
        until(lambda: fleet.health().phases == {"live": 2})
        assert fleet.account("alice")._parts.stream.counters.connections == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"accounts": ["a", "a"]}, "two accounts have the name 'a'"),
        ({"accounts": [""]}, "the name of an account"),
        ({"accounts": ["a\n"]}, "the name of an account"),
        ({"accounts": ["a" * 256]}, "the name of an account"),
        ({"accounts": "alice"}, "an iterable of Account"),
        ({"accounts": 5}, "an iterable of Account"),
        ({"accounts": ["a"], "token": None}, "has no token"),
        ({"token": "t"}, "the token function"),
        ({"token": lambda: "t"}, "one argument, the name of an account"),
        ({"connects_per_second": 0}, "connects_per_second"),
        ({"rest_requests_per_second": -1}, "rest_requests_per_second"),
        ({"refresh_interval": None}, "refresh_interval"),
        ({"workers": 0}, "workers"),
    ],
)
def test_options_that_cannot_work_are_refused(fleet_of: MakeFleet, options: dict[str, Any], message: str) -> None:
    with pytest.raises(aggstream.ConfigurationError, match=message):
        fleet_of(**options)


def test_a_name_is_in_the_fleet_once(fleet_of: MakeFleet) -> None:
    fleet = fleet_of(accounts=["alice"])
    with pytest.raises(aggstream.ConfigurationError, match="already"):
        fleet.add("alice")
    with fleet, pytest.raises(aggstream.ConfigurationError, match="already"):
        fleet.add("alice")
    with pytest.raises(aggstream.StateError, match="ended"):
        fleet.add("bob")


def test_an_account_shows_no_token() -> None:
    account = Account("alice", token="s3cret")
    assert "s3cret" not in repr(account)
    assert "s3cret" not in str(vars(type(account))) + str([getattr(account, "token")])  # noqa: B009


def test_a_fleet_is_not_pickled_and_says_what_it_is(fleet_of: MakeFleet) -> None:
    fleet = fleet_of(accounts=["alice"])
    assert repr(fleet) == "<aggstream.Fleet 'aggstream' of 1 accounts: idle>"
    assert repr(fleet.account("alice")) == "<aggstream.AccountStream 'alice': idle>"
    with pytest.raises(TypeError, match="pickled"):
        pickle.dumps(fleet)


def test_a_fleet_without_an_account_waits_for_one(simulator: Simulator, fleet_of: MakeFleet, until: Until) -> None:
    fleet = fleet_of()
    with fleet:
        fleet.wait_until_live(DEADLINE)
        fleet.add("alice")
        until(lambda: fleet.health().phases == {"live": 1})
        fleet.remove("alice")
        until(lambda: fleet.health().phases == {})
        assert fleet.health().ok
    assert fleet.stop().undelivered == 0


def test_exiting_in_a_handler_ends_all(simulator: Simulator, fleet_of: MakeFleet) -> None:
    fleet = fleet_of(accounts=["alice", "bob"])

    @fleet.on("order_submitted")
    def leave(event: Event) -> None:
        raise SystemExit(7)

    fleet.start()
    fleet.wait_until_live(DEADLINE)
    simulator.place_order("usr_bob")
    with pytest.raises(SystemExit, match="7"):
        fleet.wait(DEADLINE)


def test_handlers_errors_reach_on_error_with_their_account(
    simulator: Simulator, fleet_of: MakeFleet, until: Until, caplog: pytest.LogCaptureFixture
) -> None:
    failed: list[str] = []
    fleet = fleet_of(accounts=["alice"], on_error=lambda error, event: failed.append(event.account))

    @fleet.on("order_submitted")
    def fail(event: Event) -> None:
        raise LookupError

    with caplog.at_level(logging.ERROR), fleet:
        fleet.add("bob")
        fleet.wait_until_live(DEADLINE)
        for name in ("alice", "bob"):
            simulator.place_order(f"usr_{name}")
        until(lambda: sorted(failed) == ["alice", "bob"])
    assert "aggstream[bob]: the handler" in caplog.text


def test_where_the_system_allows_too_few_connections_those_that_fit_run(
    simulator: Simulator,
    fleet_of: MakeFleet,
    until: Until,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("aggstream.fleet.descriptors_left", lambda: 2)
    fleet = fleet_of(accounts=["alice", "bob", "carol"])
    with fleet:
        until(lambda: fleet.health().phases.get("live") == 2)
        assert "may open 2 connections, and there are 3 accounts" in caplog.text
        assert any("ulimit -n" in problem for problem in fleet.health().problems)
        waits = next(name for name in fleet.accounts if fleet.account(name).phase == "idle")
        fleet.remove(next(name for name in fleet.accounts if name != waits))
        until(lambda: fleet.account(waits).phase == "live")
        assert fleet.health().ok
