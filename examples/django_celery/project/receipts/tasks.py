"""The heavy work."""

from celery import shared_task
from celery.utils.log import get_task_logger

from aggstream.integrations.django.models import Order
from receipts.models import Receipt

logger = get_task_logger(__name__)


@shared_task
def write(event_id: str) -> None:
    """Write a receipt; asked for twice, it is written once."""
    receipt = Receipt.objects.get(event_id=event_id)
    order = Order.objects.get(order_id=receipt.order_id)
    text = f"{order.side} {order.size} at {order.price} on {order.venue}"  # imagine a PDF
    # Of two workers at the same time, one is the first.
    if Receipt.objects.filter(event_id=event_id, text="").update(text=text):
        logger.warning("receipt for %s: %s", order.order_id, text)
    else:
        logger.warning("receipt for %s: it was there", order.order_id)
