"""How many turns there are in a second, and who has them, with a clock that the tests move."""

from __future__ import annotations

import bisect
import math
import random

import pytest

from aggstream._stream.pace import Pace, Turn
from aggstream.errors import HandshakeRejected


class Time:
    """A clock, and the moment for which the pace has asked to be stepped."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.at: float | None = None

    def __call__(self) -> float:
        return self.now

    def schedule(self, pace: Pace, at: float | None) -> None:
        self.at = at


def pace_of(time: Time, per_second: float, *, jitter: float | None = None, longest_hold: float = 60.0) -> Pace:
    draw = random.Random(7).random if jitter is None else (lambda: jitter)
    return Pace(per_second, longest_hold=longest_hold, schedule=time.schedule, clock=time, jitter=draw)


def given(time: Time, pace: Pace, turns: list[float], seconds: float) -> list[float]:
    """Step the pace whenever it asks for it, for so long; return when turns were given."""
    end = time.now + seconds
    while time.at is not None and time.at <= end:
        time.now = max(time.now, time.at)
        time.at = pace.step(time.now)
    time.now = end
    return turns


@pytest.mark.parametrize("per_second", [0.5, 1.0, 2.0, 3.0, 7.5, 20.0, 50.0, 99.0, 100.0, 500.0, 1000.0])
@pytest.mark.parametrize("jitter", [0.0, 1.0, None])
def test_no_second_has_more_turns_than_the_bound_wherever_it_begins(
    per_second: float, jitter: float | None
) -> None:
    time = Time()
    turns: list[float] = []
    pace = pace_of(time, per_second, jitter=jitter)
    for _ in range(int(25 * per_second) + 1):
        pace.ask(Turn(pace, lambda: turns.append(time.now)), 0)
    given(time, pace, turns, 20.0)
    assert len(turns) >= 20 * per_second * 0.75
    for number, begin in enumerate(turns):
        assert bisect.bisect_left(turns, begin + 1.0) - number <= math.ceil(per_second)


def test_the_most_urgent_is_first_and_else_who_came_first() -> None:
    time, order = Time(), []
    pace = pace_of(time, 1.0, jitter=0.0)
    for name, urgency in (("a", 2), ("b", 1), ("c", 2), ("d", 0), ("e", 1)):
        pace.ask(Turn(pace, lambda name=name: order.append(name)), urgency)  # type: ignore[misc]
    given(time, pace, [], 10.0)
    assert "".join(order) == "dbeac"


def test_a_stream_that_has_left_uses_no_turn() -> None:
    time, order = Time(), []
    pace = pace_of(time, 1.0, jitter=0.0)
    left = Turn(pace, lambda: order.append("left"))
    for turn in (left, Turn(pace, lambda: order.append("stays"))):
        pace.ask(turn, 0)
    left.leave()
    given(time, pace, [], 0.0)
    assert order == ["stays"]


def test_what_the_service_asks_of_one_holds_for_all_but_not_for_ever() -> None:
    time, turns = Time(), []
    pace = pace_of(time, 10.0, jitter=0.0, longest_hold=60.0)
    first = Turn(pace, lambda: turns.append(time.now))
    first.hold(HandshakeRejected("busy", status=503, retry_after=7.0))
    pace.ask(first, 0)
    given(time, pace, turns, 6.9)
    assert turns == []
    assert 0.0 < pace.held_for < 0.2
    given(time, pace, turns, 0.2)
    assert len(turns) == 1
    first.hold(HandshakeRejected("busy", status=503, retry_after=10_000.0))
    assert 59.0 < pace.held_for <= 60.0
    first.hold(HandshakeRejected("no", status=403))
    assert pace.held_for <= 60.0


def test_a_turn_lasts_until_it_is_used() -> None:
    woken: list[int] = []
    time = Time()
    pace = pace_of(time, 10.0)
    turn = Turn(pace, lambda: woken.append(1))
    assert not turn.use()
    assert not turn.use()  # it is asked for once
    assert pace.waiting == 1
    assert turn.is_awaited
    pace.step(time.now)
    assert woken == [1]
    assert turn.is_now()
    assert turn.use()
    assert not turn.use()
    assert pace.waiting == 1


def test_without_a_pace_it_is_always_the_streams_turn() -> None:
    turn = Turn(None, lambda: None)
    assert turn.use()
    assert turn.use()
    turn.hold(HandshakeRejected("busy", status=503, retry_after=7.0))
    assert turn.use()
