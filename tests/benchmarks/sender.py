"""A WebSocket server in a process of its own; what it sends is made ready before, so that nobody waits for it."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import itertools
import json
import multiprocessing
import socket
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO, Literal, TypeAlias

from benchmarks.cores import stay_on
from benchmarks.messages import (
    AUTHENTICATED,
    BLOB,
    CLOSE,
    CONNECTED,
    HEARTBEAT,
    PING,
    PONG,
    TEXT,
    Messages,
    frame,
    stamped,
    texts,
)

if TYPE_CHECKING:
    from typing_extensions import Self

Dialect: TypeAlias = Literal["agg", "bybit", "mute"]
"""What it says beside the messages: AGG's words, Bybit's (each message in an envelope of a topic), or nothing."""

_SPAWN = multiprocessing.get_context("spawn")
# pybit notes what it asks for only after it has asked; an answer that comes at once ends its connection.
_DISTANCE = 0.05
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class Sender:
    """The server, as the process sees it that is measured. What it is told to send goes to every connection."""

    def __init__(self, messages: Messages = "examples", dialect: Dialect = "agg") -> None:
        self._ends, theirs = _SPAWN.Pipe()
        self._process = _SPAWN.Process(target=serve, args=(theirs, messages, dialect), daemon=True)
        self._process.start()
        theirs.close()
        self.url = str(self._ends.recv())

    def prepare(self, count: int) -> None:
        """Make so many frames ready."""
        self._ends.send(("prepare", count))
        self._ends.recv()

    def send(self) -> None:
        """Send what is ready, as fast as it is taken; returns at once."""
        self._ends.send(("send",))

    def pace(self, kind: Literal["messages", "heartbeats", "pings"], count: int, rate: float) -> None:
        """Send so many a second, messages with the monotonic clock's nanoseconds as timestamp; returns at once."""
        self._ends.send(("pace", kind, count, rate))

    def keep_alive(self, seconds: float, *, heartbeats: float, pings: float) -> None:
        """Send heartbeats and pings at such intervals in seconds, for a while; returns at once."""
        self._ends.send(("keep_alive", seconds, heartbeats, pings))

    def finish(self) -> None:
        """Wait until all is sent."""
        self._ends.send(("finish",))
        self._ends.recv()

    def close(self) -> None:
        self._ends.close()
        self._process.join()
        self._process.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


# --- in its own process ---------------------------------------------------------------------------------


def serve(commands: Connection, messages: Messages, dialect: Dialect) -> None:
    """Obey until the other end is closed."""
    stay_on("sender")
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        server = Server(messages, dialect)
        threading.Thread(target=server.accept, args=(listener,), daemon=True).start()
        commands.send(f"ws://127.0.0.1:{listener.getsockname()[1]}/v5/private")
        with contextlib.suppress(EOFError):
            while True:
                name, *arguments = commands.recv()
                getattr(server, name)(*arguments)
                if name in ("prepare", "finish"):
                    commands.send(None)


class Server:
    def __init__(self, messages: Messages, dialect: Dialect) -> None:
        self._messages = messages
        self._dialect = dialect
        self._texts = texts(messages)
        self._clients: list[Client] = []
        self._blobs: list[bytes] = []

    def accept(self, listener: socket.socket) -> None:
        while True:
            sock, _ = listener.accept()
            client = Client(sock, self._dialect)
            self._clients.append(client)
            threading.Thread(target=client.serve, daemon=True).start()

    def prepare(self, count: int) -> None:
        whole, rest = divmod(count, BLOB)
        if self._messages == "examples":
            self._blobs = [self._blob(BLOB)] * whole
        else:  # no order lives twice
            self._blobs = [self._blob(BLOB) for _ in range(whole)]
        self._blobs.append(self._blob(rest))

    def send(self) -> None:
        for blob in self._blobs:
            self._to_all(blob)

    def pace(self, kind: str, count: int, rate: float) -> None:
        make: Callable[[], bytes] = {
            "messages": self._stamped,
            "heartbeats": self._heartbeat,
            "pings": _ping,
        }[kind]
        began = time.monotonic()
        for number in range(count):
            time.sleep(max(0.0, began + number / rate - time.monotonic()))
            self._to_all(make())

    def keep_alive(self, seconds: float, heartbeats: float, pings: float) -> None:
        began = time.monotonic()
        due = [
            (at, make)
            for every, make in ((heartbeats, self._heartbeat), (pings, _ping))
            for at in itertools.takewhile(lambda at: at <= seconds, itertools.count(every, every))
        ]
        for at, make in sorted(due, key=lambda one: one[0]):
            time.sleep(max(0.0, began + at - time.monotonic()))
            self._to_all(make())

    def finish(self) -> None:
        """All commands before this one are carried out."""

    def _blob(self, count: int) -> bytes:
        return b"".join(frame(self._wrapped(text)) for text in itertools.islice(self._texts, count))

    def _heartbeat(self) -> bytes:
        return frame(self._wrapped(HEARTBEAT))

    def _stamped(self) -> bytes:
        text = next(self._texts)
        return frame(self._wrapped(stamped(text, time.monotonic_ns())))

    def _wrapped(self, text: str) -> bytes:
        return f'{{"topic":"order","data":[{text}]}}'.encode() if self._dialect == "bybit" else text.encode()

    def _to_all(self, data: bytes) -> None:
        for client in self._clients:
            client.send(data)


class Client:
    """One connection: what it says is answered as its library needs it."""

    def __init__(self, sock: socket.socket, dialect: Dialect) -> None:
        self._sock = sock
        self._dialect = dialect
        self._lock = threading.Lock()
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, data: bytes) -> None:
        with self._lock, contextlib.suppress(OSError):  # it may go at any time
            self._sock.sendall(data)

    def serve(self) -> None:
        with self._sock, contextlib.suppress(OSError), self._sock.makefile("rb") as stream:
            self.send(_accepted(stream))
            if self._dialect == "agg":
                self.send(frame(CONNECTED.encode()))
            for opcode, payload in _frames(stream):
                self._answer(opcode, payload)
                if opcode == CLOSE:
                    break

    def _answer(self, opcode: int, payload: bytes) -> None:
        if opcode == PING:
            self.send(frame(payload, PONG))
        elif opcode == CLOSE:
            self.send(frame(payload, CLOSE))
        elif opcode == TEXT:
            message = json.loads(payload)
            if message.get("action") == "authenticate":
                self.send(frame(AUTHENTICATED.encode()))
            elif message.get("op") in ("auth", "subscribe", "ping"):  # Bybit's words
                time.sleep(_DISTANCE)
                said = {**message, "success": True, "ret_msg": "pong" if message["op"] == "ping" else ""}
                self.send(frame(json.dumps(said).encode()))


def _ping() -> bytes:
    return frame(b"", PING)


def _accepted(stream: BinaryIO) -> bytes:
    """Read a handshake's request; return the answer."""
    key = b""
    while (line := stream.readline()).strip():
        name, _, value = line.partition(b":")
        if name.lower() == b"sec-websocket-key":
            key = value.strip()
    accept = base64.b64encode(hashlib.sha1(key + _GUID).digest())
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
    )


def _frames(stream: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Yield the client's frames, which are masked and short."""
    while len(head := stream.read(2)) == 2:
        length = head[1] & 0x7F
        if length == 126:
            length = int.from_bytes(stream.read(2), "big")
        mask, payload = stream.read(4), stream.read(length)
        yield head[0] & 0x0F, bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))
