"""aggstream's parts below its public surface. Nothing else in this folder knows how they are made."""

from __future__ import annotations

import contextlib
import selectors
import sys
import threading
import time
from collections.abc import Callable, Sequence
from unittest import mock

import websocket

from aggstream import Limits, UserEvent
from aggstream._base.threads import Gate
from aggstream._delivery.dispatcher import Dispatcher
from aggstream._delivery.registry import Registry, key_of
from aggstream._delivery.workers import Workers
from aggstream._network.websocket import Message, Transport
from aggstream._protocol.codec import Codec
from aggstream.events import Event, Stopped

# As many as one read of a busy socket brings.
BATCH = 300


def read_texts(url: str, begin: Callable[[], object], count: int) -> None:
    """Read so many texts as the engine does, from a socket that websocket-client has opened."""
    ws = websocket.create_connection(url)
    assert ws.sock is not None
    ws.sock.setblocking(False)
    transport = Transport(ws.sock, b"", Limits())
    selector = selectors.DefaultSelector()
    selector.register(transport.fd, selectors.EVENT_READ)
    begin()
    while count > 0:
        timeout = 0.0 if transport.has_buffered else None
        if selector.select(timeout) or transport.has_buffered:
            messages: list[Message] = []
            transport.receive(messages)
            for message in messages:
                count -= len(message) if isinstance(message, list) else 0
    selector.close()
    transport.abort()


def hidden_msgspec() -> contextlib.AbstractContextManager[object]:
    """Let aggstream find no msgspec, as if it were installed without its extra `fast`."""
    return mock.patch.dict(sys.modules, {"aggstream._protocol.codec_msgspec": None})


def decoder() -> Callable[[str], Event]:
    decode = Codec(Limits()).decode
    received_ns = time.time_ns()
    return lambda text: decode(text, received_ns)


def decoder_without_msgspec() -> Callable[[str], Event]:
    with hidden_msgspec():
        return decoder()


def hand_off(events: Sequence[Event], handle: Callable[[Event], object]) -> Callable[[], None]:
    """Return what hands the events over to the dispatch thread; it ends with the last one."""
    registry = Registry()
    registry.add(key_of(UserEvent), handle, once=False)
    has_ended = threading.Event()
    workers, gate = Workers(1, "benchmark"), Gate()
    dispatcher = Dispatcher(
        registry,
        workers,
        queue_size=2 * len(events),
        queued_size=1 << 30,
        coalesce_balances=False,
        name="benchmark",
        on_low_water=lambda: None,
        on_fatal=lambda error: None,
        on_end=has_ended.set,
    )
    gate.open()
    workers.start(gate)

    def put() -> None:
        for at in range(0, len(events), BATCH):
            dispatcher.put_all([(event, 200) for event in events[at : at + BATCH]], 0)
        dispatcher.close(Stopped())
        workers.close()
        has_ended.wait()

    return put
