"""Calls that block: lanes do not wait for each other, and what hangs counts only while it hangs."""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from waiting import DEADLINE, Until

from aggstream._base.blocking_calls import Abandoned, BlockingCalls, CallNotMade, Job, Lane


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def lane(clock: Clock) -> Iterator[Lane]:
    lane = Lane("alice-tokens", "waiting for the token provider", lambda: None, clock=clock)
    yield lane
    lane.close()
    lane.join(DEADLINE)


@pytest.fixture
def release() -> Iterator[threading.Event]:
    """Let the calls that hang return."""
    event = threading.Event()
    yield event
    event.set()


def hang(lane: Lane, release: threading.Event, times: int, until: Until) -> list[Job[Any]]:
    jobs = []
    for _ in range(times):
        job = lane.submit(lambda: release.wait(DEADLINE))
        until(functools.partial(getattr, job, "has_begun"))
        job.leave()
        jobs.append(job)
    return jobs


def test_a_call_returns_its_result_or_its_error(lane: Lane) -> None:
    assert lane.submit(lambda: 7).wait(DEADLINE) == 7
    with pytest.raises(ZeroDivisionError):
        lane.submit(lambda: 1 / 0).wait(DEADLINE)


def test_the_calls_of_a_lane_are_made_one_at_a_time(lane: Lane, release: threading.Event, until: Until) -> None:
    first = lane.submit(lambda: release.wait(DEADLINE))
    second = lane.submit(lambda: "second")
    until(lambda: first.has_begun)
    assert not second.has_begun
    release.set()
    assert second.wait(DEADLINE) == "second"
    assert first.done


def test_a_call_that_hangs_delays_the_next_one_only_until_it_is_given_up(
    lane: Lane, release: threading.Event, until: Until
) -> None:
    first = lane.submit(lambda: release.wait(DEADLINE))
    until(lambda: first.has_begun)
    behind = lane.submit(lambda: "behind")
    with pytest.raises(Abandoned, match="did not return"):
        first.abandon()
    assert behind.wait(DEADLINE) == "behind"


def test_a_call_that_was_never_made_says_so_when_it_is_given_up(
    lane: Lane, release: threading.Event, until: Until
) -> None:
    first = lane.submit(lambda: release.wait(DEADLINE))
    until(lambda: first.has_begun)
    begun: list[int] = []
    behind = lane.submit(lambda: begun.append(1))
    with pytest.raises(Abandoned, match="an earlier call has not returned yet"):
        behind.wait(0.01)
    release.set()
    assert lane.submit(lambda: "last").wait(DEADLINE) == "last"
    assert not begun


def test_when_many_calls_hang_the_next_one_waits_and_is_made_all_the_same(
    lane: Lane, clock: Clock, release: threading.Event, until: Until
) -> None:
    hang(lane, release, 5, until)
    with pytest.raises(CallNotMade, match=r"5 calls have not returned .*: the next one is made in 60 s") as caught:
        lane.submit(lambda: 1).result()
    assert caught.value.retry_after == 60.0
    pause = 60.0
    for surplus in range(8):
        clock.now += pause - 1
        with pytest.raises(CallNotMade, match=f"{5 + surplus} calls have not returned"):
            lane.submit(lambda: 1).result()
        clock.now += 1
        hang(lane, release, 1, until)
        pause = min(2 * pause, 3600.0)


def test_a_call_that_returns_after_all_no_longer_counts(
    lane: Lane, release: threading.Event, until: Until
) -> None:
    jobs = hang(lane, release, 5, until)
    assert lane.submit(lambda: 1).done
    release.set()
    until(lambda: all(job.done for job in jobs))
    until(lambda: lane.doing() is None)
    until(lambda: lane.submit(lambda: "asked again").wait(DEADLINE) == "asked again")


def test_the_calls_of_another_function_do_not_wait_for_those_that_hang(
    lane: Lane, release: threading.Event, until: Until
) -> None:
    hang(lane, release, 5, until)
    lane.forgive()
    assert lane.submit(lambda: "another").wait(DEADLINE) == "another"


def test_it_says_what_it_does_also_if_nobody_waits_for_it(
    lane: Lane, release: threading.Event, until: Until
) -> None:
    hang(lane, release, 1, until)
    assert lane.doing() == "waiting for the token provider"
    release.set()
    until(lambda: lane.doing() is None)


def test_a_thread_that_has_nothing_to_do_ends_and_another_one_begins(until: Until) -> None:
    lane = Lane("idle", "resting", lambda: None, idle=0.01)
    threads = {lane.submit(threading.current_thread).wait(DEADLINE)}
    until(lambda: not any(thread.is_alive() for thread in threads))
    threads.add(lane.submit(threading.current_thread).wait(DEADLINE))
    assert len(threads) == 2
    lane.close()
    lane.join(DEADLINE)
    assert not any(thread.is_alive() for thread in threads)


def test_a_call_for_which_there_is_no_thread_is_refused_and_the_next_one_is_made(
    lane: Lane, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        with pytest.raises(CallNotMade, match=r"no thread for it \(can't start new thread\)"):
            lane.submit(lambda: 1).result()
    assert lane.submit(lambda: 2).wait(DEADLINE) == 2


def test_lanes_do_not_wait_for_each_other(release: threading.Event, until: Until) -> None:
    woken = threading.Event()
    blocking = BlockingCalls("alice", woken.set)
    jobs = [lane.submit(lambda: release.wait(DEADLINE)) for lane in (blocking.rest, blocking.tokens)]
    until(lambda: all(job.has_begun for job in jobs))
    assert blocking.look_ups.submit(lambda: "found").wait(DEADLINE) == "found"
    assert woken.wait(DEADLINE)
    assert blocking.doing() == ("waiting for the token provider", "reading from the REST API")
    blocking.close()
    release.set()
    blocking.join(DEADLINE)
    assert blocking.doing() == ()
