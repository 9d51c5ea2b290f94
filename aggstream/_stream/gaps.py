"""The gaps: which there were, which are open, and up to when everything is known."""

from __future__ import annotations

import math
import time

from aggstream.events import Gap, LifecycleEvent, Resumed, TokenRefreshed
from aggstream.health import Continuity
from aggstream.tokens._token import Token

# The clocks behind two timestamps of the service need not agree, nor what is read and what is sent.
_OVERLAP_MS = 60_000
# Events of before the first look have come by then, if they are to come: the rest is from before this client.
_IN_FLIGHT = 5.0


class Gaps:
    """The one owner of gaps and of continuity. It belongs to the I/O thread, and begins anew with each user."""

    def __init__(self, *, has_rest: bool) -> None:
        """Begin before the first connection.

        Args:
            has_rest: whether there is a REST API that can close a gap.
        """
        self.heard_ns = 0
        """When anything last came from the server, in nanoseconds since the epoch: by the wall clock, which goes
        on while the machine is suspended. The connection keeps it up to date."""
        self.is_connected = False
        """True while a connection of the present user's is live."""
        self.since: int | None = None
        """The service's time, in milliseconds, up to which everything was known when something last may have been
        missed; None if nothing was ever known."""
        self.is_caught_up = False
        """True if the last look has closed all that it was to close."""
        self._has_rest = has_rest
        self._number = 0
        self._token: Token | None = None
        self._since_ns: int | None = None
        self._lost_at: float | None = None
        self._open: list[int] = []
        self._lost = 0
        self._first_connected_ms: int | None = None
        # Up to when the first look found everything to be over, and when that was, in monotonic seconds.
        self._first_look: tuple[int, float] | None = None

    def forget(self) -> None:
        """Begin anew with another user: what the user before may have missed is no gap of theirs."""
        self._token = self._since_ns = self._first_connected_ms = self._first_look = self.since = None
        self.is_connected = self.is_caught_up = False
        self._open.clear()
        self._lost = 0

    # --- gaps, by this machine's clocks -----------------------------------------------------------------

    def begin_in_gap(self, since_ns: int) -> None:
        """Begin in a gap: an earlier process was live until then, in nanoseconds since the epoch."""
        self._since_ns = since_ns

    def signed_in(self, token: Token) -> None:
        """Note the token that the service has accepted."""
        self._token = token

    def connection_lost(self, now: float) -> None:
        """Begin a gap at the last sign of life, if this or an earlier connection was live."""
        if self._token is not None and self._since_ns is None:
            self._lost_at = now
            self._since_ns = self.heard_ns

    def end_in_gap(self) -> Gap | None:
        """Return the gap that the stream ends in; None if it ends in none."""
        if self._since_ns is None:
            return None
        return self._next_gap(self._since_ns)

    def resume(self, token: Token, user_id: str | None, now: float, attempts: int) -> list[LifecycleEvent]:
        """Return the events that tell of a live connection which follows an earlier one.

        Args:
            token: the one that it was signed in with.
            user_id: the user, by the service's word.
            now: monotonic seconds.
            attempts: how often connecting was tried.
        """
        events: list[LifecycleEvent] = []
        if self._token is not None and self._token.secret != token.secret:
            events.append(TokenRefreshed(user_id=user_id, expires_at=token.expires_at))
        if self._since_ns is not None:
            events.append(self._next_gap(self._since_ns))
            if self._lost_at is not None:
                events.append(Resumed(attempts=attempts, downtime=now - self._lost_at))
            self._since_ns = self._lost_at = None
        return events

    def _next_gap(self, since_ns: int) -> Gap:
        self._number += 1
        return Gap(number=self._number, started_ns=since_ns, ended_ns=time.time_ns())

    # --- gaps that REST has not closed ------------------------------------------------------------------

    @property
    def open(self) -> tuple[int, ...]:
        """The numbers of the gaps that are not closed yet."""
        return tuple(self._open)

    @property
    def lost(self) -> int:
        """How many gaps can never be closed, because there is no REST API."""
        return self._lost

    def opened(self, gap: Gap) -> None:
        """Take a gap that has to be closed."""
        self._open.append(gap.number)

    def closed(self, numbers: tuple[int, ...]) -> None:
        """Forget gaps that a look has closed."""
        self._open = [number for number in self._open if number not in numbers]

    def give_up_all(self) -> tuple[int, ...]:
        """Return the gaps that are open, and wait for none of them any more."""
        numbers, self._open = tuple(self._open), []
        return numbers

    # --- up to when everything is known, by the service's clock -----------------------------------------

    @property
    def history_until(self) -> int | None:
        """The service's time, in milliseconds, up to which all was over before the first look; None before it."""
        return None if self._first_look is None else self._first_look[0]

    def known_before(self, timestamp: int | None, history_until: int | None = None) -> None:
        """Take over up to when an earlier process knew everything.

        Args:
            timestamp: that time of the service's, in milliseconds.
            history_until: the time up to which the first process of all found everything to be over; None if it
                did not look.
        """
        self.since = timestamp
        self._first_look = None if history_until is None else (history_until, -math.inf)

    def connected(self, wall_ms: int, gap: Gap | None) -> None:
        """Note that a connection is live.

        Args:
            wall_ms: the time of this machine, in milliseconds since the epoch.
            gap: what may have been missed before it; None if nothing was.
        """
        self.is_connected = True
        if self._first_connected_ms is None:
            self._first_connected_ms = wall_ms
        if gap is None:
            return
        if not self._has_rest:
            self._lost += 1
        self.opened(gap)
        # If nothing was ever known, then at least what is older than the first connection is no news.
        if self.since is None:
            self.since = self._first_connected_ms

    def first_look_done(self, now: float) -> None:
        """Note that the first look is over: what had happened until `since` is history."""
        self._first_look = (self.since or 0, now)

    def news_after(self, now: float) -> int | None:
        """Return the service's time after which a change may be news, in milliseconds; None if no change is.

        It is a while before what is known, but not before the first look: what was over then is history, and a
        program must not take it for something that happens now.
        """
        if self.since is None or self._first_look is None:
            return None if self.since is None else self.since - _OVERLAP_MS
        known_until, at = self._first_look
        in_flight = max(0.0, _IN_FLIGHT - (now - at))
        return max(self.since - _OVERLAP_MS, known_until - round(in_flight * 1000))

    def continuity(self, *, is_holding: bool) -> Continuity:
        """Return whether something may be missing.

        Args:
            is_holding: whether live events are held back for a look that has not ended.
        """
        if not self.is_connected:
            return Continuity.UNKNOWN
        if not self._has_rest:
            return Continuity.UNKNOWN if self._lost else Continuity.LIVE
        if is_holding:
            return Continuity.CATCHING_UP
        return Continuity.LIVE if self.is_caught_up else Continuity.UNKNOWN
