"""Small proxies, HTTP CONNECT and SOCKS5, that keep what they were asked for."""

from __future__ import annotations

import base64
import contextlib
import socket
import struct
import threading
from collections.abc import Collection

from raw_server import RawServer, ServeBytes, read_request

PASSWORD = "proxy/pass word"
LOGIN = "user:proxy%2Fpass%20word@"


def splice(one: socket.socket, other: socket.socket) -> bytes:
    """Carry bytes both ways until one side ends; return what the first has sent."""
    sent = bytearray()

    def carry(source: socket.socket, sink: socket.socket, seen: bytearray) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                seen += data
                sink.sendall(data)
        for sock in (source, sink):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    back = threading.Thread(target=carry, args=(other, one, bytearray()), name="splice")
    back.start()
    carry(one, other, sent)
    back.join()
    return bytes(sent)


class SomeProxy:
    """Speaks one of the two protocols; keeps what it was asked for, and what it saw."""

    def __init__(
        self,
        serve: ServeBytes,
        kind: str,
        *,
        login: tuple[str, str] | None = None,
        refuses: Collection[str] = (),
        says: bytes = b"HTTP/1.1 200 Connection established\r\nX-Some: thing\r\n\r\n",
    ) -> None:
        self.asked: list[tuple[str, int]] = []
        self.requests: list[bytes] = []
        self.seen: list[bytes] = []
        self._login = login
        self._refuses = refuses
        self._says = says
        self._server: RawServer = serve(self._http if kind == "http" else self._socks)
        self.host_and_port = self._server.url.removeprefix("ws://").removesuffix("/ws")

    def _http(self, sock: socket.socket) -> None:
        request = read_request(sock)
        self.requests.append(request)
        if self._login is not None:
            login = base64.b64encode(":".join(self._login).encode())
            if b"Proxy-Authorization: Basic " + login + b"\r\n" not in request:
                sock.sendall(b"HTTP/1.1 407 Who are you\r\n\r\n")
                return
        host, _, port = request.split()[1].decode().rpartition(":")
        self._forward(sock, host, int(port), self._says)

    def _socks(self, sock: socket.socket) -> None:
        def read(size: int) -> bytes:
            data = b""
            while len(data) < size:
                data += sock.recv(size - len(data))
            return data

        _, count = read(2)
        methods = read(count)
        method = 0 if self._login is None else 2
        if method not in methods:
            sock.sendall(b"\x05\xff")
            return
        sock.sendall(bytes([5, method]))
        if self._login is not None:
            _, size = read(2)
            user = read(size).decode()
            password = read(read(1)[0]).decode()
            sock.sendall(b"\x01\x00" if (user, password) == self._login else b"\x01\x01")
            if (user, password) != self._login:
                return
        kind = read(4)[3]
        host = socket.inet_ntoa(read(4)) if kind == 1 else read(read(1)[0]).decode()
        [port] = struct.unpack("!H", read(2))
        if host in self._refuses:
            self.asked.append((host, port))
            sock.sendall(b"\x05\x04\x00\x01\x00\x00\x00\x00\x00\x00")
            return
        self._forward(sock, host, port, b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00")

    def _forward(self, sock: socket.socket, host: str, port: int, yes: bytes) -> None:
        self.asked.append((host, port))
        # The names that tests use mean this machine, and only the proxy knows that.
        with socket.create_connection(("127.0.0.1", port)) as there:
            sock.sendall(yes)
            self.seen.append(splice(sock, there))
