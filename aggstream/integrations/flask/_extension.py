"""The extension of a Flask application."""

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
    """The extension. One object may serve several applications, with the same handlers."""

    def __init__(self, app: Flask | None = None) -> None:
        """Make one.

        Args:
            app: an application to begin with; None: `init_app` tells later.

        Raises:
            ConfigurationError: see `init_app`.
        """
        self.handlers = Registrar()
        self.on = self.handlers.on
        """Registers a handler, as `Client.on` does. It runs in the process of `flask aggstream run` alone, each
        call in a context of the application."""
        self._user_id: Callable[[], str | None] | None = None
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Add the command `flask aggstream` to an application. Nothing is opened, and nothing started.

        Raises:
            ConfigurationError: something in the application's configuration cannot work; says what would. Or the
                application has another `AggStream`, whose handlers would not be called.
        """
        _config.check(app)
        if app.extensions.setdefault(EXTENSION, self) is not self:
            raise ConfigurationError(
                f"{app.name} has an AggStream already: make one for all of its modules, and import it in each"
            )
        app.cli.add_command(group)

    def user_id(self, function: UserId) -> UserId:
        """Register the function that tells whose events somebody may see; a decorator.

        It is called without an argument while a request is answered, and returns the AGG user id of who asks, or
        None. `AGGSTREAM_USER_ID` goes before it.
        """
        self._user_id = function
        return function

    def events(self) -> Response:
        """Answer with the events of the user that the session belongs to, as Server-Sent Events, from the journal.

        A view, for `app.add_url_rule("/events", view_func=agg.events)`. `new EventSource(url)` gets the events
        that come from now on, each under its type's name (`"order_event"`), with the message of the service as
        its data; with `?after=N` those after the one whose `seq` is N. After an interruption it goes on where it
        was, by the header `Last-Event-ID`.

        The answer is 403 if the function for user ids returns None, or if there is none. Else it takes
        a worker's thread for `AGGSTREAM_EVENTS_FOR` seconds (25, below gunicorn's timeout). Then the browser asks
        again, and is looked at again. It must run on the stream's host, as a user who may read the journal.

        Raises:
            ConfigurationError: the function for user ids returns no text.
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
