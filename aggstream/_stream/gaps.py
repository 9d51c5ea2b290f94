"""The gaps, and up to when everything is known.

Two kinds of time stand here. A gap is told by this machine's clocks, for people. What REST tells is judged by the
service's own time: see `service_clock.py`. The two are never compared.
"""

from __future__ import annotations

import time

import attrs

from aggstream._stream.service_clock import ServiceClock
from aggstream.events import Gap, LifecycleEvent, Resumed, TokenRefreshed
from aggstream.health import Continuity
from aggstream.tokens._token import Token

LATE = 60.0
"""Seconds by which REST trails the stream at worst. Assumed: so it was reported of such services."""
MARGIN = 5.0
"""Seconds between a change's `updatedAt` and its message, at most. Assumed."""
OVERLAP_MS = round((LATE + MARGIN) * 1000)
"""A change that is older than what is known by more than this was seen by a look at REST, or told by the
stream."""


@attrs.define(eq=False, kw_only=True)
class Doubt:
    """Something may have been missed, from a time of the service's until a moment of ours."""

    until: float
    """The last moment at which something may have been missed."""
    is_mild: bool = False
    """True for the first sign-in: what is unknown then is history, and keeps nothing from LIVE."""
    suspects: set[str] = attrs.field(factory=set)
    """Orders that were known to be open, or were found open since, and may have ended unseen."""
    gaps: tuple[int, ...] = ()
    """The numbers of the gaps that it stands for."""


