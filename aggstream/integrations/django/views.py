"""The signed-in user's own events, live in the browser."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from django.core.handlers.asgi import ASGIRequest
from django.http import (
    HttpRequest,
    HttpResponse,
    HttpResponseBadRequest,
    HttpResponseForbidden,
    StreamingHttpResponse,
)
from django.http.response import HttpResponseBase
from django.views.decorators.http import require_GET

from aggstream.integrations._sse import ASK_AGAIN, CONTENT_TYPE, HEADERS, NO_PLACE, REFUSED, place_of
from aggstream.integrations.django import _settings
from aggstream.integrations.django._columns import key
from aggstream.integrations.django._sse import Feed
from aggstream.integrations.django._store.retrying import AWAY, one_line
from aggstream.integrations.django.models import Stream

logger = logging.getLogger("aggstream")


@require_GET
def events(request: HttpRequest) -> HttpResponseBase:
    """Answer with the events of the user that the session belongs to, as Server-Sent Events, live from the store.

    `new EventSource(url)` gets those that come from now on, each under its type's name (`"order_event"`), with the
    message of the service as its data; with `?after=N` those after the `Event` whose `pk` is N. After an
    interruption it goes on where it was, by the header `Last-Event-ID`.

    Whose events somebody sees, the function `AGGSTREAM["USER_ID"]` says, which gets `request.user`. The answer is
    403 without it, for whom it returns None, and for who is not signed in.

    A database that is away, also with the sessions, ends an answer, and the browser asks again. After an error it
    never would.

    An answer takes a worker's thread for `AGGSTREAM["EVENTS_FOR"]` seconds (25, below gunicorn's timeout), and no
    connection to the database. Then the browser asks again, and is looked at again. Under ASGI, where Django sends
    nothing before such an answer is complete, it ends at once, and the browser asks each second.
    """
    try:
        place = place_of(request.headers.get("Last-Event-ID"), request.GET.get("after"))
    except ValueError:
        return HttpResponseBadRequest(NO_PLACE, "text/plain")
    try:
        user_id = _user_id(request)
        if user_id is None:
            return HttpResponseForbidden(REFUSED, "text/plain")
        feed = Feed(_database_of(user_id), key(user_id))
        newest = feed.newest()
    except AWAY as error:
        logger.warning("live events have to wait, because the database cannot be used: %s", one_line(error))
        return _answer(request, (ASK_AGAIN,))
    # Not after what nobody has stored: the database may be an older one than that of the page.
    after = newest if place is None else min(place, newest)
    seconds = 0.0 if isinstance(request, ASGIRequest) else _settings.events_for()
    return _answer(request, feed.frames(after, seconds=seconds))


def _answer(request: HttpRequest, frames: Iterable[str]) -> HttpResponseBase:
    # Django warns of a stream that it cannot send piece by piece.
    kind = HttpResponse if isinstance(request, ASGIRequest) else StreamingHttpResponse
    return kind(frames, content_type=CONTENT_TYPE, headers=HEADERS)


def _user_id(request: HttpRequest) -> str | None:
    function = _settings.user_id_function()
    if function is None or not request.user.is_authenticated:
        return None
    return function(request.user) or None


def _database_of(user_id: str) -> str:
    """Return the alias of the database that a user's stream is in."""
    aliases = list(dict.fromkeys(one.get("DATABASE", "default") for one in _settings.account_settings().values()))
    for alias in aliases[1:]:
        if Stream.objects.using(alias).filter(user_id=key(user_id)).exists():
            return alias
    return aliases[0]
