"""The view of live events for every framework. It sends a user's stored events as Server-Sent Events.

The framework's own module finds the user of a request, and reads the store. This module decides whether a request
is refused, and makes the frames.
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
"""Seconds between two reads of the store."""
HEARTBEAT = 10.0
"""Seconds without an event after which a comment is sent, so that proxies and servers keep the answer open."""
PAGE = 200
"""The largest number of events in one read of the store."""
EVENTS_FOR = 25.0
"""The default length of one answer in seconds. It is shorter than gunicorn's timeout."""
_CONTENT_TYPE = "text/event-stream"
HEADERS = {
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",  # without it, nginx holds small pieces back
}
_FORBIDDEN_TEXT = "Live events are for a signed-in user with an AGG account."
_BAD_POSITION_TEXT = "Last-Event-ID and after must be the id of an event."
_RETRY_MS = 1000
# The body of the answer when the store cannot be read. The browser asks again; after an HTTP error it would not.
_ASK_AGAIN_BODY = f"retry: {_RETRY_MS}\n\n"
_LINE_END = re.compile(r"\r\n|\r|\n")
# The largest number of digits of an event number. Every database takes such a number.
_MOST_DIGITS = 18

EventRow: TypeAlias = "tuple[int, str, str]"
"""An event's number, type and text."""


class Unreadable(Exception):
    """The store cannot be read at this moment. The text of the exception says why, in one line."""


class BadPosition(Exception):
    """The request asks for events after a position that is not an event number."""


class UserEvents(Protocol):
    """Reads the stored events of one user. One thread uses it, and it keeps nothing open between two calls."""

    def newest(self) -> int:
        """Return the number of the newest event; 0 if there is none.

        Raises:
            Unreadable: the store cannot be read.
        """
        ...

    def page_after(self, number: int) -> Sequence[EventRow]:
        """Return the events after the event `number`, oldest first, at most `PAGE` events.

        Raises:
            Unreadable: the store cannot be read.
        """
        ...


@attrs.frozen
class Answer:
    """The answer of the view. The framework sends it with `HEADERS`."""

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
        find: returns the events of the user who makes the request; None if the request has no such user. It may
            raise `Unreadable`.
        last_event_id: the header `Last-Event-ID`, which a browser sends after an interruption.
        after: the query's argument `after`, for the first request of a page.
        seconds: the length of the answer; 0: send the stored events and end.
    """
    try:
        events = find()
        if events is None:
            return Answer(403, (_FORBIDDEN_TEXT,), "text/plain")
        position = position_of(last_event_id, after)
        newest = events.newest()
    except BadPosition:
        return Answer(400, (_BAD_POSITION_TEXT,), "text/plain")
    except Unreadable as error:
        logger.warning("live events have to wait, because the store cannot be read: %s", error)
        return Answer(200, (_ASK_AGAIN_BODY,), _CONTENT_TYPE)
    # The start is never above the newest event, because the store may be a new one with smaller numbers.
    begin = newest if position is None else min(position, newest)
    return Answer(200, frames(events.page_after, begin, seconds=seconds), _CONTENT_TYPE)


def position_of(header: str | None, argument: str | None) -> int | None:
    """Return the number of the event after which the answer begins; None: begin with new events.

    Args:
        header: the header `Last-Event-ID`, which a browser sends after an interruption.
        argument: the query's argument `after`, for the first request of a page.

    Raises:
        BadPosition: the header or the argument is not an event number.
    """
    position = header or argument
    if position is None:
        return None
    if not (position.isascii() and position.isdigit() and len(position) <= _MOST_DIGITS):
        raise BadPosition
    return int(position)


def frames(
    page_after: Callable[[int], Sequence[EventRow]], after: int, *, seconds: float, heartbeat: float = HEARTBEAT
) -> Iterator[str]:
    """Yield the frames for an `EventSource`, and then end. The `EventSource` asks again for the events after that.

    Args:
        page_after: returns the events after an event number; see `UserEvents`. If it raises `Unreadable`, the
            frames end.
        after: the number of the event after which to begin.
        seconds: the seconds until the frames end; 0: yield the stored events and end.
        heartbeat: the seconds without an event after which a comment is sent.
    """
    deadline, pause = Deadline(seconds), threading.Event()
    # A frame without data is not an event, but the browser keeps its id, and sends it with the next request.
    yield f"retry: {_RETRY_MS}\nid: {after}\n\n"
    sent_at = time.monotonic()
    while True:
        try:
            page = page_after(after)
        except Unreadable as error:
            logger.warning("live events end, because the store cannot be read: %s", error)
            return
        for after, type_, text in page:  # noqa: PLR1704  (the next page begins after it)
            yield _frame(after, type_, text)
        now = time.monotonic()
        if page:
            sent_at = now
        elif now >= sent_at + heartbeat:
            sent_at = now
            yield ":\n\n"
        if deadline.expired():
            return
        if len(page) < PAGE:
            pause.wait(min(READ_EVERY, heartbeat, deadline.remaining() or 0.0))


def _frame(seq: int, type_: str, text: str) -> str:
    data = "".join(f"data: {line}\n" for line in _LINE_END.split(text))
    return f"id: {seq}\nevent: {type_}\n{data}\n"
