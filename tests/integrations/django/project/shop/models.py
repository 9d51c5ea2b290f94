"""What the handlers write, for the tests to look at."""

from __future__ import annotations

from django.db import models


class Seen(models.Model):
    """One call of a handler."""

    handler = models.CharField(max_length=20)
    event_id = models.CharField(max_length=50)
    type = models.CharField(max_length=50)
    order_id = models.CharField(max_length=50, default="")
    redelivered = models.BooleanField(default=False)
    is_committed = models.BooleanField(default=False)

    def __str__(self) -> str:
        return self.event_id


class Trouble(models.Model):
    """As long as there is one, a handler fails."""

    def __str__(self) -> str:
        return "trouble"
