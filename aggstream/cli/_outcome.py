"""Orders as they are shown: as JSON for programs, in words for people."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any

import attrs

from aggstream.cli._lines import Line, line_at
from aggstream.events import Source, Verdict
from aggstream.events._records import OrderRecord
from aggstream.orders._order import Contradiction, Order, Outcome
from aggstream.orders._state import OrderState

STYLES = {
    "filled": "green",
    "partially_filled": "yellow",
    "failed": "red",
    "cancelled": "red",
    "expired": "red",
    "unknown": "bold yellow",
}
"""How a status or a verdict is shown."""

_SOURCES: dict[Source, str] = {"stream": "stream", "reconcile": "REST"}


def order_of(record: OrderRecord) -> Order:
    """Return what REST says of an order as what is known of it."""
    fold = OrderState(record.id)
    fold.fold_record(record, record.normal_status, telling="never")
    return fold.snapshot()


def order_as_object(order: Order) -> dict[str, Any]:
    """Return an order for JSON. Amounts are whole numbers of base units."""
    seen_at = order.last_seen_at
    return {
        "order_id": order.order_id,
        "status": order.status,
        "verdict": order.verdict.value,
        "is_terminal": order.is_terminal,
        "unknown_status": order.unknown_status,
        "amounts_doubt": order.amounts_doubt or None,
        "source": order.sources.get("status"),
        "venue": order.venue,
        "side": order.side,
        "price": order.price,
        "size": order.size,
        "execution_price": order.execution_price,
        "amount_raw": order.amount_raw,
        "filled_amount_raw": order.filled_amount_raw,
        "remaining_amount_raw": order.remaining_amount_raw,
        "unreadable_amount": order.unreadable_amount,
        "error_reason": order.error_reason,
        "updated_at": None if seen_at is None else seen_at.isoformat(),
        "contradictions": [attrs.asdict(contradiction) for contradiction in order.contradictions],
    }


def outcome_as_object(outcome: Outcome, reason: str) -> dict[str, Any]:
    """Return what became of an order for JSON, with why that is not known."""
    order = outcome.order or Order(order_id=outcome.order_id)
    return {**order_as_object(order), "verdict": outcome.verdict.value, "reason": reason}


def outcome_as_line(outcome: Outcome, reason: str) -> Line:
    """Return what became of an order in words, with why that is not known."""
    order = outcome.order or Order(order_id=outcome.order_id)
    parts = [outcome.order_id, order.venue or ""]
    if order.filled_amount_raw is not None:
        parts.append(f"filled {order.filled_amount_raw}")
    if order.remaining_amount_raw is not None:
        parts.append(f"remaining {order.remaining_amount_raw}")
    if outcome.verdict is Verdict.UNKNOWN:
        heard = order.unknown_status or order.status
        parts += [f"last heard: {heard}" if heard else "", reason]
    parts += [order.error_reason or "", *map(contradiction_in_words, order.contradictions)]
    return line_at(
        dt.datetime.now(dt.timezone.utc),
        outcome.verdict.value,
        STYLES[outcome.verdict.value],
        "  ".join(part for part in parts if part),
        "from REST" if order.sources.get("status") == "reconcile" else "",
    )


def contradiction_in_words(contradiction: Contradiction) -> str:
    """Return two things that cannot both be true."""
    name = contradiction.field.removesuffix("_raw").replace("_", " ")
    source = _SOURCES[contradiction.source]
    return f"contradicted: {name} {contradiction.kept}, but {source} says {contradiction.refused}"


def status_source(order: Order) -> str:
    """Return where the status came from, in a word."""
    source = order.sources.get("status")
    return "" if source is None else _SOURCES[source]


def amount(order: Order) -> str:
    """Return how much was ordered: in base units, which REST tells, or in shares."""
    if order.amount_raw is not None:
        return str(order.amount_raw)
    return "" if order.size is None else f"{_plain(order.size)} shares"


def price(order: Order) -> str:
    """Return the price as submitted, or that of the execution."""
    known = order.execution_price if order.price is None else order.price
    return "" if known is None else _plain(known)


def _plain(number: Decimal) -> str:
    # A number as 1E+9999 is a short text, and would be a long one without its exponent.
    return f"{number:f}" if abs(number.adjusted()) < 20 else str(number)  # noqa: PLR2004


def moment(at: dt.datetime | None, now: dt.datetime) -> str:
    """Return a time of today, or the day of another one, by the clock on the wall."""
    if at is None:
        return ""
    local = at.astimezone()
    return f"{local:%H:%M:%S}" if local.date() == now.astimezone().date() else f"{local:%Y-%m-%d}"
