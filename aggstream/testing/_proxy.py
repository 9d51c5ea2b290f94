"""A TCP proxy between clients and a server. It delays, loses or damages their bytes, as bad networks do."""

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

_DEFAULT_PORTS = {"ws": 80, "http": 80, "wss": 443, "https": 443}
# The present pass may have read the faults before they were set. Data, and the end after it, need one pass each.
_PASSES_TO_SYNC = 3
_LINGER_ZERO = struct.pack("ii", 1, 0)  # SO_LINGER: on, for 0 seconds


_Validator: TypeAlias = "Callable[[object, attrs.Attribute[Any], Any], None]"


def _number_validator(
    allowed: str, is_allowed: Callable[[Any], bool], *, whole: bool = False, optional: bool = False
) -> _Validator:
    """Return a validator of a number. `allowed` describes the allowed numbers, for the error."""
    kinds: tuple[type, ...] = (int,) if whole else (int, float)

    def check(_: object, field: attrs.Attribute[Any], value: Any) -> None:
        if value is None and optional:
            return
        if isinstance(value, bool) or not isinstance(value, kinds) or not is_allowed(value):
            or_none = ", or None" if optional else ""
            raise ValueError(f"{field.name} must be {allowed}{or_none}, got {value!a}")

    return check


def _validate_switch(_: object, field: attrs.Attribute[Any], value: Any) -> None:
    if not isinstance(value, bool):
        raise ValueError(f"{field.name} must be True or False, got {value!a}")  # noqa: TRY004  (as the others)


_size_validator = _number_validator(
    "a whole number of bytes, 1 or more", lambda value: value >= 1, whole=True, optional=True
)


@attrs.define(kw_only=True)
class Faults:
    """The faults of one direction of all connections. You can set and change them at any time.

    Attributes:
        slice_size: the largest number of bytes in one piece; None: no limit.
        latency: the seconds by which the proxy delays each piece.
        rate: the largest number of bytes a second; None: no limit.
        stalled: True: the proxy holds all bytes back. It sends them when this is False again.
        blackhole: True: the proxy throws the bytes of each connection away. Such a connection never works again,
            also when this is False again: its peer seems gone. While this is True, the proxy hides even its end.
        corrupt: the probability, from 0 to 1, that the proxy flips one bit of a byte.
        reset_after: after this many more bytes, the proxy resets the connection that carries the last of them.
            It does so once, and sets this to None. None: never.
        half_close_after: after this many more bytes, the proxy ends this direction of the connection that carries
            the last of them, with a FIN. It does so once, and sets this to None. None: never.

    Raises:
        ValueError: a field is set to a value that is not allowed.
    """

    slice_size: int | None = attrs.field(default=None, validator=_size_validator)
    latency: float = attrs.field(
        default=0.0,
        validator=_number_validator("a number of seconds, 0 or more", lambda value: 0 <= value < math.inf),
    )
    rate: float | None = attrs.field(
        default=None,
        validator=_number_validator(
            "a number of bytes a second, above 0", lambda value: 0 < value < math.inf, optional=True
        ),
    )
    stalled: bool = attrs.field(default=False, validator=_validate_switch)
    blackhole: bool = attrs.field(default=False, validator=_validate_switch)
    corrupt: float = attrs.field(
        default=0.0, validator=_number_validator("a probability from 0 to 1", lambda value: 0 <= value <= 1)
    )
    reset_after: int | None = attrs.field(default=None, validator=_size_validator)
    half_close_after: int | None = attrs.field(default=None, validator=_size_validator)


@attrs.define(eq=False)
class _Connection:
    client: socket.socket
    server: socket.socket
    pipes: tuple[Pipe, Pipe]


