"""The WebSocket connection: the only module that speaks to `websocket-client`.

The library does the opening handshake and the frames. The socket is made here and never blocks, so that one
thread can wait for it, for a wake-up and for a deadline at once; a `Transport` belongs to that thread. Foreign
exceptions become ours here and nowhere else.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeAlias, cast

import attrs
import websocket
from websocket import (
    ABNF,
    WebSocketBadStatusException,
    WebSocketException,
    WebSocketProtocolException,
    WebSocketTimeoutException,
)
from websocket._handshake import CookieJar

from aggstream._backoff import retry_after
from aggstream._deadline import Deadline
from aggstream._frames import LimitedContinuation, LimitedFrameBuffer, MessageTooBig
from aggstream.errors import (
    ConnectFailed,
    ConnectionLost,
    HandshakeRejected,
    RemoteProtocolError,
    TransportError,
)
from aggstream.events import shown

logger = logging.getLogger("aggstream")

Address: TypeAlias = "tuple[Any, ...]"
"""One row of `socket.getaddrinfo`."""

_READ_SIZE = 65536
# So many messages are taken before the owner may look at its other duties.
_BATCH = 256
_LARGEST_HANDSHAKE = 65536
# Pongs pile up if the peer pings and does not read; past this it is not worth a connection.
_LARGEST_BACKLOG = 1 << 20
_LONGEST_CONTROL_FRAME = 125
_CONTROL_FRAMES = (ABNF.OPCODE_CLOSE, ABNF.OPCODE_PING, ABNF.OPCODE_PONG)


class Waiter(Protocol):
    """How connecting waits: the owner's `select`, so that it can be interrupted."""

    def __call__(self, sock: socket.socket, *, write: bool, deadline: Deadline) -> None:
        """Return once the socket is ready.

        Raises:
            TimeoutError: the deadline passed.
            BaseException: whatever the owner uses to stop; it passes through.
        """
        ...


@attrs.frozen
class Text:
    """A text message."""

    text: str = attrs.field(repr=False)


@attrs.frozen
class Binary:
    """A binary message; the service has none."""

    data: bytes = attrs.field(repr=False)


@attrs.frozen
class ControlFrame:
    """A ping or a pong; a ping is already answered."""


@attrs.frozen
class PeerClosed:
    """The peer's close frame; it is already answered, and nothing follows."""

    code: int
    reason: str = attrs.field(repr=shown)


Message: TypeAlias = "Text | Binary | ControlFrame | PeerClosed"


class _WouldBlock(Exception):
    """The socket has nothing more for now. The parser keeps what it has of a frame."""


def connect(
    url: str,
    *,
    addresses: Sequence[Address],
    host: str,
    ssl_context: ssl.SSLContext | None,
    origin: str,
    headers: Mapping[str, str],
    max_message_size: int,
    deadline: Deadline,
    wait: Waiter,
) -> Transport:
    """Open a connection: TCP, TLS and the WebSocket handshake under one deadline.

    Args:
        url: where to connect to; may hold the token, so it is in no error.
        addresses: where the host is, tried in order.
        host: the name that the server's certificate must carry.
        ssl_context: for TLS; None for none.
        origin: the `Origin` header.
        headers: further headers.
        max_message_size: the largest message, in bytes, that is accepted later.
        deadline: the end of all of it.
        wait: waits for the socket.

    Raises:
        HandshakeRejected: the server answered with another status than 101.
        ConnectFailed: anything else.
    """
    sock = _connect_tcp(addresses, deadline, wait)
    try:
        if ssl_context is not None:
            sock = _start_tls(sock, ssl_context, host, deadline, wait)
        leftover = _open_websocket(sock, url, origin, headers, deadline, wait)
    except BaseException:
        sock.close()
        raise
    return Transport(sock, leftover, max_message_size)


def _connect_tcp(addresses: Sequence[Address], deadline: Deadline, wait: Waiter) -> socket.socket:
    problem: BaseException | None = None
    for tried, (family, kind, proto, _, address) in enumerate(addresses):
        remaining = deadline.remaining()
        # A host that swallows packets on its first address must leave time for the others.
        share = None if remaining is None else remaining / (len(addresses) - tried)
        sock = socket.socket(family, kind, proto)
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            code = sock.connect_ex(address)
            if code in (errno.EINPROGRESS, errno.EWOULDBLOCK):
                wait(sock, write=True, deadline=Deadline(share))
                code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            _check(code)
        except OSError as error:  # TimeoutError is one
            sock.close()
            problem = error
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    raise ConnectFailed(f"no TCP connection: {_words(problem)}") from problem


def _check(code: int) -> None:
    if code:
        raise OSError(code, os.strerror(code))


