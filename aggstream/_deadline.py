"""One deadline through all the steps of a call."""

from __future__ import annotations

import time


class Deadline:
    """A moment on the monotonic clock; None stands for never."""

    __slots__ = ("at",)

    def __init__(self, timeout: float | None) -> None:
        """Set the deadline `timeout` seconds from now, or never if None."""
        self.at = None if timeout is None else time.monotonic() + timeout

    def remaining(self) -> float | None:
        """Return the seconds that are left, not below 0; None if there is no end."""
        return None if self.at is None else max(0.0, self.at - time.monotonic())

    def expired(self) -> bool:
        """Tell whether the moment has passed."""
        return self.at is not None and time.monotonic() >= self.at
