"""A TCP proxy between a client and a server that does to their bytes what networks do."""

from __future__ import annotations

import contextlib
import math
import random
import selectors
import socket
import struct
import threading
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import urlsplit, urlunsplit

import attrs

from aggstream._base.deadline import nearest, seconds_until
from aggstream.testing._pipe import Pipe

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["ChaosProxy", "Faults"]

_USUAL_PORTS = {"ws": 80, "http": 80, "wss": 443, "https": 443}
# The one that goes on may have looked already; and data and the end after it take a pass each.
_A_WHOLE_PASS = 3
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: on, for 0 seconds


_Check: TypeAlias = "Callable[[object, attrs.Attribute[Any], Any], None]"


def _number(
    allowed: str, is_allowed: Callable[[Any], bool], *, whole: bool = False, optional: bool = False
) -> _Check:
    """Make a check of a number; `allowed` says in words what it may be."""
    kinds: tuple[type, ...] = (int,) if whole else (int, float)

    def check(_: object, field: attrs.Attribute[Any], value: Any) -> None:
        if value is None and optional:
            return
        if isinstance(value, bool) or not isinstance(value, kinds) or not is_allowed(value):
            or_none = ", or None" if optional else ""
            raise ValueError(f"{field.name} must be {allowed}{or_none}, got {value!a}")

    return check


def _switch(_: object, field: attrs.Attribute[Any], value: Any) -> None:
    if not isinstance(value, bool):
        raise ValueError(f"{field.name} must be True or False, got {value!a}")  # noqa: TRY004  (as for the others)


_size = _number("a whole number of bytes, 1 or more", lambda value: value >= 1, whole=True, optional=True)


@attrs.define(kw_only=True)
class Faults:
    """The faults of one direction of all connections. Set and change them at any time.

    Attributes:
        slice_size: at most so many bytes in one piece; None: as they come.
        latency: seconds by which each piece is late.
        rate: bytes a second; None: as many as there are.
        stalled: nothing passes until it is False again; then all of it does.
        blackhole: what a connection carries meanwhile is swallowed, and nothing passes on that connection ever
            after, not even its end: the peer is gone without a word, also once this is False again.
        corrupt: the probability, from 0 to 1, with which one bit of a byte is turned round.
        reset_after: after so many more bytes the connection that carries them is reset, once; None: never.
        half_close_after: after so many more bytes the connection that carries them is ended in this direction, in
            form, once; None: never.

    Raises:
        ValueError: when one is set to what it cannot be.
    """

    slice_size: int | None = attrs.field(default=None, validator=_size)
    latency: float = attrs.field(
        default=0.0, validator=_number("seconds, not below 0", lambda value: 0 <= value < math.inf)
    )
    rate: float | None = attrs.field(
        default=None,
        validator=_number("bytes a second, above 0", lambda value: 0 < value < math.inf, optional=True),
    )
    stalled: bool = attrs.field(default=False, validator=_switch)
    blackhole: bool = attrs.field(default=False, validator=_switch)
    corrupt: float = attrs.field(
        default=0.0, validator=_number("a probability from 0 to 1", lambda value: 0 <= value <= 1)
    )
    reset_after: int | None = attrs.field(default=None, validator=_size)
    half_close_after: int | None = attrs.field(default=None, validator=_size)


@attrs.define(eq=False)
class _Connection:
    client: socket.socket
    server: socket.socket
    pipes: tuple[Pipe, Pipe]


