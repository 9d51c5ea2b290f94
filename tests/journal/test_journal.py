"""The journal of one process: what is stored stays, in order, once, and is told again until it is done."""

from __future__ import annotations

import ast
import contextlib
import os
import pathlib
import re
import resource
import sqlite3
import stat
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import attrs
import pytest
from journals import CODEC, happened, id_of_version_1, is_intact, make_version_2
from service_messages import BALANCE_UPDATE, ORDER_SUBMITTED
from waiting import DEADLINE, Until

import aggstream
from aggstream._base.json_text import to_json
from aggstream.errors import (
    ConfigurationError,
    DecodeError,
    JournalCorrupt,
    JournalError,
    JournalFull,
    StateError,
    UserMismatch,
)
from aggstream.events import UserEvent
from aggstream.journal import DECODERS, Journal, JournalOptions, JournalReader, StoredEvent, _file

DAY = 86_400 * 10**9
Open = Callable[..., Journal]


@pytest.fixture
def path(tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path / "journal.db"


@pytest.fixture
def owned(path: pathlib.Path) -> Iterator[Open]:
    """Open the journal; it is closed when the test ends, however it ends."""
    journals: list[Journal] = []

    def make(**options: Any) -> Journal:
        # What a power failure costs, no test can see, and syncing takes long.
        journals.append(Journal(JournalOptions(**{"path": path, "synchronous": "normal", **options})))
        return journals[-1]

    yield make
    for journal in journals:
        journal.close()


def settle(journal: Journal, *events: UserEvent) -> list[int]:
    """Store events that are new, and their handlers finish."""
    seqs = [seq for seq in journal.store(events) if seq is not None]
    journal.done(seqs)
    return seqs


def the_only(journal: Journal) -> StoredEvent:
    [stored] = journal.pending()
    return stored


# --- options --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("path", ""),
        ("path", b"journal"),
        ("path", 3),
        ("path", "a\0b"),
        ("synchronous", "off"),
        ("max_attempts", 0),
        ("retry_delay", 0),
        ("retry_delay", 61.0),
        ("retry_delay_maximum", float("inf")),
        ("keep_for", -1.0),
        ("max_size", 1.5),
        ("on_failure", "ignore"),
        ("outage_errors", OSError),
        ("outage_errors", ["OSError"]),
        ("outage_errors", (OSError, SystemExit)),
    ],
)
def test_an_option_that_cannot_work_is_refused_by_its_name(option: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=option):
        JournalOptions(**{"path": "journal.db", option: value})


def test_the_options_are_public_and_take_any_kind_of_path(path: pathlib.Path) -> None:
    assert aggstream.JournalOptions(path=path) == JournalOptions(path=str(path))


def test_the_pause_after_a_failure_doubles_up_to_its_maximum() -> None:
    options = JournalOptions(path="j", retry_delay=0.5, retry_delay_maximum=3.0)
    assert [options.delay_after(failures) for failures in (1, 2, 3, 4, 10**6)] == [0.5, 1.0, 2.0, 3.0, 3.0]


# --- the life of an event -------------------------------------------------------------------------------


def test_events_are_pending_in_the_order_in_which_they_were_stored_until_they_are_done(owned: Open) -> None:
    journal = owned()
    events = [happened(order) for order in ("b", "a", "c")]
    first, second, third = journal.store(events)
    assert first is not None
    assert third is not None
    assert [stored.seq for stored in journal.pending()] == [first, second, third]
    assert [stored.event for stored in journal.pending()] == events
    journal.done([first, third])
    assert [stored.order_id for stored in journal.pending()] == ["a"]


def test_what_was_stored_is_there_when_the_journal_is_opened_again(owned: Open) -> None:
    journal = owned()
    event = happened("o")
    [seq] = journal.store([event])
    journal.close()
    stored = the_only(owned())
    assert (stored.seq, stored.id, stored.event) == (seq, event.id, event)


