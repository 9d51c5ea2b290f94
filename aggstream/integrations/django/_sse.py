"""Reads a user's stored events from the database."""

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
    """Raise `Unreadable` instead of the errors of an unavailable database."""
    try:
        yield
    except AWAY as error:
        raise Unreadable(one_line(error)) from error


class StoredEvents:
    """Implements `aggstream.integrations._sse.UserEvents`."""

    def __init__(self, database: str, user_key: str) -> None:
        """Make a reader.

        Args:
            database: the alias of the database that holds the user's stream.
            user_key: the key of the user's AGG id, as in the stream's row.
        """
        self._database = database
        self._user_key = user_key
        self._stream: int | None = None

    def newest(self) -> int:
        """Return the `pk` of the newest event; 0 if there is none."""
        with readable():
            return self._events().order_by("-pk").values_list("pk", flat=True).first() or 0

    def page_after(self, number: int) -> list[EventRow]:
        """Return the events whose `pk` is larger than `number`. Close the connections until the next call."""
        try:
            with readable():
                rows = self._events().filter(pk__gt=number).order_by("pk").values_list("pk", "type", "text")
                return list(rows[:PAGE])
        finally:
            for connection in connections.all(initialized_only=True):  # the sessions may use another connection
                if not connection.in_atomic_block:  # a test may have an open transaction
                    connection.close()

    def _events(self) -> QuerySet[Event]:
        # The query uses the stream's number, which has an index. With a join on the user, some databases read all
        # events to find the newest event.
        if self._stream is None:
            streams = Stream.objects.using(self._database).filter(user_id=self._user_key)
            self._stream = streams.values_list("pk", flat=True).first()
        return Event.objects.using(self._database).filter(stream=self._stream)
