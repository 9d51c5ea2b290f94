"""Noticing that the machine was suspended."""

from __future__ import annotations

import time

# Clocks are set by a little all the time; what is worth a look at the connection takes longer.
_LEAST = 5.0


class SuspensionWatch:
    """Compares the wall clock with the monotonic one, which stands still during a suspension on Linux and macOS.

    Where it does not, the deadlines themselves have passed. A wall clock that is set forward looks the same, and
    costs a ping.
    """

    def __init__(self) -> None:
        self._ahead = time.time() - time.monotonic()

    def slept(self, now: float) -> float:
        """Return the seconds that the machine slept since the last call; 0.0 if it did not sleep.

        Args:
            now: monotonic seconds.
        """
        before, self._ahead = self._ahead, time.time() - now
        jump = self._ahead - before
        return jump if jump >= _LEAST else 0.0
