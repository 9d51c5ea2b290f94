"""What a process that takes up a journal is told of: everything that the one before it was not told."""

from __future__ import annotations

import pathlib
import time
from collections.abc import Iterator
from typing import Any

import pytest
from clients import BRISK, MakeClient
from waiting import Until

import aggstream
from aggstream._stream import catch_up, gaps, judge, look_schedule
from aggstream.simulator import Simulator

USER = "usr_1"


class Clock:
    """The simulator's, which a test sets."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def agg(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> Iterator[Simulator]:
    # Its minute would hide what was forgotten; behind the simulator's timestamps there is one clock.
    for module in (gaps, catch_up, judge, look_schedule):
        monkeypatch.setattr(module, "OVERLAP_MS", 0)
    with Simulator(now=clock) as simulator:
        yield simulator


class Process:
    """A client with a journal, from when it is live until it has stopped, and the ends that it was told of."""

    def __init__(
        self, agg: Simulator, client_of: MakeClient, journal: pathlib.Path, *, asks: bool = True, **rest: Any
    ) -> None:
        self.ends: list[str] = []
        self.looks: list[aggstream.Reconciled] = []
        self.client = client_of(
            agg.url,
            token=agg.sign_in(USER).access_token,
            rest_url=agg.rest_url if asks else None,
            rest=aggstream.RestOptions(attempts=1, **rest) if asks else None,
            catch_up_timeout=1.0,
            reconnect=BRISK,
            journal=journal,
        )
        self.client.on("order_event", "filled", "failed", "cancelled", "expired")(self.ended)
        self.client.on(aggstream.Reconciled)(self.looks.append)

    def ended(self, event: aggstream.OrderEvent) -> None:
        self.ends.append(event.order_id)

    def live(self, until: Until, *, resolved: bool = True) -> None:
        self.client.start()
        until(lambda: self.looks and self.looks[-1].resolved is resolved)

    def stop(self) -> None:
        assert self.client.stop()


def let_an_order_end(agg: Simulator, until: Until) -> None:
    agg.place_order(USER, scenario="filled")
    # Its events are a millisecond apart, however fast they were played: let that be over by the clock as well.
    ended = time.time() + 0.1
    until(lambda: time.time() > ended)


def test_what_was_missed_while_rest_was_down_is_told_by_the_next_process(
    agg: Simulator, client_of: MakeClient, until: Until, tmp_path: pathlib.Path
) -> None:
    journal = tmp_path / "journal.db"
    first = Process(agg, client_of, journal)
    first.live(until)
    first.stop()
    missed = agg.place_order(USER, scenario="filled")
    second = Process(agg, client_of, journal)
    agg.refuse_rest(None)
    second.live(until, resolved=False)
    live = agg.place_order(USER, scenario="filled")
    until(lambda: second.ends == [live])
    second.stop()
    agg.refuse_rest(0)
    third = Process(agg, client_of, journal)
    third.live(until)
    third.stop()
    assert third.ends == [missed]


def test_what_was_over_before_the_first_process_is_history_for_the_next_one_as_well(
    client_of: MakeClient, clock: Clock, until: Until, tmp_path: pathlib.Path
) -> None:
    with Simulator(now=clock) as agg:  # and with the overlap, in which it lies
        clock.ahead = -30.0
        agg.place_order(USER, scenario="filled")
        clock.ahead = 0.0
        first = Process(agg, client_of, tmp_path / "journal.db")
        first.live(until)
        first.stop()
        missed = agg.place_order(USER, scenario="filled")
        second = Process(agg, client_of, tmp_path / "journal.db")
        second.live(until)
        second.stop()
        third = Process(agg, client_of, tmp_path / "journal.db")
        third.live(until)
        third.stop()
    assert (first.ends, second.ends, third.ends) == ([], [missed], [])


def test_a_process_that_was_told_of_nothing_has_known_that_nothing_had_happened(
    agg: Simulator, client_of: MakeClient, clock: Clock, until: Until, tmp_path: pathlib.Path
) -> None:
    clock.ahead = -30.0
    agg.place_order(USER, scenario="filled")
    clock.ahead = 0.0
    first = Process(agg, client_of, tmp_path / "journal.db")
    first.live(until)
    first.stop()
    missed = agg.place_order(USER, scenario="filled")
    second = Process(agg, client_of, tmp_path / "journal.db")
    second.live(until)
    second.stop()
    assert (first.ends, second.ends) == ([], [missed])
    assert second.looks[0].gaps == (1,)


def test_an_order_that_is_older_than_the_journal_is_followed_to_its_end(
    agg: Simulator, client_of: MakeClient, until: Until, tmp_path: pathlib.Path
) -> None:
    rests = agg.begin_order(USER)
    rests.advance()
    agg.place_order(USER, scenario="filled")
    first = Process(agg, client_of, tmp_path / "journal.db", page_size=2)
    first.live(until)
    first.stop()
    rests.finish()
    second = Process(agg, client_of, tmp_path / "journal.db", page_size=1)
    second.live(until)
    second.stop()
    assert rests.order_id in second.ends


@pytest.mark.parametrize("last", ["open", "routing"])
def test_an_order_of_which_a_word_is_not_known_is_found_by_the_next_process(
    agg: Simulator, client_of: MakeClient, until: Until, tmp_path: pathlib.Path, last: str
) -> None:
    first = Process(agg, client_of, tmp_path / "journal.db")
    first.live(until)
    rests = agg.begin_order(USER)
    rests.advance()
    for word in ("routing", last):
        timestamp = int(time.time() * 1000)
        message = {"type": "order_event", "event": word, "orderId": rests.order_id, "timestamp": timestamp}
        agg.push(message, user_id=USER)
    let_an_order_end(agg, until)
    agg.place_order(USER, scenario="filled")
    until(lambda: len(first.ends) == 2)
    until(lambda: first.client._stream.pipeline.gaps.is_searched)  # else the next process searches again
    first.stop()
    rests.finish()
    for _ in range(3):
        agg.place_order(USER, scenario="filled")
    second = Process(agg, client_of, tmp_path / "journal.db", page_size=1)
    second.live(until)
    until(lambda: second.client.track(rests.order_id).outcome.is_known)
    second.stop()


def test_what_was_missed_before_a_process_without_rest_is_told_by_a_later_one_with_it(
    agg: Simulator, client_of: MakeClient, until: Until, tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    journal = tmp_path / "journal.db"
    first = Process(agg, client_of, journal)
    first.live(until)
    let_an_order_end(agg, until)
    until(lambda: first.ends)
    first.stop()
    missed = [agg.place_order(USER, scenario="filled") for _ in range(3)]
    second = Process(agg, client_of, journal, asks=False)
    second.live(until, resolved=False)
    assert "is not found out" in caplog.text
    # More of them than REST tells on a page, so that the missed ones are not among the newest.
    seen = [agg.place_order(USER, scenario="filled") for _ in range(12)]
    until(lambda: second.ends == seen)
    second.stop()
    third = Process(agg, client_of, journal, page_size=5)
    third.live(until)
    until(lambda: sorted(third.ends) == sorted(missed))
    third.stop()


def test_a_rest_api_that_does_not_answer_is_told_of_in_the_log_once(
    agg: Simulator, client_of: MakeClient, until: Until, tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "aggstream")
    agg.refuse_rest(2)
    process = Process(agg, client_of, tmp_path / "journal.db")
    process.live(until)
    assert caplog.text.count("the REST API does not tell what was missed") == 1
    assert caplog.text.count("the REST API answers again") == 1
    process.stop()
