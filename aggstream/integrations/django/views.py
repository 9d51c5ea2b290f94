"""The signed-in user's own events, live in the browser."""

from __future__ import annotations

from http import HTTPStatus

from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.views.decorators.http import require_GET

from aggstream.integrations._sse import HEADERS, answer
from aggstream.integrations.django import _settings
from aggstream.integrations.django._columns import key
from aggstream.integrations.django._sse import StoredEvents, readable
from aggstream.integrations.django.models import Stream


@require_GET
def events(request: HttpRequest) -> HttpResponseBase:
    """Answer with the events of the user that the session belongs to, as Server-Sent Events, live from the store.

    `new EventSource(url)` gets those that come from now on, each under its type's name (`"order_event"`), with the
    message of the service as its data; with `?after=N` those after the `Event` whose `pk` is N. After an
    interruption it goes on where it was, by the header `Last-Event-ID`.

    The function `AGGSTREAM["USER_ID"]` gets `request.user`, and returns the AGG id of the user whose events are
    sent. The answer is 403 if there is no such function, if it returns None, or if nobody is signed in.

    A database that is away, also with the sessions, ends an answer, and the browser asks again. After an error it
    never would.

    An answer takes a worker's thread for `AGGSTREAM["EVENTS_FOR"]` seconds (25, below gunicorn's timeout), and no
    connection to the database. Then the browser asks again, and is looked at again. Under ASGI, where Django sends
    nothing before such an answer is complete, it ends at once, and the browser asks each second.
    """
    is_async = isinstance(request, ASGIRequest)
    answered = answer(
        lambda: _events_of_user(request),
        last_event_id=request.headers.get("Last-Event-ID"),
        after=request.GET.get("after"),
        seconds=0.0 if is_async else _settings.events_for(),
    )
    # Django warns of a stream that it cannot send piece by piece.
    kind = HttpResponse if is_async or answered.status != HTTPStatus.OK else StreamingHttpResponse
    return kind(answered.body, answered.content_type, answered.status, headers=HEADERS)


def _events_of_user(request: HttpRequest) -> StoredEvents | None:
    with readable():
        user_id = _user_id(request)
        return None if user_id is None else StoredEvents(_database_of(user_id), key(user_id))


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