def test_a_repeat_is_told_within_a_batch_and_after_a_restart_and_whatever_became_of_the_first(owned: Open) -> None:
    journal = owned()
    again, other = happened("o"), happened("p")
    first, repeat, second = journal.store([again, again, other])
    assert first is not None
    assert repeat is None
    assert second is not None
    journal.done([first])
    journal.close()
    repeat, other_repeat, third = owned().store([other, again, happened("q")])
    assert (repeat, other_repeat) == (None, None)
    assert third is not None
    assert first < second < third


def test_a_seq_is_never_used_twice(owned: Open) -> None:
    journal = owned()
    settle(journal, happened("o"), happened("o", "filled"))
    assert journal.retention(time.time_ns() + 8 * DAY) == 2
    assert journal.store([happened("p")]) == [3]


def test_a_seq_is_not_used_again_when_its_event_was_deleted_and_the_journal_is_opened_again(owned: Open) -> None:
    journal = owned()
    settle(journal, happened("o"), happened("o", "filled"))
    assert journal.retention(time.time_ns() + 8 * DAY) == 2
    journal.close()
    assert owned().store([happened("p")]) == [3]


def test_repeats_are_told_of_every_type_wherever_in_a_batch_they_are(owned: Open) -> None:
    journal = owned()
    balances = [
        CODEC.decode(BALANCE_UPDATE.replace("1710000000000", str(1_710_000_000_000 + n)), 1) for n in (0, 1)
    ]
    orders = [happened("o"), happened("p", "filled"), happened("o", "partially_filled")]
    batch: list[Any] = [*balances, *orders]
    assert len({event.id for event in batch}) == 5
    assert journal.store([batch[0], batch[2]]) == [1, 2]
    stored = journal.store([batch[0], batch[1], batch[2], batch[3], batch[3], batch[4], batch[1]])
    assert [seq is None for seq in stored] == [True, False, True, False, True, False, True]
    assert [entry.id for entry in journal.pending()] == [batch[at].id for at in (0, 2, 1, 3, 4)]
    assert [entry.seq for entry in journal.pending(after=2)] == [seq for seq in stored if seq is not None]
    assert journal.store(batch) == [None] * 5
    assert journal.counts().pending == 5


def test_a_status_is_a_repeat_whenever_and_by_whatever_way_it_comes_again(owned: Open) -> None:
    journal = owned()
    told = happened("o", "filled", timestamp=1_000)
    again = attrs.evolve(happened("o", "order_filled", timestamp=9_000), source="reconcile")
    assert journal.store([told]) == [1]
    assert journal.store([again, happened("p", "filled", timestamp=1_000)])[0] is None
    assert journal.counts().pending == 2


@pytest.mark.parametrize(
    "done", [[1, 2, 3], [6, 2, 4], [3, 1, 2, 2, 1], [5], [6, 5, 1], list(range(1, 7)), [0, 1, 99]]
)
def test_exactly_those_that_are_told_become_done_in_whatever_order(done: list[int], owned: Open) -> None:
    journal = owned()
    journal.store([happened("o") for _ in range(6)])
    journal.done(done)
    assert [stored.seq for stored in journal.pending()] == [seq for seq in range(1, 7) if seq not in done]
    assert journal.counts().done == len(set(done) & set(range(1, 7)))


def test_an_order_is_followed_until_its_terminal_event_even_if_that_is_a_repeat(owned: Open) -> None:
    journal = owned()
    end = happened("o", "filled")
    journal.store([end])
    journal.remember(open_orders=["o", "p"])
    journal.store([happened("o"), happened("p")])
    assert journal.recall().open_orders == {"o", "p"}
    journal.store([end])
    assert journal.recall().open_orders == {"p"}
    journal.store([happened("p", "cancelled")])
    assert journal.recall().open_orders == set()


def test_an_event_comes_back_with_all_that_it_was_and_says_that_it_is_redelivered(owned: Open) -> None:
    journal = owned()
    for text in (ORDER_SUBMITTED, BALANCE_UPDATE):
        event = CODEC.decode(text, 123_456_789)
        assert isinstance(event, UserEvent)
        [seq] = journal.store([attrs.evolve(event, source="reconcile")])
        assert seq is not None
        back = the_only(journal).event
        assert (back, back.id, back.raw, back.text) == (event, event.id, event.raw, text)
        assert (back.received_ns, back.source, back.redelivered) == (123_456_789, "reconcile", True)
        journal.done([seq])