class Gaps:
    """The one owner of gaps, of doubts, and of continuity. It belongs to the I/O thread.

    It begins anew with each user. Moments are those of `ServiceClock`.
    """

    def __init__(self, *, has_rest: bool) -> None:
        """Begin before the first connection.

        Args:
            has_rest: whether there is a REST API that can close a gap.
        """
        self._clock = ServiceClock()
        self.last_message: tuple[int, float] | None = None
        """The `timestamp` of the last message, and the moment when it came. `CatchUp` keeps it up to date."""
        self.heard_ns = 0
        """When anything last came from the server, in nanoseconds since the epoch, by the wall clock: for people.
        The connection keeps it up to date."""
        self.is_connected = False
        """True while a connection of the present user's is live."""
        self.has_failed = False
        """True if the last look at REST failed."""
        self.doubt: Doubt | None = None
        """What is in doubt at present; None: nothing is."""
        self.is_searched = False
        """True once the old open orders were searched to the end, by this process or an earlier one."""
        self.had_doubt = False
        """True once an order may have ended unseen since the user's first sign-in."""
        self.has_new_doubt = False
        """True if a doubt was raised since `Pipeline.step` was last called: then it must be called at once."""
        self.was_read = False
        """True once a look at REST was complete, in this process."""
        self._has_rest = has_rest
        self._number = 0
        self._token: Token | None = None
        self._since_ns: int | None = None
        self._lost_at: float | None = None
        self.lost = 0
        """How many gaps can never be closed, because there is no REST API."""
        # Up to when everything is known: a time of the service's, or a moment; while there is no doubt, it is now.
        self._known_ms: int | None = None
        self._known_at: float | None = None
        # What had last changed before is history: a time of an earlier process's, or the moment of the first
        # sign-in.
        self._history_ms: int | None = None
        self._first_signed_in: float | None = None

    @property
    def clock(self) -> ServiceClock:
        """The service's clock, as well as it is known at present."""
        if self.last_message is not None:
            self._clock.hear_message(*self.last_message)
        return self._clock

    def forget(self) -> None:
        """Begin anew with another user: what the user before may have missed is no gap of theirs."""
        self._token = self._since_ns = self.doubt = None
        self._known_ms = self._known_at = self._history_ms = self._first_signed_in = None
        self.is_connected = self.has_failed = self.is_searched = self.was_read = self.had_doubt = False
        self.lost = 0

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
        # The wall clock may have been set back meanwhile.
        return Gap(number=self._number, started_ns=since_ns, ended_ns=max(since_ns, time.time_ns()))

    @property
    def open(self) -> tuple[int, ...]:
        """The numbers of the gaps that are not closed yet."""
        return () if self.doubt is None else self.doubt.gaps

    # --- up to when everything is known, by the service's clock -----------------------------------------

    def known_before(self, known_until: int | None, history_until: int | None, *, is_searched: bool) -> None:
        """Take over what an earlier process knew.

        Args:
            known_until: up to when it knew everything, in milliseconds of the service's; None if that is not
                known.
            history_until: up to when all was history for it, likewise.
            is_searched: whether it has searched for all old open orders.
        """
        self._known_ms = history_until if known_until is None else known_until
        self._history_ms = history_until
        self.is_searched = is_searched

    def connected(self, now: float) -> bool:
        """Note that the user is signed in; return True if nothing was ever known of this user before."""
        is_first = self._known_ms is None and self._known_at is None
        self.is_connected = True
        if is_first:
            self._first_signed_in = self._known_at = now
        return is_first

    def disconnected(self, heard_at: float) -> None:
        """Note that the connection is gone, which gave its last sign of life at a moment."""
        if self.is_connected:
            self.is_connected = False
            self.stand_still(heard_at)

    def stand_still(self, since: float) -> None:
        """Know nothing more from a moment on, unless something before it is in doubt already."""
        if self.doubt is None or self.doubt.is_mild:
            # At the first sign-in nothing after it is in doubt, so this is not put back behind it.
            self._known_at, self._known_ms = max(since, self._first_signed_in or since), None

    def raise_doubt(
        self, until: float, suspects: set[str], *, gap: Gap | None = None, is_mild: bool = False
    ) -> None:
        """Note that something may have been missed until a moment; it joins a doubt that is there.

        Args:
            until: the moment.
            suspects: the orders that are known to be open.
            gap: the gap that it comes from; None if it comes from none.
            is_mild: whether it is the first sign-in's.
        """
        numbers = () if gap is None else (gap.number,)
        self.had_doubt = self.had_doubt or not is_mild
        self.has_new_doubt = True
        if self.doubt is None or self.doubt.is_mild:
            self.doubt = Doubt(until=until, is_mild=is_mild, suspects=suspects, gaps=numbers)
            return
        self.doubt.until = max(self.doubt.until, until)
        self.doubt.suspects |= suspects
        self.doubt.gaps += numbers

    def settle(self, now: float) -> Doubt:
        """Note that nothing is in doubt any more; return what was."""
        doubt, self.doubt = self.doubt, None
        assert doubt is not None
        self._known_at, self._known_ms = now, None
        return doubt

    def give_up_all(self, now: float) -> tuple[int, ...]:
        """Return the gaps that are open, and wait for none of them any more: nobody will close them."""
        numbers = self.open
        self.lost += len(numbers)
        if self.doubt is not None:
            self.settle(now)
        return numbers

    def known_until(self, now: float) -> int | None:
        """Return the service's time, in milliseconds, up to which everything is known; None: unknown."""
        if self.doubt is None and self.is_connected:
            return self.clock.at(now)
        if self._known_ms is not None or self._known_at is None:
            return self._known_ms
        return self.clock.at(self._known_at)

    @property
    def history_until(self) -> int | None:
        """The service's time, in milliseconds, up to which every change is history; None: not known (yet)."""
        if self._history_ms is not None or self._first_signed_in is None:
            return self._history_ms
        first = self.clock.at(self._first_signed_in)
        return None if first is None else first - round(MARGIN * 1000)

    @property
    def history_to_keep(self) -> int | None:
        """The same for later processes: once the service's own clock tells it, or REST does not answer."""
        return self.history_until if self._clock.has_date or self.has_failed else None

    def continuity(self) -> Continuity:
        """Return whether something may be missing."""
        if not self.is_connected:
            return Continuity.UNKNOWN
        if not self._has_rest:
            return Continuity.UNKNOWN if self.lost else Continuity.LIVE
        if self.has_failed and (self.doubt is not None or not self.was_read):
            return Continuity.UNKNOWN
        if self.doubt is not None and not self.doubt.is_mild:
            return Continuity.CATCHING_UP
        return Continuity.LIVE if self.was_read else Continuity.CATCHING_UP
