"""The view that sends a signed-in user's own events to the browser."""

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
    """Answer a request with the signed-in user's events from the database, as Server-Sent Events.

    In the browser, `new EventSource(url)` gets all new events. The name of each event is its type, such as
    `"order_event"`, and its data is the service's message. With `?after=N`, the browser gets the events after the
    `Event` whose `pk` is N. After an interruption, the browser sends the header `Last-Event-ID`, and gets the
    events after that event.

    The view calls the function `AGGSTREAM["USER_ID"]` with `request.user`. The function returns the AGG id of the
    user whose events the view sends, or None. The answer has status 403 if there is no such function, if the
    function returns None, or if the visitor is not signed in.

    If the database of the events or of the sessions is not available, the answer ends without an HTTP error,
    and the browser asks again. After an HTTP error, the browser would not ask again.

    An answer uses a worker's thread for `AGGSTREAM["EVENTS_FOR"]` seconds (default: 25, less than gunicorn's
    timeout). It keeps no database connection open. Then the browser asks again, and the view checks the user
    again. Under ASGI, Django sends such an answer only when the answer is complete. So the answer ends at once
    there, and the browser asks again each second.
    """
    is_async = isinstance(request, ASGIRequest)
    answered = answer(
        lambda: _events_of_user(request),
        last_event_id=request.headers.get("Last-Event-ID"),
        after=request.GET.get("after"),
        seconds=0.0 if is_async else _settings.events_for(),
    )
    # Under ASGI, Django warns about a streaming response that it cannot send in pieces.
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
    """Return the alias of the database that holds a user's stream."""
    accounts = _settings.account_settings().values()
    aliases = list(dict.fromkeys(account.get("DATABASE", "default") for account in accounts))
    for alias in aliases[1:]:
        if Stream.objects.using(alias).filter(user_id=key(user_id)).exists():
            return alias
    return aliases[0]
