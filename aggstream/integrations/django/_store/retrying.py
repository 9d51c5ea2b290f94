"""Repeats database calls while the database is not available."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator
from typing import TypeVar

import tenacity
from django.db import DatabaseError, InterfaceError, InternalError, OperationalError, connections

from aggstream._base.backoff import FullJitter
from aggstream.errors import JournalError
from aggstream.integrations.django._connections import in_request

logger = logging.getLogger("aggstream.integrations.django")

T = TypeVar("T")

AWAY = (OperationalError, InterfaceError, InternalError)
"""Django's errors for a database that is not available, locked, full, or a replica that takes no writes yet."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 5.0


class DatabaseRetrier:
    """Calls functions that use a database, and repeats them until they succeed or the stream ends. Thread-safe."""

    def __init__(self, database: str) -> None:
        """Make a retrier.

        Args:
            database: the database's alias.
        """
        self.place = f"the database {database!r}"
        """The database's name in errors and logs."""
        self._database = database
        self._is_over = threading.Event()
        self._retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(AWAY),
            wait=FullJitter(_FIRST_PAUSE, _LONGEST_PAUSE),
            stop=tenacity.stop_when_event_set(self._is_over),
            sleep=tenacity.sleep_using_event(self._is_over),
            before_sleep=self._log_pause,
            reraise=True,
        )

    def end(self) -> None:
        """Stop all waiting, now and later, because the process must end."""
        self._is_over.set()

    def once(self, work: Callable[[], T]) -> T:
        """Call a function once, and return its result.

        Raises:
            JournalError: the database raised an error.
        """
        with self._translated():
            return in_request(work)()

    def until_done(self, work: Callable[[], T]) -> T:
        """Call a function until it succeeds, and return its result. Log an error before each pause.

        The function must do all of its work or nothing. It may be called again after a success, because a broken
        connection may hide the success.

        Raises:
            JournalError: the database raised an error that waiting does not solve, or the stream must end.
        """
        with self._translated():
            return self._retrying(in_request(work))

    def _log_pause(self, state: tenacity.RetryCallState) -> None:
        assert state.outcome is not None
        pause = 0.0 if state.next_action is None else state.next_action.sleep
        logger.error(
            "%s cannot be used; nothing is lost, and new events wait for it; next attempt in %.1f s: %s",
            self.place,
            pause,
            one_line(state.outcome.exception()),
        )
        with contextlib.suppress(DatabaseError):  # closing a broken connection may fail
            connections[self._database].close()

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except DatabaseError as error:
            raise JournalError(
                f"{self.place} cannot be used: {one_line(error)}. Nothing that is stored is lost; check the "
                f"database, and whether `manage.py migrate` was run",
                path=self.place,
            ) from error


def one_line(error: BaseException | None) -> str:
    """Return the text of a database's error on one line for a log, because the text often has several lines."""
    return " ".join(str(error).split())
