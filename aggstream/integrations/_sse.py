"""A user's events from the store, as Server-Sent Events."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

from aggstream._base.deadline import Deadline

LOOK_EVERY = 0.5
"""Seconds between two looks into the store."""
HEARTBEAT = 10.0
"""Seconds of silence after which something is sent, so that proxies and servers see that the answer goes on."""
PAGE = 200
"""Events of one look."""
EVENTS_FOR = 25.0
"""Seconds of one answer, unless it is set: below gunicorn's timeout."""
CONTENT_TYPE = "text/event-stream"
HEADERS = {
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",  # nginx keeps what it has until there is more of it
}
REFUSED = "Live events are for a signed-in user with an AGG account."
"""What is answered, with 403, to who has no events."""
NO_PLACE = "Last-Event-ID and after must be the id of an event."
"""What is answered, with 400, if `place_of` raises."""
_RETRY_MS = 1000
ASK_AGAIN = f"retry: {_RETRY_MS}\n\n"
"""An answer for when the store cannot be read: a browser asks again. After an error it would not."""
_LINE_END = re.compile(r"\r\n|\r|\n")
# Of a number that every database takes.
_DIGITS = 18

Row: TypeAlias = "tuple[int, str, str]"
"""An event's number, its type, and its text."""


def place_of(header: str | None, argument: str | None) -> int | None:
    """Return the number of the event after which to begin; None: now.

    Args:
        header: `Last-Event-ID`, which a browser sends after an interruption.
        argument: `after` of the query, for the first time.

    Raises:
        ValueError: what is given is no number of an event.
    """
    place = header or argument
    if place is None:
        return None
    if not (place.isascii() and place.isdigit() and len(place) <= _DIGITS):
        raise ValueError("not the number of an event")
    return int(place)


def frames(
    look: Callable[[int], Sequence[Row] | None], after: int, *, seconds: float, heartbeat: float = HEARTBEAT
) -> Iterator[str]:
    """Yield what an `EventSource` reads, and then end: it asks again by itself, from where it was.

    Args:
        look: returns the events after one, the oldest first, at most `PAGE`; None ends the answer.
        after: the number of the event after which to begin.
        seconds: after which to end; 0: with what is there.
        heartbeat: seconds of silence after which a comment is sent.
    """
    deadline, pause = Deadline(seconds), threading.Event()
    # Without data it is no event, but the browser keeps the id, and begins there if nothing comes.
    yield f"retry: {_RETRY_MS}\nid: {after}\n\n"
    spoken_at = time.monotonic()
    while (page := look(after)) is not None:
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
        if len(page) < PAGE:
            pause.wait(min(LOOK_EVERY, heartbeat, deadline.remaining() or 0.0))


def _frame(seq: int, type_: str, text: str) -> str:
    data = "".join(f"data: {line}\n" for line in _LINE_END.split(text))
    return f"id: {seq}\nevent: {type_}\n{data}\n"
