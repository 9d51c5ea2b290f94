"""The Flask extension `AggStream`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from flask import Flask, Response, current_app, request

from aggstream._delivery.registrar import Registrar
from aggstream.errors import ConfigurationError
from aggstream.integrations._sse import HEADERS, answer
from aggstream.integrations.flask import _config
from aggstream.integrations.flask._command import group
from aggstream.integrations.flask._sse import JournaledEvents

UserId = TypeVar("UserId", bound="Callable[[], str | None]")

EXTENSION = "aggstream"


class AggStream:
    """The Flask extension. One object may serve several applications, with the same handlers."""

    def __init__(self, app: Flask | None = None) -> None:
        """Make an extension.

        Args:
            app: the application; None: call `init_app` with the application later.

        Raises:
            ConfigurationError: see `init_app`.
        """
        self.handlers = Registrar()
        self.on = self.handlers.on
        """Registers a handler, as `Client.on` does. Handlers run only in the process of `flask aggstream run`, and
        each call runs in a new context of the application."""
        self._user_id: Callable[[], str | None] | None = None
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Add the command `flask aggstream` to an application. The method does not open or start anything.

        Raises:
            ConfigurationError: a value in the application's configuration cannot work; the error says what would
                work. Or the application has another `AggStream` already, so handlers of this one would never run.
        """
        _config.check(app)
        if app.extensions.setdefault(EXTENSION, self) is not self:
            raise ConfigurationError(
                f"{app.name} has an AggStream already: make one for all of its modules, and import it in each"
            )
        app.cli.add_command(group)

    def user_id(self, function: UserId) -> UserId:
        """Register the function that returns the AGG user id of the visitor. Use this method as a decorator.

        The view `events` calls the function without arguments during a request. The function returns the visitor's
        AGG user id, and the visitor may see that user's events. The function returns None for other visitors. If
        `AGGSTREAM_USER_ID` is set, the view calls that function instead.
        """
        self._user_id = function
        return function

    def events(self) -> Response:
        """Answer a request with the visitor's events from the journal, as Server-Sent Events.

        Add this view with `app.add_url_rule("/events", view_func=agg.events)`. In the browser,
        `new EventSource(url)` gets all new events. The name of an event is its type, such as `"order_event"`, and
        its data is the service's message. With `?after=N`, the browser gets the events after the event whose `seq`
        is N. After an interruption, the browser sends the header `Last-Event-ID`, and gets the events after that
        event.

        The answer has status 403 if there is no function for user ids, or if the function returns None. Other
        answers use a worker's thread for `AGGSTREAM_EVENTS_FOR` seconds (default: 25, less than gunicorn's
        timeout). Then the browser asks again, and the function is called again. The view must run on the stream's
        host, by a system user who may read the journal.

        Raises:
            ConfigurationError: the function for user ids returned something other than a text or None.
        """
        answered = answer(
            self._events_of_user,
            last_event_id=request.headers.get("Last-Event-ID"),
            after=request.args.get("after"),
            seconds=_config.events_for(current_app),
        )
        return Response(answered.body, answered.status, headers=HEADERS, content_type=answered.content_type)

    def _events_of_user(self) -> JournaledEvents | None:
        user_id = self._user_id_of_request()
        if user_id is None:
            return None
        return JournaledEvents((journal.path for journal in _config.journals(current_app).values()), user_id)

    def _user_id_of_request(self) -> str | None:
        function = _config.user_id_function(current_app) or self._user_id
        user_id = None if function is None else function()
        if not isinstance(user_id, (str, type(None))):
            raise ConfigurationError(
                f"the function for user ids must return the AGG user id, a text, or None, got "
                f"{type(user_id).__name__}"
            )
        return user_id or None
