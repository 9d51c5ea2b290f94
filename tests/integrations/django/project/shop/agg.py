"""The functions that the setting names."""

from __future__ import annotations

import os
from typing import Any

from django.contrib.auth import get_user_model


def token() -> str:
    """Return the token; it looks into the database, as a real one may."""
    get_user_model().objects.count()
    return os.environ["SHOP_TOKEN"]


def user_id(user: Any) -> str | None:
    """Return the AGG user of a signed-in user."""
    return None if user.username == "nobody" else f"usr_{user.username}"
