"""A WebSocket server of another make, the package `websockets`, with the words of AGG."""

from __future__ import annotations

import contextlib
import json
import ssl
import threading
from collections.abc import Callable
from typing import Any, Protocol

from waiting import DEADLINE
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import Server, ServerConnection, serve


class Peer:
    """A connection as the server sees it, with the words of AGG."""

    def __init__(self, ws: ServerConnection, number: int) -> None:
        self.ws = ws
        self.number = number
        """The connection's number, from 1."""

    def send(self, *messages: str | dict[str, Any]) -> None:
        for message in messages:
            self.ws.send(message if isinstance(message, str) else json.dumps(message))

    def receive(self) -> dict[str, Any]:
        message = json.loads(self.ws.recv(timeout=DEADLINE))
        assert isinstance(message, dict)
        return message

    def greet(self) -> None:
        self.send({"type": "connected", "appId": "app_demo123"})

    def sign_in(self, user: str = "usr_xyz789") -> str:
        """Greet, take the token, accept it, and return it."""
        self.greet()
        token = self.receive()["token"]
        self.send({"type": "authenticated", "userId": user})
        return str(token)

    def wait_closed(self) -> int | None:
        """Answer whatever comes until the client is gone; return its close code."""
        with contextlib.suppress(ConnectionClosed):
            while True:
                self.ws.recv(timeout=DEADLINE)
        return self.ws.close_code


Script = Callable[[Peer], None]


class OtherServer:
    """A WebSocket server of another make (the package `websockets`) that plays a script for each connection."""

    def __init__(self, script: Script, context: ssl.SSLContext | None) -> None:
        self.requests: list[tuple[str, dict[str, str]]] = []
        """Path and headers of each handshake."""
        self.problems: list[BaseException] = []
        self._script = script
        self._server: Server = serve(self._serve, "127.0.0.1", 0, ssl=context, compression=None, max_size=None)
        self._thread = threading.Thread(target=self._server.serve_forever, name="other-server")
        self._scheme = "ws" if context is None else "wss"
        self._count = threading.Lock()

    @property
    def url(self) -> str:
        return f"{self._scheme}://localhost:{self._server.socket.getsockname()[1]}/ws"

    @property
    def connections(self) -> int:
        return len(self.requests)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()

    def _serve(self, ws: ServerConnection) -> None:
        assert ws.request is not None
        with self._count:
            self.requests.append((ws.request.path, dict(ws.request.headers.raw_items())))
            number = len(self.requests)
        try:
            self._script(Peer(ws, number))
        except ConnectionClosed:
            pass  # the client may go at any time
        except BaseException as error:
            self.problems.append(error)
            raise


class ServeFunction(Protocol):
    def __call__(self, script: Script, /, *, tls: bool = False) -> OtherServer: ...
