"""A server for thousands of connections, in a process of its own, over plain loopback or TLS."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import itertools
import json
import multiprocessing
import ssl
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection as Pipe
from typing import TYPE_CHECKING, Any

import trustme
from benchmarks.cores import stay_on
from benchmarks.messages import (
    CLOSE,
    CONNECTED,
    HEARTBEAT,
    PING,
    PONG,
    STARTED,
    TEXT,
    compact,
    frame,
    stamped,
)

if TYPE_CHECKING:
    from typing_extensions import Self

_SPAWN = multiprocessing.get_context("spawn")
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_CHUNK = 50
_DRIP_EVERY = 0.005


class ManyServer:
    """The server, as the process sees it that is measured."""

    def __init__(self, *, tls: bool) -> None:
        """Start it; `url` is where it listens, and `authority` the PEM of who has signed its certificate."""
        self._ends, theirs = _SPAWN.Pipe()
        self._process = _SPAWN.Process(target=serve, args=(theirs, tls), daemon=True)
        self._process.start()
        theirs.close()
        self.url, self.authority = self._ends.recv()

    def ask(self, what: str, *arguments: object) -> Any:
        """Have the server do something, and return its answer once that is done."""
        self._ends.send((what, *arguments))
        return self._ends.recv()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.close()
        self._process.join()
        self._process.close()


# --- in its own process ---------------------------------------------------------------------------------


def serve(commands: Pipe, tls: bool) -> None:
    """Obey until the other end is closed."""
    stay_on("sender")
    asyncio.run(_serve(commands, tls))


async def _serve(commands: Pipe, tls: bool) -> None:
    loop = asyncio.get_running_loop()
    context = authority = None
    if tls:
        issuer = trustme.CA()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        issuer.issue_cert("localhost").configure_cert(context)
        authority = issuer.cert_pem.bytes().decode()
    server = Server()
    listening = await loop.create_server(
        lambda: Peer(server), "127.0.0.1", 0, ssl=context, backlog=1024, reuse_address=True
    )
    port = listening.sockets[0].getsockname()[1]
    commands.send((f"{'wss' if tls else 'ws'}://localhost:{port}/ws", authority))
    has_ended = asyncio.Event()

    def obey() -> None:
        with contextlib.suppress(EOFError):
            while True:
                what, *arguments = commands.recv()
                asked = asyncio.run_coroutine_threadsafe(getattr(server, what)(*arguments), loop)
                commands.send(asked.result())
        loop.call_soon_threadsafe(has_ended.set)

    threading.Thread(target=obey, daemon=True).start()
    await has_ended.wait()
    server.drop_all()


class Server:
    """What the connections have in common. Each coroutine is one thing that it can be asked for."""

    def __init__(self) -> None:
        self.peers: dict[str, Peer] = {}
        self.slowest_pong = 0.0
        self._tasks: list[asyncio.Task[None]] = []

    async def live(self) -> int:
        return len(self.peers)

    async def traffic(self, heartbeats: float, pings: float) -> None:
        """From now on send heartbeats and pings at these intervals in seconds, evenly spread over the peers."""
        await self.silence()
        for make, every in ((lambda _: frame(HEARTBEAT.encode()), heartbeats), (Peer.ping, pings)):
            self._tasks.append(asyncio.create_task(self._to_each(make, every)))

    async def silence(self) -> None:
        for task in self._tasks:
            task.cancel()
        self._tasks.clear()

    async def burst(self, count: int) -> None:
        """Send each peer so many events, a few to each in turn."""
        for at in range(0, count, _CHUNK):
            for peer in list(self.peers.values()):
                peer.write(peer.event() * min(_CHUNK, count - at))
            await asyncio.sleep(0)
            while any(peer.is_behind for peer in self.peers.values()):  # noqa: ASYNC110  (of any of them)
                await asyncio.sleep(0.001)

    async def rate(self, per_second: float, seconds: float, without: str) -> None:
        """Send stamped events to the peers in turn, but for one."""
        peers = itertools.cycle([peer for name, peer in self.peers.items() if name != without])
        began = time.monotonic()
        for number in range(int(per_second * seconds)):
            await asyncio.sleep(max(0.0, began + number / per_second - time.monotonic()))
            peer = next(peers)
            peer.write(peer.event(time.monotonic_ns()))

    async def pongs(self, without: str) -> float:
        """Ping all peers but one, once each; return the longest time until a pong in seconds."""
        self.slowest_pong = 0.0
        asked = [peer for name, peer in self.peers.items() if name != without]
        for peer in asked:
            peer.write(peer.ping())
        while any(peer.pinged_at is not None for peer in asked):  # noqa: ASYNC110  (of all of them)
            await asyncio.sleep(0.001)
        return self.slowest_pong

    async def flood(self, name: str) -> None:
        """From now on send one peer events as fast as it takes them."""
        self._tasks.append(asyncio.create_task(self._flood(self.peers[name])))

    async def orders(self, name: str, count: int) -> None:
        """Send one peer an event of each of so many orders."""
        peer = self.peers[name]
        for number in range(count):
            peer.write(peer.event(order_id=f"ord_{number}"))

    async def forget(self, *names: str) -> None:
        """Send these peers nothing more with the others; what was begun for them goes on."""
        for name in names:
            del self.peers[name]

    async def drip(self, name: str) -> None:
        """From now on send one peer an event byte by byte, and never its end."""
        self._tasks.append(asyncio.create_task(self._drip(self.peers[name])))

    async def close_one(self, name: str) -> None:
        """End one connection."""
        self.peers[name].transport.abort()

    async def drop(self) -> None:
        """End all connections at once."""
        self.drop_all()

    def drop_all(self) -> None:
        for peer in list(self.peers.values()):
            peer.transport.abort()
        self.peers.clear()

    async def _to_each(self, make: Callable[[Peer], bytes], every: float) -> None:
        while True:
            peers = list(self.peers.values())
            began = time.monotonic()
            for number, peer in enumerate(peers):
                await asyncio.sleep(max(0.0, began + (number + 1) * every / len(peers) - time.monotonic()))
                peer.write(make(peer))
            if not peers:
                await asyncio.sleep(0.1)

    async def _flood(self, peer: Peer) -> None:
        blob = peer.event() * 1000
        while not peer.is_closed:
            peer.write(blob)
            await asyncio.sleep(0)
            while peer.is_behind and not peer.is_closed:  # noqa: ASYNC110  (either of two)
                await asyncio.sleep(0.001)

    async def _drip(self, peer: Peer) -> None:
        head = frame(b"x" * 60_000)[:4]
        for byte in itertools.chain(head, itertools.repeat(ord("x"), 50_000)):
            peer.write(bytes([byte]))
            await asyncio.sleep(_DRIP_EVERY)


class Peer(asyncio.Protocol):
    """One connection."""

    transport: asyncio.Transport

    def __init__(self, server: Server) -> None:
        self._server = server
        self._name: str | None = None
        self._received = bytearray()
        self._is_open = False
        self.is_behind = False
        self.is_closed = False
        self.pinged_at: float | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.set_write_buffer_limits(high=1 << 18)

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_closed = True
        if self._name is not None and self._server.peers.get(self._name) is self:
            del self._server.peers[self._name]

    def pause_writing(self) -> None:
        self.is_behind = True

    def resume_writing(self) -> None:
        self.is_behind = False

    def write(self, data: bytes) -> None:
        if not self.is_closed:
            self.transport.write(data)

    def event(self, timestamp: int = 1_710_000_000_000, order_id: str = "ord_abc123") -> bytes:
        """Return the frame of an event of this peer's user."""
        message = {**STARTED, "userId": self._name, "orderId": order_id}
        return frame(stamped(compact(message), timestamp).encode())

    def ping(self) -> bytes:
        self.pinged_at = time.monotonic()
        return frame(b"", PING)

    def data_received(self, data: bytes) -> None:
        self._received += data
        if not self._is_open:
            self._shake_hands()
        while self._is_open and (read := _client_frame(self._received)) is not None:
            opcode, payload = read
            self._answer(opcode, payload)

    def _shake_hands(self) -> None:
        head, end, rest = bytes(self._received).partition(b"\r\n\r\n")
        if not end:
            return
        self._received = bytearray(rest)
        lines = (line.partition(b":") for line in head.split(b"\r\n"))
        key = next(value.strip() for name, _, value in lines if name.lower() == b"sec-websocket-key")
        accept = base64.b64encode(hashlib.sha1(key + _GUID).digest())
        self.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n" + frame(CONNECTED.encode())
        )
        self._is_open = True

    def _answer(self, opcode: int, payload: bytes) -> None:
        if opcode == PING:
            self.write(frame(payload, PONG))
        elif opcode == PONG and self.pinged_at is not None:
            took, self.pinged_at = time.monotonic() - self.pinged_at, None
            self._server.slowest_pong = max(self._server.slowest_pong, took)
        elif opcode == CLOSE:
            self.write(frame(payload, CLOSE))
            self.transport.close()
        elif opcode == TEXT:
            self._name = str(json.loads(payload)["token"]).removeprefix("token-of-")
            self._server.peers[self._name] = self
            self.write(frame(json.dumps({"type": "authenticated", "userId": self._name}).encode()))


def _client_frame(received: bytearray) -> tuple[int, bytes] | None:
    """Take a masked, short frame from what was received; None if it is not whole."""
    if len(received) < 6:
        return None
    length, at = received[1] & 0x7F, 2
    if length == 126:
        length, at = int.from_bytes(received[2:4], "big"), 4
    if len(received) < at + 4 + length:
        return None
    mask = received[at : at + 4]
    payload = bytes(byte ^ mask[index % 4] for index, byte in enumerate(received[at + 4 : at + 4 + length]))
    opcode = received[0] & 0x0F
    del received[: at + 4 + length]
    return opcode, payload
