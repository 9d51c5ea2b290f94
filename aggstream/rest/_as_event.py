"""An order as REST tells it, made into the event that the stream would have told it by."""

from __future__ import annotations

from aggstream._base.json_text import to_json
from aggstream._base.times import NS_PER_MS, milliseconds
from aggstream.events import OrderEvent
from aggstream.events._records import OrderRecord


def as_event(
    record: OrderRecord, wall_ns: int, user_id: str | None, *, named_as: str = "", one_unit: bool = False
) -> OrderEvent:
    """Return the event that tells of a record. Its text is made for it, so that it can be stored.

    Args:
        record: what REST says of the order.
        wall_ns: when it was read, in nanoseconds since the epoch.
        user_id: the user whose order it is; None if the service has not named the user.
        named_as: the name that the user has given to the record's status; empty for none.
        one_unit: whether the record's amounts count the same thing, so that what remains can be told.
    """
    remaining = record.remaining_text if one_unit else None
    timestamp = milliseconds(record.updated_at or record.created_at)
    if timestamp is None:
        timestamp = wall_ns // NS_PER_MS
    message = {
        "type": OrderEvent.TYPE,
        "event": record.status,
        "orderId": record.id,
        "userId": user_id,
        "venue": record.venue,
        "filledAmountRaw": record.filled_amount_text,
        "remainingAmountRaw": remaining,
        "errorReason": record.error_message,
        "timestamp": timestamp,
        "order": record.raw,
    }
    return OrderEvent(
        event=record.status,
        named_as=named_as,
        order_id=record.id,
        user_id=user_id,
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
