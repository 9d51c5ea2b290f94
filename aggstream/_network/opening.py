"""Opens a connection: the name look-up, TCP, TLS and the WebSocket handshake, under one deadline.

This module makes the socket, and `websocket-client` does the handshake on it. This module turns the exceptions of
other libraries into exceptions of aggstream; `websocket.py` does so once the connection is open.
"""

from __future__ import annotations

import errno
import os
import socket
import ssl
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

import attrs
import websocket
from websocket import WebSocketBadStatusException, WebSocketException, WebSocketTimeoutException
from websocket._handshake import CookieJar

from aggstream._base.backoff import retry_after
from aggstream._base.deadline import Deadline
from aggstream._base.fork_and_exit import close_everywhere
from aggstream._base.limits import Limits
from aggstream._base.resources import why_no_descriptors
from aggstream._base.secret import Secret
from aggstream._network.proxy import Proxy
from aggstream._network.tunnel import open_tunnel
from aggstream._network.websocket import READ_SIZE, Transport, words
from aggstream.errors import ConnectFailed, HandshakeRejected, ProxyRejected

Address: TypeAlias = "tuple[Any, ...]"
"""One row of `socket.getaddrinfo`."""

_HINTS = {
    400: ": look at app_id",
    401: ": look at app_id, and at the token if it is in the query",
    403: ": look at app_id, and whether origin is one of the app's allowed origins",
    404: ": look at the path of url",
}


@attrs.frozen
class Route:
    """The route to a host through a proxy."""

    proxy: Proxy
    hosts: Sequence[str]
    """The host's name alone, or the host's IP addresses in the order in which to try them."""
    port: int


class WaitFunction(Protocol):
    """Waits for a socket while a connection is opened. The owner of the socket can interrupt the waiting."""

    def __call__(self, sock: socket.socket, *, write: bool, deadline: Deadline) -> None:
        """Return once the socket is ready.

        Raises:
            TimeoutError: the deadline passed.
            BaseException: the owner interrupts the waiting; the code here does not catch the exception.
        """
        ...


OnSocket: TypeAlias = "Callable[[socket.socket], object]"


def is_traced() -> bool:
    """Return True if websocket-client prints its requests. A request holds the token if the URL does."""
    return bool(websocket.isEnabledForTrace())


def connect(
    url: Secret,
    *,
    addresses: Sequence[Address],
    host: str,
    route: Route | None,
    ssl_context: ssl.SSLContext | None,
    origin: str,
    headers: Mapping[str, Secret],
    limits: Limits,
    deadline: Deadline,
    wait: WaitFunction,
    made: OnSocket,
) -> Transport:
    """Open a connection: TCP, TLS and the WebSocket handshake under one deadline.

    Args:
        url: the URL to connect to. It may hold the token, so no error and no traceback shows it.
        addresses: the addresses of the host, or of the proxy, in the order in which to try them.
        host: the host name that the server's certificate must hold.
        route: the route through a proxy; None: connect directly.
        ssl_context: the TLS settings; None: connect without TLS.
        origin: the value of the header `Origin`.
        headers: further headers.
        limits: the largest sizes that this side accepts from the server, now and later.
        deadline: the time by which the connection must be open.
        wait: waits for the socket.
        made: called with each new socket as soon as it exists, and with the TLS socket that replaces it.

    Raises:
        HandshakeRejected: the server answered with another HTTP status than 101.
        ProxyRejected: the proxy refuses to connect to the host.
        ConnectFailed: the connection could not be opened for another reason.
    """
    if route is None:
        sock = _connect_tcp(addresses, _peer(host, addresses), deadline, wait, made)
    else:
        sock = _connect_through(route, addresses, limits.handshake_size, deadline, wait, made)
    try:
        if ssl_context is not None:
            sock = _start_tls(sock, ssl_context, host, deadline, wait, made)
        handshake = _HandshakeSocket(sock, limits.handshake_size, deadline, wait)
        leftover = _open_websocket(handshake, url, origin, headers)
    except BaseException:
        close_everywhere(sock)
        raise
    return Transport(sock, leftover, limits)


