"""What the tests share: a server of another make, a private certificate authority, and a look at what is left."""

from __future__ import annotations

import base64
import contextlib
import gc
import hashlib
import json
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import hypothesis
import pytest
import trustme
from shells import Shell
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import Server, ServerConnection, serve

import aggstream

DEADLINE = 30.0

# No test depends on the machine's speed. Where CI decides about a change, it is not by luck that a search finds
# something old; who works on the code finds more with each run.
hypothesis.settings.register_profile("here", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "here")

ORDER_SUBMITTED = """{
"type": "order_submitted",
"venue": "kalshi",
"orderId": "ord_abc123",
"side": "buy",
"price": 0.55,
"size": 100,
"outcomeId": "clv2abc123def456",
"timestamp": 1710000000000
}"""
BALANCE_UPDATE = """{
"type": "balance_update",
"venue": "kalshi",
"tradingBalanceCents": 94500,
"walletBalanceCents": 100000,
"timestamp": 1710000000000
}"""
ORDER_EVENT = """{
"type": "order_event",
"event": "dag_started",
"userId": "usr_xyz789",
"orderId": "ord_abc123",
"venue": "kalshi",
"filledAmountRaw": "string",
"remainingAmountRaw": "string",
"errorReason": "string",
"dagRunId": "string",
"stepId": "string",
"stepType": "string",
"templateName": "string",
"attempt": 0,
"timestamp": 1710000000000
}"""


def _descriptors() -> set[str]:
    if not os.path.isdir("/proc/self/fd"):
        return set()
    return {f"{fd}: {target}" for fd in os.listdir("/proc/self/fd") if (target := _target(fd)) is not None}


def _target(fd: str) -> str | None:
    with contextlib.suppress(OSError):
        target = os.readlink(f"/proc/self/fd/{fd}")
        # Not pipes: the server of `websockets` leaves one behind in the versions for Python 3.10.
        return target if target.startswith(("socket:", "anon_inode:")) else None
    return None


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """Fail a test that leaves a thread or a descriptor."""
    threads = set(threading.enumerate())
    descriptors = _descriptors()
    yield
    deadline = time.monotonic() + DEADLINE
    for thread in set(threading.enumerate()) - threads:
        thread.join(max(0.0, deadline - time.monotonic()))
        assert not thread.is_alive(), f"{thread.name} is left behind"
    left = _descriptors() - descriptors
    if left:  # what a cycle of garbage holds is not left behind; collecting it takes a while, so only now
        gc.collect()
        left = _descriptors() - descriptors
    assert not left, f"left behind: {left}"


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    with contextlib.ExitStack() as stack:
        yield Shell(tmp_path, stack)


class Until(Protocol):
    def __call__(self, condition: Callable[[], object], /) -> None: ...


@pytest.fixture(scope="session")
def until() -> Until:
    """Wait until a condition holds, with a generous deadline."""

    def wait(condition: Callable[[], object], /) -> None:
        deadline = time.monotonic() + DEADLINE
        pause = threading.Event()
        while not condition():
            assert time.monotonic() < deadline, "the condition did not come true"
            pause.wait(0.005)

    return wait


class Peer:
    """A connection as the server sees it, with the words of AGG."""

    def __init__(self, ws: ServerConnection, number: int) -> None:
        self.ws = ws
        self.number = number
        """The connection's number, from 1."""

    def send(self, *messages: str | dict[str, Any]) -> None:
        for message in messages:
            self.ws.send(message if isinstance(message, str) else json.dumps(message))

    def receive(self) -> dict[str, Any]:
        message = json.loads(self.ws.recv(timeout=DEADLINE))
        assert isinstance(message, dict)
        return message

    def greet(self) -> None:
        self.send({"type": "connected", "appId": "app_demo123"})

    def sign_in(self, user: str = "usr_xyz789") -> str:
        """Greet, take the token, accept it, and return it."""
        self.greet()
        token = self.receive()["token"]
        self.send({"type": "authenticated", "userId": user})
        return str(token)

    def wait_closed(self) -> int | None:
        """Answer whatever comes until the client is gone; return its close code."""
        with contextlib.suppress(ConnectionClosed):
            while True:
                self.ws.recv(timeout=DEADLINE)
        return self.ws.close_code


Script = Callable[[Peer], None]