def test_an_event_whose_handlers_fail_too_often_is_dead_and_the_last_error_is_kept_on_one_line(
    owned: Open,
) -> None:
    journal = owned(max_attempts=3)
    [seq] = journal.store([happened("o")])
    assert seq is not None
    assert not journal.failed(seq, "first")
    assert not journal.failed(seq, "second")
    stored = the_only(journal)
    assert (stored.attempts, stored.last_error, stored.settled_at) == (2, "second", None)
    assert journal.failed(seq, "third\n\x1b[31m\ud800" + "." * 10_000)
    assert journal.pending() == []
    [dead] = journal.events_of("o")
    assert (dead.state, dead.attempts) == ("dead", 3)
    assert dead.last_error is not None
    assert dead.last_error.startswith(r"third\n\x1b[31m\ud800...")
    assert dead.last_error.isascii()
    assert len(dead.last_error) < 600
    assert dead.settled_at is not None


def test_an_event_that_is_skipped_is_dead_at_once(owned: Open) -> None:
    journal = owned()
    [seq] = journal.store([happened("o")])
    assert seq is not None
    journal.failed(seq, "not understood", final=True)
    [stored] = journal.events_of("o")
    assert (stored.state, stored.attempts, stored.last_error) == ("dead", 0, "not understood")


def test_what_is_settled_stays_settled_and_a_seq_that_is_not_there_changes_nothing(owned: Open) -> None:
    journal = owned(max_attempts=1)
    dead, done = journal.store([happened("o"), happened("o")])
    assert dead is not None
    assert done is not None
    assert journal.failed(dead, "")
    journal.done([dead, done, 99])
    assert not journal.failed(done, "late")
    assert not journal.failed(99, "never stored")
    journal.failed(done, "late", final=True)
    assert [stored.state for stored in journal.events_of("o")] == ["dead", "done"]


def test_nothing_to_do_is_done_without_touching_the_file(owned: Open) -> None:
    journal = owned()
    with journal._file.lock:  # it would wait for this
        assert journal.store([]) == []
        journal.done([])


def test_ten_thousand_pending_events_come_in_pages(owned: Open) -> None:
    journal = owned()
    events = [happened(f"o{number}") for number in range(10_000)]
    journal.store(events)
    journal.done(range(1, 10_000, 2))
    seqs: list[int] = []
    while page := journal.pending(after=seqs[-1] if seqs else 0, limit=999):
        assert len(page) <= 999
        seqs.extend(stored.seq for stored in page)
    assert seqs == list(range(2, 10_001, 2))
    assert len(journal.pending()) == 500


def test_threads_may_store_and_settle_at_once(owned: Open) -> None:
    journal = owned(max_attempts=2)
    problems: list[BaseException] = []

    def work(name: str) -> None:
        try:
            for number in range(50):
                first, second, third = journal.store([happened(f"{name}{number}") for _ in range(3)])
                assert first is not None
                assert second is not None
                assert third is not None
                journal.done([first])
                assert not journal.failed(second, "once")
                journal.failed(third, "no", final=True)
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not problems
    counts = journal.counts()
    assert (counts.pending, counts.done, counts.dead) == (200, 200, 200)


# --- what no column holds -------------------------------------------------------------------------------


def test_half_of_a_surrogate_pair_is_stored_found_and_exported(owned: Open, path: pathlib.Path) -> None:
    journal = owned()
    text = '{"type": "order_event", "event": "dag_\ud83d", "orderId": "\udc00", "timestamp": 1}'
    half = attrs.evolve(happened("o"), event="dag_\ud83d", order_id="\udc00", text=text)
    whole = happened("\N{GRINNING FACE}\0")
    assert journal.store([half, whole, half]) == [1, 2, None]
    assert journal.recall().open_orders == {"\udc00", "\N{GRINNING FACE}\0"}
    [stored] = journal.events_of("\udc00")
    assert (stored.text, stored.order_id, stored.sub_event) == (text, "\udc00", "dag_\ud83d")
    assert stored.event.order_id == "\N{REPLACEMENT CHARACTER}"  # type: ignore[attr-defined]
    assert journal.events_of("\udc00")
    journal.belongs_to("\ud800")
    journal.belongs_to("\ud800")
    assert journal.user_id == "\ud800"
    with JournalReader(path) as reader:
        assert [found.seq for found in reader.find(order_id="\udc00")] == [1]
        assert r"dag_\ud83d" in to_json([found.as_dict() for found in reader.export()])