def _start_tls(
    sock: socket.socket, context: ssl.SSLContext, host: str, deadline: Deadline, wait: Waiter
) -> ssl.SSLSocket:
    tls = context.wrap_socket(sock, server_hostname=host, do_handshake_on_connect=False)
    try:
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
        tls.close()
        raise ConnectFailed(f"no TLS connection: {_words(error)}") from error
    except BaseException:
        tls.close()
        raise


class _HandshakeSocket:
    """What websocket-client gets for a socket during the handshake.

    It holds one deadline and one limit over all of it (the library has neither), and reads in large pieces
    where the library reads byte by byte; what it read too much is left over for the frames.
    """

    def __init__(self, sock: socket.socket, deadline: Deadline, wait: Waiter) -> None:
        self._sock = sock
        self._deadline = deadline
        self._wait = wait
        self._received = 0
        self._buffer = bytearray()

    def gettimeout(self) -> float:
        return 0.0  # with this answer the library calls recv and send directly

    def recv(self, size: int) -> bytes:
        while not self._buffer:
            try:
                chunk = self._sock.recv(_READ_SIZE)
            except (BlockingIOError, ssl.SSLWantReadError):
                self._wait(self._sock, write=False, deadline=self._deadline)
                continue
            if not chunk:
                raise ConnectionResetError(errno.ECONNRESET, "the server closed it during the handshake")
            self._received += len(chunk)
            if self._received > _LARGEST_HANDSHAKE + _READ_SIZE:
                raise WebSocketException(f"the answer is larger than {_LARGEST_HANDSHAKE} bytes")
            self._buffer += chunk
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        return data

    def send(self, data: bytes) -> int:
        while True:
            try:
                return self._sock.send(data)
            except (BlockingIOError, ssl.SSLWantWriteError):
                self._wait(self._sock, write=True, deadline=self._deadline)

    def leftover(self) -> bytes:
        return bytes(self._buffer)

    def close(self) -> None:
        """Leave it to the owner of the socket."""


def _open_websocket(
    sock: socket.socket, url: str, origin: str, headers: Mapping[str, str], deadline: Deadline, wait: Waiter
) -> bytes:
    if websocket.isEnabledForTrace():
        logger.warning("websocket.enableTrace is on: it prints the request line, and with it what the URL holds")
    # The library has one cookie jar for the whole process: another user's cookies must not go out on this
    # connection, nor may this one's stay behind.
    CookieJar.jar.clear()
    library = websocket.WebSocket(enable_multithread=False)
    wrapped = _HandshakeSocket(sock, deadline, wait)
    failure: ConnectFailed | None = None
    try:
        library.connect(  # type: ignore[no-untyped-call]  # the library leaves it without annotations
            url, socket=wrapped, origin=origin, header=dict(headers), redirect_limit=0
        )
    except (WebSocketException, OSError, ValueError) as error:
        failure = _handshake_failure(error, library)
    finally:
        CookieJar.jar.clear()
    if failure is not None:
        # Raised out here because the library's frames hold the URL, and its error all headers.
        raise failure
    return wrapped.leftover()


def _handshake_failure(error: Exception, library: websocket.WebSocket) -> ConnectFailed:
    if isinstance(error, WebSocketBadStatusException):
        status, headers = error.status_code, error.resp_headers or {}
    elif library.handshake_response is not None:  # a redirect: it is not followed, the token would go with it
        status, headers = library.handshake_response.status, library.handshake_response.headers
    else:
        return ConnectFailed(f"the WebSocket handshake failed: {_words(error)}")
    return HandshakeRejected(
        f"the server answered the WebSocket handshake with HTTP status {int(status)}",
        status=int(status),
        retry_after=retry_after(headers.get("retry-after")),
    )


def _words(error: BaseException | None) -> str:
    if error is None:
        return "the host name has no address"
    if isinstance(error, (TimeoutError, WebSocketTimeoutException)):
        return "it took longer than connect_timeout"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the server's certificate is not valid: {error.verify_message}"
    return shown(str(error) or type(error).__name__)


