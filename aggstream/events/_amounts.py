"""Amounts in base units, which the service writes as texts because they are too big for a double."""

from __future__ import annotations

# The largest integer of the chains behind the venues is 2**256, of 78 digits. A longer run of digits is
# no amount, and converting it would cost time that the sender chooses.
_MOST_DIGITS = 78


def raw_amount(text: str | None) -> int | None:
    """Return an amount in base units, or None if `text` is not one."""
    if text is None or len(text) > _MOST_DIGITS or not (text.isascii() and text.isdigit()):
        return None
    return int(text)
