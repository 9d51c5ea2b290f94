"""Queries for the rows of one stream."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from django.db.models import QuerySet

from aggstream.integrations.django.models import Event, Order, Stream
from aggstream.journal import StoredEvent

T = TypeVar("T")

PAGE = 400
"""The largest number of values in one statement. Some databases allow no more than a thousand."""


class StreamRows:
    """The rows of one stream, for the stream's owner."""

    def __init__(self, database: str, *, stream: int, owner: str) -> None:
        """Make the queries.

        Args:
            database: the database's alias.
            stream: the `pk` of the stream's row.
            owner: the name of this process in the stream's row.
        """
        self.database = database
        self.stream = stream
        self.owner = owner
        self.user_id: str | None = None
        """The AGG id of the stream's user; None until the account has signed in."""

    @property
    def own(self) -> QuerySet[Stream]:
        """The stream's row; empty if this process is not the owner any more."""
        return Stream.objects.using(self.database).filter(pk=self.stream, owner=self.owner)

    @property
    def events(self) -> QuerySet[Event]:
        """All events of the stream."""
        return Event.objects.using(self.database).filter(stream=self.stream)

    @property
    def orders(self) -> QuerySet[Order]:
        """All orders of the stream."""
        return Order.objects.using(self.database).filter(stream=self.stream)

    @property
    def pending(self) -> QuerySet[Event]:
        """The events whose handlers have not finished."""
        return self.events.filter(state=Event.State.PENDING)

    @property
    def again(self) -> QuerySet[Event]:
        """The dead events that a person wants to be run again."""
        return self.events.filter(state=Event.State.AGAIN)


# In the order of StoredEvent's fields.
_COLUMNS = (
    "pk",
    "event_id",
    "type",
    "sub_event",
    "order__order_id",
    "terminal",
    "source",
    "timestamp",
    "received_ns",
    "text",
    "state",
    "attempts",
    "last_error",
    "settled_ns",
)


def _stored_event(user_id: str | None, seq: int, id_: str, type_: str, sub_event: str, *rest: Any) -> StoredEvent:
    return StoredEvent(seq, id_, type_, sub_event or None, *rest, user_id=user_id)


def stored(events: QuerySet[Event], limit: int | None = None, user_id: str | None = None) -> list[StoredEvent]:
    """Return events as `StoredEvent` objects, oldest first, at most `limit` events."""
    rows = events.order_by("pk").values_list(*_COLUMNS)[:limit]
    return [_stored_event(user_id, *row) for row in rows]


def pages(items: Iterable[T]) -> Iterator[list[T]]:
    """Yield items in lists that are short enough for one statement."""
    listed = list(items)
    for at in range(0, len(listed), PAGE):
        yield listed[at : at + PAGE]
