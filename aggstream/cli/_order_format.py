"""Formats orders and their outcomes: as JSON for programs, as text for people."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any

import attrs

from aggstream.cli._event_format import Line, make_line
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
"""The style in rich of a status or a verdict."""

_SOURCES: dict[Source, str] = {"stream": "stream", "reconcile": "REST"}


def order_of(record: OrderRecord) -> Order:
    """Return an `Order` that has only what a record of REST tells."""
    fold = OrderState(record.id)
    fold.fold_record(record, record.normal_status, telling="never", one_unit=record.in_one_unit)
    return fold.snapshot()


def order_as_object(order: Order) -> dict[str, Any]:
    """Return an order as an object for JSON. Amounts are whole numbers of base units."""
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
    """Return the outcome of an order as an object for JSON. `reason` says why it is not known."""
    order = outcome.order or Order(order_id=outcome.order_id)
    return {**order_as_object(order), "verdict": outcome.verdict.value, "reason": reason}


def outcome_as_line(outcome: Outcome, reason: str) -> Line:
    """Return the outcome of an order as a line of text. `reason` says why it is not known."""
    order = outcome.order or Order(order_id=outcome.order_id)
    parts = [outcome.order_id, order.venue or ""]
    if order.filled_amount_raw is not None:
        parts.append(f"filled {order.filled_amount_raw}")
    if order.remaining_amount_raw is not None:
        parts.append(f"remaining {order.remaining_amount_raw}")
    if outcome.verdict is Verdict.UNKNOWN:
        heard = order.unknown_status or order.status
        parts += [f"last status: {heard}" if heard else "", reason]
    parts += [order.error_reason or "", *map(describe_contradiction, order.contradictions)]
    return make_line(
        dt.datetime.now(dt.timezone.utc),
        outcome.verdict.value,
        STYLES[outcome.verdict.value],
        "  ".join(part for part in parts if part),
        "from REST" if order.sources.get("status") == "reconcile" else "",
    )


def describe_contradiction(contradiction: Contradiction) -> str:
    """Return a text with the two values of a contradiction."""
    name = contradiction.field.removesuffix("_raw").replace("_", " ")
    source = _SOURCES[contradiction.source]
    return f"contradicted: {name} {contradiction.kept}, but {source} says {contradiction.refused}"


def status_source(order: Order) -> str:
    """Return "stream" or "REST", whichever the status came from; "" if that is not known."""
    source = order.sources.get("status")
    return "" if source is None else _SOURCES[source]


def amount(order: Order) -> str:
    """Return the amount of an order: in base units if REST has told it, otherwise in shares."""
    if order.amount_raw is not None:
        return str(order.amount_raw)
    return "" if order.size is None else f"{_number_text(order.size)} shares"


def price(order: Order) -> str:
    """Return the submitted price; without it, the execution price."""
    known = order.execution_price if order.price is None else order.price
    return "" if known is None else _number_text(known)


def _number_text(number: Decimal) -> str:
    # A number like 1E+9999 keeps its exponent, because without it the text would be very long.
    return f"{number:f}" if abs(number.adjusted()) < 20 else str(number)  # noqa: PLR2004


def moment(at: dt.datetime | None, now: dt.datetime) -> str:
    """Return the local time if `at` is today, otherwise the date."""
    if at is None:
        return ""
    local = at.astimezone()
    return f"{local:%H:%M:%S}" if local.date() == now.astimezone().date() else f"{local:%Y-%m-%d}"
