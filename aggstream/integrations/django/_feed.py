"""A user's events from the store, as Server-Sent Events."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Iterator

from django.db import DatabaseError, connections
from django.db.models import QuerySet

from aggstream._deadline import Deadline
from aggstream.integrations.django._patience import one_line
from aggstream.integrations.django.models import Event, Stream

logger = logging.getLogger("aggstream")

LOOK_EVERY = 0.5
"""Seconds between two looks into the store."""
HEARTBEAT = 10.0
"""Seconds of silence after which something is sent, so that proxies and servers see that the answer goes on."""
_RETRY = "retry: 1000\n"  # milliseconds
_PAGE = 200
_LINE_END = re.compile(r"\r\n|\r|\n")


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
        """Yield what an `EventSource` reads, and then end: it asks again by itself, from where it was.

        Args:
            after: the `pk` of the event after which to begin.
            seconds: after which to end; 0: with what is there.
            heartbeat: seconds of silence after which a comment is sent.
        """
        deadline, pause = Deadline(seconds), threading.Event()
        # Without data it is no event, but the browser keeps the id, and begins there if nothing comes.
        yield f"{_RETRY}id: {after}\n\n"
        spoken_at = time.monotonic()
        while True:
            try:
                page = self._page(after)
            except DatabaseError as error:
                logger.warning("live events end, because the database cannot be used: %s", one_line(error))
                return
            for after, type_, text in page:  # noqa: PLR1704  (where the next look begins)
                yield _frame(after, type_, text)
            now = time.monotonic()
            if page:
                spoken_at = now
            elif now >= spoken_at + heartbeat:
                spoken_at = now
                yield ":\n\n"
            if deadline.expired():
                return
            if len(page) < _PAGE:
                pause.wait(min(LOOK_EVERY, heartbeat, deadline.remaining() or 0.0))

    def _events(self) -> QuerySet[Event]:
        # By the stream's number, for which there is an index; by its user, some read all events for the newest.
        if self._stream is None:
            streams = Stream.objects.using(self._database).filter(user_id=self._user_key)
            self._stream = streams.values_list("pk", flat=True).first()
        return Event.objects.using(self._database).filter(stream=self._stream)

    def _page(self, after: int) -> list[tuple[int, str, str]]:
        try:
            rows = self._events().filter(pk__gt=after).order_by("pk").values_list("pk", "type", "text")
            return list(rows[:_PAGE])
        finally:
            for connection in connections.all(initialized_only=True):  # with that of the session
                if not connection.in_atomic_block:  # a test's, say
                    connection.close()


def ask_again() -> str:
    """Return an answer that holds nothing, after which the browser asks again with what it has."""
    return f"{_RETRY}\n"


def _frame(seq: int, type_: str, text: str) -> str:
    data = "".join(f"data: {line}\n" for line in _LINE_END.split(text))
    return f"id: {seq}\nevent: {type_}\n{data}\n"
