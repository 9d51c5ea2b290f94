"""The service behind the sockets: who may come in, what is answered, and what goes wrong. It knows no HTTP."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from aggstream.simulator._connections import Connections
from aggstream.simulator._faults import Counts, Refusals, Refused
from aggstream.simulator._orders import TERMINAL
from aggstream.simulator._player import Player
from aggstream.simulator._rest import RestFaults
from aggstream.simulator._tokens import Grant, Issuer, SignedIn, TokenRefused

if TYPE_CHECKING:
    from collections.abc import Callable

    from aggstream.simulator._account import Books, SimulatedUser
    from aggstream.simulator._connection import ServerConnection

T = TypeVar("T")

_GOING_AWAY = 1001
_UNAUTHORIZED = 4401
# RFC 6455, 7.4: codes that a server may send; the others stand for what never goes over the wire.
_CLOSE_CODES = (*range(1000, 1004), *range(1007, 1015), *range(3000, 5000))
_LONGEST_REASON = 123
# Seconds that clients have to answer the close when the simulator stops.
_GRACE = 1.0


class Service:
    """One AGG. Belongs to the simulator's event loop; the arguments are those of `Simulator`.

    The methods of its second part are those of `Simulator`, where they are documented.
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
        self.rest = RestFaults(now)
        self._origins = origins
        self._issuer = Issuer(lifetime=token_lifetime, reuse_revokes=reuse_revokes, now=now)
        self._heartbeat_interval = heartbeat_interval
        self._enforce_expiry = enforce_expiry
        self.now = now
        """Seconds since the epoch, by the simulator's clock."""
        self._counts = Counts()
        self._refused_tokens = Refusals()
        self._refused_connections = Refusals()
        self._refused_refreshes = Refusals()
        self._heartbeats_stalled = False

    # Calls of clients.

    def handshake(self, app_id: str | None, origin: str | None, token: str | None) -> Grant | None:
        """Let a connection in; return what the token of its query grants, if there is one.

        Raises:
            Refused: with the status of the answer.
        """
        self._counts.handshakes += 1
        try:
            return self._admit(app_id, origin, token)
        except Refused:
            self._counts.handshakes_refused += 1
            raise

    def check_app(self, app_id: str | None) -> None:
        """Let a request of the app pass.

        Raises:
            Refused: it is another app.
        """
        if app_id != self.app_id:
            raise Refused(403, "the app is unknown or not active")

    def check_key(self, api_key: str | None) -> None:
        """Let a REST request pass, whichever user it is of.

        Raises:
            Refused: it has not the app's key.
        """
        if self._api_key is None:
            return
        if api_key is None:
            raise Refused(401, "This app requires x-app-api-key for all requests.")
        if api_key != self._api_key:
            raise Refused(403, "the key is another app's")

    def join(self, connection: ServerConnection, grant: Grant | None) -> None:
        """Greet a connection whose handshake is done."""
        connected = {"type": "connected", "appId": self.app_id}
        if grant is not None:
            connected["userId"] = grant.user_id
            self._grant(connection, grant)
        connection.send(connected)
        connection.later("heartbeat", self._heartbeat_interval, self._beat)
        self.connections.add(connection)

    def receive(self, connection: ServerConnection, text: str | None) -> None:
        """Answer one message of a client; None is a binary one."""
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
        """Exchange a refresh token.

        Raises:
            Refused: with the status of the answer.
        """
        # Counted as refused until it is not.
        self._counts.refreshes_refused += 1
        self._refused_refreshes.take()
        try:
            tokens = self._issuer.refresh(refresh_token)
        except TokenRefused as error:
            raise Refused(401, str(error)) from error
        self._counts.refreshes_refused -= 1
        self._counts.refreshes += 1
        return tokens

    def call(self, app_id: str | None, access_token: str, answer: Callable[[SimulatedUser], T]) -> T:
        """Answer one REST call from the account that its token opens.

        Raises:
            Refused: with the status of the answer.
        """
        self._counts.rest_calls += 1
        self._counts.rest_calls_refused += 1
        self.rest.check()
        self.check_app(app_id)
        given = answer(self.rest.seen(self.account_of(access_token)))
        self._counts.rest_calls_refused -= 1
        return given

    def account_of(self, access_token: str) -> SimulatedUser:
        """Return the account that a token opens.

        Raises:
            Refused: with the status of the answer.
        """
        try:
            return self.player.account(self._issuer.verify(access_token).user_id)
        except TokenRefused as error:
            raise Refused(401, str(error)) from error

    def page_given(self) -> None:
        """Count a page of orders."""
        self._counts.order_pages += 1

    def _admit(self, app_id: str | None, origin: str | None, token: str | None) -> Grant | None:
        self._refused_connections.take()
        if not app_id:
            raise Refused(400, "the query parameter appId is required")
        self.check_app(app_id)
        if origin not in self._origins:
            raise Refused(403, "the origin is not one of the app's allowed origins")
        return None if token is None else self._authenticate(token)

    def _receive_token(self, connection: ServerConnection, token: object) -> None:
        try:
            grant = self._authenticate(token)
        except Refused as refusal:
            self._turn_out(connection, str(refusal), "invalid_token")
        else:
            self._grant(connection, grant)
            connection.send({"type": "authenticated", "userId": grant.user_id})
            self.connections.changed()

    def _authenticate(self, token: object) -> Grant:
        self._counts.authentications_refused += 1
        try:
            self._refused_tokens.take()
            grant = self._issuer.verify(token if isinstance(token, str) else "")
        except TokenRefused as error:
            raise Refused(401, str(error)) from error
        self._counts.authentications_refused -= 1
        self._counts.authentications += 1
        return grant

    def _grant(self, connection: ServerConnection, grant: Grant) -> None:
        connection.grant = grant
        if self._enforce_expiry:
            connection.later("expiry", self._issuer.seconds_left(grant), self._end_token)

    def _end_token(self, connection: ServerConnection) -> None:
        grant = connection.grant
        left = 0.0 if grant is None else self._issuer.seconds_left(grant)
        if left > 0:
            # `now` decides, and it may be slower than the clock of the loop.
            connection.later("expiry", left, self._end_token)
        else:
            self._turn_out(connection, "the token has expired", "token_expired")

    def _turn_out(self, connection: ServerConnection, message: str, code: str) -> None:
        connection.send(_error(message, code))
        connection.close(_UNAUTHORIZED, code)
        self.connections.changed()

    def _beat(self, connection: ServerConnection) -> None:
        # A stalled connection would get the whole backlog at once, which no heart does.
        if not (self._heartbeats_stalled or connection.stalled):
            connection.send({"type": "heartbeat", "ts": int(self.now() * 1000)})
        connection.later("heartbeat", self._heartbeat_interval, self._beat)

    # Calls of the developer.

    def sign_in(self, user_id: str, lifetime: float | None = None) -> SignedIn:
        if lifetime is not None and not lifetime > 0:
            raise ValueError(f"lifetime must be positive: {lifetime}")
        return self._issuer.sign_in(self.player.account(user_id).user_id, lifetime)

    async def push(self, frame: str | dict[str, Any], user_id: str | None = None) -> int:
        text = frame if isinstance(frame, str) else json.dumps(frame, separators=(",", ":"))
        text.encode()  # what cannot be written as UTF-8 fails here, not in the task that sends
        targets = self.connections.open(user_id)
        for connection in targets:
            connection.send(text)
        for connection in targets:
            await connection.room()
        return len(targets)

    def drop(self, user_id: str | None, code: int, reason: str, abort: bool) -> int:
        if code not in _CLOSE_CODES:
            raise ValueError(f"a server does not close with this code: {code}")
        if len(reason.encode()) > _LONGEST_REASON:
            raise ValueError(f"reason must not be longer than {_LONGEST_REASON} bytes")
        targets = self.connections.open(user_id)
        for connection in targets:
            if abort:
                connection.abort()
            else:
                connection.close(code, reason)
        self.connections.changed()
        return len(targets)

    def refuse_tokens(self, n: int) -> None:
        self._refused_tokens = Refusals(n, 401)

    def refuse_connections(self, n: int, status: int, retry_after: int | None) -> None:
        self._refused_connections = Refusals(n, status, retry_after)

    def refuse_refreshes(self, n: int, status: int) -> None:
        self._refused_refreshes = Refusals(n, status)

    def trail_rest(self, seconds: float) -> None:
        self.rest.trail(seconds, self.player.accounts)

    def freeze_rest(self, frozen: bool) -> None:
        self.rest.freeze(self.player.accounts if frozen else None)

    def stall_heartbeats(self, stalled: bool) -> None:
        self._heartbeats_stalled = stalled

    def stall(self, stalled: bool) -> None:
        for connection in self.connections.present():
            connection.stall(stalled)

    def expire_tokens(self, user_id: str | None) -> None:
        self._issuer.expire(user_id)
        if self._enforce_expiry:
            for connection in self.connections.open(user_id):
                if connection.grant is not None:
                    self._end_token(connection)

    def orders(self, user_id: str) -> list[dict[str, Any]]:
        return self.player.account(user_id).history.rows()

    def terminal_orders(self, user_id: str) -> dict[str, str]:
        return {row["id"]: row["status"] for row in self.orders(user_id) if row["status"] in TERMINAL}

    def books(self, user_id: str) -> Books:
        return self.player.account(user_id).books

    def counts(self) -> Counts:
        return replace(self._counts)

    async def wait_for_connections(self, n: int, authenticated: bool, timeout: float) -> bool:
        return await self.connections.wait_until(
            lambda: self.connections.count(authenticated=authenticated) == n, timeout
        )

    async def close(self) -> None:
        """End every play and connection; a client that does not answer the close in time is reset."""
        self.player.stop()
        self.rest.release()
        for connection in self.connections.present():
            connection.stall(False)
            connection.close(_GOING_AWAY, "the simulator stops")

        def gone() -> bool:
            return not self.connections.present()

        if not await self.connections.wait_until(gone, _GRACE):
            for connection in self.connections.present():
                connection.abort()
            await self.connections.wait_until(gone, _GRACE)


def _error(message: str, code: str) -> dict[str, str]:
    return {"type": "error", "message": message, "code": code}
