"""The Django signal for events, as another way than handlers."""

from __future__ import annotations

from django.dispatch import Signal

event_received = Signal()
"""The process of `manage.py aggstream` sends this signal with each event. The sender is the event's class.

Receivers get `event`, and the account's name as `account`. Connect receivers while Django starts. If a receiver
raises, the handling of the event fails, and all receivers are called again later. Django holds receivers weakly,
so a receiver that is a lambda or a local function disappears.

```python
@receiver(event_received, sender=aggstream.OrderEvent)
def moved(sender, event, account, **_): ...
```
"""
