"""Opens a connection: the name look-up, TCP, TLS and the WebSocket handshake, under one deadline.

This module makes the socket. `websocket-client` writes the handshake's request, and judges whether the answer
belongs to it; `head.py` reads the answer, because gateways send answers that the library does not take. This
module turns the exceptions of other libraries into exceptions of aggstream; `websocket.py` does so once the
connection is open.
"""

from __future__ import annotations

import base64
import errno
import hashlib
import os
import socket
import ssl
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

import attrs
from websocket._handshake import _get_handshake_headers, _validate
from websocket._url import parse_url

from aggstream._base.backoff import retry_after
from aggstream._base.deadline import Deadline
from aggstream._base.fork_and_exit import close_everywhere
from aggstream._base.limits import Limits
from aggstream._base.resources import why_no_descriptors
from aggstream._base.secret import Secret
from aggstream._network.head import SWITCHING_PROTOCOLS, Head, HeadError, HeadTooLarge, read_head
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
    421: ": the server does not answer for the host of url",
}
# RFC 6455, 4.2.2: what the server appends to the key before it makes the hash.
_ACCEPT_SUFFIX = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_NOT_ASKED_FOR = {"sec-websocket-extensions": "an extension", "sec-websocket-protocol": "a subprotocol"}


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


def _closed_words(sock: socket.socket) -> str:
    said = "the server closed it during the handshake"
    # Many servers that speak TLS answer what is not TLS with silence.
    return said if isinstance(sock, ssl.SSLSocket) else f"{said}: if it speaks TLS at this port, is it wss://?"


class _HandshakeSocket(_WaitingSocket):
    """The socket of the handshake.

    It reads large pieces, because the answer is read byte by byte. The bytes after the answer are left over: they
    belong to the first frames.
    """

    def __init__(self, sock: socket.socket, largest: int, deadline: Deadline, wait: WaitFunction) -> None:
        super().__init__(sock, deadline, wait)
        self._largest = largest
        self._chunk = b""
        self._at = 0

    def read_head(self) -> Head:
        """Return the head of the server's answer.

        Raises:
            HeadError: the answer has no usable head.
            OSError: the connection broke, or the deadline passed.
        """
        try:
            return read_head(self.recv, self._largest)
        except HeadTooLarge:
            raise HeadError(f"the answer is larger than limits.handshake_size ({self._largest})") from None

    def recv(self, size: int) -> bytes:
        if self._at == len(self._chunk):
            self._chunk, self._at = super().recv(READ_SIZE), 0
            if not self._chunk:
                raise ConnectionResetError(errno.ECONNRESET, _closed_words(self._sock))
        data = self._chunk[self._at : self._at + size]
        self._at += len(data)
        return data

    def leftover(self) -> bytes:
        return self._chunk[self._at :]


def _open_websocket(sock: _HandshakeSocket, url: Secret, origin: str, headers: Mapping[str, Secret]) -> bytes:
    failure = _shake_hands(sock, url, origin, headers)
    if failure is not None:
        # The error is raised here, because the frames of `_shake_hands` hold the URL and all headers.
        raise failure
    return sock.leftover()


def _shake_hands(
    sock: _HandshakeSocket, url: Secret, origin: str, headers: Mapping[str, Secret]
) -> ConnectFailed | None:
    host, port, resource, is_secure = parse_url(url.reveal())
    options = {
        "host": _host_header(host, port, is_secure=is_secure),
        "origin": origin,
        "header": {name: value.reveal() for name, value in headers.items()},
    }
    # The library has one cookie jar for the whole process, and other users of the library have cookies in it. Here
    # it reads the jar for the host that it is given, and does not read it if the host is empty. It writes the jar
    # in `handshake_response`, which is not used.
    lines, key = _get_handshake_headers(resource, url.reveal(), "", port, options)
    try:
        sock.sendall("\r\n".join(lines).encode())
        head = sock.read_head()
    except OSError as error:
        return ConnectFailed(f"the WebSocket handshake failed: {words(error)}")
    except HeadError as error:
        return ConnectFailed(f"the WebSocket handshake failed: {error}")
    if head.status != SWITCHING_PROTOCOLS:  # a redirect is not followed, because the token would go with it
        return _rejected(head)
    problem = _problem_of(head, key)
    return None if problem is None else ConnectFailed(f"the WebSocket handshake failed: {problem}")


def _host_header(host: str, port: int, *, is_secure: bool) -> str:
    name = f"[{host}]" if ":" in host else host
    return name if port == (443 if is_secure else 80) else f"{name}:{port}"


def _rejected(head: Head) -> HandshakeRejected:
    return HandshakeRejected(
        f"the server answered the WebSocket handshake with HTTP status {head.status}{_HINTS.get(head.status, '')}",
        status=head.status,
        retry_after=retry_after(head.first("retry-after")),
    )


def _problem_of(head: Head, key: str) -> str | None:
    """Return what is wrong with an answer of status 101; None if the connection is open."""
    headers = head.joined()
    is_valid, _ = _validate(headers, key, None)
    # The library compares this header without regard to case, which Base64 does not allow.
    accept = base64.b64encode(hashlib.sha1(f"{key}{_ACCEPT_SUFFIX}".encode()).digest()).decode()  # noqa: S324
    if not is_valid or headers.get("sec-websocket-accept") != accept:
        return "the answer's Upgrade, Connection or Sec-WebSocket-Accept is missing or wrong"
    for name, what in _NOT_ASKED_FOR.items():
        if headers.get(name):
            return f"the server chose {what} that was not asked for"
    return None


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
