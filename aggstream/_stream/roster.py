"""The accounts of a fleet: who is in it, whose stream begins or ends, and what lasts until the fleet has ended."""

from __future__ import annotations

import collections
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Literal

from aggstream._base.deadline import nearest
from aggstream._delivery.handler_calls import Running
from aggstream._stream.account_list import AccountList
from aggstream._stream.engine import Engine
from aggstream._stream.parts import Parts
from aggstream._stream.stream import Stream
from aggstream.errors import ConfigurationError, JournalError, StateError
from aggstream.health import Phase

if TYPE_CHECKING:
    from aggstream.journal import FleetStore

logger = logging.getLogger("aggstream.stream")

_FIRST_NAMES = 10


class Roster:
    """The streams of many accounts on one engine, which steps the roster as it steps a stream.

    It keeps the engine going while there is no stream, and ends after the last of them.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        name: str,
        revive_after: float,
        on_end: Callable[[], None],
        account_list: AccountList,
    ) -> None:
        """Begin without an account.

        Args:
            engine: drives the streams, and the roster.
            name: begins the log lines.
            revive_after: seconds after which a stream that an error of ours has ended is made anew.
            on_end: called when nothing more is delivered to any handler.
            account_list: tells which accounts there are.
        """
        self._list = account_list
        self.wake_at: float | None = None
        self.is_woken = False
        self.is_ended = False
        self.phase: Literal["idle", "live", "stopping", "stopped"] = "idle"
        self.error: BaseException | None = None
        self.trace: TracebackType | None = None
        self.stop_requested = False
        self.capacity: int | None = None
        """How many streams may be open at once, because the system allows no more; None: any number."""
        self._engine = engine
        self._name = name
        self._revive_after = revive_after
        self._on_end = on_end
        self._store: FleetStore | None = None
        self._store_failure: JournalError | None = None
        self._is_begun = False
        # Guards the members, and what is to begin. It is not held while anything blocks, or user code runs.
        self._lock = threading.Lock()
        # The accounts, by their names. Replaced, never changed in place, so that reading needs no lock.
        self._members: Mapping[str, Member] = {}
        # Those whose stream is to begin once the system, and the one of the same name before it, allow that.
        self._beginning: collections.deque[Member] = collections.deque()
        # Those whose stream has begun, and has not ended.
        self._open: set[Member] = set()
        self._ended: collections.deque[Member] = collections.deque()
        self._reviving: list[tuple[float, Member]] = []
        # How many have begun and still deliver, and one for the roster itself.
        self._delivering = 1
        self._phases: collections.Counter[Phase] = collections.Counter()
        self._resting: dict[Literal["must sign in again", "failed"], dict[str, None]] = {
            "must sign in again": {},
            "failed": {},
        }
        self._first_lives = threading.Condition()

    # --- for any thread ---------------------------------------------------------------------------------

    @property
    def members(self) -> Mapping[str, Member]:
        """The accounts, by their names."""
        return self._members

    @property
    def phases(self) -> Mapping[Phase, int]:
        """How many streams are in each phase."""
        return {phase: number for phase, number in self._phases.copy().items() if number}

    def resting(self, state: Literal["must sign in again", "failed"]) -> tuple[str, ...]:
        """Return the names of the first accounts that rest in a state."""
        return tuple(list(self._resting[state])[:_FIRST_NAMES])

    @property
    def unbegun(self) -> int:
        """How many accounts wait for others to leave, because the system allows no more."""
        return len(self._beginning)

    def add(self, member: Member) -> None:
        """Take an account, and begin its stream.

        Raises:
            ConfigurationError: there is one of this name.
            StateError: the fleet ends, or has ended.
        """
        self._refuse(member.name)
        if self._is_begun:
            member.begin(self._store, self._store_failure)
        with self._lock:
            self._refuse(member.name)
            self._members = {**self._members, member.name: member}
            self._phases["idle"] += 1
            self._beginning.append(member)
        self._engine.wake(self)

    def add_all(self, members: Sequence[Member]) -> None:
        """Take many accounts at once; see `add`."""
        if self._is_begun:
            for member in members:
                member.begin(self._store, self._store_failure)
        with self._lock:
            for member in members:
                self._refuse(member.name)
            self._members = {**self._members, **{member.name: member for member in members}}
            self._phases["idle"] += len(members)
            self._beginning.extend(members)
        self._engine.wake(self)

    def _refuse(self, name: str) -> None:
        if self.stop_requested or self.is_ended:
            raise StateError("the fleet has ended: make another one to begin again")
        if name in self._members:
            raise ConfigurationError(
                f"there is an account {name!a} already: remove it first, or choose another name"
            )

    def limit_to(self, capacity: int | None) -> None:
        """Open no more streams at once than the system allows, and say so if that is too few; None: any number."""
        self.capacity = capacity
        if capacity is not None and capacity < len(self._members):
            logger.warning(
                "%s: this process may open %d connections, and there are %d accounts: those that fit run. "
                "Raise its limit of file descriptors (ulimit -n, or LimitNOFILE= of systemd)",
                self._name,
                capacity,
                len(self._members),
            )

    def refresh(self) -> None:
        """Have the list of accounts asked again."""
        self._list.refresh()
        self._engine.wake(self)

    def remove(self, name: str) -> Member | None:
        """Let the stream of an account end, and return it; None if there is no such account."""
        with self._lock:
            member = self._members.get(name)
            if member is None:
                return None
            self._members = {other: it for other, it in self._members.items() if other != name}
            if member in self._beginning:
                self._beginning.remove(member)
                self._phases["idle"] -= 1
                return member
        member.parts.request_stop()
        return member

    def request_stop(self) -> None:
        """Ask all streams to end. Takes no lock, so a signal handler may call it."""
        self.stop_requested = True
        self._engine.wake(self)

    def fail(self, error: BaseException) -> None:
        """End all streams with an error, unless another one ends them already."""
        if self.error is None:
            self.error = error
            self.trace = error.__traceback__
        self.request_stop()

    def wait_until_settled(self, timeout: float | None) -> bool:
        """Wait until each account is live or rests; return False if the time ran out."""
        with self._first_lives:
            return self._first_lives.wait_for(self._is_settled, timeout)

    def _is_settled(self) -> bool:
        settled = self._phases["live"] + self._phases["must sign in again"] + self._phases["failed"]
        return self.is_ended or settled == sum(self._phases.values()) - self._phases["stopped"]

    # --- its life, for `Lifetime` -----------------------------------------------------------------------

    @property
    def undelivered(self) -> int:
        """How many events no handler has been given yet."""
        return sum(member.parts.undelivered for member in self._all())

    @property
    def to_retry(self) -> int:
        """How many events wait to be tried again, those behind them included."""
        return sum(member.parts.to_retry for member in self._all())

    def begin(self, store: FleetStore | None, failure: JournalError | None) -> None:
        """Take the store, before the threads are started."""
        self._store, self._store_failure, self._is_begun = store, failure, True
        for member in self._members.values():
            member.begin(store, failure)

    def reset(self) -> None:
        """Be as if `begin` had never been called."""
        self._store = self._store_failure = None
        self._is_begun = self.stop_requested = False
        for member in self._members.values():
            member.parts.reset()

    def running(self) -> list[Running]:
        """Return the handlers that are running now."""
        return self._engine.workers.running()

    def abandon(self) -> int:
        """Deliver nothing more; return how many events that leaves."""
        return sum(member.parts.abandon() for member in self._all())

    def poll_handlers(self) -> None:
        """Log the handlers that take too long, once the I/O thread has ended."""
        for member in self._all():
            member.parts.poll_handlers()

    def log_stuck(self) -> None:
        """Log where the handlers are that are given up."""
        for member in self._all():
            member.parts.log_stuck()

    def after_fork_in_child(self) -> None:
        """Replace the locks, which threads of the parent may hold, and let go of the parent's streams."""
        self._lock = threading.Lock()
        self._first_lives = threading.Condition()
        for member in self._all():
            member.parts.after_fork_in_child()

    def delivered_all(self) -> None:
        """Note that an account delivers nothing more, or that the roster has ended."""
        with self._lock:
            self._delivering -= 1
            is_last = self._delivering == 0
        if is_last:
            self._on_end()

    def _all(self) -> set[Member]:
        return {*self._members.values(), *self._open}

    # --- for the I/O thread -----------------------------------------------------------------------------

    def phase_changed(self, stream: Stream, before: Phase, phase: Phase) -> None:
        """Count the streams of each phase; note those that rest."""
        self._phases[before] -= 1
        self._phases[phase] += 1
        for state, names in self._resting.items():
            if phase == state:
                names[stream.account] = None
            elif before == state:
                names.pop(stream.account, None)
        if phase in ("live", "must sign in again", "failed", "stopped"):
            with self._first_lives:
                self._first_lives.notify_all()

    def stream_ended(self, member: Member) -> None:
        """Take note that the stream of an account has ended."""
        self._ended.append(member)
        self._engine.wake(self)

    def step(self, polled_at: float) -> float | None:
        """Begin the streams of new accounts, and let go of those that have ended."""
        if self.phase == "idle":
            self.phase = "live"
        while self._ended:
            self._let_go(self._ended.popleft())
        if self.stop_requested and self.phase == "live":
            self.phase = "stopping"
            self._list.stop()
            with self._lock:
                self._phases["idle"] -= len(self._beginning)
                self._beginning.clear()
            for member in self._open:
                member.parts.request_stop()
        if self.phase == "stopping" and not self._open:
            self.phase = "stopped"
            self.is_ended = True
            with self._first_lives:
                self._first_lives.notify_all()
            self.delivered_all()
            return None
        self._revive()
        self._begin_streams()
        revive_at = min((at for at, _ in self._reviving), default=None)
        return nearest(revive_at, None if self.stop_requested else self._list.step(time.monotonic()))

    def next_deadline(self) -> float | None:
        """Return None: `step` returns its deadlines."""
        return None

    def broken(self, error: BaseException) -> None:
        """Do nothing: it has no socket."""

    def _begin_streams(self) -> None:
        with self._lock:
            leaving = {member.name for member in self._open}
            later: list[Member] = []
            while self._beginning and not self.stop_requested:
                member = self._beginning.popleft()
                has_room = self.capacity is None or len(self._open) < self.capacity
                if member.name in leaving or not has_room:
                    later.append(member)
                    continue
                self._open.add(member)
                self._delivering += 1
                self._engine.add(member.parts.stream)
            self._beginning.extend(later)

    def _let_go(self, member: Member) -> None:
        self._open.discard(member)
        member.has_left()
        self._phases["stopped"] -= 1
        error = member.parts.error
        if isinstance(error, JournalError):
            self.fail(error)  # it is everybody's
        elif error is not None and self._members.get(member.name) is member and not self.stop_requested:
            said = "%s: the stream of %a is made anew in %.0f s"
            logger.error(said, self._name, member.name, self._revive_after)
            self._reviving.append((time.monotonic() + self._revive_after, member))

    def _revive(self) -> None:
        """Make the streams anew that an error of ours has ended."""
        now = time.monotonic()
        due = [member for at, member in self._reviving if at <= now]
        self._reviving = [(at, member) for at, member in self._reviving if at > now]
        for member in due:
            if self._members.get(member.name) is not member:
                continue
            fresh = member.again()
            fresh.begin(self._store, self._store_failure)
            with self._lock:
                if self._members.get(member.name) is not member:  # removed meanwhile
                    continue
                self._members = {**self._members, member.name: fresh}
                self._phases["idle"] += 1
                self._beginning.append(fresh)


class Member:
    """One account of a roster, with its stream."""

    __slots__ = ("again", "has_left", "is_listed", "name", "parts", "token")

    def __init__(
        self,
        name: str,
        parts: Parts,
        token: object,
        *,
        is_listed: bool,
        again: Callable[[], Member],
        has_left: Callable[[], None],
    ) -> None:
        """Make one.

        Args:
            name: the account's name.
            parts: its stream.
            token: where its tokens come from, as the program has said it.
            is_listed: whether the list of accounts has it; else it was added by itself.
            again: makes another one of the same account.
            has_left: called on the I/O thread when its stream has ended.
        """
        self.name = name
        self.parts = parts
        self.token = token
        self.is_listed = is_listed
        self.again = again
        self.has_left = has_left

    def begin(self, store: FleetStore | None, failure: JournalError | None) -> None:
        """Take the store of all accounts, before the stream begins."""
        known = self.parts.stream.user_id
        self.parts.begin(None if store is None else store.of(self.name, known), failure)
