"""Where the service runs: an event loop in a thread of its own, and plain calls into it."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import ipaddress
import socket
import threading
from typing import TYPE_CHECKING, Any, NamedTuple, ParamSpec, TypeVar

from aiohttp import web

from aggstream.simulator._hosts import Hosts
from aggstream.simulator._server import make_app

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Coroutine, Iterable

    from aggstream.simulator._service import Service

P = ParamSpec("P")
T = TypeVar("T")

# Seconds for answers under way when the simulator stops.
_SHUTDOWN_TIMEOUT = 1.0
# Turns of the loop that accepting a connection may take.
_ROUNDS = 10


class _Running(NamedTuple):
    thread: threading.Thread
    loop: asyncio.AbstractEventLoop
    stop: asyncio.Event


class Host:
    """Starts, stops and calls the service. All methods are thread-safe."""

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
            raise ValueError(f"{host} can be reached by other machines: that takes allow_remote=True")
        self._service = service
        self._host = host
        self._hosts = Hosts(host, allowed_hosts)
        self._port = port
        self._ssl_context = ssl_context
        # Guards `_running`, and with it the service: that belongs to the loop while there is one, and to the
        # holder of this lock while there is none.
        self._lock = threading.Lock()
        self._running: _Running | None = None

    def __str__(self) -> str:
        return f"{self._address} {'stopped' if self._running is None else 'running'}"

    @property
    def url(self) -> str:
        """The WebSocket's address, without query parameters."""
        return f"{'wss' if self._ssl_context else 'ws'}://{self._address}/ws"

    @property
    def rest_url(self) -> str:
        """The base address of the REST API."""
        return f"{'https' if self._ssl_context else 'http'}://{self._address}"

    @property
    def port(self) -> int:
        """Where it listens; if that was left to the system, 0 before the first start."""
        return self._port

    @property
    def _address(self) -> str:
        return f"[{self._host}]:{self._port}" if ":" in self._host else f"{self._host}:{self._port}"

    def start(self) -> None:
        """Listen, and serve on a thread of its own (`aggstream-simulator`).

        Raises:
            OSError: the port is taken, or the host is none of this machine.
            RuntimeError: it runs already.
        """
        with self._lock:
            if self._running is not None:
                raise RuntimeError("the simulator is running already")
            # Bound here, not in the thread: from now on clients can connect, and the port is known.
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
        """Close every connection (1001) and the port, and end the thread. Does nothing when it has stopped."""
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
            make_app(self._service, self._hosts),
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
                    # Raised in the thread that called start; here nobody could catch it.
                    ready.set_exception(error)
                    return
                ready.set_result((asyncio.get_running_loop(), stop))
                await stop.wait()
                # First of all nobody else comes in: clients that are turned out try again at once.
                await _accept_no_more(listener)
                await site.stop()
                await self._service.close()
        finally:
            server = runner.server
            kept = [] if server is None else [handler.transport for handler in server.connections]
            await runner.cleanup()
            await asyncio.sleep(0)  # what was being accepted meanwhile is a connection now
            if server is not None:
                kept += [handler.transport for handler in server.connections]
            for transport in kept:
                if transport is not None:
                    transport.abort()  # it would say goodbye over TLS, in a loop that has ended

    def call(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call the service: in its loop while that runs, else right here."""
        with self._lock:
            if self._running is None:
                return function(*args, **kwargs)

        async def called() -> T:
            return function(*args, **kwargs)

        return self.wait(called)

    def wait(self, function: Callable[P, Coroutine[Any, Any, T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run one of the service's coroutines in its loop, and wait for it."""
        with self._lock:
            if self._running is None:
                raise RuntimeError("the simulator is not running")
            # Under the lock: the loop takes what was handed in before it is told to stop.
            future = asyncio.run_coroutine_threadsafe(function(*args, **kwargs), self._running.loop)
        try:
            return future.result()
        except concurrent.futures.CancelledError:
            raise RuntimeError("the simulator was stopped") from None


async def _accept_no_more(listener: socket.socket) -> None:
    """Accept no further connection, and let those that were accepted become connections.

    asyncio forgets a socket that it has accepted, and leaves it open, if the server is closed before.
    """
    with contextlib.suppress(NotImplementedError):  # where the loop does not select
        asyncio.get_running_loop().remove_reader(listener)
    for _ in range(_ROUNDS):
        await asyncio.sleep(0)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False  # a name, which may stand for any machine
