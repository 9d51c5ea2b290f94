"""Makes a balance snapshot event from the balances of the REST API, and reads the event from its stored text."""

from __future__ import annotations

from typing import Any

from aggstream._base.json_text import Parser, to_json
from aggstream._base.times import NS_PER_MS
from aggstream.errors import DecodeError
from aggstream.events import BalanceSnapshot
from aggstream.events._records import Balances
from aggstream.rest._decoding import decode_balances


def make_snapshot(balances: Balances, wall_ns: int, user_id: str | None = None) -> BalanceSnapshot:
    """Return the event for balances that were read from the REST API.

    Args:
        balances: the balances.
        wall_ns: the time at which they were read, in nanoseconds since the epoch.
        user_id: the user who owns the balances; None if the service has not named the user.
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
    """Return the event that a stored text holds.

    Raises:
        DecodeError: the text does not hold a balance snapshot.
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
