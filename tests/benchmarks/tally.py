"""Counts what the user's functions are called with, and says when all have come."""

from __future__ import annotations

import itertools
import threading

from benchmarks.sender import Sender


def patience(count: int) -> float:
    """Return the seconds after which so many messages will not come any more."""
    return 30.0 + count / 1000


class Tally:
    """One writer at a time sends: who waits for the messages at first, and then who handles them."""

    def __init__(self, sender: Sender, group: int | None) -> None:
        self._sender = sender
        self._group = group
        self._all_came = threading.Event()
        self._size = self._left = self._next = 0
        self._numbers = itertools.count(1)

    def prepare(self, count: int) -> int:
        """Make messages ready to be delivered; return how many, which is a whole number of groups."""
        self._size = self._group or count
        self._left = max(1, count // self._size)
        self._sender.prepare(self._size)
        return self._size * self._left

    def deliver(self) -> None:
        """Have them sent, and wait until all are handled."""
        self._all_came.clear()
        self._numbers = itertools.count(1)
        self._next = self._size
        for _ in range(min(2, self._left)):  # one is on its way while another one is handled
            self._sender.send()
        if not self._all_came.wait(patience(self._size * self._left)):
            raise TimeoutError(f"not all messages were handled: {next(self._numbers) - 1} were")

    def handle(self, timestamp: int) -> None:
        """Count one; any thread may do so."""
        if next(self._numbers) == self._next:
            self._group_came()

    def _group_came(self) -> None:
        self._next += self._size
        self._left -= 1
        if self._left == 0:
            self._all_came.set()
        elif self._left >= 2:
            self._sender.send()
