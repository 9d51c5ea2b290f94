"""The web application: it offers the service's WebSocket and REST API over HTTP."""

from __future__ import annotations

import json
from contextlib import suppress
from email.utils import formatdate
from typing import TYPE_CHECKING, Any

from aiohttp import web

from aggstream.simulator._connection import ServerConnection, reset
from aggstream.simulator._control import control_routes
from aggstream.simulator._refusals import Refused
from aggstream.simulator._rest_orders import LARGEST_PAGE

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiohttp.typedefs import Handler, Middleware

    from aggstream.simulator._allowed_hosts import AllowedHosts
    from aggstream.simulator._service import Service
    from aggstream.simulator._user import SimulatedUser

_DEFAULT_PAGE = 50


def make_app(service: Service, hosts: AllowedHosts) -> web.Application:
    """Return the application with all paths of the service. It refuses requests for other hosts."""
    handlers = _Handlers(service)
    app = web.Application(middlewares=[_host_check(hosts), _errors_as_json])
    app.add_routes(
        [
            web.get("/ws", handlers.websocket),
            web.post("/auth/token/refresh", handlers.refresh),
            web.get("/execution/orders", handlers.orders),
            web.get("/execution/balances", handlers.balances),
            *control_routes(service),
        ]
    )
    return app


def _host_check(hosts: AllowedHosts) -> Middleware:
    @web.middleware
    async def check_host(request: web.Request, handler: Handler) -> web.StreamResponse:
        refusal = hosts.refusal_of(request)
        if refusal is None:
            return await handler(request)
        status, text = refusal
        answer = web.Response(status=status, text=f"{text}\n")
        # A client may have sent WebSocket frames already: they must not be read as its next request.
        answer.force_close()
        return answer

    return check_host


@web.middleware
async def _errors_as_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except Refused as refusal:
        return _refusal_answer(refusal)
    except web.HTTPException as error:
        # aiohttp raises these: unknown path, method not allowed, no upgrade to a WebSocket.
        return web.json_response({"error": error.reason}, status=error.status)


def _refusal_answer(refusal: Refused) -> web.Response:
    retry_after = refusal.retry_after
    headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
    return web.json_response({"error": str(refusal)}, status=refusal.status, headers=headers)


class _Handlers:
    def __init__(self, service: Service) -> None:
        self._service = service

    async def websocket(self, request: web.Request) -> web.StreamResponse:
        query = request.query
        try:
            claims = self._service.handshake(query.get("appId"), request.headers.get("Origin"), query.get("token"))
        except Refused as refusal:
            answer = _refusal_answer(refusal)
            # A client may have sent WebSocket frames already: they must not be read as its next request.
            answer.force_close()
            return answer
        try:
            connection = ServerConnection(request)
            await connection.socket.prepare(request)
        except ConnectionError:
            # The client has left. If this error went on, aiohttp would log it as a bug of this handler. aiohttp
            # tries to write the answer below, and drops it.
            return web.Response()
        self._service.greet(connection, claims)
        try:
            await connection.serve(self._service.receive)
        finally:
            self._service.connections.remove(connection)
        return connection.socket

    async def refresh(self, request: web.Request) -> web.Response:
        self._service.check_app(request.headers.get("x-app-id"))
        self._service.check_key(request.headers.get("x-app-api-key"))
        try:
            body: Any = json.loads(await request.text())
            refresh_token = body["refreshToken"]
        except (ValueError, TypeError, KeyError):
            refresh_token = None
        if not isinstance(refresh_token, str):
            raise Refused(400, "the body must be a JSON object, with refreshToken as a text")
        tokens = self._service.refresh(refresh_token)
        return web.json_response(
            {
                "accessToken": tokens.access_token,
                "refreshToken": tokens.refresh_token,
                "user": {"id": tokens.user_id},
            }
        )

    async def orders(self, request: web.Request) -> web.StreamResponse:
        def page(user: SimulatedUser) -> dict[str, Any]:
            query = request.query
            limit = query.get("limit", str(_DEFAULT_PAGE))
            if not (limit.isascii() and limit.isdigit() and 1 <= int(limit) <= LARGEST_PAGE):
                raise Refused(400, f"limit must be a number from 1 to {LARGEST_PAGE}")
            # An empty parameter counts as missing, because some clients always send all three.
            status, cursor = query.get("status") or None, query.get("cursor") or None
            try:
                found = user.rest_orders.page(status=status, cursor=cursor, limit=int(limit))
            except ValueError as error:
                raise Refused(400, str(error)) from error
            self._service.count_page()
            return found

        return await self._answer(request, page)

    async def balances(self, request: web.Request) -> web.StreamResponse:
        return await self._answer(request, lambda user: user.balances())

    async def _answer(
        self, request: web.Request, read: Callable[[SimulatedUser], dict[str, Any]]
    ) -> web.StreamResponse:
        """Answer a REST call, with the faults that are switched on."""
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        token = token if scheme.lower() == "bearer" else ""
        try:
            self._service.check_key(request.headers.get("x-app-api-key"))
            answer = web.json_response(
                self._service.answer_rest_call(request.headers.get("x-app-id"), token, read)
            )
        except Refused as refusal:
            answer = _refusal_answer(refusal)
        # The date is by the simulator's clock, which may differ from the machine's clock.
        answer.headers["Date"] = formatdate(self._service.now(), usegmt=True)
        rest_faults = self._service.rest_faults
        # The answer is made before a stall holds it back, so a late answer has the data of the call's time.
        await rest_faults.wait_while_stalled()
        if rest_faults.take_drop():
            return await _send_half(request, answer)
        return answer


async def _send_half(request: web.Request, answer: web.Response) -> web.StreamResponse:
    """Write the first half of an answer, and reset the connection."""
    assert isinstance(answer.body, bytes)
    half = web.StreamResponse(status=answer.status, headers=answer.headers)
    half.content_length = len(answer.body)
    transport = request.transport
    # If the client has left, there is no transport, or a TLS transport without a socket.
    tcp = None if transport is None else transport.get_extra_info("socket")
    with suppress(ConnectionError):
        await half.prepare(request)
        await half.write(answer.body[: len(answer.body) // 2])
    if transport is not None and tcp is not None:
        reset(transport, tcp)
    return half
