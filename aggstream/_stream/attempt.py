"""One attempt after the other to connect: first a token, then an open connection. Nothing here blocks."""

from __future__ import annotations

from collections.abc import Callable

from aggstream._base.blocking_calls import CallNotMade, CallQueue, Job
from aggstream._base.resources import remedy_for, why_no_descriptors
from aggstream._network.websocket import Transport
from aggstream._stream.connector import Connector, Opening
from aggstream._stream.options import Options
from aggstream.errors import AggStreamError, AuthenticationRejected, ConnectFailed, HandshakeRejected
from aggstream.tokens._credentials import Credentials
from aggstream.tokens._token import Token

_UNAUTHORIZED = 401
# An opening ends by its own deadline, but for what cannot be interrupted. So many seconds later it is given up.
_SLACK = 5.0


class Attempt:
    """Has a token asked for, and a connection opened, on threads of the lanes. It belongs to the I/O thread."""

    def __init__(
        self, options: Options, credentials: Credentials, connector: Connector, openings: CallQueue
    ) -> None:
        """Begin nothing yet.

        Args:
            options: the client's.
            credentials: get the tokens.
            connector: knows how to connect.
            openings: makes the calls that open a connection.
        """
        self._options = options
        self._credentials = credentials
        self._connector = connector
        self._openings = openings
        self._token: Token | None = None
        self._opening: Opening | None = None
        self._job: Job[Transport] | None = None

    def begin(self) -> None:
        """Ask for a token."""
        self._credentials.request_first()

    def opened(
        self, *, insists: bool, may_open: Callable[[], bool] = lambda: True
    ) -> tuple[Transport, Token] | None:
        """Return the open connection, and the token for it; None if there is something to wait for.

        Args:
            insists: see `Credentials.first_token`.
            may_open: returns True if a connection may be opened now. Else the caller calls this method again when
                it may.

        Raises:
            AggStreamError: there is no token, or no connection came about.
        """
        if self._job is None:
            if self._token is None:
                self._token = self._credentials.first_token(insists=insists)
            if self._token is None or not may_open():
                return None
            self._opening = Opening(self._connector, self._token.secret)
            self._job = self._openings.submit(self._opening.run)
        assert self._opening is not None
        assert self._token is not None
        transport = self._transport(self._job, self._opening, self._token)
        if transport is None:
            return None
        token, self._token = self._token, None
        self._opening = self._job = None
        return transport, token

    def next_deadline(self) -> float | None:
        """Return when `opened` is to be called at the latest, in monotonic seconds; None if nothing goes on."""
        job, timeout = self._job, self._options.connect_timeout
        if job is None:
            return self._credentials.next_deadline()
        return job.deadline(timeout + _SLACK if job.check(timeout) else timeout)

    def give_up(self) -> None:
        """Wait neither for a token nor for a connection any more."""
        self._credentials.cancel()
        opening, self._opening = self._opening, None
        job, self._job = self._job, None
        self._token = None
        if opening is not None and job is not None:
            opening.cancel()
            job.leave()

    def after_fork_in_child(self) -> None:
        """Close the child's descriptors of a connection that the parent is opening."""
        if (opening := self._opening) is not None:
            opening.after_fork_in_child()

    def _transport(self, job: Job[Transport], opening: Opening, token: Token) -> Transport | None:
        if not job.done:
            timeout = self._options.connect_timeout
            if job.check(timeout if opening.looks_up else timeout + _SLACK):
                self.give_up()
                raise ConnectFailed(_too_late(opening))
            return None
        try:
            return job.result()
        except HandshakeRejected as error:
            if self._options.session.token_in_query and error.status == _UNAUTHORIZED:
                raise self._credentials.judge(AuthenticationRejected(str(error)), token) from error
            raise
        except CallNotMade as error:
            raise ConnectFailed(f"no connection was opened: {error}") from None
        except (ImportError, LookupError, MemoryError, OSError) as error:
            # Modules, codecs and sockets are made of what the system may refuse. That passes.
            why = remedy_for(error) or why_no_descriptors()
            if why is None or isinstance(error, AggStreamError):
                raise
            raise ConnectFailed(f"no connection: {why}") from error


def _too_late(opening: Opening) -> str:
    if opening.looks_up is None:
        return "it took longer than connect_timeout"
    return f"{opening.looks_up} was not looked up within connect_timeout: the call did not return in time"
