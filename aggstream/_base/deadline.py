"""One deadline through all the steps of a call."""

from __future__ import annotations

import threading
import time

from aggstream.errors import ConfigurationError


def nearest(*moments: float | None) -> float | None:
    """Return the first of some moments; None if there is none."""
    first = None
    for moment in moments:
        if moment is not None and (first is None or moment < first):
            first = moment
    return first


def seconds_until(moment: float | None) -> float | None:
    """Return the seconds until a moment on the monotonic clock, not below 0; None if it never comes."""
    return None if moment is None else max(0.0, moment - time.monotonic())


class Deadline:
    """A moment on the monotonic clock; None stands for never."""

    __slots__ = ("at",)

    def __init__(self, timeout: float | None) -> None:
        """Set the deadline `timeout` seconds from now, or never if None.

        Raises:
            ConfigurationError: it is no number.
        """
        if timeout is not None and (not isinstance(timeout, (int, float)) or timeout != timeout):  # noqa: PLR0124  (nan)
            raise ConfigurationError(f"a timeout must be a number of seconds, or None, got {timeout!a}")
        self.at = None if timeout is None else time.monotonic() + min(timeout, threading.TIMEOUT_MAX)

    def remaining(self) -> float | None:
        """Return the seconds that are left, not below 0 and not above what locks take; None if there is no end."""
        return None if self.at is None else min(max(0.0, self.at - time.monotonic()), threading.TIMEOUT_MAX)

    def expired(self) -> bool:
        """Return True if the moment has passed."""
        return self.at is not None and time.monotonic() >= self.at
