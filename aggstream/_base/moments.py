"""A clock that nobody sets, and that goes on while the machine is suspended."""

from __future__ import annotations

import time

# `time.monotonic` stands still during a suspension on Linux. Elsewhere there is no other clock in the library.
_BOOT_TIME: int | None = getattr(time, "CLOCK_BOOTTIME", None)


def moment() -> float:
    """Return the present moment, in seconds since some other one."""
    return time.monotonic() if _BOOT_TIME is None else time.clock_gettime(_BOOT_TIME)