class ChaosProxy:
    """Listens on a port of this machine, and carries bytes between clients and one server, also those of TLS.

    ```python
    with ChaosProxy.for_url(agg.url) as proxy:
        client = aggstream.Client(url=proxy.url_for(agg.url), …)
        proxy.downstream.slice_size = 3
        proxy.reset()
    ```

    The client's `Host` header has the proxy's port. The simulator accepts it with
    `Simulator(allowed_hosts=["127.0.0.1"])`.

    Every thread may call the methods and set the faults. The proxy carries the bytes on a thread of its own.

    Attributes:
        upstream: the `Faults` of the bytes that clients send. Set its fields.
        downstream: the `Faults` of the bytes that the server sends.
        refusing: True: the proxy resets new connections at once.
        accepted: the number of connections so far, including the refused ones.
        port: the port on 127.0.0.1 that the proxy listens on.
    """

    def __init__(self, host: str, port: int, *, seed: int = 0) -> None:
        """Make a proxy. It serves clients after the `with` statement has entered it.

        Args:
            host: the server's host.
            port: the server's port.
            seed: the seed of the random faults.
        """
        self.upstream = Faults()
        self.downstream = Faults()
        self.refusing = False
        self.accepted = 0
        self._target = (host, port)
        self._rng = random.Random(seed)
        self._selector = selectors.DefaultSelector()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._wake_reader, self._wake_writer = socket.socketpair()
        self._connections: list[_Connection] = []
        self._changed = threading.Condition()
        self._passes_done = 0
        self._wants_reset = False
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="chaos-proxy", daemon=True)
        for sock in (self._listener, self._wake_reader, self._wake_writer):
            sock.setblocking(False)
        self.port: int = self._listener.getsockname()[1]

    @classmethod
    def for_url(cls, url: str, *, seed: int = 0) -> Self:
        """Make a proxy to the server of a URL, for example of `Simulator.url` or `Simulator.rest_url`.

        Args:
            url: the server's URL. Without a port, the scheme's default port is used.
            seed: the seed of the random faults.

        Raises:
            ValueError: the URL has no host, or it has no port and its scheme has no default port.
        """
        parts = urlsplit(url)
        port = parts.port or _DEFAULT_PORTS.get(parts.scheme)
        if not parts.hostname or port is None:
            raise ValueError("url must name a host, and also a port if its scheme is not ws, wss, http or https")
        return cls(parts.hostname, port, seed=seed)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections and the port, and end the thread."""
        self._closing = True
        self._wake()
        if self._thread.ident is not None:
            self._thread.join()
        for sock in (self._listener, self._wake_reader, self._wake_writer):
            sock.close()
        self._selector.close()

    @property
    def open_connections(self) -> int:
        """The number of connections that are open now."""
        return len(self._connections)

    def url_for(self, url: str) -> str:
        """Return the server's URL with this proxy's port instead of the server's."""
        parts = urlsplit(url)
        return urlunsplit(parts._replace(netloc=f"{parts.hostname}:{self.port}"))

    def heal(self) -> None:
        """Switch all faults off, also `refusing`. Connections that were in a black hole do not work again."""
        for faults in (self.upstream, self.downstream):
            for field in attrs.fields(Faults):
                setattr(faults, field.name, field.default)
        self.refusing = False
        self._wake()

    def reset(self) -> None:
        """Reset every connection. Returns when all are reset."""
        self._wants_reset = True
        self.sync()

    def sync(self) -> None:
        """Return when the faults that were set before are in force, and all bytes received before are handled."""
        with self._changed:
            wanted = self._passes_done + _PASSES_TO_SYNC
            while self._passes_done < wanted and self._thread.is_alive():
                self._wake()
                self._changed.wait(0.01)

    # --- the thread -------------------------------------------------------------------------------------

    def _wake(self) -> None:
        with contextlib.suppress(OSError):  # the socket is full: the thread wakes anyway
            self._wake_writer.send(b"\0")

    def _run(self) -> None:
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._selector.register(self._wake_reader, selectors.EVENT_READ)
        while not self._closing:
            ready = {key.fd: events for key, events in self._selector.select(self._timeout())}
            if self._wake_reader.fileno() in ready:
                with contextlib.suppress(BlockingIOError):
                    self._wake_reader.recv(4096)
            if self._listener.fileno() in ready:
                self._accept()
            for connection in list(self._connections):
                self._carry(connection, ready)
            if self._wants_reset:
                self._wants_reset = False
                for connection in list(self._connections):
                    self._drop(connection, reset=True)
            with self._changed:
                self._passes_done += 1
                self._changed.notify_all()
        for connection in list(self._connections):
            self._drop(connection, reset=False)

    def _timeout(self) -> float | None:
        """Return the seconds until a pipe has something to do; None: no pipe waits for a time."""
        pipes = [pipe for connection in self._connections for pipe in connection.pipes]
        timeout = seconds_until(nearest(*(pipe.next_deadline for pipe in pipes)))
        if any(pipe.is_stalled for pipe in pipes):
            # Setting a fault does not wake this thread, so it looks at a stalled pipe again soon.
            timeout = 0.01 if timeout is None else min(timeout, 0.01)
        return timeout

    def _accept(self) -> None:
        try:
            client, _ = self._listener.accept()
        except OSError:  # the client has left already
            return
        self.accepted += 1
        try:
            server = None if self.refusing else socket.create_connection(self._target, timeout=5)
        except OSError:
            server = None
        if server is None:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_ZERO)
            client.close()
            return
        for sock in (client, server):
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._selector.register(sock, selectors.EVENT_READ)
        up = Pipe(client, server, self.upstream, self._rng)
        down = Pipe(server, client, self.downstream, self._rng)
        self._connections.append(_Connection(client, server, (up, down)))

    def _carry(self, connection: _Connection, ready: dict[int, int]) -> None:
        try:
            for pipe in connection.pipes:
                pipe.carry(readable=bool(ready.get(pipe.source.fileno(), 0) & selectors.EVENT_READ))
        except OSError:
            self._drop(connection, reset=True)
            return
        up, down = connection.pipes
        if up.is_cut_off or down.is_cut_off or (up.has_ended and down.has_ended):
            self._drop(connection, reset=not (up.has_ended and down.has_ended))
            return
        self._update_selector(connection.client, read=up.wants_read, write=down.wants_write)
        self._update_selector(connection.server, read=down.wants_read, write=up.wants_write)

    def _update_selector(self, sock: socket.socket, *, read: bool, write: bool) -> None:
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
            self._update_selector(sock, read=False, write=False)
            if reset:
                with contextlib.suppress(OSError):
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_ZERO)
            sock.close()
