"""The body of the view of live events, for every framework: a user's events from the store, as Server-Sent Events.

A framework finds the user of a request, and reads its store. The refusals, their order, and the frames stand here.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol, TypeAlias

import attrs

from aggstream._base.deadline import Deadline

logger = logging.getLogger("aggstream.integrations")

READ_EVERY = 0.5
"""Seconds between two pages from the store."""
HEARTBEAT = 10.0
"""Seconds of silence after which something is sent, so that proxies and servers see that the answer goes on."""
PAGE = 200
"""Events of one page."""
EVENTS_FOR = 25.0
"""Seconds of one answer, unless it is set: below gunicorn's timeout."""
_CONTENT_TYPE = "text/event-stream"
HEADERS = {
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",  # nginx keeps what it has until there is more of it
}
_REFUSED = "Live events are for a signed-in user with an AGG account."
_NO_PLACE = "Last-Event-ID and after must be the id of an event."
_RETRY_MS = 1000
# For when the store cannot be read: a browser asks again. After an error it would not.
_ASK_AGAIN = f"retry: {_RETRY_MS}\n\n"
_LINE_END = re.compile(r"\r\n|\r|\n")
# Of a number that every database takes.
_DIGITS = 18

EventRow: TypeAlias = "tuple[int, str, str]"
"""An event's number, its type, and its text."""


class Unreadable(Exception):
    """The store cannot be read at this moment. The text says why, in one line."""


class NoPlace(Exception):
    """A request names a place among the events that cannot be one."""


class UserEvents(Protocol):
    """The stored events of one user. It belongs to one thread, and holds nothing open between two calls."""

    def newest(self) -> int:
        """Return the number of the newest event; 0 if there is none.

        Raises:
            Unreadable: the store cannot be read.
        """
        ...

    def page_after(self, number: int) -> Sequence[EventRow]:
        """Return the events after one, the oldest first, at most `PAGE`.

        Raises:
            Unreadable: the store cannot be read.
        """
        ...


@attrs.frozen
class Answer:
    """An answer of the view, for a framework to send with `HEADERS`."""

    status: int
    body: Iterable[str]
    content_type: str


def answer(
    find: Callable[[], UserEvents | None],
    *,
    last_event_id: str | None,
    after: str | None,
    seconds: float,
) -> Answer:
    """Return the answer to a request for live events.

    Args:
        find: returns the events of the user who asks; None if there is no such user. It may raise `Unreadable`.
        last_event_id: the header `Last-Event-ID`, which a browser sends after an interruption.
        after: `after` of the query, for the first time.
        seconds: after which the answer ends; 0: with the events that are there.
    """
    try:
        events = find()
        if events is None:
            return Answer(403, (_REFUSED,), "text/plain")
        place = place_of(last_event_id, after)
        newest = events.newest()
    except NoPlace:
        return Answer(400, (_NO_PLACE,), "text/plain")
    except Unreadable as error:
        logger.warning("live events have to wait, because the store cannot be read: %s", error)
        return Answer(200, (_ASK_AGAIN,), _CONTENT_TYPE)
    # Not after an event that is not stored: the store may have been begun anew since the page was made.
    begin = newest if place is None else min(place, newest)
    return Answer(200, frames(events.page_after, begin, seconds=seconds), _CONTENT_TYPE)


def place_of(header: str | None, argument: str | None) -> int | None:
    """Return the number of the event after which to begin; None: now.

    Args:
        header: `Last-Event-ID`, which a browser sends after an interruption.
        argument: `after` of the query, for the first time.

    Raises:
        NoPlace: what is given is no number of an event.
    """
    place = header or argument
    if place is None:
        return None
    if not (place.isascii() and place.isdigit() and len(place) <= _DIGITS):
        raise NoPlace
    return int(place)


def frames(
    page_after: Callable[[int], Sequence[EventRow]], after: int, *, seconds: float, heartbeat: float = HEARTBEAT
) -> Iterator[str]:
    """Yield what an `EventSource` reads, and then end: it asks again by itself, from where it was.

    Args:
        page_after: returns the events after one; see `UserEvents`. The answer ends if it raises `Unreadable`.
        after: the number of the event after which to begin.
        seconds: after which to end; 0: with what is there.
        heartbeat: seconds of silence after which a comment is sent.
    """
    deadline, pause = Deadline(seconds), threading.Event()
    # Without data it is no event, but the browser keeps the id, and begins there if nothing comes.
    yield f"retry: {_RETRY_MS}\nid: {after}\n\n"
    spoken_at = time.monotonic()
    while True:
        try:
            page = page_after(after)
        except Unreadable as error:
            logger.warning("live events end, because the store cannot be read: %s", error)
            return
        for after, type_, text in page:  # noqa: PLR1704  (where the next page begins)
            yield _frame(after, type_, text)
        now = time.monotonic()
        if page:
            spoken_at = now
        elif now >= spoken_at + heartbeat:
            spoken_at = now
            yield ":\n\n"
        if deadline.expired():
            return
        if len(page) < PAGE:
            pause.wait(min(READ_EVERY, heartbeat, deadline.remaining() or 0.0))


def _frame(seq: int, type_: str, text: str) -> str:
    data = "".join(f"data: {line}\n" for line in _LINE_END.split(text))
    return f"id: {seq}\nevent: {type_}\n{data}\n"
