"""Django's own way to hear of events, beside handlers."""

from __future__ import annotations

from django.dispatch import Signal

event_received = Signal()
"""Sent with each event, in the process of `manage.py aggstream`; the sender is the event's class.

Receivers get `event` and `account`, the account's name. They are connected while Django starts. One that raises
counts as a handler that fails: all receivers are called again later. Django holds receivers weakly, so a lambda or
a local function vanishes.

```python
@receiver(event_received, sender=aggstream.OrderEvent)
def moved(sender, event, account, **_): ...
```
"""
