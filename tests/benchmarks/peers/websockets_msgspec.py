"""By hand: the synchronous client of `websockets` in a thread, msgspec's structs, and functions."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

from benchmarks.peers.functions import Handle
from benchmarks.peers.structs import decoder, dispatcher
from websockets.sync.client import connect


@contextlib.contextmanager
def listening(url: str, handle: Handle) -> Iterator[None]:
    dispatch, decode = dispatcher(handle), decoder().decode
    ws = connect(url)

    def run() -> None:
        for text in ws:
            dispatch(decode(text))

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        ws.close()
        thread.join()