def test_integers_beyond_64_bits_do_not_stop_the_journal(owned: Open) -> None:
    journal = owned()
    huge = attrs.evolve(happened("o"), timestamp=2**70, received_ns=-(2**70))
    assert journal.store([huge, happened("o")]) == [1, 2]
    assert journal.pending()[0].timestamp == 2**63 - 1
    assert journal.pending(after=1)


def test_an_event_without_its_text_is_refused_and_nothing_of_its_batch_is_stored(owned: Open) -> None:
    journal = owned()
    with pytest.raises(ValueError, match="without its text"):
        journal.store([happened("o"), attrs.evolve(happened("p"), text="")])
    assert journal.pending() == []


def test_a_text_that_this_version_does_not_understand_is_an_error_and_the_row_stays(
    owned: Open, path: pathlib.Path
) -> None:
    journal = owned()
    unknown = '{"type": "market_resolved"}'
    journal.store([attrs.evolve(happened("o"), text=text) for text in ("[", unknown)])
    for stored in journal.pending():
        with pytest.raises(DecodeError):
            assert stored.event
    broken, other = (stored.as_dict() for stored in journal.pending())
    assert (broken["message"], broken["text"]) == (None, "[")
    assert other["message"] == {"type": "market_resolved"}
    assert "text" not in other