class Transport:
    """An open WebSocket connection. Not thread-safe: one thread owns it. Nothing of it blocks."""

    def __init__(self, sock: socket.socket, leftover: bytes, max_message_size: int) -> None:
        self._sock = sock
        self._chunk = leftover
        self._at = 0
        self._out = bytearray()
        self._read_wants_write = False
        self._more = bool(leftover)
        self._frames = LimitedFrameBuffer(self._recv, max_message_size)
        self._fragments = LimitedContinuation(max_message_size)

    def fileno(self) -> int:
        """Return the descriptor to wait on."""
        return self._sock.fileno()

    @property
    def wants_write(self) -> bool:
        """True if `flush` should be called once the socket can be written to."""
        return bool(self._out) or self._read_wants_write

    @property
    def has_buffered(self) -> bool:
        """True if `receive` has something although the socket may not be readable."""
        return self._more

    # --- in ---------------------------------------------------------------------------------------------

    def receive(self) -> Iterator[Message]:
        """Yield the messages that are there, up to a batch, without waiting.

        Raises:
            ConnectionLost: the connection is gone. What came before it has been yielded.
            RemoteProtocolError: the peer broke the protocol; a close frame is on its way to it.
        """
        self._read_wants_write = False
        self._more = True
        for _ in range(_BATCH):
            try:
                message = self._next_message()
            except _WouldBlock:
                self._more = False
                return
            except UnicodeDecodeError:
                raise self._broken(1007, "a text that is not UTF-8") from None
            except MessageTooBig as error:
                raise self._broken(1009, f"{error}, which is above max_message_size") from None
            except WebSocketProtocolException as error:
                raise self._broken(1002, shown(str(error))) from None
            except OSError as error:
                raise ConnectionLost(f"the connection broke: {_words(error)}") from error
            yield message
            if isinstance(message, PeerClosed):
                return

    def _next_message(self) -> Message:
        while True:
            frame = self._frames.recv_frame()
            if frame.opcode in _CONTROL_FRAMES:
                payload = cast("bytes", frame.data)
                if len(payload) > _LONGEST_CONTROL_FRAME or not frame.fin:
                    raise WebSocketProtocolException("a control frame that is too long or fragmented")
                if frame.opcode == ABNF.OPCODE_CLOSE:
                    return self._closed(payload)
                if frame.opcode == ABNF.OPCODE_PING:
                    self._queue(payload, ABNF.OPCODE_PONG)
                return ControlFrame()
            self._fragments.validate(frame)
            self._fragments.add(frame)
            if frame.fin:
                opcode, whole = self._fragments.extract(frame)
                return Text(whole.data.decode()) if opcode == ABNF.OPCODE_TEXT else Binary(whole.data)

    def _closed(self, payload: bytes) -> PeerClosed:
        code = int.from_bytes(payload[:2], "big") if payload else 1005
        reason = payload[2:].decode()
        self._queue(payload[:2], ABNF.OPCODE_CLOSE)
        return PeerClosed(code, reason)

    def _recv(self, size: int) -> bytes:
        if self._at == len(self._chunk):
            try:
                chunk = self._sock.recv(_READ_SIZE)
            except (BlockingIOError, ssl.SSLWantReadError):
                raise _WouldBlock from None
            except ssl.SSLWantWriteError:
                self._read_wants_write = True
                raise _WouldBlock from None
            if not chunk:
                raise ConnectionResetError(errno.ECONNRESET, "the server ended it without a close frame")
            self._chunk, self._at = chunk, 0
        data = self._chunk[self._at : self._at + size]
        self._at += len(data)
        return data

    def _broken(self, code: int, what: str) -> RemoteProtocolError:
        try:
            self.send_close(code)
        except TransportError:
            logger.debug("the close frame after a protocol error could not be sent")
        return RemoteProtocolError(f"the server sent {what}")

    # --- out --------------------------------------------------------------------------------------------

    def send_text(self, text: str) -> None:
        """Send a text message, now or as soon as the socket takes it.

        Raises:
            ConnectionLost: the connection is gone.
        """
        self._queue(text.encode(), ABNF.OPCODE_TEXT)
        self.flush()

    def send_ping(self) -> None:
        """Send a ping.

        Raises:
            ConnectionLost: the connection is gone.
        """
        self._queue(b"", ABNF.OPCODE_PING)
        self.flush()

    def send_close(self, code: int, reason: str = "") -> None:
        """Send a close frame.

        Raises:
            ConnectionLost: the connection is gone.
        """
        self._queue(code.to_bytes(2, "big") + reason.encode(), ABNF.OPCODE_CLOSE)
        self.flush()

    def flush(self) -> None:
        """Send as much as the socket takes of what waits.

        Raises:
            ConnectionLost: the connection is gone.
        """
        while self._out:
            try:
                sent = self._sock.send(self._out)
            except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
                if len(self._out) > _LARGEST_BACKLOG:
                    raise ConnectionLost("the server asks for answers and does not read them") from None
                return
            except OSError as error:
                raise ConnectionLost(f"sending failed: {_words(error)}") from error
            del self._out[:sent]

    def abort(self) -> None:
        """Close the socket at once."""
        self._sock.close()

    def _queue(self, payload: bytes, opcode: int) -> None:
        self._out += ABNF.create_frame(payload, opcode).format()


ResolveFunction: TypeAlias = "Callable[[], Sequence[Address]]"


def resolver(host: str, port: int) -> ResolveFunction:
    """Return a function that looks the host up; it blocks, and cannot be interrupted.

    The function raises ConnectFailed if the name has no address.
    """

    def resolve() -> Sequence[Address]:
        try:
            return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise ConnectFailed(f"the host name {host} cannot be looked up: {_words(error)}") from error

    return resolve
