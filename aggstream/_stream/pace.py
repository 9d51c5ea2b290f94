"""When each of many streams may connect, or ask REST: so many in a second, and none while the service is to rest.

After a restart of the service all streams connect again. All at once they would be one more outage.
"""

from __future__ import annotations

import heapq
import itertools
import random
import time
from collections.abc import Callable

# So many turns a second are given one by one; more are given in batches, because each needs a turn of the engine.
_ONE_BY_ONE = 50.0
# The pause after a batch is random: this part of its share of a second, and up to so much more. With the first of
# the two no second has more than `per_second` turns, wherever it begins.
_LEAST, _JITTER = 1.05, 0.2
# The seconds that a turn lasts, for a stream that does not use it at once.
_LASTS = 1.0


class Pace:
    """Gives turns: to the most urgent first, else first come, first served.

    It belongs to the I/O thread, and the engine steps it.
    """

    def __init__(
        self,
        per_second: float,
        *,
        longest_hold: float,
        schedule: Callable[[Pace, float | None], None],
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """Give the first turn at once.

        Args:
            per_second: how many turns there are in a second at most.
            longest_hold: the longest `Retry-After` that is waited for, in seconds.
            schedule: called with the moment of the next `step`, in monotonic seconds.
            clock: returns monotonic seconds.
            jitter: returns numbers between 0 and 1.
        """
        self.wake_at: float | None = None
        self.is_woken = False
        self.is_ended = False
        self._batch = max(1, int(per_second / _ONE_BY_ONE))
        self._pause = self._batch / per_second
        self._longest_hold = longest_hold
        self._schedule = schedule
        self._clock = clock
        self._jitter = jitter
        self._next = 0.0
        self._numbers = itertools.count()
        self._waiting: list[tuple[int, int, Turn]] = []

    def ask(self, turn: Turn, urgency: int) -> None:
        """Give a turn later. Each is asked for once.

        Args:
            turn: is told when it is.
            urgency: the lowest number is given first.
        """
        heapq.heappush(self._waiting, (urgency, next(self._numbers), turn))
        self._schedule(self, max(self._next, self._clock()))

    def hold(self, seconds: float) -> None:
        """Give no turn for some seconds, because the service has asked one stream to wait: it means all."""
        self._next = max(self._next, self._clock() + min(seconds, self._longest_hold))

    @property
    def waiting(self) -> int:
        """How many streams wait for a turn."""
        return len(self._waiting)

    @property
    def held_for(self) -> float:
        """Seconds until the next turn; 0 if it may be taken at once."""
        return max(0.0, self._next - self._clock())

    def step(self, polled_at: float) -> float | None:
        """Give the turns that are due; return when the next ones are, in monotonic seconds, or None."""
        given = 0
        now = self._clock()
        if now >= self._next:
            while self._waiting and given < self._batch:
                turn = heapq.heappop(self._waiting)[2]
                given += turn.begin()
            if given:
                self._next = now + self._pause * (_LEAST + _JITTER * self._jitter())
        return self._next if self._waiting else None

    def next_deadline(self) -> float | None:
        """Return None: `step` returns its deadlines."""
        return None

    def broken(self, error: BaseException) -> None:
        """Do nothing: it has no socket."""


class Turn:
    """One stream's turns at a pace. It belongs to the I/O thread."""

    __slots__ = ("_is_asked", "_is_left", "_pace", "_until", "_wake")

    def __init__(self, pace: Pace | None, wake: Callable[[], None]) -> None:
        """Have no turn yet.

        Args:
            pace: gives turns; None: it is always this stream's turn.
            wake: called when the turn begins.
        """
        self._pace = pace
        self._wake = wake
        self._is_asked = self._is_left = False
        self._until = 0.0

    @property
    def is_awaited(self) -> bool:
        """True from the asking for a turn until it begins."""
        return self._is_asked

    def is_now(self, urgency: int = 0) -> bool:
        """Return True if it is this stream's turn. Else ask for it: the stream is woken when it begins."""
        if self._pace is None or time.monotonic() < self._until:
            return True
        if not self._is_asked:
            self._is_asked = True
            self._pace.ask(self, urgency)
        return False

    def use(self, urgency: int = 0) -> bool:
        """Return True if it is this stream's turn, which is used up by that."""
        if not self.is_now(urgency):
            return False
        self._until = 0.0
        return True

    def hold(self, error: BaseException) -> None:
        """Let all streams wait if an error says that the service asks to wait."""
        seconds: float | None = getattr(error, "retry_after", None)
        if self._pace is not None and seconds is not None:
            self._pace.hold(seconds)

    def leave(self) -> None:
        """Need no turn any more: the stream ends."""
        self._is_left = True

    def begin(self) -> bool:
        """Begin for a second, because later ones are other streams'. Return False if it is not needed."""
        self._is_asked = False
        if self._is_left:
            return False
        self._until = time.monotonic() + _LASTS
        self._wake()
        return True
