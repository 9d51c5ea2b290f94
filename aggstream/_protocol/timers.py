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
        self._paused_at: float | None = None
        self._paused_for = 0.0

    def time(self, now: float) -> float:
        """Return the time on the stoppable clock."""
        return (now if self._paused_at is None else self._paused_at) - self._paused_for

    def set(self, name: str, at: float, *, instead_of: str | None = None) -> None:
        """Set a deadline by the stoppable clock, instead of another one if that is set."""
        self._stoppable[name] = at
        if instead_of in self._stoppable:
            del self._stoppable[instead_of]

    def set_steady(self, name: str, at: float) -> None:
        """Set a deadline that a pause does not move."""
        self._steady[name] = at

    def cancel(self, *names: str) -> None:
        """Forget deadlines, if they are set."""
        for name in names:
            self._stoppable.pop(name, None)
            self._steady.pop(name, None)

    def bring_forward(self, seconds: float, *names: str) -> None:
        """Let steady deadlines, and stoppable ones by name, come earlier, if they are set."""
        self._steady = {name: at - seconds for name, at in self._steady.items()}
        for name in self._stoppable.keys() & set(names):
            self._stoppable[name] -= seconds

    def clear(self) -> None:
        """Forget all deadlines."""
        self._stoppable.clear()
        self._steady.clear()

    def pause(self, now: float) -> None:
        """Stop the stoppable clock."""
        if self._paused_at is None:
            self._paused_at = now

    def resume(self, now: float) -> None:
        """Let the stoppable clock go on."""
        if self._paused_at is not None:
            self._paused_for += now - self._paused_at
            self._paused_at = None

    def take_due(self, now: float) -> str | None:
        """Forget a deadline that has come, and return its name; None if there is none."""
        for name, at in self._steady.items():
            if at <= now:
                del self._steady[name]
                return name
        if self._paused_at is None:
            time = now - self._paused_for
            for name, at in self._stoppable.items():
                if at <= time:
                    del self._stoppable[name]
                    return name
        return None

    def next(self) -> float | None:
        """Return when the next deadline comes if nothing changes; None if there is none."""
        times = list(self._steady.values())
        if self._paused_at is None:
            times += [at + self._paused_for for at in self._stoppable.values()]
        return min(times, default=None)
