"""From the loss of a live connection to the next one: what may have been missed, and how long it took."""

from __future__ import annotations

import time

from aggstream._protocol.session import Session
from aggstream.events import Gap, LifecycleEvent, Resumed, TokenRefreshed
from aggstream.tokens._token import Token


class Outage:
    """Belongs to the I/O thread. It begins anew with each user."""

    def __init__(self) -> None:
        self.gaps = 0
        self._token: Token | None = None
        self._gap_since_ns: int | None = None
        self._heard_ns = 0
        self._lost_at: float | None = None

    def begin_in_gap(self, since_ns: int) -> None:
        """An earlier process was live until a time of the wall clock, in nanoseconds since the epoch."""
        self._gap_since_ns = since_ns

    def forget(self) -> None:
        """Another user's stream begins: what was before is not its gap."""
        self._token = self._gap_since_ns = None

    def signed_in(self, session: Session) -> None:
        """The service has accepted a token."""
        self._token = session.token

    def heard(self, wall_ns: int) -> None:
        """Anything came from the server, by the wall clock, which also goes on while the machine is suspended."""
        self._heard_ns = wall_ns

    def lost(self, now: float) -> None:
        """A connection ended. If it was live, or if one was, a gap begins with the last sign of life."""
        if self._token is not None and self._gap_since_ns is None:
            self._lost_at = now
            self._gap_since_ns = self._heard_ns

    def unended(self) -> Gap | None:
        """The stream ends: return the gap that it ends in, if it does."""
        if self._gap_since_ns is None:
            return None
        self.gaps += 1
        return Gap(number=self.gaps, started_ns=self._gap_since_ns, ended_ns=time.time_ns())

    def resumed(self, session: Session, now: float, attempts: int) -> list[LifecycleEvent]:
        """A connection is live: return what that means to those who were live before."""
        events: list[LifecycleEvent] = []
        if self._token is not None and self._token.secret != session.token.secret:
            events.append(TokenRefreshed(user_id=session.user_id, expires_at=session.token.expires_at))
        if self._gap_since_ns is not None:
            self.gaps += 1
            events.append(Gap(number=self.gaps, started_ns=self._gap_since_ns, ended_ns=time.time_ns()))
            if self._lost_at is not None:
                events.append(Resumed(attempts=attempts, downtime=now - self._lost_at))
            self._gap_since_ns = self._lost_at = None
        return events
