"""A database that goes away and comes back: what is to be written waits for it."""

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
"""The errors that Django raises when a database is away, locked, full, or a replica that takes no writes yet."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 5.0


class Patience:
    """Calls what uses a database, again and again until it works or the stream is to end. For any thread."""

    def __init__(self, database: str) -> None:
        """Make one.

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
        """Wait no longer, from now on and where it is waited: the process is to end."""
        self._is_over.set()

    def once(self, work: Callable[[], T]) -> T:
        """Call it once.

        Raises:
            JournalError: it failed.
        """
        with self._translated():
            return in_request(work)()

    def until_done(self, work: Callable[[], T]) -> T:
        """Call it until the database is there, saying loudly what is waited for.

        What it does must be all or nothing, and may be done again if nobody can tell which it was.

        Raises:
            JournalError: it failed by something that waiting does not mend, or the stream is to end.
        """
        with self._translated():
            return self._retrying(in_request(work))

    def _log_pause(self, state: tenacity.RetryCallState) -> None:
        assert state.outcome is not None
        pause = 0.0 if state.next_action is None else state.next_action.sleep
        logger.error(
            "%s cannot be used; nothing is lost, what comes waits for it; next attempt in %.1f s: %s",
            self.place,
            pause,
            one_line(state.outcome.exception()),
        )
        with contextlib.suppress(DatabaseError):  # a connection that broke may be good for nothing
            connections[self._database].close()

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except DatabaseError as error:
            raise JournalError(
                f"{self.place} cannot be used: {one_line(error)}. Nothing that is stored is lost; see to the "
                f"database, and whether `manage.py migrate` was run",
                path=self.place,
            ) from error


def one_line(error: BaseException | None) -> str:
    """Return an error of a database, whose words tend to come on several lines, for a log."""
    return " ".join(str(error).split())
