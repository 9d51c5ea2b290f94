"""Calls that block: lanes do not wait for each other, and what hangs counts only while it hangs."""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from waiting import DEADLINE, Until

from aggstream._base.blocking_calls import Abandoned, BlockingCalls, CallNotMade, CallQueue, Job, Lane, Lanes


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
    lane = Lane("alice-tokens", "waiting for the token provider", at_once=2, clock=clock)
    yield lane
    lane.close()
    lane.join(DEADLINE)


@pytest.fixture
def calls(lane: Lane) -> CallQueue:
    return CallQueue(lane, lambda: None)


@pytest.fixture
def release() -> Iterator[threading.Event]:
    """Let the calls that hang return."""
    event = threading.Event()
    yield event
    event.set()


def hang(calls: CallQueue, release: threading.Event, times: int, until: Until) -> list[Job[Any]]:
    jobs = []
    for _ in range(times):
        job = calls.submit(lambda: release.wait(DEADLINE))
        until(functools.partial(getattr, job, "has_begun"))
        job.leave()
        jobs.append(job)
    return jobs


def test_a_call_returns_its_result_or_its_error(calls: CallQueue) -> None:
    assert calls.submit(lambda: 7).wait(DEADLINE) == 7
    with pytest.raises(ZeroDivisionError):
        calls.submit(lambda: 1 / 0).wait(DEADLINE)


def test_the_calls_of_a_stream_are_made_one_at_a_time(
    calls: CallQueue, release: threading.Event, until: Until
) -> None:
    first = calls.submit(lambda: release.wait(DEADLINE))
    second = calls.submit(lambda: "second")
    until(lambda: first.has_begun)
    assert not second.has_begun
    release.set()
    assert second.wait(DEADLINE) == "second"
    assert first.done


def test_a_call_that_hangs_delays_the_next_one_only_until_it_is_given_up(
    calls: CallQueue, release: threading.Event, until: Until
) -> None:
    first = calls.submit(lambda: release.wait(DEADLINE))
    until(lambda: first.has_begun)
    behind = calls.submit(lambda: "behind")
    with pytest.raises(Abandoned, match="did not return"):
        first.abandon()
    assert behind.wait(DEADLINE) == "behind"


def test_a_call_that_was_never_made_says_so_when_it_is_given_up(
    calls: CallQueue, release: threading.Event, until: Until
) -> None:
    first = calls.submit(lambda: release.wait(DEADLINE))
    until(lambda: first.has_begun)
    begun: list[int] = []
    behind = calls.submit(lambda: begun.append(1))
    with pytest.raises(Abandoned, match="an earlier call has not returned yet"):
        behind.wait(0.01)
    release.set()
    assert calls.submit(lambda: "last").wait(DEADLINE) == "last"
    assert not begun


def test_when_many_calls_hang_the_next_one_waits_and_is_made_all_the_same(
    calls: CallQueue, clock: Clock, release: threading.Event, until: Until
) -> None:
    hang(calls, release, 5, until)
    with pytest.raises(CallNotMade, match=r"5 calls have not returned .*: the next one is made in 60 s") as caught:
        calls.submit(lambda: 1).result()
    assert caught.value.retry_after == 60.0
    pause = 60.0
    for surplus in range(8):
        clock.now += pause - 1
        with pytest.raises(CallNotMade, match=f"{5 + surplus} calls have not returned"):
            calls.submit(lambda: 1).result()
        clock.now += 1
        hang(calls, release, 1, until)
        pause = min(2 * pause, 3600.0)


def test_a_call_that_returns_after_all_no_longer_counts(
    lane: Lane, calls: CallQueue, release: threading.Event, until: Until
) -> None:
    jobs = hang(calls, release, 5, until)
    assert calls.submit(lambda: 1).done
    release.set()
    until(lambda: all(job.done for job in jobs))
    until(lambda: lane.doing() is None)
    until(lambda: calls.submit(lambda: "asked again").wait(DEADLINE) == "asked again")


def test_the_calls_of_another_function_do_not_wait_for_those_that_hang(
    calls: CallQueue, release: threading.Event, until: Until
) -> None:
    hang(calls, release, 5, until)
    calls.forgive()
    assert calls.submit(lambda: "another").wait(DEADLINE) == "another"


def test_it_says_what_it_does_also_if_nobody_waits_for_it(
    lane: Lane, calls: CallQueue, release: threading.Event, until: Until
) -> None:
    hang(calls, release, 1, until)
    assert lane.doing() == "waiting for the token provider"
    release.set()
    until(lambda: lane.doing() is None)