def test_a_type_may_have_a_decoder_of_its_own(owned: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = owned()
    journal.store([happened("o")])
    monkeypatch.setitem(DECODERS, "order_event", lambda text, received_ns: happened(f"made at {received_ns}"))
    stored = the_only(journal)
    assert stored.event.order_id == f"made at {stored.received_ns}"  # type: ignore[attr-defined]


def test_what_was_within_wider_limits_when_it_was_received_comes_back(owned: Open) -> None:
    journal = owned()
    event = happened("o")
    deep = event.text[:-1] + ', "extra": ' + "[" * 100 + "]" * 100 + ', "number": ' + "9" * 100 + "}"
    journal.store([attrs.evolve(event, text=deep)])
    assert the_only(journal).event.raw["number"] == int("9" * 100)


# --- what is in it --------------------------------------------------------------------------------------


def test_an_order_is_open_from_its_first_event_to_its_terminal_one(owned: Open) -> None:
    journal = owned()
    submitted = CODEC.decode(ORDER_SUBMITTED, 1)
    balance = CODEC.decode(BALANCE_UPDATE, 1)
    assert isinstance(submitted, UserEvent)
    assert isinstance(balance, UserEvent)
    journal.store([submitted, balance, happened("o"), happened("p", "partially_filled"), happened("q", "filled")])
    assert journal.recall().open_orders == {"ord_abc123", "o", "p"}
    journal.store([happened("o", "order_cancelled"), happened("o", "dag_completed")])
    assert journal.recall().open_orders == {"ord_abc123", "p"}
    assert [stored.sub_event for stored in journal.events_of("o")] == ["dag_started", "cancelled", "dag_completed"]
    assert [bool(journal.events_of(order)) for order in ("o", "q", "never")] == [True, True, False]


def test_an_order_is_open_unless_its_last_word_is_an_end_or_one_that_nobody_knows(owned: Open) -> None:
    journal = owned()
    settle(journal, happened("o"), happened("o", "routing"), happened("o", "step_started"))
    settle(journal, happened("p"), happened("p", "routing"), happened("p", "PARTIALLY_FILLED"))
    settle(journal, happened("q", "routing"), happened("q", "open"), happened("q", "filled"))
    assert journal.recall().open_orders == {"p"}
    later = time.time_ns() + 8 * DAY
    while journal.retention(later):
        pass
    assert [len(journal.events_of(order)) for order in ("o", "p", "q")] == [0, 3, 0]
    settle(journal, happened("p", "cancelled"))
    assert journal.recall().open_orders == set()


def test_the_last_times_are_known_even_when_the_events_are_gone(owned: Open) -> None:
    journal = owned()
    assert (journal.recall().last_timestamp, journal.recall().last_received_ns) == (None, None)
    early, late = happened("o", timestamp=2_000), happened("o", "filled", timestamp=1_000)
    settle(journal, early, late)
    assert journal.retention(time.time_ns() + 8 * DAY) == 2
    journal.close()
    journal = owned()
    assert (journal.recall().last_timestamp, journal.recall().last_received_ns) == (2_000, late.received_ns)
    journal.store([early, happened("p", timestamp=3_000)])
    last = happened("p", timestamp=2_500)
    journal.store([last])
    assert (journal.recall().last_timestamp, journal.recall().last_received_ns) == (3_000, last.received_ns)


def test_a_timestamp_far_ahead_of_the_clock_is_not_the_last_one(owned: Open) -> None:
    journal = owned()
    now = time.time_ns() // 10**6
    journal.store([happened("o", timestamp=now + 2 * 86_400_000)])
    assert journal.recall().last_timestamp is None
    journal.store([happened("o", timestamp=now + 3_600_000), happened("o", timestamp=2**62)])
    assert journal.recall().last_timestamp == now + 3_600_000


def test_a_journal_belongs_to_the_first_user_who_signs_in(owned: Open) -> None:
    journal = owned()
    assert journal.user_id is None
    journal.belongs_to("usr_1")
    journal.close()
    journal = owned()
    journal.belongs_to("usr_1")
    with pytest.raises(UserMismatch, match="'usr_1'") as caught:
        journal.belongs_to("usr_2" + "." * 1000)
    assert len(str(caught.value)) < 400
    assert journal.user_id == "usr_1"


def test_the_counts_are_of_each_state_and_the_size_is_that_on_disk(owned: Open, path: pathlib.Path) -> None:
    journal = owned(max_attempts=1)
    journal.store([happened("o") for _ in range(6)])
    journal.done([1, 2])
    journal.failed(3, "")
    counts = journal.counts()
    assert (counts.pending, counts.done, counts.dead) == (3, 2, 1)
    wal = pathlib.Path(f"{path}-wal")
    assert counts.size == path.stat().st_size + wal.stat().st_size
    journal.checkpoint()
    assert wal.stat().st_size == 0
    assert journal.counts().size == path.stat().st_size


# --- keeping it small -----------------------------------------------------------------------------------


def test_done_events_that_are_too_old_are_deleted_and_nothing_else(owned: Open) -> None:
    journal = owned(keep_for=3600.0, max_attempts=1)
    settle(journal, happened("ended"), happened("ended", "filled"), happened("open"))
    settle(journal, CODEC.decode(BALANCE_UPDATE, 1))  # type: ignore[arg-type]
    journal.store([happened("waits"), happened("waits", "filled"), happened("dead")])
    journal.failed(7, "")
    settle(journal, happened("dead", "filled"))
    assert journal.retention(time.time_ns()) == 0
    assert journal.retention(time.time_ns() + 3601 * 10**9) == 3
    left = {order: len(journal.events_of(order)) for order in ("ended", "open", "waits", "dead")}
    assert left == {"ended": 0, "open": 1, "waits": 2, "dead": 2}
    counts = journal.counts()
    assert (counts.pending, counts.done, counts.dead) == (2, 2, 1)


def test_the_end_of_an_order_is_deleted_last_so_that_the_order_never_looks_open_again(owned: Open) -> None:
    journal = owned()
    settle(journal, happened("o"), happened("o", "filled"))
    [late] = journal.store([happened("o", "dag_completed")])
    assert late is not None
    later = time.time_ns() + 8 * DAY
    assert journal.retention(later) == 1
    assert journal.recall().open_orders == set()
    assert [stored.sub_event for stored in journal.events_of("o")] == ["filled", "dag_completed"]
    journal.done([late])
    assert journal.retention(later) == 1
    assert journal.recall().open_orders == set()
    assert journal.retention(later) == 1
    assert journal.events_of("o") == []


def test_past_the_size_the_oldest_done_events_go_first_and_the_file_shrinks(owned: Open) -> None:
    journal = owned(max_size=200_000)
    for number in range(20):
        settle(journal, *(happened(f"o{number}-{n}", "filled") for n in range(100)))
    journal.checkpoint()
    before = journal.counts()
    assert before.size > 500_000
    rounds = []
    while deleted := journal.retention(time.time_ns()):
        rounds.append(deleted)
    assert max(rounds) <= 200
    journal.checkpoint()
    after = journal.counts()
    assert after.done == before.done - sum(rounds)
    assert after.size < 250_000
    assert after.done > 300
    assert not journal.events_of("o0-0")
    assert journal.events_of("o19-99")


def test_what_may_not_be_deleted_does_not_hide_what_may(owned: Open) -> None:
    journal = owned()
    settle(journal, *(happened("open") for _ in range(450)))
    settle(journal, happened("ended", "filled"))
    later = time.time_ns() + 8 * DAY
    assert [journal.retention(later) for _ in range(4)] == [0, 0, 1, 0]
    journal.store([happened("open", "filled")])
    journal.done([452])
    assert sum(journal.retention(later) for _ in range(4)) == 451


# --- what goes wrong ------------------------------------------------------------------------------------


def test_a_failed_transaction_costs_nothing_of_what_was_stored_and_the_journal_works_on(
    owned: Open, path: pathlib.Path
) -> None:
    journal = owned()
    journal.store([happened("before")])
    assert journal._file.connection is not None
    [pages] = journal._file.connection.execute("PRAGMA page_count").fetchone()
    journal._file.connection.execute(f"PRAGMA max_page_count = {pages + 1}").fetchall()
    with pytest.raises(JournalFull, match="Make room"):
        journal.store([happened(f"lost{number}") for number in range(1000)])
    assert [stored.order_id for stored in journal.pending()] == ["before"]
    journal._file.connection.execute(f"PRAGMA max_page_count = {pages + 1000}").fetchall()
    assert journal.store([happened("after")]) != [None]
    journal.close()
    assert [stored.order_id for stored in owned().pending()] == ["before", "after"]
    assert is_intact(path)


def test_a_batch_that_breaks_off_in_the_middle_changes_nothing(owned: Open) -> None:
    journal = owned()
    journal.store([happened("o"), happened("o")])
    with pytest.raises(OverflowError):
        journal.done([1, 2**70, 2])
    assert [stored.seq for stored in journal.pending()] == [1, 2]
    journal.done([1, 2])
    assert journal.pending() == []


def test_a_file_that_cannot_be_written_is_told_as_full(owned: Open, tmp_path: pathlib.Path) -> None:
    journal = owned()
    assert journal._file.connection is not None
    journal._file.connection.execute("PRAGMA query_only = ON")
    with pytest.raises(JournalFull, match="readonly"):
        journal.store([happened("o")])
    for path in (tmp_path / "missing" / "journal.db", tmp_path):
        with pytest.raises(JournalFull, match=str(path)) as caught:
            owned(path=path)
        assert str(path) in caught.value.path


def test_a_lock_of_another_program_is_waited_for_and_told(
    owned: Open,
    path: pathlib.Path,
    until: Until,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    journal = owned()
    assert journal._file.connection is not None
    journal._file.connection.execute("PRAGMA busy_timeout = 10")
    monkeypatch.setattr(_file, "BUSY_TIMEOUT", 0.02)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    stored: list[list[int | None]] = []
    thread = threading.Thread(target=lambda: stored.append(journal.store([happened("o")])))
    thread.start()
    until(lambda: caplog.text.count("has locked the journal") == 2)
    assert not stored
    other.close()
    thread.join(DEADLINE)
    assert stored == [[1]]


def move(path: pathlib.Path) -> None:
    path.rename(path.with_name("moved.db"))


def delete(path: pathlib.Path) -> None:
    for file in path.parent.iterdir():
        file.unlink()


def delete_the_lock(path: pathlib.Path) -> None:
    path.with_name(f"{path.name}-owner").unlink()


def delete_the_log(path: pathlib.Path) -> None:
    path.with_name(f"{path.name}-wal").unlink()


def delete_the_index_of_the_log(path: pathlib.Path) -> None:
    path.with_name(f"{path.name}-shm").unlink()


def replace(path: pathlib.Path) -> None:
    delete(path)
    Journal(JournalOptions(path=path)).close()


@pytest.mark.parametrize(
    "lose", [move, delete, delete_the_lock, delete_the_log, delete_the_index_of_the_log, replace]
)
def test_files_that_are_not_in_their_places_any_more_are_noticed_and_nothing_stored_is_lost(
    lose: Callable[[pathlib.Path], None], owned: Open, path: pathlib.Path
) -> None:
    journal = owned()
    first = happened("a")
    journal.store([first, happened("b")])
    lose(path)
    with pytest.raises(JournalError, match="moved or deleted") as caught:
        journal.store([happened("c")])
    saved = str(caught.value).partition("stands in ")[2].partition(" now")[0]
    with JournalReader(saved) as reader:
        assert [stored.order_id for stored in reader.export()] == ["a", "b"]
    journal.close()
    again = owned(path=saved)
    assert again.store([first, happened("c")]) == [None, 4]


def test_a_journal_that_is_deleted_and_then_closed_is_saved_and_told(
    owned: Open, path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    journal = owned()
    journal.store([happened("a")])
    delete(path)
    journal.close()
    assert "moved or deleted" in caplog.text
    assert [stored.order_id for stored in owned().pending()] == ["a"]


def test_a_file_that_others_may_read_and_write_is_theirs_no_more(
    owned: Open, path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    owned().close()
    path.chmod(0o666)
    owned().store([happened("a")])
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert "the mode of" in caplog.text
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) & 0o027 for file in path.parent.iterdir()}
    assert set(modes.values()) == {0}, modes


def test_running_out_of_descriptors_is_called_so(owned: Open, path: pathlib.Path) -> None:
    taken = []
    try:
        with contextlib.suppress(OSError):
            limits = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(limits[0], 256), limits[1]))
            while True:
                taken.append(os.open(os.devnull, os.O_RDONLY))
        with pytest.raises(JournalError, match="no file descriptors left") as caught:
            owned()
        assert not isinstance(caught.value, JournalFull)
    finally:
        for fd in taken:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    owned().store([happened("a")])


