"""The simulator's public class: users, their orders, and faults."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from aggstream.simulator._lifecycle import choose
from aggstream.simulator._order_in_play import OrderInPlay
from aggstream.simulator._service import Service
from aggstream.simulator._service_thread import ServiceThread

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterable
    from types import TracebackType

    from typing_extensions import Self

    from aggstream.simulator._counts import Books, Counts
    from aggstream.simulator._playback import Playback
    from aggstream.simulator._tokens import SignedIn


class Simulator:
    """A local AGG: WebSocket and REST on one port, with real tokens, seeded orders and faults on demand.

    Use it as a context manager, or call `start` and `stop`. Every thread may call the methods. A method blocks
    until it is done. `stop` keeps the users, orders, books and counts; after another `start`, the simulator serves
    them on the same port.

    Args:
        host: the address to listen on.
        port: the port to listen on; 0: the system chooses a free port.
        app_id: the id of the only app that the simulator knows.
        api_key: the key that each REST request must carry in `x-app-api-key`; None: requests need no key.
        origins: the allowed values of a handshake's Origin header.
        seed: decides what happens to the orders. With the same seed and the same calls, a user's events are the
            same except for their timestamps; with the same `now` too, they are the same byte for byte.
        token_lifetime: the seconds that an access token is valid.
        heartbeat_interval: the seconds between two heartbeats on a connection.
        enforce_expiry: True: the simulator closes a connection (4401) when its token expires.
        reuse_revokes: True: a second use of a refresh token revokes all refresh tokens of that sign-in.
        ssl_context: the TLS settings to serve wss and https with; None: serve ws and http.
        allow_remote: True allows a `host` that other machines can reach. Anyone there can control the simulator.
        allowed_hosts: further names that clients may use in their `Host` header, like "sim" or "sim:9000". A name
            without a port is allowed with every port. Always allowed are `host`, localhost, 127.0.0.1, [::1] and
            the address that the client has connected to, each with `port`. Other requests get status 421, so that
            no web page can reach the simulator by a host name of its own.
        history: the number of a user's newest orders that REST returns. Older orders are removed.
        now: returns the time for timestamps and tokens, in seconds since the epoch.

    Raises:
        ValueError: other machines can reach `host` and `allow_remote` is False, `origins` is empty, a time or
            `history` is not above 0, or an allowed host is not a host name.
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
                raise ValueError(f"{name} must be above 0, got {number}")
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
        self._thread = ServiceThread(
            self._service,
            host=host,
            port=port,
            ssl_context=ssl_context,
            allow_remote=allow_remote,
            allowed_hosts=allowed_hosts,
        )
        self._call, self._run = self._thread.call, self._thread.run

    def __repr__(self) -> str:
        return f"<Simulator {self._thread}>"

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
        """The URL of the WebSocket, without query parameters."""
        return self._thread.url

    @property
    def rest_url(self) -> str:
        """The base URL of the REST API."""
        return self._thread.rest_url

    @property
    def port(self) -> int:
        """The port. If the system chooses the port, this is 0 before the first start."""
        return self._thread.port

    def start(self) -> None:
        """Listen on the port, and start a thread that serves clients (`aggstream-simulator`).

        Raises:
            OSError: the port is in use, or the host is not an address of this machine.
            RuntimeError: the simulator is running already.
        """
        self._thread.start()

    def stop(self) -> None:
        """Close every connection (1001) and the port, and end the thread. Does nothing if it is not running."""
        self._thread.stop()

    # --- users and orders -------------------------------------------------------------------------------

    def sign_in(self, user_id: str = "usr_demo", *, lifetime: float | None = None) -> SignedIn:
        """Sign a user in.

        Args:
            user_id: the user's id, any text. A new id makes a new user.
            lifetime: the seconds that each access token of this sign-in is valid, including those from refreshing;
                None: `token_lifetime`.

        Raises:
            ValueError: the id is empty, or the lifetime is not above 0.
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
        """Play the whole life of an order, with no other event of the user in between.

        The seed decides each argument that is None. Waits while a connection of the user has thousands of frames
        queued because its client does not read them.

        Args:
            user_id: the id of the order's user.
            scenario: "filled", "partial" (filled in parts), "failed", "cancelled", "expired", "retried" (a step
                fails first, then the order is filled), "rejected", "fak" or "ioc" (filled in part; then the rest
                ends, with the status "filled" for "fak" and "cancelled" for "ioc"). The seed does not choose the
                last three.
            venue: any venue.
            side: "buy" or "sell".
            price: a number between 0 and 1 with at most four decimals, or its text.
            size: a number of shares with at most two decimals, or its text.

        Returns:
            The order's id.

        Raises:
            ValueError: an argument is not possible.
        """
        choices = choose(scenario, venue, side, price, size)
        return self._run(self._service.player.place_order, user_id, choices)

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
            user_id: the id of the orders' user.
            count: the number of orders.
            scenario: as for `place_order`, like the arguments that follow.
            venue: any venue.
            side: "buy" or "sell".
            price: a number between 0 and 1.
            size: a number of shares.

        Returns:
            The orders' ids, the oldest first. REST returns only the newest ones, as many as `history`.

        Raises:
            ValueError: an argument is not possible.
        """
        choices = choose(scenario, venue, side, price, size)
        return self._run(self._service.player.place_orders, user_id, count, choices)

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
        """Begin an order whose events happen when the caller says so. It is not even submitted yet.

        Args:
            user_id: the id of the order's user.
            scenario: as for `place_order`, like the arguments that follow.
            venue: any venue.
            side: "buy" or "sell".
            price: a number between 0 and 1.
            size: a number of shares.

        Raises:
            ValueError: an argument is not possible.
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

        The play is not faster than the slowest of the user's connections reads.

        Args:
            user_id: the id of the orders' user.
            orders: the number of orders; None: play until `Playback.cancel`.
            rate: the events per second; None: as fast as possible.
            overlap: the largest number of unfinished orders at a time.
            scenario: as for `place_order`, like the arguments that follow.
            venue: any venue.
            side: "buy" or "sell".
            price: a number between 0 and 1.
            size: a number of shares.

        Raises:
            ValueError: an argument is not possible.
        """
        choices = choose(scenario, venue, side, price, size)
        play = self._service.player.play
        return self._run(play, user_id, choices, orders=orders, rate=rate, overlap=overlap)

    def orders(self, user_id: str = "usr_demo") -> list[dict[str, Any]]:
        """Return all the user's orders as REST returns them, newest first.

        Changes by `set_order` are in it. Faults of REST have no effect on it.
        """
        return self._call(self._service.orders, user_id)

    def terminal_orders(self, user_id: str = "usr_demo") -> dict[str, str]:
        """Return the status of each order that has ended, by the order's id, as `orders` has it."""
        return self._call(self._service.terminal_orders, user_id)

    def books(self, user_id: str = "usr_demo") -> Books:
        """Return the counts of the user's events."""
        return self._call(self._service.books, user_id)

    @property
    def counts(self) -> Counts:
        """The counts of the simulator's requests so far."""
        return self._call(self._service.counts)

    @property
    def connections(self) -> int:
        """The number of open WebSocket connections, without those that are closing."""
        return self._call(self._service.connections.count, authenticated=False)

    def wait_for_connections(self, n: int, *, authenticated: bool = True, timeout: float = 10) -> bool:
        """Wait until exactly `n` connections are open.

        Args:
            n: the number of connections.
            authenticated: True: count only connections that have a user.
            timeout: the seconds to wait at most.

        Returns:
            True if `n` connections were open at some moment, False if the time ran out.
        """
        return self._run(self._service.wait_for_connections, n, authenticated, timeout)

    # --- faults -----------------------------------------------------------------------------------------

    def push(self, frame: str | dict[str, Any], *, user_id: str | None = None) -> int:
        """Send any frame, valid or not. The books do not count it.

        Args:
            frame: a text, sent as it is, or an object, sent as JSON.
            user_id: send to the connections of this user; None: send to all, also without a user.

        Returns:
            The number of connections that it was sent to.

        Raises:
            ValueError: the frame cannot be written as JSON or UTF-8.
            TypeError: `json.dumps` cannot write the object.
        """
        return self._run(self._service.push, frame, user_id)

    def drop(
        self,
        *,
        user_id: str | None = None,
        code: int = 1001,
        reason: str = "going away",
        abort: bool = False,
    ) -> int:
        """End connections. Later events are not sent to them.

        Args:
            user_id: end the connections of this user; None: end all.
            code: the close code. It is sent after the frames that are queued already.
            reason: the reason that is sent with the code, at most 123 bytes.
            abort: True: reset the connections (TCP RST) instead; frames that are queued are lost.

        Returns:
            The number of connections that were ended.

        Raises:
            ValueError: a server may not send this code, or the reason is too long.
        """
        return self._call(self._service.drop, user_id, code, reason, abort)

    def refuse_tokens(self, n: int = 1) -> None:
        """Refuse the next `n` authentications, also with a valid token, from messages and from queries."""
        self._call(self._service.refuse_tokens, n)

    def refuse_connections(self, n: int = 1, status: int = 503, retry_after: int | None = None) -> None:
        """Answer the next `n` handshakes with an HTTP error.

        `retry_after` is the header `Retry-After` of the answers, in seconds; None: no such header.
        """
        self._call(self._service.refuse_connections, n, status, retry_after)

    def refuse_refreshes(self, n: int = 1, status: int = 503) -> None:
        """Answer the next `n` token refreshes with an HTTP error. The refresh tokens stay valid."""
        self._call(self._service.refuse_refreshes, n, status)

    def refuse_rest(self, n: int | None = 1, status: int = 503, retry_after: int | None = None) -> None:
        """Answer the next `n` calls of /execution/* with an HTTP error; None: all calls until `refuse_rest(0)`.

        `retry_after` is the header `Retry-After` of the answers, in seconds; None: no such header.
        """
        self._call(self._service.rest_faults.refuse, n, status, retry_after)

    def stall_rest(self, stalled: bool = True) -> None:
        """Hold the answers to /execution/* back; or, with `stalled` False, send all of them.

        An answer is made when the call comes, with the data of that time. `stop` sends all answers held back.
        """
        self._call(self._service.rest_faults.stall, stalled)

    def drop_rest(self, n: int = 1) -> None:
        """Reset the connection (TCP RST) in the middle of the next `n` answers of /execution/*, also of errors."""
        self._call(self._service.rest_faults.drop, n)

    def trail_rest(self, seconds: float) -> None:
        """Answer /execution/orders with the orders of `seconds` ago, like a replica that trails; 0: of now."""
        self._call(self._service.trail_rest, seconds)

    def freeze_rest(self, frozen: bool = True) -> None:
        """Answer /execution/* from a copy of the present data, like a replica that gets no more updates.

        With `frozen` False, answer from the real data again. Another freeze takes a new copy. Tokens are always
        checked against the real data.
        """
        self._call(self._service.freeze_rest, frozen)

    def set_order(
        self, order_id: str, *, status: str | None = None, filled_raw: int | None = None, error: str | None = None
    ) -> None:
        """Let REST return other values of an order than the stream, also after later events of the order.

        Each call replaces the values of the call before. Without any value, REST returns the true values again.
        The stream does not change.

        Args:
            order_id: the id of a submitted order of any user.
            status: any text; None: the true status.
            filled_raw: any number of base units, possible or not; None: the true number.
            error: any text; None: the true error.

        Raises:
            ValueError: REST does not return an order with this id.
        """
        self._call(self._service.player.set_order, order_id, status=status, filled_raw=filled_raw, error=error)

    def stall_heartbeats(self, stalled: bool = True) -> None:
        """Stop sending heartbeats; or, with `stalled` False, send them again."""
        self._call(self._service.stall_heartbeats, stalled)

    def stall(self, stalled: bool = True) -> None:
        """Make the present connections half-open: TCP stays open, but the simulator neither reads nor writes.

        Events that happen meanwhile count as sent, as on a real server. They are sent when the stall ends. New
        connections are not stalled.
        """
        self._call(self._service.stall, stalled)

    def expire_tokens(self, user_id: str | None = None) -> None:
        """Let all access tokens issued so far expire: the user's, or everybody's. Refresh tokens stay valid."""
        self._call(self._service.expire_tokens, user_id)
