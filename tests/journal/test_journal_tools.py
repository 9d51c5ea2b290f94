"""Looking into a journal and putting events back, beside its owner."""

from __future__ import annotations

import datetime as dt
import json
import pathlib
import time
from collections.abc import Iterator

import attrs
import pytest
from journals import happened

from aggstream._base.json_text import to_json
from aggstream.errors import ConfigurationError, JournalCorrupt, JournalError, StateError
from aggstream.journal import Journal, JournalOptions, JournalReader, replay, retry

NOW = dt.datetime.now(dt.timezone.utc)


@pytest.fixture
def path(tmp_path: pathlib.Path) -> pathlib.Path:
    # Every character that means something in a URI, which is what SQLite is given.
    return tmp_path / "a journal?mode=memory#%41.db"


@pytest.fixture
def journal(path: pathlib.Path) -> Iterator[Journal]:
    with Journal(JournalOptions(path=path, synchronous="normal", max_attempts=1)) as journal:
        yield journal


def states(journal: Journal, order_id: str = "o") -> list[str]:
    return [stored.state for stored in journal.events_of(order_id)]


def test_a_reader_finds_by_state_order_and_type_in_pages_while_the_owner_writes(
    journal: Journal, path: pathlib.Path
) -> None:
    journal.store([happened(order) for order in "abab"])
    journal.done([1, 2])
    journal.failed(3, "why")
    with JournalReader(path) as reader:

        def seqs(**given: object) -> list[int]:
            return [stored.seq for stored in reader.find(**given)]  # type: ignore[arg-type]

        assert seqs() == [1, 2, 3, 4]
        assert (seqs(state="done"), seqs(state="dead"), seqs(state="pending")) == ([1, 2], [3], [4])
        assert (seqs(order_id="b"), seqs(order_id="b", state="done")) == ([2, 4], [2])
        assert (len(seqs(of_type="order_event")), seqs(of_type="balance_update")) == (4, [])
        assert (seqs(limit=2), seqs(after=2, limit=1)) == ([1, 2], [3])
        journal.store([happened("c")])
        assert seqs(after=4) == [5]
        with pytest.raises(ConfigurationError, match="state must be"):
            seqs(state="lost")
        journal.belongs_to("usr_1")
        assert reader.user_id == "usr_1"
        assert reader.counts() == journal.counts()


def test_a_reader_shows_one_event_by_its_seq_or_its_id(journal: Journal, path: pathlib.Path) -> None:
    event = happened("o")
    journal.store([event])
    with JournalReader(path) as reader:
        by_seq, by_id = reader.show(1), reader.show(event.id)
        assert by_seq is not None
        assert by_seq == by_id
        assert by_seq.event == event
        for nothing in (2, 2**70, "1", "\ud800"):
            assert reader.show(nothing) is None


def test_a_reader_changes_nothing_and_its_end_leaves_nothing_behind(journal: Journal, path: pathlib.Path) -> None:
    journal.store([happened("o")])
    journal.close()
    before = path.read_bytes()
    reader = JournalReader(path)
    assert reader._connection is not None
    with pytest.raises(Exception, match="readonly"):
        reader._connection.execute("DELETE FROM facts")
    assert list(reader.export())
    reader.close()
    reader.close()
    with pytest.raises(StateError, match="closed"):
        reader.find()
    assert path.read_bytes() == before
    assert {file.name.removeprefix(path.name) for file in path.parent.iterdir()} == {"", "-owner"}


def test_an_export_has_every_event_that_was_there_and_reads_one_page_at_a_time(
    journal: Journal, path: pathlib.Path
) -> None:
    journal.store([happened("o") for _ in range(1200)])
    with JournalReader(path) as reader:
        export = reader.export()
        exported = [next(export)]
        # A page is whole in memory, and no read transaction keeps the owner's log from being merged.
        journal.checkpoint()
        assert pathlib.Path(f"{path}-wal").stat().st_size == 0
        journal.store([happened("later")])
        exported.extend(export)
    assert [stored.seq for stored in exported] == list(range(1, 1201))


def test_the_export_of_an_empty_journal_is_empty(journal: Journal, path: pathlib.Path) -> None:
    with JournalReader(path) as reader:
        assert list(reader.export()) == []


def test_the_newest_event_is_told_by_its_number(journal: Journal, path: pathlib.Path) -> None:
    with JournalReader(path) as reader:
        assert reader.newest() == 0
        seqs = journal.store([happened("o"), happened("o")])
        assert reader.newest() == seqs[-1] == 2


