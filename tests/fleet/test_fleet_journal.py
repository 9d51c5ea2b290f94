"""A fleet with a journal: at least once for each account, also after the process is gone."""

from __future__ import annotations

import contextlib
import pathlib
import sqlite3
import threading

import pytest
from fleets import MakeFleet, Record
from waiting import DEADLINE, Until

import aggstream
from aggstream import Account, Event, UserEvent
from aggstream.journal import JournalOptions, JournalReader
from aggstream.simulator import Simulator


def test_what_was_not_handled_is_delivered_again_to_its_account(
    simulator: Simulator, fleet_of: MakeFleet, until: Until, tmp_path: pathlib.Path
) -> None:
    path = tmp_path / "fleet.db"
    first = fleet_of(accounts=["alice", "bob"], journal=path)
    release, hanging = threading.Event(), threading.Event()

    @first.on(UserEvent)
    def hang(event: Event) -> None:
        hanging.set()
        release.wait(DEADLINE)

    first.start()
    first.wait_until_live(DEADLINE)
    placed = {name: simulator.place_order(f"usr_{name}") for name in ("alice", "bob")}
    for name, order_id in placed.items():
        assert first.account(name).track(order_id).wait(DEADLINE).is_known
    assert hanging.wait(DEADLINE)
    assert first.stop(0.2).undelivered > 0
    release.set()
    assert first.wait(DEADLINE)
    second = fleet_of(accounts=["alice", "bob"], journal=path)
    record = Record(second)
    with second:
        second.wait_until_live(DEADLINE)
        with JournalReader(path) as reader:
            until(lambda: all(not account.pending for account in reader.accounts()))
    for name, order_id in placed.items():
        assert {event.order_id for event in record.of(name)} == {order_id}
        assert any(event.is_terminal for event in record.of(name))
        assert all(event.redelivered for event in record.of(name))


def test_the_journal_of_a_single_client_goes_on_as_an_accounts(
    simulator: Simulator, fleet_of: MakeFleet, until: Until, tmp_path: pathlib.Path
) -> None:
    path = tmp_path / "journal.db"
    client = aggstream.Client(
        app_id=simulator.app_id,
        origin=simulator.origin,
        url=simulator.url,
        rest_url=simulator.rest_url,
        rest_lag=0,
        token=simulator.sign_in("usr_alice").access_token,
        journal=path,
    )
    with client:
        client.wait_until_live(DEADLINE)
        order_id = simulator.place_order("usr_alice")
        assert client.track(order_id).wait(DEADLINE).is_known
    fleet = fleet_of(accounts=[Account("alice", user_id="usr_alice")], journal=path)
    with fleet:
        fleet.wait_until_live(DEADLINE)
        assert fleet.account("alice").track(order_id).wait(DEADLINE).is_known
    with JournalReader(path) as reader:
        assert [account.name for account in reader.accounts()] == ["alice"]


def test_failed_handlers_are_called_again_and_hold_up_their_own_order(
    simulator: Simulator, fleet_of: MakeFleet, until: Until, tmp_path: pathlib.Path
) -> None:
    options = JournalOptions(
        path=tmp_path / "fleet.db", retry_delay=0.05, retry_delay_maximum=0.05, max_attempts=3
    )
    fleet = fleet_of(accounts=["alice"], journal=options, workers=8)
    attempts: dict[str, int] = {}
    bad: list[str] = []

    @fleet.on("order_submitted")
    def fail(event: aggstream.OrderSubmitted) -> None:
        if not bad:
            bad.append(event.order_id)
        if event.order_id == bad[0]:
            attempts[event.id] = attempts.get(event.id, 0) + 1
            raise LookupError

    record = Record(fleet, "order_event")
    with fleet:
        fleet.wait_until_live(DEADLINE)
        placed = [simulator.place_order("usr_alice") for _ in range(5)]
        alice = fleet.account("alice")
        until(lambda: alice.health().dead == 1)
        until(lambda: {event.order_id for event in record.of("alice")} == set(placed))
        until(lambda: alice.health().queue_depth == 0)
    assert list(attempts.values()) == [3]


