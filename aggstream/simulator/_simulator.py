"""The simulator as a developer sees it: users, their orders, and the faults that are switched on."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from aggstream.simulator._host import Host
from aggstream.simulator._in_play import OrderInPlay
from aggstream.simulator._orders import choose
from aggstream.simulator._service import Service

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterable
    from types import TracebackType

    from typing_extensions import Self

    from aggstream.simulator._account import Books
    from aggstream.simulator._faults import Counts
    from aggstream.simulator._playback import Playback
    from aggstream.simulator._tokens import SignedIn


class Simulator:
    """A local AGG: WebSocket and REST on one port, with real tokens, seeded orders and faults on demand.

    Use it as a context manager, or call `start` and `stop`. Every method may be called in any thread, blocks
    until it is done, and raises what went wrong. What the simulator knows (users, orders, books, counts)
    outlives `stop`, and a simulator started again serves it on the same port.

    Args:
        host: the address to listen on.
        port: the port to listen on; 0 takes a free one.
        app_id: the only app that is known.
        api_key: the key that each REST request must carry in `x-app-api-key`; None: it needs none.
        origins: the allowed values of a handshake's Origin header.
        seed: what happens to the orders follows from it. With the same seed and the same calls, a user's events
            are the same but for their timestamps; with the same `now` as well, the same byte for byte.
        token_lifetime: seconds that an access token lives.
        heartbeat_interval: seconds from one heartbeat to the next, on each connection.
        enforce_expiry: whether a connection is closed (4401) when its token expires.
        reuse_revokes: whether a refresh token used a second time ends the session that it belongs to.
        ssl_context: serves wss and https with it.
        allow_remote: allows a `host` that other machines can reach: anyone there can drive the simulator.
        allowed_hosts: further names by which clients address the simulator, like "sim" or "sim:9000"; a name
            without a port is for any port. Requests must have in their `Host` such a name, or `host`, localhost,
            127.0.0.1, [::1] or the address that they came to, with `port`. The others are answered with status
            421, so that no web page can reach the simulator by a name of its own.
        history: how many of a user's newest orders REST tells of; older ones are forgotten.
        now: the clock of timestamps and tokens, in seconds since the epoch.

    Raises:
        ValueError: a host that is not this machine's alone, no origin, a time or history that is not positive, or
            an allowed host that is not a name.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        app_id: str = "app_demo123",
        api_key: str | None = None,
        origins: Iterable[str] = ("https://app.example",),
        seed: object = 1,
        token_lifetime: float = 300.0,
        heartbeat_interval: float = 5.0,
        enforce_expiry: bool = True,
        reuse_revokes: bool = True,
        ssl_context: ssl.SSLContext | None = None,
        allow_remote: bool = False,
        allowed_hosts: Iterable[str] = (),
        history: int = 10_000,
        now: Callable[[], float] = time.time,
    ) -> None:
        origins = tuple(origins)
        if not origins:
            raise ValueError("origins must hold at least one origin")
        for name, number in {
            "token_lifetime": token_lifetime,
            "heartbeat_interval": heartbeat_interval,
            "history": history,
        }.items():
            if not number > 0:
                raise ValueError(f"{name} must be positive: {number}")
        self.app_id = app_id
        self.origin = origins[0]
        self._service = Service(
            app_id=app_id,
            api_key=api_key,
            origins=origins,
            seed=seed,
            token_lifetime=token_lifetime,
            heartbeat_interval=heartbeat_interval,
            enforce_expiry=enforce_expiry,
            reuse_revokes=reuse_revokes,
            history=history,
            now=now,
        )
        self._host = Host(
            self._service,
            host=host,
            port=port,
            ssl_context=ssl_context,
            allow_remote=allow_remote,
            allowed_hosts=allowed_hosts,
        )
        self._call, self._wait = self._host.call, self._host.wait

    def __repr__(self) -> str:
        return f"<Simulator {self._host}>"

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
        return self._host.url

    @property
    def rest_url(self) -> str:
        """The base address of the REST API."""
        return self._host.rest_url

    @property
    def port(self) -> int:
        """Where it listens; if that was left to the system, 0 before the first start."""
        return self._host.port

    def start(self) -> None:
        """Listen, and serve on a thread of its own (`aggstream-simulator`).

        Raises:
            OSError: the port is taken, or the host is none of this machine.
            RuntimeError: it runs already.
        """
        self._host.start()

    def stop(self) -> None:
        """Close every connection (1001) and the port, and end the thread. Does nothing when it has stopped."""
        self._host.stop()

    # --- users, orders, and what became of them ---------------------------------------------------------

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

    def place_orders(
        self,
        user_id: str,
        count: int,
        *,
        scenario: str | None = None,
        venue: str | None = None,
        side: str | None = None,
        price: object = None,
        size: object = None,
    ) -> list[str]:
        """Play the whole lives of many orders, one after the other, as fast as the user's connections read.

        Args:
            user_id: whose orders they are.
            count: how many.
            scenario: as for `place_order`, and so are the others.
            venue: any venue.
            side: "buy" or "sell".
            price: a probability.
            size: shares.

        Returns:
            The orders' ids, the oldest first. REST tells of as many as `history` says.

        Raises:
            ValueError: an argument that cannot be played.
        """
        choices = choose(scenario, venue, side, price, size)
        return self._wait(self._service.player.place_orders, user_id, count, choices)

    def begin_order(
        self,
        user_id: str = "usr_demo",
        *,
        scenario: str | None = None,
        venue: str | None = None,
        side: str | None = None,
        price: object = None,
        size: object = None,
    ) -> OrderInPlay:
        """Begin an order whose life the caller advances; nothing has happened yet, not even its submission.

        Args:
            user_id: whose order it is.
            scenario: as for `place_order`, and so are the others.
            venue: any venue.
            side: "buy" or "sell".
            price: a probability.
            size: shares.

        Raises:
            ValueError: an argument that cannot be played.
        """
        choices = choose(scenario, venue, side, price, size)
        player = self._service.player
        order_id, total = self._call(player.begin_order, user_id, choices)
        return OrderInPlay(
            order_id,
            total,
            advance=lambda n: self._call(player.advance, order_id, n),
            frames_left=lambda: self._call(player.frames_left, order_id),
        )

    def play(
        self,
        user_id: str = "usr_demo",
        *,
        orders: int | None = 10,
        rate: float | None = None,
        overlap: int = 4,
        scenario: str | None = None,
        venue: str | None = None,
        side: str | None = None,
        price: object = None,
        size: object = None,
    ) -> Playback:
        """Play the lives of many orders in the background, several at a time.

        It is no faster than the slowest of the user's connections reads.

        Args:
            user_id: whose orders they are.
            orders: how many; None goes on until cancelled.
            rate: events per second; None is as fast as it can.
            overlap: how many orders are alive at a time, at most.
            scenario: as for `place_order`, and so are the others.
            venue: any venue.
            side: "buy" or "sell".
            price: a probability.
            size: shares.

        Raises:
            ValueError: an argument that makes no sense.
        """
        choices = choose(scenario, venue, side, price, size)
        play = self._service.player.play
        return self._wait(play, user_id, choices, orders=orders, rate=rate, overlap=overlap)

    def orders(self, user_id: str = "usr_demo") -> list[dict[str, Any]]:
        """Return what REST would say of all the user's orders, newest first, were nothing wrong with REST.

        What `set_order` changed is in it; a freeze or a refusal is not.
        """
        return self._call(self._service.orders, user_id)

    def terminal_orders(self, user_id: str = "usr_demo") -> dict[str, str]:
        """Return the status of each of `orders` that is filled, failed, cancelled or expired, by its id."""
        return self._call(self._service.terminal_orders, user_id)

    def books(self, user_id: str = "usr_demo") -> Books:
        """Return the count of the user's events."""
        return self._call(self._service.books, user_id)

    @property
    def counts(self) -> Counts:
        """The counts of all that the simulator has seen so far."""
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

    # --- faults -----------------------------------------------------------------------------------------

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

    def refuse_rest(self, n: int | None = 1, status: int = 503, retry_after: int | None = None) -> None:
        """Answer the next `n` calls of /execution/* with an HTTP error, and a Retry-After of so many seconds.

        None refuses all of them, until `refuse_rest(0)`.
        """
        self._call(self._service.rest.refuse, n, status, retry_after)

    def stall_rest(self, stalled: bool = True) -> None:
        """Accept the calls of /execution/* and hold their answers back, or let all go that were held back.

        An answer is made when the call comes, and tells of what was then. Stopping the simulator lets all go.
        """
        self._call(self._service.rest.stall, stalled)

    def drop_rest(self, n: int = 1) -> None:
        """Reset the connection (TCP RST) in the middle of the next `n` answers of /execution/*, errors as well."""
        self._call(self._service.rest.drop, n)

    def trail_rest(self, seconds: float) -> None:
        """Answer /execution/orders with what was so many seconds ago, as a replica that trails; 0: what is."""
        self._call(self._service.trail_rest, seconds)

    def freeze_rest(self, frozen: bool = True) -> None:
        """Answer /execution/* from what is now, as a replica that lags, or from what is then again.

        Freezing again moves on to the state of that moment. Tokens are always judged by what is.
        """
        self._call(self._service.freeze_rest, frozen)

    def set_order(
        self, order_id: str, *, status: str | None = None, filled_raw: int | None = None, error: str | None = None
    ) -> None:
        """Let REST say something of an order that no event tells of, whatever becomes of the order.

        Each call takes the place of the one before; with nothing given, REST tells the truth again. The stream
        goes on as if nothing had been said.

        Args:
            order_id: an order that was submitted, of any user.
            status: any text; None leaves the true one.
            filled_raw: any number of base units, sensible or not; None leaves the true one.
            error: any text; None leaves the true one.

        Raises:
            ValueError: REST does not tell of such an order at all.
        """
        self._call(self._service.player.set_order, order_id, status=status, filled_raw=filled_raw, error=error)

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
