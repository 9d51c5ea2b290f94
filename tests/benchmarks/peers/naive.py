"""The program that one writes first: `WebSocketApp` in a thread, `json.loads`, and a dict of functions."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator

import websocket
from benchmarks.peers.functions import Handle, dispatcher


@contextlib.contextmanager
def listening(url: str, handle: Handle) -> Iterator[None]:
    dispatch = dispatcher(handle)
    is_open = threading.Event()
    app = websocket.WebSocketApp(
        url,
        on_open=lambda app: is_open.set(),
        on_message=lambda app, text: dispatch(json.loads(text)),
    )
    # A daemon that nobody waits for: it may look for ten seconds before it sees that it was closed.
    threading.Thread(target=app.run_forever, daemon=True).start()
    is_open.wait()
    try:
        yield
    finally:
        app.close()
