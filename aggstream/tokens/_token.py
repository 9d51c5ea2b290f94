"""An access token, and the time at which it expires.

The time is the claim `exp` of the token. aggstream does not check the token's signature, so the time is only a
hint for when to refresh. Only the service decides whether a token is valid.
"""

from __future__ import annotations

import base64
import datetime as dt
import json
import math

import attrs

from aggstream._base.border import raise_interruption_in
from aggstream._base.secret import Secret

# A refresh begins early enough for a slow answer and one more attempt, but not so early that a long-lived token is
# thrown away.
_EARLIEST_SECONDS = 60.0
_EARLIEST_SHARE = 0.3
_SHORTEST = 0.5
# Up to 9999-12-31, the last date that datetime can hold.
_LAST_SECOND = 253402300799.0


@attrs.frozen
class Token:
    """An access token, and the time at which it expires."""

    secret: Secret
    expires: float | None
    """The expiry in seconds since the epoch; None if the token has no readable expiry."""

    @classmethod
    def of(cls, text: str) -> Token:
        """Make a token from its text."""
        return cls(Secret(text), expiry(text))

    @property
    def expires_at(self) -> dt.datetime | None:
        """`expires` as an aware datetime in UTC."""
        return None if self.expires is None else dt.datetime.fromtimestamp(self.expires, dt.timezone.utc)

    def refresh_in(self, wall: float, jitter: float) -> float | None:
        """Return the seconds until the client should ask for another token.

        Args:
            wall: the present time, in seconds since the epoch.
            jitter: a random number between 0 and 1. It makes the clients of a service refresh at different times.

        Returns:
            The seconds; None if the expiry is unknown, or if it is too late for an early refresh.
        """
        if self.expires is None:
            return None
        left = self.expires - wall
        if left < _SHORTEST:
            return None
        early = min(_EARLIEST_SECONDS, left * _EARLIEST_SHARE)
        return left - early * (0.5 + 0.5 * jitter)


def expiry(token: str) -> float | None:
    """Return the claim `exp` of a JWT, in seconds since the epoch; None if the token has no valid `exp`."""
    try:
        payload = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        value = claims["exp"]
    except (IndexError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise_interruption_in(error)
        return None
    if type(value) not in (int, float):
        return None
    try:
        seconds = float(value)
    except OverflowError as error:
        raise_interruption_in(error)
        return None
    return seconds if math.isfinite(seconds) and 0 <= seconds <= _LAST_SECOND else None
