"""A TCP server that plays bytes, and the frames of WebSocket by hand."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import socket
import ssl
import threading
from collections.abc import Callable
from typing import Protocol

from waiting import DEADLINE


class RawServer:
    """A TCP server that plays a script of bytes: what no WebSocket library would send."""

    def __init__(self, script: Callable[[socket.socket], object], context: ssl.SSLContext | None) -> None:
        self.connections = 0
        self._script = script
        self._context = context
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._acceptor = threading.Thread(target=self._accept, name="raw-server")
        self._acceptor.start()

    @property
    def url(self) -> str:
        scheme = "ws" if self._context is None else "wss"
        return f"{scheme}://127.0.0.1:{self._listener.getsockname()[1]}/ws"

    def join(self) -> None:
        """Wait until the scripts of all connections are done."""
        for thread in self._threads:
            thread.join(DEADLINE)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._acceptor.join()
        for sock in self._open:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(sock, socket.SHUT_RDWR)  # a TLS socket's own would touch its state
        self.join()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # the listener is closed
            while True:
                sock, _ = self._listener.accept()
                sock.settimeout(DEADLINE)
                self.connections += 1
                if self._context is not None:
                    sock = self._context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
                self._open.append(sock)
                thread = threading.Thread(target=self._play, args=(sock,), name="raw-connection")
                self._threads.append(thread)
                thread.start()

    def _play(self, sock: socket.socket) -> None:
        with sock, contextlib.suppress(OSError):  # the client may go at any time
            if isinstance(sock, ssl.SSLSocket):
                sock.do_handshake()
            self._script(sock)


class ServeBytes(Protocol):
    def __call__(self, script: Callable[[socket.socket], object], /, *, tls: bool = False) -> RawServer: ...


def read_request(sock: socket.socket) -> bytes:
    request = b""
    while not request.endswith(b"\r\n\r\n"):
        chunk = sock.recv(65536)
        if not chunk:
            raise ConnectionResetError("the client has gone before its request was whole")
        request += chunk
    return request


def accept_of(request: bytes) -> bytes:
    """Return the value of Sec-WebSocket-Accept that belongs to a handshake's request."""
    key = next(line.split(b": ")[1] for line in request.split(b"\r\n") if line.startswith(b"Sec-WebSocket-Key"))
    return base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())


def upgrade(sock: socket.socket, *, also: bytes = b"") -> bytes:
    """Answer a handshake in form, and send something in the same write; return the request."""
    request = read_request(sock)
    sock.sendall(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + accept_of(request) + b"\r\n\r\n" + also
    )
    return request


def frame(payload: bytes, *, opcode: int = 1, fin: bool = True) -> bytes:
    """A server's frame, unmasked."""
    first = bytes([(0x80 if fin else 0) | opcode])
    if len(payload) < 126:
        return first + bytes([len(payload)]) + payload
    return first + bytes([126]) + len(payload).to_bytes(2, "big") + payload


def drain(sock: socket.socket) -> bytes:
    """Read until the client is gone."""
    data = b""
    while chunk := sock.recv(65536):
        data += chunk
    return data
