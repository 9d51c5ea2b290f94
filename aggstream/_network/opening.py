"""Opening a connection: the name look-up, TCP, TLS and the WebSocket handshake, under one deadline.

`websocket-client` does the handshake, on a socket that is made here. Foreign exceptions become ours here, and in
`websocket.py` once the connection stands.
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
    """The way through a proxy to a host."""

    proxy: Proxy
    hosts: Sequence[str]
    """The host's name, or its addresses, which are tried in order."""
    port: int


class Waiter(Protocol):
    """Waits for a socket while connecting, by the owner's `select`, so that it can be interrupted."""

    def __call__(self, sock: socket.socket, *, write: bool, deadline: Deadline) -> None:
        """Return once the socket is ready.

        Raises:
            TimeoutError: the deadline passed.
            BaseException: whatever the owner uses to stop; it passes through.
        """
        ...


SocketMade: TypeAlias = "Callable[[socket.socket], object]"


def is_traced() -> bool:
    """Return True if websocket-client prints request lines, and with them the token if the URL holds it."""
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
    wait: Waiter,
    made: SocketMade,
) -> Transport:
    """Open a connection: TCP, TLS and the WebSocket handshake under one deadline.

    Args:
        url: where to connect to; may hold the token, so it is in no error and in no frame of one.
        addresses: where the host is, or the proxy, tried in order.
        host: the name that the server's certificate must carry.
        route: by which proxy to what; None for none.
        ssl_context: for TLS; None for none.
        origin: the `Origin` header.
        headers: further headers.
        limits: how much the server may ask of this side, now and later.
        deadline: the end of all of it.
        wait: waits for the socket.
        made: called with each socket as soon as there is one, and with what takes its place.

    Raises:
        HandshakeRejected: the server answered with another status than 101.
        ProxyRejected: the proxy does not let us through.
        ConnectFailed: anything else.
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
    route: Route, addresses: Sequence[Address], largest: int, deadline: Deadline, wait: Waiter, made: SocketMade
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
    assert problem is not None  # a name that has no address is not looked up
    raise problem


def _share(deadline: Deadline, parts: int) -> Deadline:
    """Return a deadline that leaves time for the other addresses: one that swallows packets must not take all."""
    remaining = deadline.remaining()
    return Deadline(None if remaining is None else remaining / parts)


def _connect_tcp(
    addresses: Sequence[Address], peer: str, deadline: Deadline, wait: Waiter, made: SocketMade
) -> socket.socket:
    problem: BaseException | None = None
    for tried, (family, kind, proto, _, address) in enumerate(addresses):
        share = _share(deadline, len(addresses) - tried)
        sock = socket.socket(family, kind, proto)
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
    sock: socket.socket, context: ssl.SSLContext, host: str, deadline: Deadline, wait: Waiter, made: SocketMade
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
        raise ConnectFailed(f"no TLS connection: {words(error)}") from error
    except BaseException:
        _close(tls)
        raise


def _close(tls: ssl.SSLSocket | None) -> None:
    if tls is not None:
        close_everywhere(tls)


class _WaitingSocket:
    """A socket for code that expects one that blocks: it waits as its owner does, and under one deadline."""

    def __init__(self, sock: socket.socket, deadline: Deadline, wait: Waiter) -> None:
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

    It holds a limit over all of it, which the library has not, and reads in large pieces where the library reads
    byte by byte; what it read too much is left over for the frames.
    """

    def __init__(self, sock: socket.socket, largest: int, deadline: Deadline, wait: Waiter) -> None:
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
    # The library has one cookie jar for the whole process: another user's cookies must not go out on this
    # connection, nor may this one's stay behind.
    CookieJar.jar.clear()
    library = websocket.WebSocket(enable_multithread=False)
    failure: ConnectFailed | None = None
    try:
        library.connect(  # type: ignore[no-untyped-call]  # the library leaves it without annotations
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
        # Raised out here because the library's frames hold the URL, and its error all headers.
        raise failure
    return sock.leftover()


def _handshake_failure(error: Exception, library: websocket.WebSocket) -> ConnectFailed:
    if isinstance(error, WebSocketBadStatusException) and error.status_code:
        status, headers = error.status_code, error.resp_headers or {}
    elif library.handshake_response is not None:  # a redirect: it is not followed, the token would go with it
        status, headers = library.handshake_response.status, library.handshake_response.headers
    else:
        return ConnectFailed(f"the WebSocket handshake failed: {_in_own_words(error)}")
    return HandshakeRejected(
        f"the server answered the WebSocket handshake with HTTP status {int(status)}{_HINTS.get(int(status), '')}",
        status=int(status),
        retry_after=retry_after(headers.get("retry-after")),
    )


def _in_own_words(error: Exception) -> str:
    """Return the library's words without the server's, which may repeat the request."""
    if isinstance(error, (OSError, WebSocketTimeoutException)):
        return words(error)
    if isinstance(error, WebSocketBadStatusException):  # it quotes the whole answer
        return "the answer has no HTTP status that makes sense"
    return str(error).partition(":")[0] if isinstance(error, WebSocketException) else type(error).__name__


ResolveFunction: TypeAlias = "Callable[[], Sequence[Address]]"


def resolver(host: str, port: int, what: str) -> ResolveFunction:
    """Return a function that looks the host up; it blocks, and cannot be interrupted.

    The function raises ConnectFailed if the name has no address; `what` says which name it is.
    """

    def resolve() -> Sequence[Address]:
        try:
            return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise ConnectFailed(f"{what} {host} cannot be looked up: {words(error)}") from error

    return resolve
