"""Whose an event is."""

from __future__ import annotations

from aggstream.events._base import Event, UnknownEvent
from aggstream.events._lifecycle import DecodeFailed
from aggstream.events._user import UserEvent


def is_users(event: Event) -> bool:
    """Tell whether an event is, or may be, about a user's orders and balances, so that nobody else may see it."""
    return isinstance(event, (UserEvent, UnknownEvent, DecodeFailed))
