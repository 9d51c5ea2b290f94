"""Checks of arguments that several modules need."""

from __future__ import annotations

from typing import TypeVar

N = TypeVar("N", int, float)


def not_negative(name: str, number: N) -> N:
    """Return the number if it is not negative.

    Raises:
        ValueError: the number is negative. The error calls it `name`.
    """
    if number < 0:
        raise ValueError(f"{name} must not be negative, got {number}")
    return number


def one_of(name: str, value: str | None, allowed: tuple[str, ...]) -> str | None:
    """Return the value if it is None or one of the allowed values.

    Raises:
        ValueError: the value is not allowed. The error calls it `name`.
    """
    if value is not None and value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")
    return value
