"""An access token, and what its `exp` hints at.

The claim is read without looking at the signature, so it is a hint for the time of a refresh and nothing more:
what counts is the service's answer.
"""

from __future__ import annotations

import base64
import datetime as dt
import json
import math

import attrs

from aggstream._base.secret import Secret

# A refresh is begun so long before the end that a slow answer and one repetition fit in, but late enough that
# a long-lived token is not thrown away early.
_EARLIEST_SECONDS = 60.0
_EARLIEST_SHARE = 0.3
_SHORTEST = 0.5
# Up to 9999-12-31, the last date that datetime can hold.
_LAST_SECOND = 253402300799.0


@attrs.frozen
class Token:
    """An access token with its end."""

    secret: Secret
    expires: float | None
    """Seconds since the epoch; None if the token does not say or cannot be read."""

    @classmethod
    def of(cls, text: str) -> Token:
        """Make one of a token's text."""
        return cls(Secret(text), expiry(text))

    @property
    def expires_at(self) -> dt.datetime | None:
        """`expires` as an aware datetime in UTC."""
        return None if self.expires is None else dt.datetime.fromtimestamp(self.expires, dt.timezone.utc)

    def refresh_in(self, wall: float, jitter: float) -> float | None:
        """Return the seconds until another token should be asked for.

        Args:
            wall: the time now, in seconds since the epoch.
            jitter: between 0 and 1; spreads the clients of a service over the time before the end.

        Returns:
            None if it is unknown, or already too late for an early refresh.
        """
        if self.expires is None:
            return None
        left = self.expires - wall
        if left < _SHORTEST:
            return None
        early = min(_EARLIEST_SECONDS, left * _EARLIEST_SHARE)
        return left - early * (0.5 + 0.5 * jitter)


def expiry(token: str) -> float | None:
    """Return a JWT's `exp` in seconds since the epoch, or None if it has none that makes sense."""
    try:
        payload = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        value = claims["exp"]
    except (IndexError, KeyError, TypeError, ValueError, RecursionError):
        return None
    if type(value) not in (int, float):
        return None
    try:
        seconds = float(value)
    except OverflowError:
        return None
    return seconds if math.isfinite(seconds) and 0 <= seconds <= _LAST_SECOND else None
