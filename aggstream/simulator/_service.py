"""The simulated service. It checks apps and tokens, and answers messages and calls. It knows no HTTP."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from aggstream.simulator._connections import Connections
from aggstream.simulator._counts import Counts
from aggstream.simulator._lifecycle import TERMINAL_STATUSES
from aggstream.simulator._player import Player
from aggstream.simulator._refusals import Refusals, Refused
from aggstream.simulator._rest_faults import RestFaults
from aggstream.simulator._tokens import Claims, SignedIn, TokenIssuer, TokenRefused

if TYPE_CHECKING:
    from collections.abc import Callable

    from aggstream.simulator._connection import ServerConnection
    from aggstream.simulator._counts import Books
    from aggstream.simulator._user import SimulatedUser

T = TypeVar("T")

_GOING_AWAY = 1001
_UNAUTHORIZED = 4401
# RFC 6455, 7.4: the close codes that a server may send.
_CLOSE_CODES = (*range(1000, 1004), *range(1007, 1015), *range(3000, 5000))
_LONGEST_REASON = 123
# The seconds that clients have to answer the close when the simulator stops.
_CLOSE_TIMEOUT = 1.0


class Service:
    """One AGG. Only the simulator's event loop may use it. `Simulator` documents the arguments.

    The first part of the methods serves clients. The second part serves the developer; `Simulator` documents it.
    """

    def __init__(
        self,
        *,
        app_id: str,
        api_key: str | None,
        origins: tuple[str, ...],
        seed: object,
        token_lifetime: float,
        heartbeat_interval: float,
        enforce_expiry: bool,
        reuse_revokes: bool,
        history: int,
        now: Callable[[], float],
    ) -> None:
        self.app_id = app_id
        self._api_key = api_key
        self.connections = Connections()
        self.player = Player(self.connections, seed=seed, now=now, history=history)
        self.rest_faults = RestFaults(now)
        self._origins = origins
        self._issuer = TokenIssuer(lifetime=token_lifetime, reuse_revokes=reuse_revokes, now=now)
        self._heartbeat_interval = heartbeat_interval
        self._enforce_expiry = enforce_expiry
        self.now = now
        """Returns the time in seconds since the epoch, by the simulator's clock."""
        self._counts = Counts()
        self._token_refusals = Refusals()
        self._connection_refusals = Refusals()
        self._refresh_refusals = Refusals()
        self._heartbeats_stalled = False

    # --- for clients ------------------------------------------------------------------------------------

    def handshake(self, app_id: str | None, origin: str | None, token: str | None) -> Claims | None:
        """Check a handshake; return the claims of the query's token, or None without a token.

        Raises:
            Refused: the handshake is refused.
        """
        self._counts.handshakes += 1
        try:
            return self._check_handshake(app_id, origin, token)
        except Refused:
            self._counts.handshakes_refused += 1
            raise

    def check_app(self, app_id: str | None) -> None:
        """Check the app id of a request.

        Raises:
            Refused: it is not the id of the simulator's app.
        """
        if app_id != self.app_id:
            raise Refused(403, "the app is unknown or not active")

    def check_key(self, api_key: str | None) -> None:
        """Check the API key of a REST request.

        Raises:
            Refused: the key is missing or wrong.
        """
        if self._api_key is None:
            return
        if api_key is None:
            raise Refused(401, "This app requires x-app-api-key for all requests.")
        if api_key != self._api_key:
            raise Refused(403, "the key belongs to another app")

    def greet(self, connection: ServerConnection, claims: Claims | None) -> None:
        """Register a connection after its handshake, and send it the first message."""
        connected = {"type": "connected", "appId": self.app_id}
        if claims is not None:
            connected["userId"] = claims.user_id
            self._accept_claims(connection, claims)
        connection.send(connected)
        connection.set_timer("heartbeat", self._heartbeat_interval, self._send_heartbeat)
        self.connections.add(connection)

    def receive(self, connection: ServerConnection, text: str | None) -> None:
        """Answer one message of a client. `text` is None for a binary message."""
        try:
            message = json.loads(text or "")
            action = message["action"]
        except (ValueError, TypeError, KeyError, RecursionError):
            connection.send(_error("a message must be a JSON object with an action", "bad_message"))
            return
        if action == "authenticate":
            self._receive_token(connection, message.get("token"))
        elif action in ("subscribe", "unsubscribe"):
            about = {key: message[key] for key in ("channel", "outcomeIds", "marketIds") if key in message}
            connection.send({"type": f"{action}d", **about})
        else:
            connection.send(_error("the action is unknown", "unknown_action"))

    def refresh(self, refresh_token: str) -> SignedIn:
        """Exchange a refresh token for a new pair.

        Raises:
            Refused: the refresh token is not valid, or the simulator was told to refuse.
        """
        # Counted as refused first, because each way out below except the last one refuses.
        self._counts.refreshes_refused += 1
        self._refresh_refusals.take()
        try:
            tokens = self._issuer.refresh(refresh_token)
        except TokenRefused as error:
            raise Refused(401, str(error)) from error
        self._counts.refreshes_refused -= 1
        self._counts.refreshes += 1
        return tokens

    def answer_rest_call(self, app_id: str | None, access_token: str, answer: Callable[[SimulatedUser], T]) -> T:
        """Return the answer to one REST call, made of the data of the token's user.

        Args:
            app_id: the app id of the call.
            access_token: the token of the call.
            answer: returns the answer's content from the user's data.

        Raises:
            Refused: the app or the token is not valid, or the simulator was told to refuse.
        """
        self._counts.rest_calls += 1
        self._counts.rest_calls_refused += 1
        self.rest_faults.take_refusal()
        self.check_app(app_id)
        content = answer(self.rest_faults.view_of(self.user_of(access_token)))
        self._counts.rest_calls_refused -= 1
        return content

    def user_of(self, access_token: str) -> SimulatedUser:
        """Return the user of an access token.

        Raises:
            Refused: the token is not valid.
        """
        try:
            return self.player.user(self._issuer.verify(access_token).user_id)
        except TokenRefused as error:
            raise Refused(401, str(error)) from error

    def count_page(self) -> None:
        """Count a page of orders that an answer has."""
        self._counts.order_pages += 1

    def _check_handshake(self, app_id: str | None, origin: str | None, token: str | None) -> Claims | None:
        self._connection_refusals.take()
        if not app_id:
            raise Refused(400, "the query parameter appId is required")
        self.check_app(app_id)
        if origin not in self._origins:
            raise Refused(403, "the origin is not one of the app's allowed origins")
        return None if token is None else self._authenticate(token)

    def _receive_token(self, connection: ServerConnection, token: object) -> None:
        try:
            claims = self._authenticate(token)
        except Refused as refusal:
            self._reject(connection, str(refusal), "invalid_token")
        else:
            self._accept_claims(connection, claims)
            connection.send({"type": "authenticated", "userId": claims.user_id})
            self.connections.notify()

    def _authenticate(self, token: object) -> Claims:
        self._counts.authentications_refused += 1
        try:
            self._token_refusals.take()
            claims = self._issuer.verify(token if isinstance(token, str) else "")
        except TokenRefused as error:
            raise Refused(401, str(error)) from error
        self._counts.authentications_refused -= 1
        self._counts.authentications += 1
        return claims

    def _accept_claims(self, connection: ServerConnection, claims: Claims) -> None:
        connection.claims = claims
        if self._enforce_expiry:
            connection.set_timer("expiry", self._issuer.seconds_left(claims), self._end_if_expired)

    def _end_if_expired(self, connection: ServerConnection) -> None:
        claims = connection.claims
        left = 0.0 if claims is None else self._issuer.seconds_left(claims)
        if left > 0:
            # `now` decides the expiry, and it may be slower than the loop's clock.
            connection.set_timer("expiry", left, self._end_if_expired)
        else:
            self._reject(connection, "the token has expired", "token_expired")

    def _reject(self, connection: ServerConnection, message: str, code: str) -> None:
        connection.send(_error(message, code))
        connection.close(_UNAUTHORIZED, code)
        self.connections.notify()

    def _send_heartbeat(self, connection: ServerConnection) -> None:
        # A stalled connection would get all missed heartbeats at once when its stall ends.
        if not (self._heartbeats_stalled or connection.stalled):
            connection.send({"type": "heartbeat", "ts": int(self.now() * 1000)})
        connection.set_timer("heartbeat", self._heartbeat_interval, self._send_heartbeat)

    # --- for the developer ------------------------------------------------------------------------------

    def sign_in(self, user_id: str, lifetime: float | None = None) -> SignedIn:
        if lifetime is not None and not lifetime > 0:
            raise ValueError(f"lifetime must be above 0, got {lifetime}")
        return self._issuer.sign_in(self.player.user(user_id).user_id, lifetime)

    async def push(self, frame: str | dict[str, Any], user_id: str | None = None) -> int:
        text = frame if isinstance(frame, str) else json.dumps(frame, separators=(",", ":"))
        text.encode()  # a text that is not valid UTF-8 raises here, and not in the task that sends it
        targets = self.connections.open_to(user_id)
        for connection in targets:
            connection.send(text)
        for connection in targets:
            await connection.wait_for_room()
        return len(targets)

    def drop(self, user_id: str | None, code: int, reason: str, abort: bool) -> int:
        if code not in _CLOSE_CODES:
            raise ValueError(f"code must be a close code that a server may send, got {code}")
        if len(reason.encode()) > _LONGEST_REASON:
            raise ValueError(f"reason must have {_LONGEST_REASON} bytes or less in UTF-8")
        targets = self.connections.open_to(user_id)
        for connection in targets:
            if abort:
                connection.abort()
            else:
                connection.close(code, reason)
        self.connections.notify()
        return len(targets)

    def refuse_tokens(self, n: int) -> None:
        self._token_refusals = Refusals(n, 401)

    def refuse_connections(self, n: int, status: int, retry_after: int | None) -> None:
        self._connection_refusals = Refusals(n, status, retry_after)

    def refuse_refreshes(self, n: int, status: int) -> None:
        self._refresh_refusals = Refusals(n, status)

    def trail_rest(self, seconds: float) -> None:
        self.rest_faults.trail(seconds, self.player.users)

    def freeze_rest(self, frozen: bool) -> None:
        self.rest_faults.freeze(self.player.users if frozen else None)

    def stall_heartbeats(self, stalled: bool) -> None:
        self._heartbeats_stalled = stalled

    def stall(self, stalled: bool) -> None:
        for connection in self.connections.all_present():
            connection.stall(stalled)

    def expire_tokens(self, user_id: str | None) -> None:
        self._issuer.expire(user_id)
        if self._enforce_expiry:
            for connection in self.connections.open_to(user_id):
                if connection.claims is not None:
                    self._end_if_expired(connection)

    def orders(self, user_id: str) -> list[dict[str, Any]]:
        return self.player.user(user_id).rest_orders.records()

    def terminal_orders(self, user_id: str) -> dict[str, str]:
        return {
            record["id"]: record["status"]
            for record in self.orders(user_id)
            if record["status"] in TERMINAL_STATUSES
        }

    def books(self, user_id: str) -> Books:
        return self.player.user(user_id).books

    def counts(self) -> Counts:
        return replace(self._counts)

    async def wait_for_connections(self, n: int, authenticated: bool, timeout: float) -> bool:
        return await self.connections.wait_until(
            lambda: self.connections.count(authenticated=authenticated) == n, timeout
        )

    async def close(self) -> None:
        """End every play and connection. Connections whose client does not answer the close in time are reset."""
        self.player.stop()
        self.rest_faults.release_stalled()
        for connection in self.connections.all_present():
            connection.stall(False)
            connection.close(_GOING_AWAY, "the simulator stops")

        def all_gone() -> bool:
            return not self.connections.all_present()

        if not await self.connections.wait_until(all_gone, _CLOSE_TIMEOUT):
            for connection in self.connections.all_present():
                connection.abort()
            await self.connections.wait_until(all_gone, _CLOSE_TIMEOUT)


def _error(message: str, code: str) -> dict[str, str]:
    return {"type": "error", "message": message, "code": code}
