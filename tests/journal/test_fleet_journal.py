"""One file for the events of many accounts: apart from each other, together on the disk."""

from __future__ import annotations

import os
import pathlib
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator

import attrs
import pytest
from journals import happened, make_version_2
from waiting import DEADLINE

from aggstream.errors import ConfigurationError, JournalError, JournalInUse, StateError, UserMismatch
from aggstream.journal import Journal, JournalOptions, JournalReader, Part, replay, retry
from aggstream.journal._fleet import FleetJournal


@pytest.fixture
def path(tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path / "fleet.db"


@pytest.fixture
def fleet(path: pathlib.Path) -> Iterator[FleetJournal]:
    journal = opened(path)
    yield journal
    journal.close()


def opened(path: pathlib.Path) -> FleetJournal:
    return FleetJournal(JournalOptions(path=path, synchronous="normal"))


def test_accounts_keep_what_is_theirs(fleet: FleetJournal) -> None:
    alice, bob = fleet.of("alice"), fleet.of("bob")
    event = happened("same order")
    [of_alice], [of_bob] = alice.store([event]), bob.store([event])
    assert of_alice is not None
    assert of_bob is not None
    assert of_bob > of_alice
    assert alice.store([event]) == [None]
    assert [stored.account for stored in alice.pending()] == ["alice"]
    assert alice.pending()[0].event.account == "alice"
    alice.done([of_alice, of_bob])  # the second is not hers
    assert [stored.seq for stored in bob.pending()] == [of_bob]
    assert [stored.state for stored in alice.events_of("same order")] == ["done"]
    alice.remember(open_orders=["known to rest"], history_until=5, known_until=7, is_searched=True)
    alice.belongs_to("usr_a")
    bob.belongs_to("usr_b")
    assert alice.recall().open_orders == {"same order", "known to rest"}
    assert bob.recall().open_orders == {"same order"}
    assert bob.recall().history_until is None
    bob.store([happened("same order", "filled")])
    assert alice.recall().open_orders == {"same order", "known to rest"}
    assert not bob.recall().open_orders
    assert bob.failed(of_bob, "boom", final=True)
    assert (alice.counts().dead, bob.counts().dead) == (0, 1)
    assert (alice.user_id, bob.user_id) == ("usr_a", "usr_b")


def test_events_of_many_accounts_are_stored_in_one_transaction(fleet: FleetJournal, path: pathlib.Path) -> None:
    accounts = {name: fleet.of(name) for name in ("a", "b", "c")}
    first, second = happened("1"), happened("2")
    textless = attrs.evolve(happened("3"), text="")
    results = fleet.store_all(
        [
            Part("a", [first, second]),
            Part("b", [first, textless]),
            Part("b", [first, first]),
            Part("c", []),
            Part("a", [first, happened("4", "filled")], complete=False),
        ]
    )
    assert isinstance(results[1], ValueError)
    assert [results[number] for number in (0, 2, 3, 4)] == [[1, 2], [3, None], [], [None, 5]]
    assert [stored.seq for stored in accounts["a"].pending()] == [1, 2, 5]
    assert accounts["a"].recall().last_timestamp == second.timestamp
    connection = sqlite3.connect(path)
    connection.execute("BEGIN IMMEDIATE")
    fleet._file.connection.execute("PRAGMA busy_timeout = 1")  # type: ignore[union-attr]
    thread = threading.Thread(target=lambda: fleet.store_all([Part("c", [happened("5")])]))
    thread.start()
    connection.rollback()
    connection.close()
    thread.join(DEADLINE)
    assert len(accounts["c"].pending()) == 1


def test_an_accounts_events_are_another_users_never(fleet: FleetJournal) -> None:
    alice = fleet.of("alice")
    alice.belongs_to("usr_a")
    with pytest.raises(UserMismatch, match="'alice'"):
        alice.belongs_to("usr_m")
    alice.close()
    with pytest.raises(UserMismatch):
        fleet.of("alice").belongs_to("usr_m")


def test_each_account_knows_when_it_was_closed(path: pathlib.Path) -> None:
    fleet = opened(path)
    removed, stays = fleet.of("removed"), fleet.of("stays")
    for account in (removed, stays):
        account.belongs_to(f"usr of {account.account}")
    removed.close()
    removed.close()
    fleet.close()
    fleet.close()
    again = opened(path)
    closed = {name: again.of(name).recall().closed_ns for name in ("removed", "stays", "new")}
    again.close()
    assert closed["new"] is None
    assert closed["removed"] is not None
    assert closed["stays"] is not None
    assert closed["removed"] < closed["stays"]


def test_a_journal_of_a_single_client_is_taken_over_by_the_account_of_its_user(
    path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    single = Journal(JournalOptions(path=path))
    events = [happened("o"), happened("o", "filled")]
    single.store(events)
    single.belongs_to("usr_1")
    single.close()
    make_version_2(path)  # as the version before has left it
    fleet = opened(path)
    assert fleet.unclaimed() == "usr_1"
    assert fleet.of("other", "usr_2").pending() == []
    assert fleet.of("unknown").pending() == []
    alice = fleet.of("alice", "usr_1")
    assert fleet.unclaimed() is None
    assert [stored.event.account for stored in alice.pending()] == ["alice", "alice"]
    assert alice.store(events) == [None, None]
    assert alice.user_id == "usr_1"
    fleet.close()
    with pytest.raises(JournalError, match=r"3 accounts of a fleet.*account="):
        Journal(JournalOptions(path=path))
    with Journal(JournalOptions(path=path, account="alice")) as alone:
        assert len(alone.pending()) == 2


def test_an_account_that_has_events_takes_over_none(path: pathlib.Path) -> None:
    single = Journal(JournalOptions(path=path))
    single.store([happened("o")])
    single.belongs_to("usr_1")
    single.close()
    fleet = opened(path)
    fleet.of("alice").store([happened("p")])
    assert [stored.order_id for stored in fleet.of("alice", "usr_1").pending()] == ["p"]
    assert fleet.unclaimed() == "usr_1"
    fleet.close()


def test_two_fleets_do_not_share_a_file(fleet: FleetJournal, path: pathlib.Path) -> None:
    with pytest.raises(JournalInUse):
        opened(path)
    with pytest.raises(JournalInUse):
        Journal(JournalOptions(path=path))


@pytest.mark.parametrize("name", ["", "a\n", "x" * 256, "\ud800"])
def test_a_name_that_cannot_be_kept_is_refused(fleet: FleetJournal, name: str) -> None:
    with pytest.raises(ConfigurationError, match="the name of an account"):
        fleet.of(name)


def test_a_reader_sees_accounts_while_the_fleet_writes(fleet: FleetJournal, path: pathlib.Path) -> None:
    seqs = fleet.of("alice").store([happened("o") for _ in range(5)])
    fleet.of("bob").store([happened("p"), happened("p", "filled")])
    fleet.of("alice").belongs_to("usr_a")
    assert seqs[0] is not None
    fleet.of("alice").failed(seqs[0], "boom", final=True)
    with JournalReader(path) as reader:
        assert [(it.name, it.user_id, it.pending, it.done, it.dead) for it in reader.accounts()] == [
            ("alice", "usr_a", 4, 0, 1),
            ("bob", None, 2, 0, 0),
        ]
        assert {stored.account for stored in reader.find(account="bob")} == {"bob"}
        assert len(list(reader.export())) == 7
        assert reader.export().__next__().as_dict()["account"] == "alice"
        assert reader.user_id == "usr_a"
    assert retry(path, account="bob") == 0
    assert retry(path, account="alice") == 1
    fleet.of("bob").done([6, 7])
    assert replay(path, first=1, account="alice") == 0
    assert replay(path, first=1, account="bob") == 2


def test_what_each_account_asks_at_the_start_looks_at_no_other_accounts_events(
    fleet: FleetJournal, path: pathlib.Path
) -> None:
    for number in range(50):
        fleet.of(f"account {number}").store([happened(f"o{at}") for at in range(20)])
    statements: list[str] = []
    assert fleet._file.connection is not None
    fleet._file.connection.set_trace_callback(statements.append)
    account = fleet.of("account 7")
    account.pending()
    account.recall()
    account.events_of("o1")
    fleet._file.connection.set_trace_callback(None)
    asked = [text for text in statements if text.lstrip().startswith(("SELECT", "INSERT", "UPDATE"))]
    assert len(asked) > 4
    connection = sqlite3.connect(path)
    plans = [" ".join(row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {text}")) for text in asked]
    connection.close()
    for text, plan in zip(asked, plans, strict=True):
        assert "SCAN facts" not in plan, (text, plan)
        assert "SCAN states" not in plan, (text, plan)


def test_threads_use_accounts_side_by_side(fleet: FleetJournal) -> None:
    accounts = [fleet.of(f"account {number}") for number in range(8)]

    def work(account: Journal) -> None:
        for at in range(40):
            seqs = account.store([happened(f"o{at}"), happened(f"o{at}", "filled")])
            account.done([seq for seq in seqs if seq is not None])

    threads = [threading.Thread(target=work, args=(account,)) for account in accounts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)
    assert [(it.counts().done, it.counts().pending) for it in accounts] == [(80, 0)] * 8


KILLED = """
import os, sys
sys.path.insert(0, sys.argv[2])
from journals import happened
from aggstream.journal import JournalOptions, Part
journal = JournalOptions(path=sys.argv[1], synchronous="normal").open_fleet()
names = [f"account {number}" for number in range(5)]
for name in names:
    journal.of(name)
at = 0
while True:
    results = journal.store_all([Part(name, [happened(f"{at} of {name}")]) for name in names])
    print(at, flush=True)
    at += 1
"""


def test_a_fleet_that_is_killed_has_stored_all_accounts_events_or_none(path: pathlib.Path) -> None:
    support = str(pathlib.Path(__file__).parents[1] / "support")
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(path), support], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for _ in range(20):
        process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    told = [line for line in process.stdout.read().splitlines() if line]
    process.wait(DEADLINE)
    process.stdout.close()
    last = int(told[-1]) if told else 19
    fleet = opened(path)
    counts = {len(fleet.of(f"account {number}").pending(limit=10**6)) for number in range(5)}
    fleet.close()
    assert len(counts) == 1
    assert counts.pop() >= last


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system does not fork")
def test_a_forked_childs_accounts_are_its_parents(fleet: FleetJournal) -> None:
    alice = fleet.of("alice")
    child = os.fork()
    if child == 0:
        try:
            alice.store([happened("o")])
        except StateError:
            os._exit(7)
        os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 7
    assert alice.store([happened("o")]) == [1]
