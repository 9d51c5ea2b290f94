"""The programs that are compared from the frame to the user's function: where they are, and what they need."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import cast

from benchmarks.loading import load
from benchmarks.peers.functions import Handle
from benchmarks.sender import Dialect


@dataclass(frozen=True)
class Program:
    place: str
    imports: str
    """What is imported by a program that uses it."""
    dialect: Dialect = "agg"
    group: int | None = None
    """It gets so many messages at once, and the next ones when those are handled; None: it takes a stream."""
    speed: int = 1
    """About how many times as many messages it needs as the others, to be at work for as long."""

    def listening(self, url: str, handle: Handle) -> contextlib.AbstractContextManager[None]:
        """Connect; within the context, call the user's functions, and they `handle` with the timestamp."""
        return cast("contextlib.AbstractContextManager[None]", load(self.place)(url, handle))


AGGSTREAM = "aggstream[fast]"
PLAIN = "aggstream"
JOURNAL_NORMAL = "aggstream[fast], journal normal"
JOURNAL_FULL = "aggstream[fast], journal full"
NAIVE = "WebSocketApp + json"
COINBASE = "coinbase-advanced-py"
PYBIT = "pybit"
SLACK = "slack_sdk"
WEBSOCKETS = "websockets + msgspec"
PICOWS = "picows + msgspec"

PROGRAMS = {
    AGGSTREAM: Program("peers.aggstream_client:listening", "import aggstream"),
    PLAIN: Program("peers.aggstream_client:without_msgspec", "import aggstream"),
    JOURNAL_NORMAL: Program("peers.aggstream_client:with_normal_journal", "import aggstream"),
    JOURNAL_FULL: Program("peers.aggstream_client:with_full_journal", "import aggstream"),
    NAIVE: Program("peers.naive:listening", "import json, threading, websocket"),
    COINBASE: Program("peers.coinbase_advanced:listening", "import coinbase.websocket, json"),
    PYBIT: Program("peers.pybit_websocket:listening", "import pybit.unified_trading", dialect="bybit"),
    SLACK: Program(
        "peers.slack_socket_mode:listening",
        "import requests; from slack_sdk.socket_mode.builtin import SocketModeClient",
        group=200,
    ),
    WEBSOCKETS: Program("peers.websockets_msgspec:listening", "import msgspec, threading, websockets.sync.client"),
    PICOWS: Program("peers.picows_msgspec:listening", "import asyncio, msgspec, picows", speed=10),
}
PEERS = (NAIVE, COINBASE, PYBIT, SLACK, WEBSOCKETS, PICOWS)
