"""Reading so many texts and throwing them away, with each library as its documentation shows it."""

from __future__ import annotations

import threading
from collections.abc import Callable

import picows
import websocket
from benchmarks.peers.loops import Loop
from websockets.sync.client import connect


def websocket_client(url: str, begin: Callable[[], object], count: int) -> None:
    _with_websocket_client(websocket.create_connection(url), begin, count)


def websocket_client_unchecked(url: str, begin: Callable[[], object], count: int) -> None:
    _with_websocket_client(websocket.create_connection(url, skip_utf8_validation=True), begin, count)


def _with_websocket_client(ws: websocket.WebSocket, begin: Callable[[], object], count: int) -> None:
    begin()
    for _ in range(count):
        ws.recv()
    ws.close()


def websockets_sync(url: str, begin: Callable[[], object], count: int) -> None:
    with connect(url) as ws:
        begin()
        for _ in range(count):
            ws.recv()


def picows_texts(url: str, begin: Callable[[], object], count: int) -> None:
    """Each payload is made a str, as whoever uses it must do."""
    all_came = threading.Event()

    class Listener(picows.WSListener):  # type: ignore[misc]
        def __init__(self) -> None:
            self._left = count

        def on_ws_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
            if frame.msg_type is picows.WSMsgType.TEXT:
                frame.get_payload_as_utf8_text()
                self._left -= 1
                if not self._left:
                    all_came.set()

    with Loop() as loop:
        transport, _ = loop.run(picows.ws_connect(Listener, url))
        begin()
        all_came.wait()
        loop.call(transport.disconnect)
        loop.run(transport.wait_disconnected())
