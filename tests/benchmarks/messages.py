"""What the service says: the three documented examples in rotation, or the lives of orders."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from typing import Any, Literal, TypeAlias

Messages: TypeAlias = Literal["examples", "orders"]

USER = "usr_xyz789"
CONNECTED = '{"type":"connected","appId":"app_demo123"}'
AUTHENTICATED = '{"type":"authenticated","userId":"usr_xyz789"}'
HEARTBEAT = '{"type":"heartbeat","ts":1710000000000}'

SUBMITTED: dict[str, Any] = {
    "type": "order_submitted",
    "venue": "kalshi",
    "orderId": "ord_abc123",
    "side": "buy",
    "price": 0.55,
    "size": 100,
    "outcomeId": "clv2abc123def456",
    "timestamp": 1710000000000,
}
BALANCE: dict[str, Any] = {
    "type": "balance_update",
    "venue": "kalshi",
    "tradingBalanceCents": 94500,
    "walletBalanceCents": 100000,
    "timestamp": 1710000000000,
}
STARTED: dict[str, Any] = {
    "type": "order_event",
    "event": "dag_started",
    "userId": USER,
    "orderId": "ord_abc123",
    "venue": "kalshi",
    "filledAmountRaw": "string",
    "remainingAmountRaw": "string",
    "errorReason": "string",
    "dagRunId": "string",
    "stepId": "string",
    "stepType": "string",
    "templateName": "string",
    "attempt": 0,
    "timestamp": 1710000000000,
}
EXAMPLES = (SUBMITTED, BALANCE, STARTED)
SUB_EVENTS = ("dag_started", "step_started", "step_completed", "partially_filled", "filled")

TEXT, CLOSE, PING, PONG = 0x1, 0x8, 0x9, 0xA
# A multiple of the examples, so that blobs of so many frames can follow one another.
BLOB = 12_000


def texts(messages: Messages) -> Iterator[str]:
    """Yield messages without an end; the timestamp is always the last field."""
    yield from map(compact, itertools.cycle(EXAMPLES) if messages == "examples" else lives())


def compact(message: dict[str, Any]) -> str:
    return json.dumps(message, separators=(",", ":"))


def lives() -> Iterator[dict[str, Any]]:
    """Yield what happens to one order after the other, from its submission until it is filled."""
    clock = itertools.count(1_710_000_000_000, 7)
    size = 100_000_000
    for number in itertools.count(1):
        ids = {"orderId": f"ord_{number:08x}", "dagRunId": f"run_{number:08x}", "stepId": f"step_{number:08x}"}
        yield {**SUBMITTED, "orderId": ids["orderId"], "price": 0.01 * (1 + number % 99), "timestamp": next(clock)}
        for name, filled in zip(SUB_EVENTS, (0, 0, 0, size // 2, size), strict=True):
            amounts = {"filledAmountRaw": str(filled), "remainingAmountRaw": str(size - filled)}
            steps = {"errorReason": None, "stepType": "place_order", "templateName": "buy_on_venue"}
            yield {**STARTED, **ids, **amounts, **steps, "event": name, "timestamp": next(clock)}
        yield {**BALANCE, "walletBalanceCents": 100_000 + number, "timestamp": next(clock)}


def stamped(text: str, timestamp: int) -> str:
    """Return a message with another timestamp."""
    return f"{text[: text.rindex(':')]}:{timestamp}}}"


def frame(payload: bytes, opcode: int = TEXT) -> bytes:
    """Return a server's frame, unmasked."""
    length = len(payload)
    size = bytes([length]) if length < 126 else bytes([126]) + length.to_bytes(2, "big")
    return bytes([0x80 | opcode]) + size + payload
