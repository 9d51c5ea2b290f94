"""Which events belong to a user."""

from __future__ import annotations

from aggstream.events._base import Event, UnknownEvent
from aggstream.events._lifecycle import DecodeFailed
from aggstream.events._user import UserEvent


def is_users(event: Event) -> bool:
    """Return True if an event is, or may be, about a user's orders and balances: nobody else may see it then."""
    return isinstance(event, (UserEvent, UnknownEvent, DecodeFailed))
