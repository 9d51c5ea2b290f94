"""From the options to an open connection: which addresses, by which proxy, over which TLS."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Sequence
from urllib.parse import urlsplit

from aggstream._base.blocking_calls import Abandoned, CallNotMade, Lane
from aggstream._base.deadline import Deadline
from aggstream._base.resources import why_no_descriptors
from aggstream._base.secret import Secret
from aggstream._network.opening import Address, Route, connect, resolver
from aggstream._network.waiter import Waiter
from aggstream._network.websocket import Transport, words
from aggstream._stream.options import Options
from aggstream.errors import ConnectFailed, HandshakeRejected

_BAD_REQUEST = 400
# A gateway that does not know the app, or does not allow the origin, answers with one of these.
_ABOUT_APP = frozenset({400, 401, 403})


class Connector:
    """Belongs to the I/O thread."""

    def __init__(self, options: Options, look_ups: Lane) -> None:
        self.made: socket.socket | None = None
        """The socket that was made last, for a forked child to close."""
        self._options = options
        self._look_ups = look_ups
        self._ssl_context = options.ssl_context

    def connect(self, token: Secret, waiter: Waiter) -> Transport:
        """Open a connection within `connect_timeout`.

        Args:
            token: goes into the URL, if that was asked for.
            waiter: how the I/O thread waits, so that it can be interrupted.

        Raises:
            ConnectFailed: no connection came about.
            BaseException: what interrupted the waiter.
        """
        deadline = Deadline(self._options.connect_timeout)
        parts = urlsplit(self._options.url)
        host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "wss" else 80)
        proxy, route = self._options.route, None
        if proxy is None:
            addresses = self._resolve(host, port, deadline, waiter)
        else:
            hosts = [host]
            if not proxy.looks_up_names:
                hosts = [str(address[0]) for *_, address in self._resolve(host, port, deadline, waiter)]
            route = Route(proxy, hosts, port)
            addresses = self._resolve(proxy.host, proxy.port, deadline, waiter, "the proxy's host name")
        try:
            return self._connect(token, addresses, host, route, deadline, waiter)
        except HandshakeRejected as error:
            refusal = error
        raise self._with_remedy(refusal, parts.scheme)

    def _connect(
        self,
        token: Secret,
        addresses: Sequence[Address],
        host: str,
        route: Route | None,
        deadline: Deadline,
        waiter: Waiter,
    ) -> Transport:
        return connect(
            self._options.connect_url(token),
            addresses=addresses,
            host=host,
            route=route,
            ssl_context=self._tls() if urlsplit(self._options.url).scheme == "wss" else None,
            origin=self._options.origin,
            headers=self._options.headers,
            limits=self._options.session.limits,
            deadline=deadline,
            wait=waiter.socket,
            made=self._remember,
        )

    def _with_remedy(self, error: HandshakeRejected, scheme: str) -> HandshakeRejected:
        """Return the error with what was sent, if the server may have refused that."""
        said = str(error)
        if error.status in _ABOUT_APP:
            said += f"; sent were app_id {self._options.app_id!a} and origin {self._options.origin!a}"
        if error.status == _BAD_REQUEST and scheme == "ws":
            said += "; if the server speaks TLS at this port, it is wss://"
        return HandshakeRejected(said, status=error.status, retry_after=error.retry_after)

    def _remember(self, sock: socket.socket) -> None:
        self.made = sock

    def _resolve(
        self, host: str, port: int, deadline: Deadline, waiter: Waiter, what: str = "the host name"
    ) -> Sequence[Address]:
        try:
            return waiter.job(self._look_ups.submit(resolver(host, port, what)), deadline)
        except Abandoned as error:
            raise ConnectFailed(f"{what} was not looked up within connect_timeout: {error}") from None
        except CallNotMade as error:
            raise ConnectFailed(f"{what} was not looked up: {error}") from None

    def _tls(self) -> ssl.SSLContext:
        if self._ssl_context is None:  # it takes a while to load the system's authorities
            try:
                context = ssl.create_default_context()
            except OSError as error:  # ssl.SSLError is one
                said = f"the system's certificate authorities cannot be loaded: {words(error)}"
                raise ConnectFailed(said) from error
            # One that is made while descriptors are short silently holds no authorities, and must not be kept.
            why = why_no_descriptors()
            file = ssl.get_default_verify_paths().cafile
            if why is None and file is not None and not context.cert_store_stats()["x509_ca"]:
                why = f"{file} holds none"
            if why is not None:
                raise ConnectFailed(f"the system's certificate authorities cannot be loaded: {why}")
            self._ssl_context = context
        return self._ssl_context
