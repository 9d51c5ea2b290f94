"""Types of options that several commands take."""

from __future__ import annotations

import argparse
import math


def count(text: str) -> int:
    """Return a whole number of at least 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more, got {text}")
    return number


def rate(text: str) -> float:
    """Return a finite number above 0."""
    number = float(text)
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number above 0, got {text}")
    return number


def port(text: str) -> int:
    """Return a TCP port; 0 means any free one."""
    number = int(text)
    if not 0 <= number <= 65535:  # noqa: PLR2004
        raise argparse.ArgumentTypeError(f"must be between 0 and 65535, got {text}")
    return number
