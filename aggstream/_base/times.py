"""Times as the service, the database and the user write them: milliseconds, nanoseconds, moments in UTC."""

from __future__ import annotations

import datetime as dt

EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.timezone.utc)
NS_PER_MS = 1_000_000
NS_PER_SECOND = 1_000_000_000


def moment_of_ms(ms: int) -> dt.datetime:
    """Return the moment of a time in milliseconds since the epoch.

    Raises:
        OverflowError: it lies beyond the year 9999.
    """
    return EPOCH + dt.timedelta(milliseconds=ms)


def moment_of_ns(ns: int) -> dt.datetime:
    """Return the moment of a time in nanoseconds since the epoch, to the microsecond below.

    Raises:
        OverflowError: it lies beyond the year 9999.
    """
    return EPOCH + dt.timedelta(microseconds=ns // 1000)


def milliseconds(moment: dt.datetime | None) -> int | None:
    """Return a moment as milliseconds since the epoch; None for None."""
    return None if moment is None else round(moment.timestamp() * 1000)
