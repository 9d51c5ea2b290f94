"""An order as REST tells it, made into the event that the stream would have told it by."""

from __future__ import annotations

from aggstream._base.json_text import to_json
from aggstream._base.times import NS_PER_MS, milliseconds
from aggstream.events import OrderEvent
from aggstream.events._records import OrderRecord


def as_event(record: OrderRecord, status: str, wall_ns: int) -> OrderEvent:
    """Return the event that tells of a record. Its text is made for it, so that it can be stored.

    Args:
        record: what REST says of the order.
        status: its status, by the name that an `order_event` has for it.
        wall_ns: when it was read, in nanoseconds since the epoch.
    """
    filled, amount = record.filled_amount_raw, record.amount_raw
    remaining = None
    if filled is not None and amount is not None and amount >= filled:
        remaining = str(amount - filled)
    timestamp = milliseconds(record.updated_at or record.created_at)
    if timestamp is None:
        timestamp = wall_ns // NS_PER_MS
    message = {
        "type": OrderEvent.TYPE,
        "event": status,
        "orderId": record.id,
        "venue": record.venue,
        "filledAmountRaw": record.filled_amount_text,
        "remainingAmountRaw": remaining,
        "errorReason": record.error_message,
        "timestamp": timestamp,
        "order": record.raw,
    }
    return OrderEvent(
        event=status,
        order_id=record.id,
        venue=record.venue,
        filled_amount_text=record.filled_amount_text,
        remaining_amount_text=remaining,
        error_reason=record.error_message,
        timestamp=timestamp,
        source="reconcile",
        received_ns=wall_ns,
        raw=message,
        text=to_json(message),
    )
