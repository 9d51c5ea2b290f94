"""Requests that the simulator refuses, and how many of the next ones it still has to refuse."""

from __future__ import annotations

import math

from aggstream.simulator._checks import not_negative


class Refused(Exception):
    """The simulator answers the request with an error status."""

    def __init__(self, status: int, message: str, *, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after


class Refusals:
    """Refuses the next requests of one kind.

    Args:
        n: how many requests to refuse; None: every request.
        status: the HTTP status of the answer.
        retry_after: the seconds for the header `Retry-After`; None: no such header.

    Raises:
        ValueError: `n` is negative, `status` is not an HTTP error, or `retry_after` is negative.
    """

    def __init__(self, n: int | None = 0, status: int = 503, retry_after: int | None = None) -> None:
        if not 400 <= status <= 599:  # noqa: PLR2004  (the range of HTTP errors)
            raise ValueError(f"status must be from 400 to 599, got {status}")
        if retry_after is not None:
            not_negative("retry_after", retry_after)
        self._left = math.inf if n is None else not_negative("n", n)
        self._status = status
        self._retry_after = retry_after

    def take(self) -> None:
        """Return if the request may pass; otherwise use up one refusal.

        Raises:
            Refused: this request is refused.
        """
        if self._left:
            self._left -= 1
            message = "the simulator was told to refuse this request"
            raise Refused(self._status, message, retry_after=self._retry_after)