def test_a_thread_that_has_nothing_to_do_ends_and_another_one_begins(until: Until) -> None:
    lane = Lane("idle", "resting", idle=0.01)
    calls = CallQueue(lane, lambda: None)
    threads = {calls.submit(threading.current_thread).wait(DEADLINE)}
    until(lambda: not any(thread.is_alive() for thread in threads))
    threads.add(calls.submit(threading.current_thread).wait(DEADLINE))
    assert len(threads) == 2
    lane.close()
    lane.join(DEADLINE)
    assert not any(thread.is_alive() for thread in threads)


def test_a_call_for_which_there_is_no_thread_is_refused_and_the_next_one_is_made(
    calls: CallQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        with pytest.raises(CallNotMade, match=r"no thread for it \(can't start new thread\)"):
            calls.submit(lambda: 1).result()
    assert calls.submit(lambda: 2).wait(DEADLINE) == 2


def test_lanes_do_not_wait_for_each_other(release: threading.Event, until: Until) -> None:
    woken = threading.Event()
    lanes = Lanes("alice")
    blocking = BlockingCalls(lanes, woken.set)
    jobs = [calls.submit(lambda: release.wait(DEADLINE)) for calls in (blocking.rest, blocking.tokens)]
    until(lambda: all(job.has_begun for job in jobs))
    assert blocking.openings.submit(lambda: "found").wait(DEADLINE) == "found"
    assert woken.wait(DEADLINE)
    assert lanes.doing() == ("waiting for the token provider", "reading from the REST API")
    lanes.close()
    release.set()
    lanes.join(DEADLINE)
    assert lanes.doing() == ()


# --- many streams ---------------------------------------------------------------------------------------


def test_calls_of_different_streams_are_made_at_once_up_to_the_bound_and_in_turn(
    lane: Lane, release: threading.Event, until: Until
) -> None:
    queues = [CallQueue(lane, lambda: None) for _ in range(4)]
    jobs = [calls.submit(lambda: release.wait(DEADLINE)) for calls in queues]
    until(lambda: jobs[0].has_begun and jobs[1].has_begun)
    assert not jobs[2].has_begun
    behind = queues[0].submit(lambda: "behind")
    release.set()
    assert behind.wait(DEADLINE) == "behind"
    assert all(job.wait(DEADLINE) for job in jobs)
    assert [job.began_at for job in jobs] == sorted(job.began_at for job in jobs)  # type: ignore[type-var]


def test_what_hangs_for_one_stream_delays_no_other(
    lane: Lane, clock: Clock, release: threading.Event, until: Until
) -> None:
    one, other = CallQueue(lane, lambda: None), CallQueue(lane, lambda: None)
    hang(one, release, 5, until)
    with pytest.raises(CallNotMade, match="5 calls have not returned"):
        one.submit(lambda: 1).result()
    assert other.submit(lambda: 2).wait(DEADLINE) == 2


def test_what_hangs_for_many_streams_has_a_bound_for_all(
    lane: Lane, clock: Clock, release: threading.Event, until: Until
) -> None:
    for _ in range(32):
        hang(CallQueue(lane, lambda: None), release, 1, until)
    late = CallQueue(lane, lambda: None)
    with pytest.raises(CallNotMade, match=r"32 calls have not returned .*: the next one is made in 60 s"):
        late.submit(lambda: 1).result()
    clock.now += 60
    assert late.submit(lambda: 1).wait(DEADLINE) == 1
    release.set()
    until(lambda: lane.doing() is None)
    assert late.submit(lambda: 2).wait(DEADLINE) == 2


def test_the_time_in_the_queue_is_not_the_calls(lane: Lane, release: threading.Event, until: Until) -> None:
    queues = [CallQueue(lane, lambda: None) for _ in range(3)]
    jobs = [calls.submit(lambda: release.wait(DEADLINE)) for calls in queues]
    until(lambda: jobs[1].has_begun)
    assert not jobs[2].check(0.0)
    assert jobs[1].check(0.0)
    release.set()


def test_each_stream_is_woken_by_its_own_calls(lane: Lane) -> None:
    woken, others = threading.Event(), threading.Event()
    CallQueue(lane, others.set)
    CallQueue(lane, woken.set).submit(lambda: 1).wait(DEADLINE)
    assert woken.wait(DEADLINE)
    assert not others.is_set()


def test_slow_calls_of_many_streams_do_not_keep_another_one_waiting(
    lane: Lane, release: threading.Event, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aggstream._base.blocking_calls._SLOW", 0.05)
    slow: list[Job[Any]] = [CallQueue(lane, lambda: None).submit(lambda: release.wait(DEADLINE)) for _ in range(6)]
    quick: Job[Any] = CallQueue(lane, lambda: None).submit(lambda: "quick")

    def is_done() -> bool:
        for job in (*slow, quick):
            job.check(DEADLINE)
        return quick.done

    until(is_done)
    assert all(job.has_begun and not job.done for job in slow)
    release.set()