def test_a_journal_of_a_newer_version_is_refused_with_what_to_do(owned: Open, path: pathlib.Path) -> None:
    write_a_newer_version(path)
    with pytest.raises(JournalError, match="newer aggstream") as caught:
        owned()
    assert not isinstance(caught.value, JournalCorrupt)


def test_a_journal_of_version_1_keeps_its_ids_and_delivers_no_fact_anew(owned: Open, path: pathlib.Path) -> None:
    journal = owned()
    balance = CODEC.decode(BALANCE_UPDATE, 1)
    assert isinstance(balance, UserEvent)
    # To version 1 some of these words said nothing.
    facts = [
        happened("a", "filled", filled="5"),
        happened("b", "step_started"),
        balance,
        happened("b", "open"),
        happened("b", "FILLED", filled="7"),
        attrs.evolve(happened("d", "expired"), source="reconcile"),
    ]
    journal.store(facts)
    journal.belongs_to("usr_1")
    journal.close()
    make_version_2(path)
    connection = sqlite3.connect(path)
    for seq, fact in enumerate(facts, 1):
        connection.execute("UPDATE facts SET id = ? WHERE seq = ?", (id_of_version_1(fact), seq))
    for column in ("known_until", "is_searched", "old_ids_until"):
        connection.execute(f"ALTER TABLE meta DROP COLUMN {column}")
    connection.execute("UPDATE meta SET version = 1")
    connection.commit()
    connection.close()
    with JournalReader(path) as reader:
        assert len(list(reader.export())) == len(facts)
    journal = owned()
    told_again = [attrs.evolve(fact, user_id="usr_1") for fact in facts]
    assert all(new.id != id_of_version_1(new) for new in told_again)
    from_rest = [
        attrs.evolve(happened("b", word, filled=filled), source="reconcile", user_id="usr_1")
        for word, filled in (("open", None), ("filled", "7.0"))
    ]
    assert journal.store([*told_again, *from_rest]) == [None] * 8
    more = attrs.evolve(happened("a", "filled", filled="9"), user_id="usr_1")
    new = [more, attrs.evolve(happened("b", "step_started"), user_id="usr_1"), happened("c")]
    assert None not in journal.store(new)
    assert journal.store(new) == [None] * 3
    old = journal.events_of("a")[0].event
    assert (old.id, old.user_id) == (id_of_version_1(facts[0]), "usr_1")


