"""What is done with events, in the stream's process: little, and at once."""

import functools

from django.db import transaction

import aggstream
from aggstream.integrations.django import on
from receipts.models import Receipt
from receipts.tasks import write


@on("order_event", "filled")
def filled(event: aggstream.OrderEvent) -> None:
    """Ask for a receipt.

    No worker starts before the row is there. If the broker cannot be reached, or this process dies before it was,
    the event is not done: the handler is called again, and asks again.
    """
    with transaction.atomic():
        Receipt.objects.get_or_create(event_id=event.id, defaults={"order_id": event.order_id})
        transaction.on_commit(functools.partial(write.delay, event.id))
