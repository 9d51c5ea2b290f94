"""coinbase-advanced-py's `WSClient`: asyncio and `websockets` in a thread. It parses nothing; `on_message` does.

Without a key it takes public channels; the server takes any subscription for one.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator

from benchmarks.peers.functions import Handle, dispatcher
from coinbase.websocket import WSClient


@contextlib.contextmanager
def listening(url: str, handle: Handle) -> Iterator[None]:
    dispatch = dispatcher(handle)
    client = WSClient(base_url=url, on_message=lambda text: dispatch(json.loads(text)))
    client.open()
    client.subscribe(product_ids=["BTC-USD"], channels=["ticker"])
    try:
        yield
    finally:
        client.close()