def _peer(host: str, addresses: Sequence[Address]) -> str:
    name = f"[{host}]" if ":" in host else host
    return f"{name}:{addresses[0][4][1]}" if addresses else name


def _connect_through(
    route: Route,
    addresses: Sequence[Address],
    largest: int,
    deadline: Deadline,
    wait: WaitFunction,
    made: OnSocket,
) -> socket.socket:
    peer = f"the proxy {_peer(route.proxy.host, addresses)}"
    problem: ConnectFailed | None = None
    for tried, host in enumerate(route.hosts):
        share = _share(deadline, len(route.hosts) - tried)
        sock = _connect_tcp(addresses, peer, share, wait, made)
        try:
            open_tunnel(_WaitingSocket(sock, share, wait), route.proxy, host, route.port, largest=largest)
        except ConnectFailed as error:
            close_everywhere(sock)
            problem = error
            if isinstance(error, ProxyRejected) and error.final:
                break
        except BaseException:
            close_everywhere(sock)
            raise
        else:
            return sock
    assert problem is not None  # a host name without an address fails in the look-up
    raise problem


def _share(deadline: Deadline, parts: int) -> Deadline:
    """Return a deadline that leaves time for the other addresses, because one address may never answer."""
    remaining = deadline.remaining()
    return Deadline(None if remaining is None else remaining / parts)


def _connect_tcp(
    addresses: Sequence[Address], peer: str, deadline: Deadline, wait: WaitFunction, made: OnSocket
) -> socket.socket:
    problem: BaseException | None = None
    for tried, (family, kind, proto, _, address) in enumerate(addresses):
        share = _share(deadline, len(addresses) - tried)
        try:
            sock = socket.socket(family, kind, proto)
        except OSError as error:  # there may be another family of addresses
            problem = error
            continue
        made(sock)
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            code = sock.connect_ex(address)
            if code in (errno.EINPROGRESS, errno.EWOULDBLOCK):
                wait(sock, write=True, deadline=share)
                code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            _check(code)
        except OSError as error:  # TimeoutError is one
            close_everywhere(sock)
            problem = error
        except BaseException:
            close_everywhere(sock)
            raise
        else:
            return sock
    raise ConnectFailed(f"no TCP connection to {peer}: {words(problem)}") from problem


def _check(code: int) -> None:
    if code:
        raise OSError(code, os.strerror(code))


def _start_tls(
    sock: socket.socket, context: ssl.SSLContext, host: str, deadline: Deadline, wait: WaitFunction, made: OnSocket
) -> ssl.SSLSocket:
    tls: ssl.SSLSocket | None = None
    try:
        tls = context.wrap_socket(sock, server_hostname=host, do_handshake_on_connect=False)
        made(tls)
        while True:
            try:
                tls.do_handshake()
            except ssl.SSLWantReadError:
                wait(tls, write=False, deadline=deadline)
            except ssl.SSLWantWriteError:
                wait(tls, write=True, deadline=deadline)
            else:
                return tls
    except (OSError, ValueError) as error:  # ssl.SSLError and TimeoutError are OSErrors
        _close(tls)
        # Authorities are read from their directory when a certificate is checked.
        is_certificate = isinstance(error, ssl.SSLCertVerificationError)
        if is_certificate and (why := why_no_descriptors()) is not None:
            raise ConnectFailed(f"no TLS connection: the certificate cannot be checked: {why}") from None
        raise ConnectFailed(f"no TLS connection: {words(error)}") from error
    except BaseException:
        _close(tls)
        raise


def _close(tls: ssl.SSLSocket | None) -> None:
    if tls is not None:
        close_everywhere(tls)


class _WaitingSocket:
    """Acts as a blocking socket for a library. It waits with the owner's wait function, until one deadline."""

    def __init__(self, sock: socket.socket, deadline: Deadline, wait: WaitFunction) -> None:
        self._sock = sock
        self._deadline = deadline
        self._wait = wait

    def recv(self, size: int) -> bytes:
        while True:
            try:
                return self._sock.recv(size)
            except (BlockingIOError, ssl.SSLWantReadError):
                self._wait(self._sock, write=False, deadline=self._deadline)

    def send(self, data: bytes) -> int:
        while True:
            try:
                return self._sock.send(data)
            except (BlockingIOError, ssl.SSLWantWriteError):
                self._wait(self._sock, write=True, deadline=self._deadline)

    def sendall(self, data: bytes) -> None:
        while data:
            data = data[self.send(data) :]

    def close(self) -> None:
        """Do nothing: the owner of the socket closes it."""