def test_an_account_that_is_added_later_has_its_place_in_the_journal(
    simulator: Simulator, fleet_of: MakeFleet, until: Until, tmp_path: pathlib.Path
) -> None:
    path = tmp_path / "fleet.db"
    fleet = fleet_of(accounts=lambda: ["alice"], journal=path)
    with fleet:
        fleet.add("bob")
        until(lambda: fleet.health().phases == {"live": 2})
        for name in ("alice", "bob"):
            simulator.place_order(f"usr_{name}")
        with JournalReader(path) as reader:
            until(lambda: [it.name for it in reader.accounts() if it.done] == ["alice", "bob"])
            assert [account.user_id for account in reader.accounts()] == ["usr_alice", "usr_bob"]


def test_another_user_under_the_name_of_an_account_is_refused_in_a_later_process_too(
    simulator: Simulator, fleet_of: MakeFleet, until: Until, tmp_path: pathlib.Path
) -> None:
    path = tmp_path / "fleet.db"
    with fleet_of(accounts=["alice"], journal=path) as fleet:
        fleet.wait_until_live(DEADLINE)
    later = fleet_of(
        accounts=[Account("alice", token=simulator.sign_in("usr_mallory").access_token), "bob"], journal=path
    )
    with later:
        later.wait_until_live(DEADLINE)
        assert (later.account("alice").phase, later.account("bob").phase) == ("failed", "live")
        simulator.place_order("usr_mallory")
        assert isinstance(later.account("alice").health().last_error, aggstream.UserMismatch)
    with JournalReader(path) as reader:
        assert reader.find(account="alice") == []


def test_a_journal_that_cannot_be_opened_is_told_by_start(fleet_of: MakeFleet, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "fleet.db"
    path.write_text("dear diary,\n" * 100)
    fleet = fleet_of(accounts=["alice"], journal=path)
    with pytest.raises(aggstream.JournalCorrupt):
        fleet.start()
    path.unlink()
    with fleet:
        fleet.wait_until_live(DEADLINE)


def test_a_later_process_knows_when_an_account_was_removed(
    simulator: Simulator, fleet_of: MakeFleet, until: Until, tmp_path: pathlib.Path
) -> None:
    path = tmp_path / "fleet.db"

    def closed() -> dict[str, int | None]:
        with contextlib.closing(sqlite3.connect(path)) as connection:
            return dict(connection.execute("SELECT name, closed_ns FROM accounts WHERE name != ''"))

    with fleet_of(accounts=["alice", "bob"], journal=path) as fleet:
        fleet.wait_until_live(DEADLINE)
        assert closed() == {"alice": None, "bob": None}
        fleet.remove("alice")
        until(lambda: closed()["alice"] is not None)
        assert closed()["bob"] is None
    assert None not in closed().values()


def test_a_stream_that_is_made_anew_writes_to_the_journal_as_before(
    simulator: Simulator,
    fleet_of: MakeFleet,
    until: Until,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = tmp_path / "fleet.db"
    fleet = fleet_of(accounts=["alice"], journal=path)
    with fleet:
        fleet.wait_until_live(DEADLINE)
        stream = fleet.account("alice")._parts.stream

        def fail(*_: object) -> None:
            raise ZeroDivisionError

        monkeypatch.setattr(stream.pipeline, "step", fail)
        stream.wake()
        until(lambda: fleet.account("alice")._parts.stream is not stream)
        until(lambda: fleet.health().phases == {"live": 1})
        order_id = simulator.place_order("usr_alice")
        assert fleet.account("alice").track(order_id).wait(DEADLINE).is_known
        with JournalReader(path) as reader:
            until(lambda: reader.find(order_id=order_id, state="done"))
