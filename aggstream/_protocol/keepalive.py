"""Proof that the peer lives: pings for the connection, and acknowledged authentications for the service."""

from __future__ import annotations

from typing import Literal, TypeAlias

from aggstream._protocol.options import SessionOptions

Due: TypeAlias = Literal["ping", "pong", "idle"]
"""A ping is to be sent; a ping was not answered in time; the service must prove that it still serves this side."""


class Keepalive:
    """Computes the pings and proofs that are due from the times at which the peer was heard.

    `heard_at` and `message_at` are assigned by the session, because that happens for each message. The deadlines
    are computed when they are asked for, so a message moves them and costs nothing here.
    """

    def __init__(self, options: SessionOptions) -> None:
        """Watch nothing yet.

        Args:
            options: the intervals and times.
        """
        self.heard_at = 0.0
        """When anything last came from the peer."""
        self.message_at = 0.0
        """When a message of the service last came."""
        self._options = options
        self._watches = False
        # When a ping was sent that is not known to be answered.
        self._pinged_at: float | None = None
        # When the service was last trusted or asked for a proof; None before it has signed the user in.
        self._served_at: float | None = None

    def begin(self) -> None:
        """Watch the connection: it is open."""
        self._watches = True

    def begin_service(self, at: float) -> None:
        """Watch the service as well: it has signed the user in."""
        self._served_at = at

    def end(self) -> None:
        """Ask nothing of the peer any more."""
        self._watches = False
        self._pinged_at = self._served_at = None

    def slept(self, seconds: float) -> None:
        """Count the time of a suspension as silence. A ping that waits for its answer keeps its time."""
        if not self._awaits_pong():
            self._pinged_at = None
        self.heard_at -= seconds
        self.message_at -= seconds
        if self._served_at is not None:
            self._served_at -= seconds

    def take_due(self, at: float) -> Due | None:
        """Return, once, the name of what is due; None if nothing is due."""
        name, due_at = self._next()
        if name is None or due_at > at:
            return None
        if name == "ping":
            self._pinged_at = at
        elif name == "idle":
            self._served_at = at
        else:
            self._pinged_at = None
        return name

    def next(self) -> float | None:
        """Return when something is due if nothing is heard before; None if nothing ever is."""
        name, due_at = self._next()
        return None if name is None else due_at

    def _next(self) -> tuple[Due | None, float]:
        if not self._watches:
            return None, 0.0
        options = self._options
        name: Due = "ping"
        due_at = self.heard_at + options.ping_interval
        if self._pinged_at is not None and self._awaits_pong():
            name, due_at = "pong", self._pinged_at + options.pong_timeout
        if self._served_at is not None and options.idle_timeout is not None:
            idle_at = max(self.message_at, self._served_at) + options.idle_timeout
            if idle_at < due_at:
                name, due_at = "idle", idle_at
        return name, due_at

    def _awaits_pong(self) -> bool:
        # A ping is sent after a silence, so what was heard before it is older, and what is heard after it is not.
        return self._pinged_at is not None and self.heard_at < self._pinged_at
