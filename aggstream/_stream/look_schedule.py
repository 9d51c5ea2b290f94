"""Which look at REST goes on, which one comes next, and when."""

from __future__ import annotations

import math

import attrs

from aggstream._base.backoff import FullJitter
from aggstream._base.deadline import nearest
from aggstream._stream.gaps import LATE, MARGIN, OVERLAP_MS, Gaps
from aggstream._stream.looks import DoubtLook, FirstLook, LateLook, Look, Search, Sweep
from aggstream.errors import AggStreamError
from aggstream.orders._tracker import Tracker

# After this number of failures in a row, the pauses are as long as they get.
_FOR_LONG = 16
# While suspects are left, looks are repeated so many seconds after the doubt.
_REPEATED_AFTER = (2.0, 6.0, 14.0, 30.0)
# Doubts that messages raise one after the other are looked at less and less often, up to so many seconds.
_LONGEST_PAUSE = 60.0
_MOST_LATE_LOOKS = 8
# An order whose last word nobody knows may have ended. It is searched for so long, and then no more: if the word
# is the service's word for an end, there are more and more such orders.
_UNCLEAR_FOR_MS = 3_600_000


@attrs.frozen(eq=False)
class _Late:
    """A late look that is to come."""

    at: float
    known_until: int | None
    is_mild: bool
    """True for the first sign-in's: a later process need not do it in this one's place."""


