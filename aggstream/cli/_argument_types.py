"""Types of command-line arguments that several commands use."""

from __future__ import annotations

import argparse
import math


def positive_int(text: str) -> int:
    """Return the text as a whole number.

    Raises:
        ArgumentTypeError: the text is not a whole number of 1 or more.
    """
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number, 1 or more, got {text!a}")
    return number


def positive_number(text: str) -> float:
    """Return the text as a number.

    Raises:
        ArgumentTypeError: the text is not a finite number above 0.
    """
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number above 0, got {text!a}")
    return number


def port(text: str) -> int:
    """Return the text as a TCP port. 0 means a free port that the system chooses.

    Raises:
        ArgumentTypeError: the text is not a whole number from 0 to 65535.
    """
    try:
        number = int(text)
    except ValueError:
        number = -1
    if not 0 <= number <= 65535:  # noqa: PLR2004  (the largest port)
        raise argparse.ArgumentTypeError(f"must be a whole number from 0 to 65535, got {text!a}")
    return number