class _HandshakeSocket(_WaitingSocket):
    """The socket that websocket-client gets during the handshake.

    It limits the size of the server's answer, which the library does not do. It reads large pieces, because the
    library reads byte by byte. The bytes after the answer are left over: they belong to the first frames.
    """

    def __init__(self, sock: socket.socket, largest: int, deadline: Deadline, wait: WaitFunction) -> None:
        super().__init__(sock, deadline, wait)
        self._largest = largest
        self._taken = 0
        self._buffer = bytearray()

    def gettimeout(self) -> float:
        return 0.0  # with this answer the library calls recv and send directly

    def recv(self, size: int) -> bytes:
        if not self._buffer:
            chunk = super().recv(READ_SIZE)
            if not chunk:
                raise ConnectionResetError(errno.ECONNRESET, "the server closed it during the handshake")
            self._buffer += chunk
        data = bytes(self._buffer[:size])
        self._taken += len(data)
        if self._taken > self._largest:
            raise WebSocketException(f"the answer is larger than limits.handshake_size ({self._largest})")
        del self._buffer[:size]
        return data

    def leftover(self) -> bytes:
        return bytes(self._buffer)


def _open_websocket(sock: _HandshakeSocket, url: Secret, origin: str, headers: Mapping[str, Secret]) -> bytes:
    # The library has one cookie jar for the whole process. This connection must not send another user's cookies,
    # and must not leave its own cookies in the jar.
    CookieJar.jar.clear()
    library = websocket.WebSocket(enable_multithread=False)
    failure: ConnectFailed | None = None
    try:
        library.connect(  # type: ignore[no-untyped-call]  # the library has no annotations here
            url.reveal(),
            socket=sock,
            origin=origin,
            header={name: value.reveal() for name, value in headers.items()},
            redirect_limit=0,
        )
    except Exception as error:  # the library lets TypeError and CookieError escape as well
        failure = _handshake_failure(error, library)
    finally:
        CookieJar.jar.clear()
    if failure is not None:
        # The error is raised here, because the library's frames hold the URL, and its error holds all headers.
        raise failure
    return sock.leftover()


def _handshake_failure(error: Exception, library: websocket.WebSocket) -> ConnectFailed:
    if isinstance(error, WebSocketBadStatusException) and error.status_code:
        status, headers = error.status_code, error.resp_headers or {}
    elif library.handshake_response is not None:
        # It is a redirect. It is not followed, because the token would go with it.
        status, headers = library.handshake_response.status, library.handshake_response.headers
    else:
        return ConnectFailed(f"the WebSocket handshake failed: {_library_text(error)}")
    return HandshakeRejected(
        f"the server answered the WebSocket handshake with HTTP status {int(status)}{_HINTS.get(int(status), '')}",
        status=int(status),
        retry_after=retry_after(headers.get("retry-after")),
    )


def _library_text(error: Exception) -> str:
    """Return the library's text without the server's text, which may repeat the request."""
    if isinstance(error, (OSError, WebSocketTimeoutException)):
        return words(error)
    if isinstance(error, WebSocketBadStatusException):  # its text holds the whole answer
        return "the answer has no HTTP status that makes sense"
    return str(error).partition(":")[0] if isinstance(error, WebSocketException) else type(error).__name__


ResolveFunction: TypeAlias = "Callable[[], Sequence[Address]]"


def resolver(host: str, port: int, what: str) -> ResolveFunction:
    """Return a function that looks up the addresses of a host. The function blocks, and cannot be interrupted.

    The function raises ConnectFailed if the host name has no address. `what` says in the error what the name is.
    """

    def resolve() -> Sequence[Address]:
        try:
            return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise ConnectFailed(f"{what} {host} cannot be looked up: {words(error)}") from error

    return resolve