def test_an_exported_event_is_one_line_of_json_with_all_there_is_to_know(
    journal: Journal, path: pathlib.Path
) -> None:
    event = happened("o", "filled", timestamp=5)
    exact = attrs.evolve(event, text=event.text[:-1] + ', "price": 0.10000000000000000000001}')
    journal.store([exact])
    journal.failed(1, "boom")
    with JournalReader(path) as reader:
        [stored] = reader.export()
    line = to_json(stored.as_dict())
    assert "\n" not in line
    assert "0.10000000000000000000001" in line
    facts = json.loads(line)
    message, settled_at = facts.pop("message"), facts.pop("settled_at")
    assert message["orderId"] == "o"
    assert NOW < dt.datetime.fromisoformat(settled_at) < NOW + dt.timedelta(hours=1)
    assert facts == {
        "seq": 1,
        "id": exact.id,
        "account": "",
        "state": "dead",
        "type": "order_event",
        "event": "filled",
        "order_id": "o",
        "terminal": True,
        "source": "stream",
        "timestamp": 5,
        "received_ns": event.received_ns,
        "received_at": event.received_at.isoformat(),
        "attempts": 1,
        "last_error": "boom",
    }


def test_dead_events_are_pending_again_with_all_attempts_before_them(journal: Journal, path: pathlib.Path) -> None:
    journal.store([happened("o") for _ in range(4)])
    for seq in (1, 2, 3):
        journal.failed(seq, "boom")
    assert retry(path, [2, 4, 99]) == 1
    assert states(journal) == ["dead", "pending", "dead", "pending"]
    assert retry(path) == 2
    assert states(journal) == ["pending"] * 4
    assert {(stored.attempts, stored.settled_ns) for stored in journal.pending()} == {(0, None)}
    assert retry(path) == 0


def test_done_events_are_replayed_by_seq_order_and_time_and_all_that_is_given_must_hold(
    journal: Journal, path: pathlib.Path
) -> None:
    hour = 3600 * 10**9
    events = [happened("o"), happened("p"), happened("o"), happened("p")]
    start = time.time_ns() // 1000 * 1000
    journal.store([attrs.evolve(event, received_ns=start + n * hour) for n, event in enumerate(events)])

    def replayed(**given: object) -> list[int]:
        journal.done([stored.seq for stored in journal.pending()])
        count = replay(path, **given)  # type: ignore[arg-type]
        seqs = [stored.seq for stored in journal.pending()]
        assert len(seqs) == count
        return seqs

    third = dt.datetime.fromtimestamp(0, dt.timezone.utc) + dt.timedelta(microseconds=(start + 2 * hour) // 1000)
    assert replayed(first=2) == [2, 3, 4]
    assert replayed(last=3) == [1, 2, 3]
    assert replayed(first=2, last=3) == [2, 3]
    assert replayed(order_id="o") == [1, 3]
    assert replayed(since=third) == [3, 4]
    assert replayed(since=third, order_id="p", first=1, last=9) == [4]
    assert replayed(order_id="never") == []
    # Times that SQLite's integers cannot hold are after, and before, everything.
    assert replayed(since=dt.datetime.max.replace(tzinfo=dt.timezone.utc)) == []
    assert replayed(since=dt.datetime.min.replace(tzinfo=dt.timezone.utc)) == [1, 2, 3, 4]
    for useless in ({}, {"since": NOW.replace(tzinfo=None)}):
        with pytest.raises(ConfigurationError):
            replay(path, **useless)  # type: ignore[arg-type]


def test_many_events_are_replayed_in_short_transactions(journal: Journal, path: pathlib.Path) -> None:
    journal.store([happened("o") for _ in range(1200)])
    journal.done(range(1, 1201))
    assert replay(path, first=1) == 1200
    assert journal.counts().pending == 1200


def test_a_path_where_nothing_is_is_an_error_and_stays_empty(tmp_path: pathlib.Path) -> None:
    nowhere = tmp_path / "none.db"
    for use in (JournalReader, retry, lambda path: replay(path, first=1)):
        for path in (nowhere, tmp_path, tmp_path / "missing" / "none.db"):
            with pytest.raises(JournalError, match="there is no journal"):
                use(path)
    assert list(tmp_path.iterdir()) == []


def test_an_empty_file_is_no_journal(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "empty.db"
    path.touch()
    with pytest.raises(JournalCorrupt, match="no journal"):
        JournalReader(path)
    assert path.stat().st_size == 0
