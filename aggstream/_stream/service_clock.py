"""The service's time: what is compared with the service's times is never a clock of this machine."""

from __future__ import annotations

# Between 2001 and 2100, in milliseconds: what lies outside is no time of a message.
_FIRST_MS, _LAST_MS = 10**12, 4_102_444_800_000
# A time that is further ahead of the service's own `Date` is no time.
_AHEAD_MS = 120_000


class ServiceClock:
    """Tells the service's time at a moment. It belongs to the I/O thread.

    A moment is in seconds of a clock that nobody sets and that goes on while the machine is suspended. The time is
    that of the latest `Date` of the REST API (assumed: its answers carry one), less the time that has passed
    since; without one, that of the latest message. Both are rather too early than too late: then more is told, not
    less.
    """

    def __init__(self) -> None:
        self.has_date = False
        """True once an answer carried a `Date`."""
        self._seen: tuple[int, float] | None = None

    def read_date(self, date_ms: int, now: float) -> None:
        """Take the `Date` of an answer, in milliseconds since the epoch, that came at a moment."""
        if _FIRST_MS <= date_ms <= _LAST_MS:
            self.has_date = True
            self._seen = (date_ms, now)

    def hear_message(self, timestamp: int, now: float) -> None:
        """Take the `timestamp` of a message that came at a moment; it counts as long as there is no `Date`."""
        if not self.has_date and _FIRST_MS <= timestamp <= _LAST_MS:
            self._seen = (timestamp, now)

    def at(self, moment: float) -> int | None:
        """Return the service's time at a moment, in milliseconds; None if nothing tells it."""
        if self._seen is None:
            return None
        seen_ms, seen_at = self._seen
        return seen_ms - round((seen_at - moment) * 1000)

    def is_time(self, ms: int, now: float) -> bool:
        """Return True unless a time of the service lies ahead of the service's own clock."""
        known = self.at(now)
        return known is None or not self.has_date or ms <= known + _AHEAD_MS
