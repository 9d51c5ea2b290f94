"""pybit's unified `WebSocket`: `WebSocketApp` in a thread, with its own parsing and its functions by topic.

It knows no URL but Bybit's, so that constant is set to ours. A message without a topic would end its connection,
so the server sends each in an envelope of the topic `order`, which makes it 27 bytes longer.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from benchmarks.peers.functions import Handle, dispatcher
from pybit import unified_trading


@contextlib.contextmanager
def listening(url: str, handle: Handle) -> Iterator[None]:
    dispatch = dispatcher(handle)

    def order(envelope: dict[str, Any]) -> None:
        for message in envelope["data"]:
            dispatch(message)

    unified_trading.PRIVATE_WSS = url
    client = unified_trading.WebSocket(channel_type="private", testnet=False, api_key="key", api_secret="secret")
    client.order_stream(order)
    try:
        yield
    finally:
        client.exit()
