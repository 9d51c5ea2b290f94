"""The simulator's control API over HTTP. Tests in other languages use it instead of the Python API."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any, NoReturn

from aiohttp import web

from aggstream.simulator._lifecycle import Choices, choose
from aggstream.simulator._refusals import Refused

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from aggstream.simulator._service import Service

DEMO_USER = "usr_demo"

_NUMBER = (int, float)


def control_routes(service: Service) -> Iterable[web.RouteDef]:
    """Return the routes under /control."""
    control = _ControlHandlers(service)
    yield web.get("/control/state", control.state)
    yield web.get("/control/orders", control.known_orders)
    for name, action in {
        "sign-in": control.sign_in,
        "orders": control.orders,
        "begin-order": control.begin_order,
        "advance-order": control.advance_order,
        "set-order": control.set_order,
        "play": control.play,
        "push": control.push,
        "drop": control.drop,
        "refuse": control.refuse,
        "heartbeats": control.heartbeats,
        "stall": control.stall,
        "rest": control.rest,
        "expire": control.expire,
    }.items():
        yield web.post(f"/control/{name}", _post_handler(action))


class _Body:
    """A request's JSON object. A handler takes its fields one by one; a field that is left is an error."""

    def __init__(self, fields: dict[str, Any]) -> None:
        self._fields = fields

    def __contains__(self, name: str) -> bool:
        return name in self._fields

    def take(self, name: str, kinds: type | tuple[type, ...], default: Any) -> Any:
        """Take a field and return its value, or the default without it. A null equals a default of None."""
        value = self._fields.pop(name, default)
        if value is default:
            return value
        kinds = kinds if isinstance(kinds, tuple) else (kinds,)
        # In JSON, true is not a number; in Python, bool is a subclass of int.
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            _refuse(f"{name} must be of type {' or '.join(kind.__name__ for kind in kinds)}")
        return value

    def take_user(self, default: str | None) -> Any:
        return self.take("userId", str, default)

    def check_empty(self) -> None:
        """Refuse fields that are left, so that a misspelt field does not seem to work."""
        if self._fields:
            _refuse(f"unknown fields: {', '.join(sorted(self._fields))}")


def _refuse(message: str) -> NoReturn:
    raise Refused(400, message)


def _post_handler(
    action: Callable[[_Body], Awaitable[dict[str, Any]]],
) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def handle(request: web.Request) -> web.Response:
        # A web page can post forms and plain text to this port without permission. For JSON, its browser asks
        # this server for permission, and gets none. So no page that the developer visits can use this API.
        if request.content_type != "application/json":
            _refuse("Content-Type must be application/json")
        try:
            fields = json.loads(await request.text())
        except (ValueError, RecursionError):
            fields = None
        if not isinstance(fields, dict):
            _refuse("the body must be a JSON object")
        try:
            return web.json_response(await action(_Body(fields)))
        except ValueError as error:
            _refuse(str(error))

    return handle


def _take_choices(body: _Body) -> Choices:
    return choose(
        *(body.take(name, str, None) for name in ("scenario", "venue", "side")),
        *(body.take(name, (*_NUMBER, str), None) for name in ("price", "size")),
    )


