"""What the store is told of events, and what happens if it cannot be told."""

from __future__ import annotations

import math
from collections.abc import Sequence

import attrs
import pytest

from aggstream import JournalError
from aggstream._delivery.acks import Acks


@attrs.define
class Rules:
    outage_errors: tuple[type[Exception], ...] = (ConnectionError,)

    def delay_after(self, failures: int) -> float:
        return float(failures)


@attrs.define
class Store:
    """A store in memory that keeps an event for dead at its third failure, and can be broken."""

    options: Rules = attrs.Factory(Rules)
    done_seqs: list[int] = attrs.Factory(list)
    failures: list[int] = attrs.Factory(list)
    error: JournalError | None = None

    def done(self, seqs: Sequence[int]) -> None:
        self._check()
        self.done_seqs += seqs

    def failed(self, seq: int, error_text: str) -> bool:
        self._check()
        self.failures.append(seq)
        return self.failures.count(seq) == 3

    def hint(self, seq: int) -> str:
        return f"look at {seq}"

    def leave(self) -> None: ...

    def _check(self) -> None:
        if self.error is not None:
            raise self.error


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def told() -> list[JournalError]:
    return []


@pytest.fixture
def acks(store: Store, told: list[JournalError], monkeypatch: pytest.MonkeyPatch) -> Acks:
    monkeypatch.setattr("aggstream._delivery.acks._LONGEST", math.inf)  # a slow machine writes no sooner
    return Acks(store, told.append, "alice")


def test_acks_are_gathered_and_written_together(acks: Acks, store: Store) -> None:
    acks.write()
    for seq in (1, 2, 3):
        acks.succeeded(seq)
    assert store.done_seqs == []
    acks.write()
    assert store.done_seqs == [1, 2, 3]


def test_many_acks_are_written_without_a_pause(acks: Acks, store: Store) -> None:
    for seq in range(256):
        acks.succeeded(seq)
    assert store.done_seqs == list(range(256))


def test_a_failure_is_noted_and_its_log_line_names_the_client_and_the_pause(
    acks: Acks, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    assert acks.failed(7, [ValueError("no")], 2) == 2.0
    assert store.failures == [7]
    assert caplog.messages == ["alice: event 7: retrying the failed handlers in 2.0 s"]


def test_an_outage_is_no_failure_of_the_event(acks: Acks, store: Store, caplog: pytest.LogCaptureFixture) -> None:
    assert acks.failed(7, [ValueError("no"), ConnectionResetError()], 9) == 9.0
    assert store.failures == []
    assert caplog.messages == ["alice: event 7 waits, and nothing is lost: retrying its handlers in 9.0 s"]


def test_a_dead_event_is_counted_and_the_log_says_where_it_is(
    acks: Acks, caplog: pytest.LogCaptureFixture
) -> None:
    assert [acks.failed(7, [ValueError("no")], failures) for failures in (1, 2, 3)] == [1.0, 2.0, None]
    assert acks.dead == 1
    assert caplog.messages[-1] == "alice: event 7 is set aside after too many failures: look at 7"


def test_a_store_that_cannot_be_written_to_is_reported_and_nothing_is_retried(
    acks: Acks, store: Store, told: list[JournalError]
) -> None:
    store.error = JournalError("disk full", path="store")
    assert acks.failed(7, [ValueError("no")], 1) is None
    acks.succeeded(8)
    acks.write()
    assert told == [store.error, store.error]
    assert acks.dead == 0


def test_in_a_forked_child_the_parents_acks_are_not_written(acks: Acks, store: Store) -> None:
    acks.succeeded(7)
    acks.after_fork_in_child()
    acks.write()
    assert store.done_seqs == []
