"""A user's events from the database."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from django.db import DatabaseError, connections
from django.db.models import QuerySet

from aggstream.integrations._sse import HEARTBEAT, PAGE, Row, frames
from aggstream.integrations.django._store.retrying import one_line
from aggstream.integrations.django.models import Event, Stream

logger = logging.getLogger("aggstream")


class Feed:
    """The events of one user. Belongs to one thread, which holds no connection to the database while it waits."""

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
        return self._events().order_by("-pk").values_list("pk", flat=True).first() or 0

    def frames(self, after: int, *, seconds: float, heartbeat: float = HEARTBEAT) -> Iterator[str]:
        """Yield what an `EventSource` reads; see `aggstream.integrations._feed.frames`."""
        return frames(self._look, after, seconds=seconds, heartbeat=heartbeat)

    def _events(self) -> QuerySet[Event]:
        # By the stream's number, for which there is an index; by its user, some read all events for the newest.
        if self._stream is None:
            streams = Stream.objects.using(self._database).filter(user_id=self._user_key)
            self._stream = streams.values_list("pk", flat=True).first()
        return Event.objects.using(self._database).filter(stream=self._stream)

    def _look(self, after: int) -> list[Row] | None:
        try:
            rows = self._events().filter(pk__gt=after).order_by("pk").values_list("pk", "type", "text")
            return list(rows[:PAGE])
        except DatabaseError as error:
            logger.warning("live events end, because the database cannot be used: %s", one_line(error))
            return None
        finally:
            for connection in connections.all(initialized_only=True):  # with that of the session
                if not connection.in_atomic_block:  # a test's, say
                    connection.close()
