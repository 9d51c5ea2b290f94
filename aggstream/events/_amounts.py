"""Amounts in base units, which the service writes as texts because they are too big for a double.

Source: the service documents integers as texts. That they may come in other writings is assumed.
"""

from __future__ import annotations

import functools
import re

# The largest integer of the chains behind the venues is 2**256, of 78 digits. A longer number is no amount, and
# making it would cost time that the sender chooses.
_MOST_DIGITS = 78
_LONGEST = 256
_NUMBER = re.compile(r"\+?([0-9]*)(?:\.([0-9]*))?(?:[eE]([+-]?[0-9]{1,4}))?", re.ASCII)


def raw_amount(text: str | None) -> int | None:
    """Return an amount in base units, exactly, however its digits are written: "400", "400.00" and "4e2" are one.

    Returns:
        None if there is no text, or if it is no whole number of 78 digits at most that is not negative.
    """
    if text is None:
        return None
    if text.isdigit() and text.isascii() and len(text) <= _MOST_DIGITS:
        return int(text)
    return _whole_number(text) if len(text) <= _LONGEST else None


def is_unreadable(text: str | None) -> bool:
    """Return True if there is a text that is no amount: then the amount is not known."""
    return text is not None and raw_amount(text) is None


def normal_amount(text: str | None) -> str:
    """Return a text that is equal for equal amounts: for ids.

    It is made of the number, of the text itself if that is no amount, or of nothing if there is none. Texts of the
    three kinds are never equal.
    """
    if text is None:
        return "-"
    amount = raw_amount(text)
    return f"?{text}" if amount is None else str(amount)


@functools.lru_cache(maxsize=256)
def _whole_number(text: str) -> int | None:
    match = _NUMBER.fullmatch(text.strip())
    if match is None:
        return None
    whole, fraction, exponent = match[1], match[2] or "", int(match[3] or 0)
    if not whole and not fraction:
        return None
    digits = (whole + fraction).lstrip("0")
    zeros = exponent - len(fraction)
    if not digits:
        return 0
    if zeros < 0:
        if digits[zeros:].strip("0") or len(digits) < -zeros:
            return None
        digits, zeros = digits[:zeros], 0
    if len(digits) + zeros > _MOST_DIGITS:
        return None
    return int(digits + "0" * zeros)
