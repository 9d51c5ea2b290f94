"""slack_sdk's built-in `SocketModeClient`, with a message listener. Only the HTTP call for the URL is not made.

Its workers run listeners for several messages at once, so their order is not kept. It parses recursively and hands
on nothing before a frame ends just where what was read ends: under a stream without a pause it runs into Python's
limit of recursion and loses what it has read. So it gets the messages in groups, the next one when the one before
the last is handled.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

from benchmarks.peers.functions import Handle, Message, dispatcher
from slack_sdk.socket_mode.builtin import SocketModeClient
from slack_sdk.socket_mode.client import BaseSocketModeClient


@contextlib.contextmanager
def listening(url: str, handle: Handle) -> Iterator[None]:
    dispatch = dispatcher(handle)
    is_connected = threading.Event()

    def listen(client: BaseSocketModeClient, message: Message, text: str | None) -> None:
        is_connected.set()
        dispatch(message)

    client = SocketModeClient(app_token="xapp-benchmark")
    client.wss_uri = url
    client.message_listeners.append(listen)
    client.connect()
    is_connected.wait()  # it looks for a new connection each tenth of a second
    try:
        yield
    finally:
        client.close()
