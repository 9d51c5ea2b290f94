"""The simulator as a developer sees it: plain calls, with the event loop in a thread of its own."""

from __future__ import annotations

import asyncio
import concurrent.futures
import ipaddress
import socket
import threading
import time
from typing import TYPE_CHECKING, Any, NamedTuple, ParamSpec, TypeVar

from aiohttp import web

from aggstream.simulator._orders import choose
from aggstream.simulator._server import make_app
from aggstream.simulator._service import Service

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Coroutine, Iterable
    from types import TracebackType

    from typing_extensions import Self

    from aggstream.simulator._account import Books
    from aggstream.simulator._faults import Counts
    from aggstream.simulator._playback import Playback
    from aggstream.simulator._tokens import SignedIn

P = ParamSpec("P")
T = TypeVar("T")

# Seconds for answers under way when the simulator stops.
_SHUTDOWN_TIMEOUT = 1.0


class _Running(NamedTuple):
    thread: threading.Thread
    loop: asyncio.AbstractEventLoop
    stop: asyncio.Event


class Simulator:
    """A local AGG: WebSocket and REST on one port, with real tokens, seeded orders and faults on demand.

    Use it as a context manager, or call `start` and `stop`. Every method may be called in any thread, blocks
    until it is done, and raises what went wrong. What the simulator knows (users, orders, books, counts)
    outlives `stop`, and a simulator started again serves it on the same port.

    Args:
        host: the address to listen on.
        port: the port to listen on; 0 takes a free one.
        app_id: the only app that is known.
        origins: the allowed values of a handshake's Origin header.
        seed: what happens to the orders follows from it. With the same seed and the same calls, a user's events
            are the same but for their timestamps; with the same `now` as well, the same byte for byte.
        token_lifetime: seconds that an access token lives.
        heartbeat_interval: seconds from one heartbeat to the next, on each connection.
        enforce_expiry: whether a connection is closed (4401) when its token expires.
        reuse_revokes: whether a refresh token used a second time ends the session that it belongs to.
        ssl_context: serves wss and https with it.
        allow_remote: allows a `host` that other machines can reach: anyone there can drive the simulator.
        now: the clock of timestamps and tokens, in seconds since the epoch.

    Raises:
        ValueError: a host that is not this machine's alone, no origin, or a time that is not positive.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        app_id: str = "app_demo123",
        origins: Iterable[str] = ("https://app.example",),
        seed: object = 1,
        token_lifetime: float = 300.0,
        heartbeat_interval: float = 5.0,
        enforce_expiry: bool = True,
        reuse_revokes: bool = True,
        ssl_context: ssl.SSLContext | None = None,
        allow_remote: bool = False,
        now: Callable[[], float] = time.time,
    ) -> None:
        if not (allow_remote or _is_loopback(host)):
            raise ValueError(f"{host} can be reached by other machines: that takes allow_remote=True")
        origins = tuple(origins)
        if not origins:
            raise ValueError("origins must hold at least one origin")
        for name, seconds in (("token_lifetime", token_lifetime), ("heartbeat_interval", heartbeat_interval)):
            if not seconds > 0:
                raise ValueError(f"{name} must be positive: {seconds}")
        self.app_id = app_id
        self.origin = origins[0]
        self._host = host
        self._port = port
        self._ssl_context = ssl_context
        self._service = Service(
            app_id=app_id,
            origins=origins,
            seed=seed,
            token_lifetime=token_lifetime,
            heartbeat_interval=heartbeat_interval,
            enforce_expiry=enforce_expiry,
            reuse_revokes=reuse_revokes,
            now=now,
        )
        # Guards `_running`, and with it the service: that belongs to the loop while there is one, and to the
        # holder of this lock while there is none.
        self._lock = threading.Lock()
        self._running: _Running | None = None

    def __repr__(self) -> str:
        return f"<Simulator {self._address} {'stopped' if self._running is None else 'running'}>"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

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

    def sign_in(self, user_id: str = "usr_demo", *, lifetime: float | None = None) -> SignedIn:
        """Sign a user in.

        Args:
            user_id: any text; a user comes into being by being named.
            lifetime: seconds that this session's access tokens live, those from refreshing as well; None takes
                `token_lifetime`.

        Raises:
            ValueError: an empty id, or a lifetime that is not positive.
        """
        return self._call(self._service.sign_in, user_id, lifetime)

    def place_order(
        self,
        user_id: str = "usr_demo",
        *,
        scenario: str | None = None,
        venue: str | None = None,
        side: str | None = None,
        price: object = None,
        size: object = None,
    ) -> str:
        """Play the whole life of an order, with nothing in between. What is None is chosen by the seed.

        Waits while thousands of frames are queued on a connection of the user that does not read them.

        Args:
            user_id: whose order it is.
            scenario: "filled", "partial" (in parts, then filled), "failed", "cancelled", "expired" or "retried".
            venue: any venue.
            side: "buy" or "sell".
            price: between 0 and 1, of at most four decimals: a number, or its text.
            size: shares, of at most two decimals: a number, or its text.

        Returns:
            The order's id.

        Raises:
            ValueError: an argument that cannot be played.
        """
        choices = choose(scenario, venue, side, price, size)
        return self._wait(self._service.player.place_order, user_id, choices)

    def play(
        self,
        user_id: str = "usr_demo",
        *,
        orders: int | None = 10,
        rate: float | None = None,
        overlap: int = 4,
    ) -> Playback:
        """Play the lives of many orders in the background, several at a time.

        It is no faster than the slowest of the user's connections reads.

        Args:
            user_id: whose orders they are.
            orders: how many; None goes on until cancelled.
            rate: events per second; None is as fast as it can.
            overlap: how many orders are alive at a time, at most.

        Raises:
            ValueError: an argument that makes no sense.
        """
        return self._wait(self._service.player.play, user_id, orders=orders, rate=rate, overlap=overlap)

    def push(self, frame: str | dict[str, Any], *, user_id: str | None = None) -> int:
        """Send any frame, right or wrong; it is not entered into the books.

        Args:
            frame: a text, sent as it is, or an object, sent as JSON.
            user_id: whose connections get it; None for all, the unauthenticated as well.

        Returns:
            How many connections it was sent to.

        Raises:
            ValueError: what cannot be written as JSON or UTF-8. TypeError as well, as `json.dumps` raises it.
        """
        return self._wait(self._service.push, frame, user_id)

    def drop(
        self,
        *,
        user_id: str | None = None,
        code: int = 1001,
        reason: str = "going away",
        abort: bool = False,
    ) -> int:
        """End connections. What happens from now on does not reach them.

        Args:
            user_id: whose connections; None for all.
            code: the close code, sent after all that was queued before it.
            reason: the reason that goes with the code, at most 123 bytes.
            abort: reset the connection (TCP RST) instead, with what is queued lost.

        Returns:
            How many connections were ended.

        Raises:
            ValueError: a code that a server does not close with, or a reason too long.
        """
        return self._call(self._service.drop, user_id, code, reason, abort)

    def refuse_tokens(self, n: int = 1) -> None:
        """Refuse the next `n` authentications, by message or in the query, whatever their tokens."""
        self._call(self._service.refuse_tokens, n)

    def refuse_connections(self, n: int = 1, status: int = 503, retry_after: int | None = None) -> None:
        """Answer the next `n` handshakes with an HTTP error, and a Retry-After of so many seconds."""
        self._call(self._service.refuse_connections, n, status, retry_after)

    def refuse_refreshes(self, n: int = 1, status: int = 503) -> None:
        """Answer the next `n` token refreshes with an HTTP error; their refresh tokens stay unspent."""
        self._call(self._service.refuse_refreshes, n, status)

    def stall_heartbeats(self, stalled: bool = True) -> None:
        """Send no heartbeats, or send them again."""
        self._call(self._service.stall_heartbeats, stalled)

    def stall(self, stalled: bool = True) -> None:
        """Let the connections open now look half-open: TCP stands, nothing is read, written or ponged.

        What is emitted meanwhile counts as sent, as a server believes, and is sent when the stall ends.
        Connections made later are well.
        """
        self._call(self._service.stall, stalled)

    def expire_tokens(self, user_id: str | None = None) -> None:
        """Let all access tokens issued so far expire, to that user or to all. Refresh tokens stay good."""
        self._call(self._service.expire_tokens, user_id)

    def books(self, user_id: str = "usr_demo") -> Books:
        """Return the count of the user's events."""
        return self._call(self._service.books, user_id)

    @property
    def counts(self) -> Counts:
        """What the simulator has seen so far."""
        return self._call(self._service.counts)

    @property
    def connections(self) -> int:
        """How many WebSocket connections are open, not counting those that are closing."""
        return self._call(self._service.connections.count, authenticated=False)

    def wait_for_connections(self, n: int, *, authenticated: bool = True, timeout: float = 10) -> bool:
        """Wait until exactly `n` connections are open.

        Args:
            n: how many.
            authenticated: whether to count only those that have a user.
            timeout: seconds.

        Returns:
            Whether there were, at some moment before the timeout.
        """
        return self._wait(self._service.wait_for_connections, n, authenticated, timeout)

    async def _serve(
        self,
        listener: socket.socket,
        ready: concurrent.futures.Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]],
    ) -> None:
        runner = web.AppRunner(
            make_app(self._service), access_log=None, handle_signals=False, shutdown_timeout=_SHUTDOWN_TIMEOUT
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
                await site.stop()
                await self._service.close()
        finally:
            await runner.cleanup()

    def _call(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call the service: in its loop while that runs, else right here."""
        with self._lock:
            if self._running is None:
                return function(*args, **kwargs)

        async def call() -> T:
            return function(*args, **kwargs)

        return self._wait(call)

    def _wait(self, function: Callable[P, Coroutine[Any, Any, T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
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


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False  # a name, which may stand for any machine
