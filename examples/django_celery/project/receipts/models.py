"""What comes of an order that is filled."""

from django.db import models


class Receipt(models.Model):
    """Asked for by a handler, and written by a worker."""

    event_id = models.CharField(max_length=100, unique=True)
    """Of the event that it is for, so that there is one however often the event comes."""
    order_id = models.CharField(max_length=200)
    text = models.TextField(blank=True, default="")
    """Empty until it is written."""

    def __str__(self) -> str:
        return self.order_id
