"""By hand: picows on asyncio, msgspec's structs from the frame's memory, and functions."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import picows
from benchmarks.peers.functions import Handle
from benchmarks.peers.loops import Loop
from benchmarks.peers.structs import decoder, dispatcher


class Listener(picows.WSListener):  # type: ignore[misc]
    def __init__(self, handle: Handle) -> None:
        self._dispatch = dispatcher(handle)
        self._decode = decoder().decode

    def on_ws_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
        if frame.msg_type is picows.WSMsgType.TEXT:
            self._dispatch(self._decode(frame.get_payload_as_memoryview()))


@contextlib.contextmanager
def listening(url: str, handle: Handle) -> Iterator[None]:
    with Loop() as loop:
        transport, _ = loop.run(picows.ws_connect(lambda: Listener(handle), url))
        try:
            yield
        finally:
            loop.call(transport.disconnect)
            loop.run(transport.wait_disconnected())
