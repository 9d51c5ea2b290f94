"""The WebSocket and the REST API, as HTTP handlers around the service."""

from __future__ import annotations

import json
from contextlib import suppress
from email.utils import formatdate
from typing import TYPE_CHECKING, Any

from aiohttp import web

from aggstream.simulator._connection import ServerConnection, reset
from aggstream.simulator._control import control_routes
from aggstream.simulator._faults import Refused
from aggstream.simulator._history import LARGEST_PAGE

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiohttp.typedefs import Handler, Middleware

    from aggstream.simulator._account import SimulatedUser
    from aggstream.simulator._hosts import Hosts
    from aggstream.simulator._service import Service

_DEFAULT_PAGE = 50


def make_app(service: Service, hosts: Hosts) -> web.Application:
    """Return the application that serves all paths of the service, to requests for one of the hosts."""
    server = _Server(service)
    app = web.Application(middlewares=[_for(hosts), _errors_as_json])
    app.add_routes(
        [
            web.get("/ws", server.websocket),
            web.post("/auth/token/refresh", server.refresh),
            web.get("/execution/orders", server.orders),
            web.get("/execution/balances", server.balances),
            *control_routes(service),
        ]
    )
    return app


def _for(hosts: Hosts) -> Middleware:
    @web.middleware
    async def refuse_others(request: web.Request, handler: Handler) -> web.StreamResponse:
        problem = hosts.problem_with(request)
        if problem is None:
            return await handler(request)
        status, text = problem
        answer = web.Response(status=status, text=f"{text}\n")
        # Bytes that a client has sent ahead are no HTTP, and must not be taken for its next request.
        answer.force_close()
        return answer

    return refuse_others


@web.middleware
async def _errors_as_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except Refused as refusal:
        return _refused(refusal)
    except web.HTTPException as error:
        # aiohttp's own: an unknown path, a method not allowed, no upgrade to a WebSocket.
        return web.json_response({"error": error.reason}, status=error.status)


def _refused(refusal: Refused) -> web.Response:
    retry_after = refusal.retry_after
    headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
    return web.json_response({"error": str(refusal)}, status=refusal.status, headers=headers)


class _Server:
    def __init__(self, service: Service) -> None:
        self._service = service

    async def websocket(self, request: web.Request) -> web.StreamResponse:
        query = request.query
        try:
            grant = self._service.handshake(query.get("appId"), request.headers.get("Origin"), query.get("token"))
        except Refused as refusal:
            answer = _refused(refusal)
            # Bytes that a client has sent ahead are no HTTP, and must not be taken for its next request.
            answer.force_close()
            return answer
        try:
            connection = ServerConnection(request)
            await connection.socket.prepare(request)
        except ConnectionError:
            # The client has not waited for the answer. Raised on, aiohttp would take it for a bug of ours; this
            # answer it tries to write, and drops.
            return web.Response()
        self._service.join(connection, grant)
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
            raise Refused(400, "the body must be a JSON object with the text refreshToken")
        tokens = self._service.refresh(refresh_token)
        return web.json_response(
            {
                "accessToken": tokens.access_token,
                "refreshToken": tokens.refresh_token,
                "user": {"id": tokens.user_id},
            }
        )

    async def orders(self, request: web.Request) -> web.StreamResponse:
        def page(account: SimulatedUser) -> dict[str, Any]:
            query = request.query
            limit = query.get("limit", str(_DEFAULT_PAGE))
            if not (limit.isascii() and limit.isdigit() and 1 <= int(limit) <= LARGEST_PAGE):
                raise Refused(400, f"limit must be a number from 1 to {LARGEST_PAGE}")
            # An empty parameter is one not given: a client may write all three always.
            status, cursor = query.get("status") or None, query.get("cursor") or None
            try:
                found = account.history.page(status=status, cursor=cursor, limit=int(limit))
            except ValueError as error:
                raise Refused(400, str(error)) from error
            self._service.page_given()
            return found

        return await self._answer(request, page)

    async def balances(self, request: web.Request) -> web.StreamResponse:
        return await self._answer(request, lambda account: account.balances())

    async def _answer(
        self, request: web.Request, read: Callable[[SimulatedUser], dict[str, Any]]
    ) -> web.StreamResponse:
        """Answer a REST call, unless something is to go wrong with it."""
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        token = token if scheme.lower() == "bearer" else ""
        try:
            self._service.check_key(request.headers.get("x-app-api-key"))
            answer = web.json_response(self._service.call(request.headers.get("x-app-id"), token, read))
        except Refused as refusal:
            answer = _refused(refusal)
        # By the simulator's clock, which may be another one than this machine's.
        answer.headers["Date"] = formatdate(self._service.now(), usegmt=True)
        rest = self._service.rest
        # The answer is made before it waits: one that comes late tells of what was when it was asked for.
        await rest.held()
        if rest.take_drop():
            return await _cut_off(request, answer)
        return answer


async def _cut_off(request: web.Request, answer: web.Response) -> web.StreamResponse:
    """Write half of an answer, and reset the connection."""
    assert isinstance(answer.body, bytes)
    half = web.StreamResponse(status=answer.status, headers=answer.headers)
    half.content_length = len(answer.body)
    transport = request.transport
    # The client may be gone by itself; then there is no transport, or one of TLS without its socket.
    tcp = None if transport is None else transport.get_extra_info("socket")
    with suppress(ConnectionError):
        await half.prepare(request)
        await half.write(answer.body[: len(answer.body) // 2])
    if transport is not None and tcp is not None:
        reset(transport, tcp)
    return half
