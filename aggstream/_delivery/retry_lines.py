"""Events whose handlers failed: they are tried again, with what follows of the same order behind them.

Belongs to one dispatch thread. A failed event holds up its own order, or its own venue's balance, nothing else.
"""

from __future__ import annotations

import collections
import heapq
import itertools
from typing import Generic, TypeVar

T = TypeVar("T")


class RetryLines(Generic[T]):
    """Lines of things that wait behind one that failed, by a key."""

    def __init__(self) -> None:
        self._lines: dict[str, collections.deque[T]] = {}
        self._due: list[tuple[float, int, str]] = []
        self._numbers = itertools.count()

    def __bool__(self) -> bool:
        return bool(self._lines)

    def __len__(self) -> int:
        """Return how many things wait, those that failed included."""
        return sum(map(len, self._lines.values()))

    def join(self, key: str, item: T) -> bool:
        """Let a thing wait behind one that failed before it; return False if nothing of its line has failed."""
        line = self._lines.get(key)
        if line is None:
            return False
        line.append(item)
        return True

    def begin(self, key: str, item: T, due: float) -> None:
        """Begin a line with a thing that failed, to be tried again at a time of the monotonic clock."""
        self._lines[key] = collections.deque([item])
        self.again(key, due)

    def again(self, key: str, due: float) -> None:
        """Let the first of a line be tried again at a time."""
        heapq.heappush(self._due, (due, next(self._numbers), key))

    def next_due(self) -> float | None:
        """Return when something is to be tried again; None if nothing is."""
        return self._due[0][0] if self._due else None

    def take_due(self, now: float) -> str | None:
        """Return the key of a line whose first is to be tried now; None if there is none."""
        if not self._due or self._due[0][0] > now:
            return None
        return heapq.heappop(self._due)[2]

    def first(self, key: str) -> T | None:
        """Return the first of a line; None if the line has come to its end, which forgets it."""
        line = self._lines[key]
        if line:
            return line[0]
        del self._lines[key]
        return None

    def replace_first(self, key: str, item: T) -> None:
        """Put another thing in the place of the first."""
        self._lines[key][0] = item

    def leave(self, key: str) -> None:
        """Take the first of a line away: it is done."""
        self._lines[key].popleft()
