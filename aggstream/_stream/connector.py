"""From the options to an open connection: which addresses, by which proxy, over which TLS."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Sequence
from urllib.parse import urlsplit

from aggstream._base.blocking_calls import Interrupted
from aggstream._base.deadline import Deadline
from aggstream._base.fork_and_exit import close_here
from aggstream._base.resources import why_no_descriptors
from aggstream._base.secret import Secret
from aggstream._network.opening import Address, Route, connect, resolver
from aggstream._network.socket_wait import SocketWait
from aggstream._network.websocket import Transport, words
from aggstream._stream.options import Options
from aggstream.errors import ConnectFailed, HandshakeRejected

_BAD_REQUEST = 400
# A gateway that does not know the app, or does not allow the origin, answers with one of these.
_ABOUT_APP = frozenset({400, 401, 403})


class Connector:
    """Knows how to connect. All streams with the same options share one, because a TLS context is large."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self._ssl_context = options.ssl_context

    def tls(self) -> ssl.SSLContext:
        """Return the TLS settings. The first call takes a while: it loads the system's authorities.

        Raises:
            ConnectFailed: the authorities cannot be loaded.
        """
        if self._ssl_context is None:
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


class Opening:
    """One connection that is being opened. `run` blocks; all else is for the I/O thread and does not."""

    def __init__(self, connector: Connector, token: Secret) -> None:
        """Begin nothing yet.

        Args:
            connector: knows how to connect.
            token: goes into the URL, if that was asked for.
        """
        self.looks_up: str | None = None
        """The name that a look-up goes on for, in words. A look-up cannot be interrupted. None: none goes on."""
        self._connector = connector
        self._options = connector.options
        self._token = token
        self._made: socket.socket | None = None
        # Guards the three below: a connection that comes about when nobody wants it any more must be closed.
        self._lock = threading.Lock()
        self._wait: SocketWait | None = None
        self._transport: Transport | None = None
        self._is_cancelled = False

    def cancel(self) -> None:
        """Give the opening up: what has come about is closed, and `run` ends soon."""
        with self._lock:
            self._is_cancelled = True
            if self._wait is not None:
                self._wait.interrupt()
            if self._transport is not None:
                self._transport.abort()

    def after_fork_in_child(self) -> None:
        """Close the child's descriptors of the parent's connection."""
        if (wait := self._wait) is not None:
            wait.close()
        if (sock := self._made) is not None:
            close_here(sock)

    # --- on a thread of the lane ------------------------------------------------------------------------

    def run(self) -> Transport:
        """Open the connection within `connect_timeout`.

        Raises:
            ConnectFailed: no connection came about.
            OSError: there are no descriptors left to wait with.
            Interrupted: `cancel` was called.
        """
        wait = SocketWait()
        try:
            with self._lock:
                self._wait = wait
                if self._is_cancelled:
                    wait.interrupt()
            transport = self._open(wait)
            self._keep(transport)
            return transport
        finally:
            with self._lock:
                self._wait = None
            wait.close()

    def _keep(self, transport: Transport) -> None:
        """Keep the open connection until the stream takes it; close it if nobody wants it any more."""
        with self._lock:
            self._transport = transport
            if self._is_cancelled:
                transport.abort()

    def _open(self, wait: SocketWait) -> Transport:
        deadline = Deadline(self._options.connect_timeout)
        parts = urlsplit(self._options.url)
        host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "wss" else 80)
        proxy, route = self._options.route, None
        if proxy is None:
            addresses = self._resolve(host, port, wait)
        else:
            hosts = [host]
            if not proxy.looks_up_names:
                hosts = [str(address[0]) for *_, address in self._resolve(host, port, wait)]
            route = Route(proxy, hosts, port)
            addresses = self._resolve(proxy.host, proxy.port, wait, "the proxy's host name")
        try:
            return self._connect(addresses, host, route, deadline, wait)
        except HandshakeRejected as error:
            refusal = error
        raise self._with_remedy(refusal, parts.scheme)

    def _connect(
        self, addresses: Sequence[Address], host: str, route: Route | None, deadline: Deadline, wait: SocketWait
    ) -> Transport:
        return connect(
            self._options.connect_url(self._token),
            addresses=addresses,
            host=host,
            route=route,
            ssl_context=self._connector.tls() if urlsplit(self._options.url).scheme == "wss" else None,
            origin=self._options.origin,
            headers=self._options.headers,
            limits=self._options.session.limits,
            deadline=deadline,
            wait=wait.wait,
            made=self._remember,
        )

    def _resolve(self, host: str, port: int, wait: SocketWait, what: str = "the host name") -> Sequence[Address]:
        self.looks_up = what
        addresses = resolver(host, port, what)()
        self.looks_up = None
        if wait.is_interrupted:  # meanwhile; no socket is made for nothing
            raise Interrupted
        return addresses

    def _remember(self, sock: socket.socket) -> None:
        self._made = sock

    def _with_remedy(self, error: HandshakeRejected, scheme: str) -> HandshakeRejected:
        """Return the error with what was sent, if the server may have refused that."""
        said = str(error)
        if error.status in _ABOUT_APP:
            said += f"; sent were app_id {self._options.app_id!a} and origin {self._options.origin!a}"
        if error.status == _BAD_REQUEST and scheme == "ws":
            said += "; if the server speaks TLS at this port, it is wss://"
        return HandshakeRejected(said, status=error.status, retry_after=error.retry_after)
