"""Makes an order event, as the stream sends it, from an order record of the REST API."""

from __future__ import annotations

import attrs

from aggstream._base.json_text import to_json
from aggstream._base.times import NS_PER_MS, milliseconds
from aggstream.events import OrderEvent
from aggstream.events._records import OrderRecord


def as_event(
    record: OrderRecord, wall_ns: int, user_id: str | None, *, named_as: str = "", one_unit: bool = False
) -> OrderEvent:
    """Return the event for an order record. The function also makes the event's text, so that it can be stored.

    Args:
        record: the order record of the REST API.
        wall_ns: the time at which the record was read, in nanoseconds since the epoch.
        user_id: the user who owns the order; None if the service has not named the user.
        named_as: the name that the option `status_names` gives to the record's status; empty: no name.
        one_unit: True: all amounts of the record have the same unit, so the remaining amount can be computed.
    """
    remaining = attrs.evolve(record, in_one_unit=True).remaining_text if one_unit else None
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
