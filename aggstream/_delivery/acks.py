"""Tells the journal what became of events: done, or failed so often. Called on the workers' threads."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from aggstream._delivery.handler_calls import described
from aggstream.errors import JournalError

logger = logging.getLogger("aggstream.delivery")

# When handlers have no pause, successes are written so many at once, or so many seconds after those before; else
# they are written in the next pause.
_BATCH = 256
_LONGEST = 0.5


class RetryRules(Protocol):
    """How often the handlers of a stored event are called again, and when."""

    @property
    def outage_errors(self) -> tuple[type[Exception], ...]:
        """The errors that handlers raise while something that they need is away."""
        ...

    def delay_after(self, failures: int) -> float:
        """Return the pause, in seconds, after so many failures of an event's handlers, from 1."""
        ...


class AckedStore(Protocol):
    """The members of a store that acks need: see `aggstream.journal.EventStore`."""

    @property
    def options(self) -> RetryRules:
        """When handlers that failed are called again."""
        ...

    def done(self, seqs: Sequence[int]) -> None:
        """Note that the handlers of these events have finished."""
        ...

    def failed(self, seq: int, error_text: str) -> bool:
        """Note that a handler of this event has failed; return True if the event is dead by now."""
        ...

    def hint(self, seq: int) -> str:
        """Return where a person finds a dead event; for the log."""
        ...

    def leave(self) -> None:
        """Let go of what the calling thread holds of the store: the thread ends."""
        ...


class Acks:
    """Thread-safe. What is not written yet when the process dies is delivered again, which is what is promised."""

    def __init__(self, store: AckedStore, on_failure: Callable[[JournalError], None], name: str) -> None:
        """Make one.

        Args:
            store: where the events are stored.
            on_failure: called with the error if the store fails; on the thread that found it.
            name: begins the log lines.
        """
        self._store = store
        self._on_failure = on_failure
        self._name = name
        # Guards the list and the count. The store is called without it.
        self._lock = threading.Lock()
        self._done: list[int] = []
        self._written_at = time.monotonic()
        # The numbers of the events that were set aside, because their handlers failed too often.
        self._dead: set[int] = set()

    @property
    def dead(self) -> int:
        """How many events are set aside because their handlers failed too often, and were not run again since."""
        return len(self._dead)

    def succeeded(self, seq: int) -> None:
        """All handlers of an event have returned."""
        with self._lock:
            self._dead.discard(seq)
            self._done.append(seq)
            is_due = len(self._done) >= _BATCH or time.monotonic() >= self._written_at + _LONGEST
        if is_due:
            self.write()

    def is_outage(self, error: BaseException) -> bool:
        """Return True if an exception means that something is away which a handler needs."""
        return isinstance(error, self._store.options.outage_errors)

    def failed(self, seq: int, errors: Sequence[BaseException], attempts: int) -> float | None:
        """Handlers of an event have failed.

        Args:
            seq: the event's number.
            errors: what they raised.
            attempts: how often its handlers were called in this process, this time included.

        Returns:
            Seconds until they should be called again; None: never again by itself.
        """
        pause = self._store.options.delay_after(attempts)
        if any(map(self.is_outage, errors)):
            logger.warning(
                "%s: event %d waits, and nothing is lost: retrying its handlers in %.1f s", self._name, seq, pause
            )
            return pause
        try:
            is_dead = self._store.failed(seq, described(errors[0]))
        except JournalError as failure:
            self._on_failure(failure)
            return None
        with self._lock:
            if is_dead:
                self._dead.add(seq)
            else:
                self._dead.discard(seq)
        if is_dead:
            hint = self._store.hint(seq)
            logger.error("%s: event %d is set aside after too many failures: %s", self._name, seq, hint)
            return None
        logger.warning("%s: event %d: retrying the failed handlers in %.1f s", self._name, seq, pause)
        return pause

    def write(self) -> None:
        """Write what is not written yet."""
        with self._lock:
            done, self._done = self._done, []
            self._written_at = time.monotonic()
        if done:
            try:
                self._store.done(done)
            except JournalError as failure:
                self._on_failure(failure)

    def after_fork_in_child(self) -> None:
        """Forget what the parent will write."""
        self._lock = threading.Lock()
        self._done = []

    def leave(self) -> None:
        """The calling thread ends."""
        self._store.leave()