class LookSchedule:
    """Owns the look that goes on, and decides which look is next. It belongs to the I/O thread.

    Looks for a doubt come first, then late looks, then the search for tracked orders, then the sweep. A sweep
    makes way for any other look, and goes on after it.
    """

    def __init__(self, tracker: Tracker, gaps: Gaps, *, pauses: FullJitter, rest_lag: float) -> None:
        """Make a schedule without a look.

        Args:
            tracker: what is known of each order.
            gaps: what may have been missed.
            pauses: tells how long to wait before REST is asked again.
            rest_lag: seconds by which REST usually trails the stream, at most.
        """
        self.look: Look | None = None
        """The look that goes on; None: no look goes on."""
        self.owes = False
        """True while a late look is to come that a later process must do if this one ends."""
        self._tracker = tracker
        self._gaps = gaps
        self._pauses = pauses
        self._rest_lag = rest_lag
        # When the next look for the doubt is due, and how many looks the doubt had that did not settle it.
        self._due_at: float | None = None
        self._repeated = 0
        # How often in a row messages have raised a doubt, when the last one did, and the last look for a doubt.
        self._doubtful_messages = 0
        self._doubted_at = self._looked_at = 0.0
        # True if there is a gap, and nothing tells what was known before it.
        self._is_blind = False
        # A sweep that had to make way for another look.
        self._sweep: Sweep | None = None
        self._is_filter_reliable = True
        self._late: list[_Late] = []
        # Orders that a program tracks, and that nothing is known of.
        self._wanted: set[str] = set()
        self._failures = 0
        self._retry_at: float | None = None

    def forget(self) -> None:
        """Begin anew with another user."""
        self.drop()
        self._sweep = self._due_at = self._retry_at = None
        self._set_late([])
        self._wanted.clear()
        self._failures = self._doubtful_messages = 0
        self._looked_at = self._doubted_at = 0.0
        self._is_blind = False

    # --- what makes a look due --------------------------------------------------------------------------

    def begin_doubt(self, now: float, *, is_blind: bool = False) -> None:
        """Let a look for the doubt begin at once.

        Args:
            now: the moment.
            is_blind: whether nothing tells what was known before the doubt.
        """
        self.drop()
        self._is_blind = self._is_blind or is_blind
        self._repeated = 0
        self._due_at = now
        self._retry_at = None

    def doubt_message(self, now: float, *, is_new: bool) -> None:
        """Let a look begin for a message that is a doubt.

        A server may send such a message each second: they share one look, and the pauses between looks grow.

        Args:
            now: the moment.
            is_new: whether nothing was in doubt before it.
        """
        if now - self._doubted_at > LATE:
            self._doubtful_messages = 0
        self._doubted_at = now
        self._doubtful_messages += 1
        again = self._doubtful_messages - 2
        at = now if again < 0 else max(now, self._looked_at + min(2.0 ** min(again, 6), _LONGEST_PAUSE))
        if is_new:
            self._repeated = 0
            self._due_at = at
        elif self._due_at is None or self._due_at > at:
            self._due_at = at

    def search_for(self, order_id: str) -> None:
        """Let a search begin for an order that nothing is known of."""
        self._wanted.add(order_id)

    def retry_at_once(self) -> None:
        """Wait no longer after a failure: the connection is another one."""
        self._retry_at = None

    # --- the look that goes on --------------------------------------------------------------------------

    def next_at(self) -> float | None:
        """Return when the next look begins; None if none is due, or one goes on that must end first."""
        if not self._gaps.is_connected or not (self.look is None or isinstance(self.look, Sweep)):
            return None
        at = nearest(self._due_at, *(late.at for late in self._late))
        if self.look is None and (self._wanted or self._must_sweep()):
            at = -math.inf
        return at if at is None or self._retry_at is None else max(at, self._retry_at)

    def begin_next(self, now: float) -> bool:
        """Begin the look that is due; return False if none is."""
        at = self.next_at()
        if at is None or now < at:
            return False
        self._retry_at = None
        self._put_off_sweep()
        self.look = self._look_due(now)
        return True

    def drop(self) -> None:
        """Give up the look that goes on."""
        self._put_off_sweep()
        self.look = None

    def be_blind(self) -> Look:
        """Make a first look of the one that goes on, because nothing tells what was known before the doubt."""
        assert self.look is not None
        self._is_blind = True
        self.look = FirstLook(began=self.look.began, wanted=self.look.wanted)
        return self.look

    def distrust_filter(self, sweep: Sweep) -> None:
        """Let a sweep read all pages, now and later: the service does not filter orders by status."""
        self._is_filter_reliable = False
        sweep.go_without_filter()

    def known_until(self, look: Look) -> int | None:
        """Return the service's time, in milliseconds, after which a change may be news to a look; None: unknown.

        What a late look still owes is told by any look that finds it first.
        """
        owed = [late.known_until for late in self._late]
        return min((at for at in (look.known_until, *owed) if at is not None), default=None)

    def _must_sweep(self) -> bool:
        return self._gaps.was_read and not self._gaps.is_searched

    def _put_off_sweep(self) -> None:
        if isinstance(self.look, Sweep):
            self._sweep, self.look = self.look, None

    def _look_due(self, now: float) -> Look:
        if self._due_at is not None and now >= self._due_at:
            return self._doubt_look(now)
        late = min(self._late, key=lambda late: late.at, default=None)
        if late is not None and now >= late.at:
            wanted = self._tracker.open_orders() | self._unclear_orders(late.known_until)
            return LateLook(began=now, known_until=late.known_until, overlap_ms=OVERLAP_MS, wanted=wanted)
        known_until = self._gaps.known_until(now)
        if self._wanted:
            wanted = set(self._wanted)
            return Search(began=now, wanted=wanted, looked_for=frozenset(wanted), known_until=known_until)
        return self._sweep_due(now, known_until)

    def _doubt_look(self, now: float) -> Look:
        doubt = self._gaps.doubt
        assert doubt is not None
        self._looked_at = now
        if doubt.is_mild or self._is_blind:
            looked_for = frozenset(self._wanted)
            return FirstLook(began=now, wanted=self._tracker.open_orders() | looked_for, looked_for=looked_for)
        known_until = self._gaps.known_until(now)
        settles = now >= doubt.until + self._rest_lag
        wanted = {id_ for id_ in doubt.suspects if self._tracker.is_open(id_)} | self._tracker.doubtful_orders()
        return DoubtLook(
            began=now,
            known_until=known_until,
            overlap_ms=OVERLAP_MS,
            wanted=wanted | self._unclear_orders(known_until),
            reads_balances=settles or not self._repeated,
        )

    def _unclear_orders(self, known_until: int | None) -> set[str]:
        return self._tracker.unclear_orders(None if known_until is None else known_until - _UNCLEAR_FOR_MS)

    def _sweep_due(self, now: float, known_until: int | None) -> Sweep:
        sweep, self._sweep = self._sweep, None
        # An order that has ended in a doubt is not among those that are open.
        is_filter_enough = self._is_filter_reliable and not self._gaps.had_doubt
        if sweep is None or (sweep.is_filtered and not is_filter_enough):
            sweep = Sweep(began=now, known_until=known_until)
            if is_filter_enough:
                sweep.begin_next()
            else:
                sweep.go_without_filter()
        return sweep

    # --- how a look ended -------------------------------------------------------------------------------

    def settles(self, look: Look) -> bool:
        """Return True if a complete look for the doubt leaves nothing in doubt."""
        assert self._gaps.doubt is not None
        lag = 0.0 if isinstance(look, FirstLook) else self._rest_lag
        return look.began >= self._gaps.doubt.until + lag

    def succeed(self) -> None:
        """End the look that goes on: it is complete."""
        look = self.look
        assert look is not None
        self.look = None
        self._failures = 0
        if isinstance(look, LateLook):
            self._set_late([late for late in self._late if late.at > look.began])
        self._wanted -= look.looked_for

    def fail(self, now: float, error: AggStreamError, *, is_passing: bool) -> int:
        """End the look that goes on, and let the next one wait; return the number of failures in a row.

        Args:
            now: the moment.
            error: why it failed.
            is_passing: False if asking again does not mend the error. Then the pause is as long as it gets.
        """
        self.look = self._sweep = None
        self._failures += 1 if is_passing else _FOR_LONG
        self._retry_at = now + self._pauses.pause(self._failures, getattr(error, "retry_after", None))
        return self._failures

    def repeat(self, now: float) -> None:
        """Let another look for the doubt come: the last one was complete, but it does not settle the doubt."""
        doubt = self._gaps.doubt
        assert doubt is not None
        settling = doubt.until + self._rest_lag + MARGIN
        self._due_at = settling
        if any(self._tracker.is_open(order_id) for order_id in doubt.suspects):
            again = (doubt.until + after for after in _REPEATED_AFTER if doubt.until + after > now)
            self._due_at = min(next(again, settling), settling)
        self._repeated += 1

    def settled(self, until: float, known_until: int | None, *, is_mild: bool) -> bool:
        """Note that nothing is in doubt any more, and let a late look come; return True if the look was blind.

        Args:
            until: the last moment at which something may have been missed.
            known_until: the service's time, in milliseconds, up to which all was known; None: unknown.
            is_mild: whether the doubt was the first sign-in's.
        """
        self._due_at = None
        is_blind, self._is_blind = self._is_blind, False
        self._set_late(_with_another(self._late, _Late(until + LATE + MARGIN, known_until, is_mild)))
        return is_blind

    def _set_late(self, late_looks: list[_Late]) -> None:
        self._late = late_looks
        self.owes = any(not late.is_mild for late in late_looks)


def _with_another(late_looks: list[_Late], late: _Late) -> list[_Late]:
    """Return late looks and another one, which takes the place of the last one if there are too many."""
    if len(late_looks) < _MOST_LATE_LOOKS:
        return [*late_looks, late]
    last = late_looks[-1]
    known_until = last.known_until
    if known_until is not None:
        known_until = None if late.known_until is None else min(known_until, late.known_until)
    return [*late_looks[:-1], _Late(late.at, known_until, last.is_mild and late.is_mild)]
