"""Proof that the peer lives: pings for the connection, and acknowledged authentications for the service."""

from __future__ import annotations

from aggstream._options import SessionOptions
from aggstream._timers import Timers


class Liveness:
    """Keeps the deadlines `ping`, `pong` and `idle` of a session's timers."""

    def __init__(self, options: SessionOptions, timers: Timers) -> None:
        self.last_heard = 0.0
        """When anything last came from the peer, by the session's `now`."""
        self._options = options
        self._timers = timers
        # By the clock of the timers: when anything came, when a message came, when a ping was sent.
        self._heard = 0.0
        self._messaged = 0.0
        self._ping_sent = 0.0

    def begin(self, now: float) -> None:
        """The connection is open."""
        self.heard_message(now)
        self._timers.set("ping", self._heard + self._options.ping_interval)

    def begin_service(self, now: float) -> None:
        """The service has signed the user in: from here on it must be heard of now and then."""
        self._await_message(self._timers.time(now))

    def heard(self, now: float) -> None:
        """Anything came."""
        self.last_heard = now
        self._heard = self._timers.time(now)

    def heard_message(self, now: float) -> None:
        """A message of the service came."""
        self.heard(now)
        self._messaged = self._heard

    def slept(self, seconds: float) -> None:
        """The machine was suspended: nothing was heard for that long, too. What is awaited keeps its time."""
        names = ["ping", "idle"]
        if self._heard >= self._ping_sent:
            # That ping is answered, and stays so; what follows from it is due earlier.
            self._ping_sent -= seconds
            names.append("pong")
        self._heard -= seconds
        self._messaged -= seconds
        self._timers.bring_forward(seconds, *names)

    def wants_ping(self, now: float) -> bool:
        """The deadline `ping` has come: tell whether a ping must be sent."""
        time = self._timers.time(now)
        due = self._heard + self._options.ping_interval
        if due > time:
            self._timers.set("ping", due)
            return False
        self._ping_sent = time
        self._timers.set("pong", time + self._options.pong_timeout)
        return True

    def is_dead(self, now: float) -> bool:
        """The deadline `pong` has come: tell whether nothing was heard since the ping."""
        if self._heard < self._ping_sent:
            return True
        self._timers.set("ping", self._heard + self._options.ping_interval)
        return False

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
