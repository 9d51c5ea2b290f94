"""Who is who."""

from typing import Any


def user_id(user: Any) -> str:
    """Return the AGG user of a signed-in user. A real application has it in a table of its own."""
    return f"usr_{user.username}"