class OtherServer:
    """A WebSocket server of another make (the package `websockets`) that plays a script for each connection."""

    def __init__(self, script: Script, context: ssl.SSLContext | None) -> None:
        self.requests: list[tuple[str, dict[str, str]]] = []
        """Path and headers of each handshake."""
        self.problems: list[BaseException] = []
        self._script = script
        self._server: Server = serve(self._serve, "127.0.0.1", 0, ssl=context, compression=None, max_size=None)
        self._thread = threading.Thread(target=self._server.serve_forever, name="other-server")
        self._scheme = "ws" if context is None else "wss"
        self._count = threading.Lock()

    @property
    def url(self) -> str:
        return f"{self._scheme}://localhost:{self._server.socket.getsockname()[1]}/ws"

    @property
    def connections(self) -> int:
        return len(self.requests)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()

    def _serve(self, ws: ServerConnection) -> None:
        assert ws.request is not None
        with self._count:
            self.requests.append((ws.request.path, dict(ws.request.headers.raw_items())))
            number = len(self.requests)
        try:
            self._script(Peer(ws, number))
        except ConnectionClosed:
            pass  # the client may go at any time
        except BaseException as error:
            self.problems.append(error)
            raise


class ServeFunction(Protocol):
    def __call__(self, script: Script, /, *, tls: bool = False) -> OtherServer: ...


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def trusting(authority: trustme.CA) -> ssl.SSLContext:
    """A client's context that trusts the private authority."""
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


def serving(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost", "127.0.0.1").configure_cert(context)
    return context


@pytest.fixture
def other_server(authority: trustme.CA) -> Iterator[ServeFunction]:
    servers: list[OtherServer] = []

    def start(script: Script, /, *, tls: bool = False) -> OtherServer:
        server = OtherServer(script, serving(authority) if tls else None)
        server.start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.close()
        assert not server.problems, server.problems


class MakeClient(Protocol):
    def __call__(self, url: str, /, **options: Any) -> aggstream.Client: ...


BRISK = aggstream.ReconnectPolicy(initial=0.05, maximum=0.2, healthy_after=0.05)
"""Pauses that a test can wait for."""


@pytest.fixture
def client_of() -> Iterator[MakeClient]:
    """Make clients that are stopped when the test ends, however it ends."""
    clients: list[aggstream.Client] = []

    def make(url: str, /, **options: Any) -> aggstream.Client:
        settings: dict[str, Any] = {
            "app_id": "app_demo123",
            "origin": "https://app.example",
            "token": "token-of-xyz789",
            "reconnect": BRISK,
            "close_timeout": 0.2,
        }
        client = aggstream.Client(url=url, **{**settings, **options})
        clients.append(client)
        return client

    yield make
    for client in clients:
        with contextlib.suppress(BaseException):
            client.stop()


PRELUDE = """
import multiprocessing, os, ssl, sys, threading, time, warnings
import aggstream

def make(**options):
    context = ssl.create_default_context(cafile=sys.argv[2]) if sys.argv[1].startswith("wss") else None
    options = {"token": "t0ken", "url": sys.argv[1], **options}
    return aggstream.Client(app_id="a", origin="https://app.example", ssl_context=context, **options)

def say(*words):
    sys.stdout.write(" ".join(map(str, words)) + "\\n")  # one write, because threads speak at once
    sys.stdout.flush()

client = make()
client.on("order_submitted")(lambda event: say(event.order_id))
"""


class Run(Protocol):
    def __call__(self, program: str, url: str, /, *, first: str = "") -> subprocess.Popen[str]: ...


@pytest.fixture
def run(authority: trustme.CA, tmp_path: Path) -> Iterator[Run]:
    """Start programs that have a client already; with `first` they do something before. What hangs is killed."""
    ca = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(ca))

    def start(program: str, url: str, /, *, first: str = "") -> subprocess.Popen[str]:
        process = subprocess.Popen(
            # Python 3.12 warns of a fork beside threads, which is what these tests are about.
            [sys.executable, "-W", "ignore::DeprecationWarning", "-c", first + PRELUDE + program, url, str(ca)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        watchdog = threading.Timer(DEADLINE, process.kill)
        watchdogs.append(watchdog)
        watchdog.start()
        return process

    watchdogs: list[threading.Timer] = []
    yield start
    for watchdog in watchdogs:
        watchdog.cancel()
        watchdog.join()


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


@pytest.fixture
def raw_server(authority: trustme.CA) -> Iterator[ServeBytes]:
    servers: list[RawServer] = []

    def start(script: Callable[[socket.socket], object], /, *, tls: bool = False) -> RawServer:
        server = RawServer(script, serving(authority) if tls else None)
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.close()


def read_request(sock: socket.socket) -> bytes:
    request = b""
    while not request.endswith(b"\r\n\r\n"):
        chunk = sock.recv(65536)
        if not chunk:
            raise ConnectionResetError("the client has gone before its request was whole")
        request += chunk
    return request


def upgrade(sock: socket.socket, *, also: bytes = b"") -> None:
    """Answer a handshake in form, and send something in the same write."""
    key = next(
        line.split(b": ")[1] for line in read_request(sock).split(b"\r\n") if line.startswith(b"Sec-WebSocket-Key")
    )
    accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
    sock.sendall(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n" + also
    )


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
