"""The project's handlers and receivers."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path
from typing import Any

from django.db import transaction
from django.dispatch import receiver

import aggstream
from aggstream.integrations.django import on
from aggstream.integrations.django.signals import event_received
from shop.models import Seen, Trouble


@on(aggstream.UserEvent)
def keep(event: aggstream.UserEvent) -> None:
    if os.environ.get("SHOP_BROKEN"):
        1 / 0  # noqa: B018  (it fails)
    while (gate := os.environ.get("SHOP_GATE")) and not Path(gate).exists():
        time.sleep(0.01)
    if random.random() < float(os.environ.get("SHOP_FAILURES", "0")):
        raise RuntimeError("as it happens")
    if Trouble.objects.exists():
        raise RuntimeError("trouble with the token eyJhbGciOi.eyJzdWIi.c2lnbmF0dXJl")
    with transaction.atomic():
        seen = Seen.objects.create(
            handler="keep",
            event_id=event.id,
            type=event.type,
            order_id=getattr(event, "order_id", ""),
            redelivered=event.redelivered,
        )
        transaction.on_commit(lambda: Seen.objects.filter(pk=seen.pk).update(is_committed=True))


@receiver(event_received, sender=aggstream.OrderEvent)
def heard(sender: type, event: aggstream.OrderEvent, account: str, **_: Any) -> None:
    Seen.objects.create(handler=f"signal {account}", event_id=event.id, type=event.type, order_id=event.order_id)