class ChaosProxy:
    """Stands on a port of this machine between clients and one server; TLS passes through it as bytes.

    ```python
    with ChaosProxy.for_url(agg.url) as proxy:
        client = aggstream.Client(url=proxy.url_for(agg.url), …)
        proxy.downstream.slice_size = 3
        proxy.reset()
    ```

    The server sees the proxy's port in the client's `Host`. For the simulator's sake say
    `Simulator(allowed_hosts=["127.0.0.1"])`.

    Methods and faults are for any thread; one thread of its own carries the bytes.

    Attributes:
        upstream: the `Faults` of what clients send. Set its fields.
        downstream: the `Faults` of what the server sends.
        refusing: True: new connections are reset at once.
        accepted: connections so far, with those that were refused.
        port: where it listens, on 127.0.0.1.
    """

    def __init__(self, host: str, port: int, *, seed: int = 0) -> None:
        """Make a proxy; it listens once it is entered.

        Args:
            host: the server's.
            port: the server's.
            seed: of what is done at random.
        """
        self.upstream = Faults()
        self.downstream = Faults()
        self.refusing = False
        self.accepted = 0
        self._target = (host, port)
        self._random = random.Random(seed)
        self._selector = selectors.DefaultSelector()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._receiver, self._waker = socket.socketpair()
        self._connections: list[_Connection] = []
        self._changed = threading.Condition()
        self._passes = 0
        self._resetting = False
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="chaos-proxy", daemon=True)
        for sock in (self._listener, self._receiver, self._waker):
            sock.setblocking(False)
        self.port: int = self._listener.getsockname()[1]

    @classmethod
    def for_url(cls, url: str, *, seed: int = 0) -> Self:
        """Make a proxy to the server of a URL, as `Simulator.url` or `rest_url` is one.

        Args:
            url: the server's; without a port it is the scheme's usual one.
            seed: of what is done at random.

        Raises:
            ValueError: it names no host, or no port that is known.
        """
        parts = urlsplit(url)
        port = parts.port or _USUAL_PORTS.get(parts.scheme)
        if not parts.hostname or port is None:
            raise ValueError("url must name a host, and a port if its scheme is not ws, wss, http or https")
        return cls(parts.hostname, port, seed=seed)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End it and its connections."""
        self._closing = True
        self._wake()
        if self._thread.ident is not None:
            self._thread.join()
        for sock in (self._listener, self._receiver, self._waker):
            sock.close()
        self._selector.close()

    @property
    def open_connections(self) -> int:
        """How many connections it carries now."""
        return len(self._connections)

    def url_for(self, url: str) -> str:
        """Return the server's URL with this proxy's port."""
        parts = urlsplit(url)
        return urlunsplit(parts._replace(netloc=f"{parts.hostname}:{self.port}"))

    def heal(self) -> None:
        """Do nothing any more to anybody's bytes. Connections in a black hole stay there."""
        for faults in (self.upstream, self.downstream):
            for field in attrs.fields(Faults):
                setattr(faults, field.name, field.default)
        self.refusing = False
        self._wake()

    def reset(self) -> None:
        """Reset every connection; returns once that is done."""
        self._resetting = True
        self.sync()

    def sync(self) -> None:
        """Return once the faults that were set before are in force, and what had come was treated so."""
        with self._changed:
            wanted = self._passes + _A_WHOLE_PASS
            while self._passes < wanted and self._thread.is_alive():
                self._wake()
                self._changed.wait(0.01)

    # --- the thread -------------------------------------------------------------------------------------

    def _wake(self) -> None:
        with contextlib.suppress(OSError):  # full: it wakes anyway
            self._waker.send(b"\0")

    def _run(self) -> None:
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._selector.register(self._receiver, selectors.EVENT_READ)
        while not self._closing:
            ready = {key.fd: events for key, events in self._selector.select(self._timeout())}
            if self._receiver.fileno() in ready:
                with contextlib.suppress(BlockingIOError):
                    self._receiver.recv(4096)
            if self._listener.fileno() in ready:
                self._accept()
            for connection in list(self._connections):
                self._carry(connection, ready)
            if self._resetting:
                self._resetting = False
                for connection in list(self._connections):
                    self._drop(connection, reset=True)
            with self._changed:
                self._passes += 1
                self._changed.notify_all()
        for connection in list(self._connections):
            self._drop(connection, reset=False)

    def _timeout(self) -> float | None:
        """Return the seconds until a pipe has something to do; None: until then nothing has."""
        pipes = [pipe for connection in self._connections for pipe in connection.pipes]
        timeout = seconds_until(nearest(*(pipe.due for pipe in pipes)))
        if any(pipe.is_held_up for pipe in pipes):
            # Faults are plain attributes, which wake nobody, so a piece that one holds up is tried again soon.
            timeout = 0.01 if timeout is None else min(timeout, 0.01)
        return timeout

    def _accept(self) -> None:
        try:
            client, _ = self._listener.accept()
        except OSError:  # it went away again
            return
        self.accepted += 1
        try:
            server = None if self.refusing else socket.create_connection(self._target, timeout=5)
        except OSError:
            server = None
        if server is None:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            client.close()
            return
        for sock in (client, server):
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._selector.register(sock, selectors.EVENT_READ)
        up = Pipe(client, server, self.upstream, self._random)
        down = Pipe(server, client, self.downstream, self._random)
        self._connections.append(_Connection(client, server, (up, down)))

    def _carry(self, connection: _Connection, ready: dict[int, int]) -> None:
        try:
            for pipe in connection.pipes:
                pipe.carry(readable=bool(ready.get(pipe.source.fileno(), 0) & selectors.EVENT_READ))
        except OSError:
            self._drop(connection, reset=True)
            return
        up, down = connection.pipes
        if up.is_orphaned or down.is_orphaned or (up.has_ended and down.has_ended):
            self._drop(connection, reset=not (up.has_ended and down.has_ended))
            return
        self._watch(connection.client, read=up.wants_read, write=down.wants_write)
        self._watch(connection.server, read=down.wants_read, write=up.wants_write)

    def _watch(self, sock: socket.socket, *, read: bool, write: bool) -> None:
        wanted = (selectors.EVENT_READ if read else 0) | (selectors.EVENT_WRITE if write else 0)
        known = self._selector.get_map().get(sock)
        if known is not None and not wanted:
            self._selector.unregister(sock)
        elif known is None and wanted:
            self._selector.register(sock, wanted)
        elif known is not None and known.events != wanted:
            self._selector.modify(sock, wanted)

    def _drop(self, connection: _Connection, *, reset: bool) -> None:
        self._connections.remove(connection)
        for sock in (connection.client, connection.server):
            self._watch(sock, read=False, write=False)
            if reset:
                with contextlib.suppress(OSError):
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            sock.close()