def overwrite_the_middle(path: pathlib.Path) -> None:
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(size // 3)
        file.write(b"\xa5" * (size // 3))


def truncate(path: pathlib.Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


@pytest.mark.parametrize("damage", [overwrite_the_middle, truncate])
def test_a_damaged_file_is_told_as_corrupt(
    damage: Callable[[pathlib.Path], None], owned: Open, path: pathlib.Path
) -> None:
    journal = owned()
    journal.store([happened("o") for _ in range(2000)])
    journal.close()
    damage(path)
    with pytest.raises(JournalCorrupt, match="Move it away"):  # noqa: PT012  (opening may tell already)
        journal = owned()
        journal.pending(limit=3000)
    with pytest.raises(JournalCorrupt), JournalReader(path) as reader:
        assert not any(stored.order_id != "o" for stored in reader.export())


def write_a_text(path: pathlib.Path) -> None:
    path.write_text("dear diary,\n" * 1000)


def write_another_database(path: pathlib.Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE meta (version)")
    connection.execute("INSERT INTO meta VALUES (1)")
    connection.commit()
    connection.close()


def write_an_odd_version(path: pathlib.Path) -> None:
    write_a_newer_version(path, -1)


def write_a_newer_version(path: pathlib.Path, version: int = 99) -> None:
    Journal(JournalOptions(path=path)).close()
    connection = sqlite3.connect(path)
    connection.execute("UPDATE meta SET version = ?", (version,))
    connection.commit()
    connection.close()


@pytest.mark.parametrize("write", [write_a_text, write_another_database, write_an_odd_version])
def test_a_file_that_is_no_journal_of_this_version_is_refused_and_left_as_it_is(
    write: Callable[[pathlib.Path], None], owned: Open, path: pathlib.Path
) -> None:
    write(path)
    before = path.read_bytes()
    with pytest.raises(JournalCorrupt, match="Move it away") as caught:
        owned()
    assert caught.value.path == str(path)
    with pytest.raises(JournalCorrupt):
        JournalReader(path)
    assert path.read_bytes() == before


def test_only_its_owner_may_read_the_files(owned: Open, path: pathlib.Path) -> None:
    umask = os.umask(0)
    try:
        owned().store([happened("o")])
    finally:
        os.umask(umask)
    files = list(path.parent.iterdir())
    assert {file.name.removeprefix(path.name) for file in files} == {"", "-owner", "-wal", "-shm"}
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}


def test_no_statement_has_numbered_placeholders_because_some_interpreters_warn_of_them() -> None:
    # CPython 3.12.0 to 3.12.3 warn where `?1` is given a sequence; under `-W error` that ends the stream.
    sources = sorted(pathlib.Path(aggstream.__file__).parent.rglob("*.py"))
    assert len(sources) > 100
    texts = [
        node.value
        for source in sources
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    assert [text for text in texts if re.search(r"\?[1-9]", text)] == []


def test_a_closed_journal_says_so_and_may_be_closed_again(owned: Open) -> None:
    journal = owned()
    with journal:
        journal.store([happened("o")])
    journal.close()
    with pytest.raises(StateError, match="closed"):
        journal.pending()


def test_a_clean_close_merges_all_into_one_file_and_is_known_to_the_next_owner(
    owned: Open, path: pathlib.Path
) -> None:
    journal = owned()
    assert journal.recall().closed_ns is None
    before = time.time_ns()
    journal.close()
    assert not pathlib.Path(f"{path}-wal").exists()
    journal = owned()
    assert before <= (journal.recall().closed_ns or 0) <= time.time_ns()
