"""The thread that runs the service, with an event loop. Other threads call into it with plain functions."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import ipaddress
import socket
import threading
from typing import TYPE_CHECKING, Any, NamedTuple, ParamSpec, TypeVar

from aiohttp import web

from aggstream.simulator._allowed_hosts import AllowedHosts
from aggstream.simulator._http_app import make_app

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Coroutine, Iterable

    from aggstream.simulator._service import Service

P = ParamSpec("P")
T = TypeVar("T")

# The seconds that unfinished answers have when the simulator stops.
_SHUTDOWN_TIMEOUT = 1.0
# The turns of the loop that accepting a connection may take.
_ACCEPT_TURNS = 10


class _Running(NamedTuple):
    thread: threading.Thread
    loop: asyncio.AbstractEventLoop
    stop: asyncio.Event


class ServiceThread:
    """Starts and stops the thread, and runs calls of the service on it. All methods are thread-safe."""

    def __init__(
        self,
        service: Service,
        *,
        host: str,
        port: int,
        ssl_context: ssl.SSLContext | None,
        allow_remote: bool,
        allowed_hosts: Iterable[str],
    ) -> None:
        if not (allow_remote or _is_loopback(host)):
            raise ValueError(f"other machines can reach {host}: set allow_remote=True to allow that")
        self._service = service
        self._host = host
        self._allowed_hosts = AllowedHosts(host, allowed_hosts)
        self._port = port
        self._ssl_context = ssl_context
        # Guards `_running` and the service. While the thread runs, only its loop may use the service; otherwise,
        # only the holder of this lock.
        self._lock = threading.Lock()
        self._running: _Running | None = None

    def __str__(self) -> str:
        return f"{self._address} {'stopped' if self._running is None else 'running'}"

    @property
    def url(self) -> str:
        """The URL of the WebSocket, without query parameters."""
        return f"{'wss' if self._ssl_context else 'ws'}://{self._address}/ws"

    @property
    def rest_url(self) -> str:
        """The base URL of the REST API."""
        return f"{'https' if self._ssl_context else 'http'}://{self._address}"

    @property
    def port(self) -> int:
        """The port. If the system chooses the port, this is 0 before the first start."""
        return self._port

    @property
    def _address(self) -> str:
        return f"[{self._host}]:{self._port}" if ":" in self._host else f"{self._host}:{self._port}"

    def start(self) -> None:
        """Listen on the port, and start the thread (`aggstream-simulator`).

        Raises:
            OSError: the port is in use, or the host is not an address of this machine.
            RuntimeError: the simulator is running already.
        """
        with self._lock:
            if self._running is not None:
                raise RuntimeError("the simulator is running already")
            # Listens here and not in the thread, so that on return clients can connect and the port is known.
            family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
            listener = socket.create_server((self._host, self._port), family=family)
            ready: concurrent.futures.Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]]
            ready = concurrent.futures.Future()
            thread = threading.Thread(
                target=lambda: asyncio.run(self._serve(listener, ready)),
                name="aggstream-simulator",
                daemon=True,
            )
            port = listener.getsockname()[1]
            thread.start()
            try:
                self._running = _Running(thread, *ready.result())
            except BaseException:
                thread.join()
                raise
            self._port = port

    def stop(self) -> None:
        """Close every connection (1001) and the port, and end the thread. Does nothing if it is not running."""
        with self._lock:
            if self._running is not None:
                self._running.loop.call_soon_threadsafe(self._running.stop.set)
                self._running.thread.join()
                self._running = None

    async def _serve(
        self,
        listener: socket.socket,
        ready: concurrent.futures.Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]],
    ) -> None:
        runner = web.AppRunner(
            make_app(self._service, self._allowed_hosts),
            access_log=None,
            handle_signals=False,
            shutdown_timeout=_SHUTDOWN_TIMEOUT,
        )
        stop = asyncio.Event()
        try:
            with listener:
                try:
                    await runner.setup()
                    site = web.SockSite(runner, listener, ssl_context=self._ssl_context)
                    await site.start()
                except BaseException as error:
                    # `start` raises this error on its thread. On this thread nobody could catch it.
                    ready.set_exception(error)
                    return
                ready.set_result((asyncio.get_running_loop(), stop))
                await stop.wait()
                # New connections stop first, because clients that lose theirs reconnect at once.
                await _stop_accepting(listener)
                await site.stop()
                await self._service.close()
        finally:
            server = runner.server
            open_transports = [] if server is None else [handler.transport for handler in server.connections]
            await runner.cleanup()
            await asyncio.sleep(0)  # connections that were being accepted are in `server.connections` now
            if server is not None:
                open_transports += [handler.transport for handler in server.connections]
            for transport in open_transports:
                if transport is not None:
                    transport.abort()  # otherwise TLS would send its goodbye later, when the loop has ended

    def call(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function of the service: on the thread while it runs, otherwise on this one."""
        with self._lock:
            if self._running is None:
                return function(*args, **kwargs)

        async def call_function() -> T:
            return function(*args, **kwargs)

        return self.run(call_function)

    def run(self, function: Callable[P, Coroutine[Any, Any, T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a coroutine of the service on the thread, and return its result.

        Raises:
            RuntimeError: the simulator is not running, or it was stopped meanwhile.
        """
        with self._lock:
            if self._running is None:
                raise RuntimeError("the simulator is not running")
            # Under the lock, so that `stop` comes after it: the loop begins the coroutine before it stops.
            future = asyncio.run_coroutine_threadsafe(function(*args, **kwargs), self._running.loop)
        try:
            return future.result()
        except concurrent.futures.CancelledError:
            raise RuntimeError("the simulator was stopped") from None


async def _stop_accepting(listener: socket.socket) -> None:
    """Accept no more sockets, and wait until the accepted sockets are connections.

    Otherwise asyncio would forget an accepted socket when the server closes, and leave it open.
    """
    with contextlib.suppress(NotImplementedError):  # the loop has no selector
        asyncio.get_running_loop().remove_reader(listener)
    for _ in range(_ACCEPT_TURNS):
        await asyncio.sleep(0)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False  # a host name, which may belong to any machine
