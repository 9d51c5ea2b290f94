"""Faults that are switched on, how they are answered, and the counts of what was seen."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeVar

N = TypeVar("N", int, float)


@dataclass
class Counts:
    """Counts of all that the simulator has seen since it was made.

    Attributes:
        handshakes: requests for a WebSocket, granted or not.
        handshakes_refused: of these, refused for whatever reason.
        authentications: tokens accepted, by message or in the query.
        authentications_refused: tokens refused, by message or in the query.
        refreshes: refresh tokens exchanged.
        refreshes_refused: calls to refresh that got nothing.
        rest_calls: calls of /execution/*, granted or not.
        rest_calls_refused: of these, refused for whatever reason.
        order_pages: pages of orders that were given out, whether they arrived or not.
    """

    handshakes: int = 0
    handshakes_refused: int = 0
    authentications: int = 0
    authentications_refused: int = 0
    refreshes: int = 0
    refreshes_refused: int = 0
    rest_calls: int = 0
    rest_calls_refused: int = 0
    order_pages: int = 0


class Refused(Exception):
    """A request that is answered with an error status."""

    def __init__(self, status: int, message: str, *, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after


def at_least_zero(name: str, number: N) -> N:
    """Return the number.

    Raises:
        ValueError: it is negative.
    """
    if number < 0:
        raise ValueError(f"{name} must not be negative: {number}")
    return number


class Refusals:
    """How many more requests of a kind are to be refused, and how; None: every one.

    Raises:
        ValueError: a count below zero, a status that is no error, or a negative `retry_after`.
    """

    def __init__(self, n: int | None = 0, status: int = 503, retry_after: int | None = None) -> None:
        if not 400 <= status <= 599:  # noqa: PLR2004 - HTTP's own limits
            raise ValueError(f"status must be from 400 to 599: {status}")
        if retry_after is not None:
            at_least_zero("retry_after", retry_after)
        self._left = math.inf if n is None else at_least_zero("n", n)
        self._status = status
        self._retry_after = retry_after

    def take(self) -> None:
        """Let a request pass, or use up one refusal.

        Raises:
            Refused: this one is refused.
        """
        if self._left:
            self._left -= 1
            raise Refused(self._status, "the simulator was told to refuse this", retry_after=self._retry_after)
