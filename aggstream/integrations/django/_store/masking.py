"""Masks tokens in texts that are not from aggstream."""

from __future__ import annotations

import re

LIKE_A_TOKEN = re.compile(r"eyJ[\w-]+\.[\w-]+\.[\w-]+")
"""Matches any JWT."""


def masked(text: str) -> str:
    """Return a text with `***` in place of everything that looks like a token."""
    return LIKE_A_TOKEN.sub("***", text)
