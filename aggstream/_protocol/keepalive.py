"""Proof that the peer lives: pings for the connection, and acknowledged authentications for the service."""

from __future__ import annotations

from aggstream._protocol.options import SessionOptions
from aggstream._protocol.timers import Timers


class Liveness:
    """Keeps the deadlines `ping`, `pong` and `idle` of a session's timers."""

    def __init__(self, options: SessionOptions, timers: Timers) -> None:
        self.last_heard = 0.0
        """When anything last came from the peer, by the session's `now`."""
        self._options = options
        self._timers = timers
        self._watches = False
        # By the clock of the timers: when a message came.
        self._messaged = 0.0

    def begin(self, now: float) -> None:
        """The connection is open."""
        self._watches = True
        self.heard_message(now)

    def end(self) -> None:
        """Nothing is asked of the peer any more."""
        self._watches = False
        self._timers.clear()

    def begin_service(self, now: float) -> None:
        """The service has signed the user in: from here on it must be heard of now and then."""
        self._await_message(self._timers.time(now))

    def heard(self, now: float) -> None:
        """Anything came."""
        self.last_heard = now
        if self._watches:  # a ping that was sent is answered by it, and the next one is put off
            self._timers.set("ping", self._timers.time(now) + self._options.ping_interval, instead_of="pong")

    def heard_message(self, now: float) -> None:
        """A message of the service came."""
        self.heard(now)
        self._messaged = self._timers.time(now)

    def slept(self, seconds: float) -> None:
        """The machine was suspended: nothing was heard for that long, too. What is awaited keeps its time."""
        self._messaged -= seconds
        self._timers.bring_forward(seconds, "ping", "idle")

    def pinged(self, now: float) -> None:
        """The deadline `ping` has come, and a ping is sent: anything must come within its time."""
        self._timers.set("pong", self._timers.time(now) + self._options.pong_timeout)

    def wants_proof(self, now: float) -> bool:
        """The deadline `idle` has come: tell whether the service must prove that it still serves us."""
        assert self._options.idle_timeout is not None
        time = self._timers.time(now)
        is_idle = self._messaged + self._options.idle_timeout <= time
        self._await_message(time if is_idle else self._messaged)
        return is_idle

    def _await_message(self, since: float) -> None:
        if self._options.idle_timeout is not None:
            self._timers.set("idle", since + self._options.idle_timeout)
