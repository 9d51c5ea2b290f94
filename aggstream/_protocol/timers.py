"""Named deadlines, most of them on a clock that stands still while this side does not read."""

from __future__ import annotations


class Timers:
    """Deadlines by name. `now` is in seconds on any monotonic clock; the stoppable clock follows from it.

    A peer that is not read from cannot be blamed for silence, so its deadlines stand still during a pause. A
    token expires all the same, and a connection that is to be closed must go, so their deadlines are steady.
    """

    def __init__(self) -> None:
        self._stoppable: dict[str, float] = {}
        self._steady: dict[str, float] = {}
        self.paused_for = 0.0
        """For how many seconds the stoppable clock has stood still before the present pause."""
        self.is_paused = False
        """True while the stoppable clock stands still."""
        self._paused_at = 0.0

    def time(self, now: float) -> float:
        """Return the time on the stoppable clock."""
        return (self._paused_at if self.is_paused else now) - self.paused_for

    def set(self, name: str, at: float) -> None:
        """Set a deadline by the stoppable clock."""
        self._stoppable[name] = at

    def set_steady(self, name: str, at: float) -> None:
        """Set a deadline that a pause does not move."""
        self._steady[name] = at

    def cancel(self, *names: str) -> None:
        """Forget deadlines, if they are set."""
        for name in names:
            self._stoppable.pop(name, None)
            self._steady.pop(name, None)

    def bring_forward(self, seconds: float) -> None:
        """Let the steady deadlines come earlier."""
        self._steady = {name: at - seconds for name, at in self._steady.items()}

    def clear(self) -> None:
        """Forget all deadlines."""
        self._stoppable.clear()
        self._steady.clear()

    def pause(self, now: float) -> None:
        """Stop the stoppable clock."""
        if not self.is_paused:
            self.is_paused, self._paused_at = True, now

    def resume(self, now: float) -> None:
        """Let the stoppable clock go on."""
        if self.is_paused:
            self.is_paused = False
            self.paused_for += now - self._paused_at

    def take_due(self, now: float) -> str | None:
        """Forget a deadline that has come, and return its name; None if there is none."""
        for name, at in self._steady.items():
            if at <= now:
                del self._steady[name]
                return name
        if not self.is_paused:
            time = now - self.paused_for
            for name, at in self._stoppable.items():
                if at <= time:
                    del self._stoppable[name]
                    return name
        return None

    def next(self) -> float | None:
        """Return when the next deadline comes if nothing changes; None if there is none."""
        times = list(self._steady.values())
        if not self.is_paused:
            times += [at + self.paused_for for at in self._stoppable.values()]
        return min(times, default=None)
