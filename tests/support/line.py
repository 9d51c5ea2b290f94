"""A client's way from the socket to the handlers, driven by hand on the calling thread."""

from __future__ import annotations

import json
import socket
import time
from typing import Any

from waiting import DEADLINE

import aggstream
from aggstream._base.deadline import Deadline
from aggstream._network.websocket import Transport
from aggstream._protocol.session import Session
from aggstream._stream.connection import Connection
from aggstream.tokens._token import Token

USER = "usr_xyz789"


class Line:
    """A client's way from the socket to the handlers, driven by hand."""

    def __init__(self, **options: Any) -> None:
        self.client = aggstream.Client(
            url="ws://127.0.0.1:9",
            app_id="app_demo123",
            origin="https://app.example",
            token="t",
            **{"rest": None, **options},
        )
        self.stream = self.client._stream
        ours, self.server = socket.socketpair()
        ours.setblocking(False)
        for sock in (ours, self.server):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        self.engine = self.stream.engine
        self.engine.open()
        self.connection = Connection(
            Session(self.stream._options.session, Token.of("t")),
            Transport(ours, b"", aggstream.Limits()),
            self.stream,
            self.engine,
            self.stream.pipeline,
            self.stream.counters,
            name="aggstream",
        )
        self.session = self.connection.session
        now = time.monotonic()
        for message in ({"type": "connected", "appId": "a"}, {"type": "authenticated", "userId": USER}):
            self.session.receive_text(json.dumps(message), now, time.time_ns())
        self.session.sized_events_received()
        self.session.data_to_send()
        self.session.sign_in_received()
        self.engine._woken.clear()
        self.connection.watch(read=True)

    def send(self, blob: bytes) -> None:
        self.server.sendall(blob)

    def take(self) -> None:
        """Do what the I/O thread does with what has come."""
        self.engine.turn()

    def close(self) -> None:
        self.client._dispatcher.close(aggstream.Stopped())
        self.engine.workers.close()
        self.engine.workers.join(Deadline(DEADLINE))
        self.connection.drop()
        self.server.close()
        self.engine._close()