class _ControlHandlers:
    """The handlers of the paths. Each takes its fields, checks that none is left, and calls the service."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def state(self, request: web.Request) -> web.Response:
        service = self._service
        connections = [
            {"userId": connection.user_id, "stalled": connection.stalled}
            for connection in service.connections.open_to()
        ]
        users = service.player.users
        state = {
            "connections": connections,
            "counts": dataclasses.asdict(service.counts()),
            "books": {user_id: dataclasses.asdict(user.books) for user_id, user in users.items()},
            "playbacks": [
                {"playback": number, "emitted": playback.emitted, "done": playback.done}
                for number, playback in enumerate(service.player.playbacks)
            ],
        }
        return web.json_response(state)

    async def sign_in(self, body: _Body) -> dict[str, Any]:
        user_id, lifetime = body.take_user(DEMO_USER), body.take("lifetime", _NUMBER, None)
        body.check_empty()
        tokens = self._service.sign_in(user_id, lifetime)
        return {
            "userId": tokens.user_id,
            "accessToken": tokens.access_token,
            "refreshToken": tokens.refresh_token,
        }

    async def known_orders(self, request: web.Request) -> web.Response:
        user_id = request.query.get("userId") or DEMO_USER
        service = self._service
        answer = {"orders": service.orders(user_id), "terminal": service.terminal_orders(user_id)}
        return web.json_response(answer)

    async def orders(self, body: _Body) -> dict[str, Any]:
        player = self._service.player
        user_id, choices, count = body.take_user(DEMO_USER), _take_choices(body), body.take("count", int, None)
        body.check_empty()
        if count is None:
            return {"orderId": await player.place_order(user_id, choices)}
        return {"orderIds": await player.place_orders(user_id, count, choices)}

    async def begin_order(self, body: _Body) -> dict[str, Any]:
        user_id, choices = body.take_user(DEMO_USER), _take_choices(body)
        body.check_empty()
        order_id, total = self._service.player.begin_order(user_id, choices)
        return {"orderId": order_id, "total": total}

    async def advance_order(self, body: _Body) -> dict[str, Any]:
        order_id, n = body.take("orderId", str, ""), body.take("n", int, 1)
        body.check_empty()
        player = self._service.player
        frames = player.advance(order_id, n)
        return {"frames": frames, "framesLeft": player.frames_left(order_id)}

    async def set_order(self, body: _Body) -> dict[str, Any]:
        order_id, status = body.take("orderId", str, ""), body.take("status", str, None)
        filled_raw, error = body.take("filledRaw", int, None), body.take("error", str, None)
        body.check_empty()
        self._service.player.set_order(order_id, status=status, filled_raw=filled_raw, error=error)
        return {}

    async def play(self, body: _Body) -> dict[str, Any]:
        player = self._service.player
        if "cancel" in body:
            number = body.take("cancel", int, -1)
            body.check_empty()
            if not 0 <= number < len(player.playbacks):
                _refuse(f"there is no playback {number}")
            player.playbacks[number].stop()
            return {"playback": number}
        user_id, choices = body.take_user(DEMO_USER), _take_choices(body)
        # null: play until cancelled; a missing field: play ten orders.
        orders = body.take("orders", (int, type(None)), 10)
        rate, overlap = body.take("rate", _NUMBER, None), body.take("overlap", int, 4)
        body.check_empty()
        await player.play(user_id, choices, orders=orders, rate=rate, overlap=overlap)
        return {"playback": len(player.playbacks) - 1}

    async def push(self, body: _Body) -> dict[str, Any]:
        frame, user_id = body.take("frame", (str, dict), None), body.take_user(None)
        body.check_empty()
        if frame is None:
            _refuse("frame is required")
        return {"connections": await self._service.push(frame, user_id)}

    async def drop(self, body: _Body) -> dict[str, Any]:
        user_id, code = body.take_user(None), body.take("code", int, 1001)
        reason, abort = body.take("reason", str, "going away"), body.take("abort", bool, False)
        body.check_empty()
        return {"connections": self._service.drop(user_id, code, reason, abort)}

    async def refuse(self, body: _Body) -> dict[str, Any]:
        tokens, connections, refreshes = (
            body.take(name, int, None) for name in ("tokens", "connections", "refreshes")
        )
        # null: refuse every call; a missing field: change nothing.
        is_about_rest, rest = "rest" in body, body.take("rest", (int, type(None)), None)
        status, retry_after = body.take("status", int, 503), body.take("retryAfter", int, None)
        body.check_empty()
        if tokens is not None:
            self._service.refuse_tokens(tokens)
        if connections is not None:
            self._service.refuse_connections(connections, status, retry_after)
        if refreshes is not None:
            self._service.refuse_refreshes(refreshes, status)
        if is_about_rest:
            self._service.rest_faults.refuse(rest, status, retry_after)
        return {}

    async def rest(self, body: _Body) -> dict[str, Any]:
        stalled, frozen = (body.take(name, bool, None) for name in ("stalled", "frozen"))
        drop = body.take("drop", int, None)
        trail = body.take("trail", (int, float), None)
        body.check_empty()
        if stalled is not None:
            self._service.rest_faults.stall(stalled)
        if frozen is not None:
            self._service.freeze_rest(frozen)
        if drop is not None:
            self._service.rest_faults.drop(drop)
        if trail is not None:
            self._service.trail_rest(trail)
        return {}

    async def heartbeats(self, body: _Body) -> dict[str, Any]:
        stalled = body.take("stalled", bool, True)
        body.check_empty()
        self._service.stall_heartbeats(stalled)
        return {}

    async def stall(self, body: _Body) -> dict[str, Any]:
        stalled = body.take("stalled", bool, True)
        body.check_empty()
        self._service.stall(stalled)
        return {}

    async def expire(self, body: _Body) -> dict[str, Any]:
        user_id = body.take_user(None)
        body.check_empty()
        self._service.expire_tokens(user_id)
        return {}
