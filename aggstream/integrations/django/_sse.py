"""A user's stored events, read from the database."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from django.db import connections
from django.db.models import QuerySet

from aggstream.integrations._sse import PAGE, EventRow, Unreadable
from aggstream.integrations.django._store.retrying import AWAY, one_line
from aggstream.integrations.django.models import Event, Stream


@contextlib.contextmanager
def readable() -> Iterator[None]:
    """Raise the errors of a database that is away as `Unreadable`."""
    try:
        yield
    except AWAY as error:
        raise Unreadable(one_line(error)) from error


class StoredEvents:
    """See `aggstream.integrations._sse.UserEvents`."""

    def __init__(self, database: str, user_key: str) -> None:
        """Make one.

        Args:
            database: the alias of the database that the user's stream is in.
            user_key: the user's id by AGG, as the stream's row has it.
        """
        self._database = database
        self._user_key = user_key
        self._stream: int | None = None

    def newest(self) -> int:
        """Return the `pk` of the newest event; 0 if there is none."""
        with readable():
            return self._events().order_by("-pk").values_list("pk", flat=True).first() or 0

    def page_after(self, number: int) -> list[EventRow]:
        """Return the events whose `pk` is larger, and close the connections: the next page is a while away."""
        try:
            with readable():
                rows = self._events().filter(pk__gt=number).order_by("pk").values_list("pk", "type", "text")
                return list(rows[:PAGE])
        finally:
            for connection in connections.all(initialized_only=True):  # with that of the session
                if not connection.in_atomic_block:  # a test's, say
                    connection.close()

    def _events(self) -> QuerySet[Event]:
        # By the stream's number, for which there is an index; by its user, some read all events for the newest.
        if self._stream is None:
            streams = Stream.objects.using(self._database).filter(user_id=self._user_key)
            self._stream = streams.values_list("pk", flat=True).first()
        return Event.objects.using(self._database).filter(stream=self._stream)
