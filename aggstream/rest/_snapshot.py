"""A reading of the balances as an event, to a text that can be stored, and back."""

from __future__ import annotations

from typing import Any

from aggstream._base.json_text import Parser, to_json
from aggstream._base.times import NS_PER_MS
from aggstream.errors import DecodeError
from aggstream.events import BalanceSnapshot
from aggstream.events._records import Balances
from aggstream.rest._decoding import decode_balances


def make_snapshot(balances: Balances, wall_ns: int, user_id: str | None = None) -> BalanceSnapshot:
    """Return the event that tells of balances.

    Args:
        balances: as they were read.
        wall_ns: when, in nanoseconds since the epoch.
        user_id: the user whose balances they are; None if the service has not named the user.
    """
    timestamp = wall_ns // NS_PER_MS
    message = {"type": BalanceSnapshot.TYPE, "timestamp": timestamp, "balances": balances.raw}
    return BalanceSnapshot(
        timestamp=timestamp,
        balances=balances,
        user_id=user_id,
        source="reconcile",
        received_ns=wall_ns,
        raw=message,
        text=to_json(message),
    )


def decode_snapshot(text: str, received_ns: int, parser: Parser) -> BalanceSnapshot:
    """Return the event whose text this is.

    Raises:
        DecodeError: it is no such event's.
    """
    message: Any = parser.parse(text)
    try:
        balances = decode_balances(to_json(message["balances"]), parser)
        timestamp = int(message["timestamp"])
    except (KeyError, TypeError, ValueError):
        raise DecodeError("no balance_snapshot") from None
    return BalanceSnapshot(
        timestamp=timestamp,
        balances=balances,
        source="reconcile",
        received_ns=received_ns,
        raw=message,
        text=text,
    )
