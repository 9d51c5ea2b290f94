"""The options of one connection's protocol: its deadlines, and what is assumed of the service."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import attrs

from aggstream._base.border import border_at_init
from aggstream._base.checks import flag, optional_seconds, seconds
from aggstream._base.limits import Limits, check_limits
from aggstream.errors import ConfigurationError


def _codes(value: Iterable[int]) -> frozenset[int]:
    codes = frozenset(value) if isinstance(value, Iterable) else None
    if codes is not None and all(type(code) is int for code in codes):
        return codes
    raise ConfigurationError("auth_close_codes must be WebSocket close codes, like {4401, 4403}")


AUTH_CLOSE_CODES = frozenset({1008, 3000, 3003, 4001, 4003, 4401, 4403})
"""Assumed: the service's close codes are not public."""


@border_at_init
@attrs.frozen(kw_only=True)
class SessionOptions:
    """The options of a session. Times are in seconds.

    Raises:
        ConfigurationError: a time is not above 0.
    """

    token_in_query: bool = False
    """The token came with the connect, so no `authenticate` is sent at first."""
    greeting_timeout: float = seconds(10.0)
    """From the open WebSocket to the service's `connected`."""
    auth_timeout: float = seconds(10.0)
    """From an `authenticate` to its `authenticated`."""
    ping_interval: float = seconds(25.0)
    """Silence after which a ping is sent."""
    pong_timeout: float = seconds(10.0)
    """From a ping to any sign of life."""
    idle_timeout: float | None = optional_seconds(120.0)
    """Time without a message of the service after which it must acknowledge an `authenticate`; None: never."""
    close_timeout: float = seconds(0.5)
    """From our close frame to the peer's."""
    auth_close_codes: frozenset[int] = attrs.field(default=AUTH_CLOSE_CODES, converter=_codes)
    """Close codes that say that the token is refused or has expired."""
    check_user_id: bool = flag(default=True)
    """Whether an event that names another user than the one who is signed in is dropped. Assumed: the service
    writes a user's id in events as in `authenticated`."""
    status_names: Mapping[str, str] = attrs.field(factory=dict)
    """Names of order events by the normal form of the service's word for them: `RestOptions.status_names`."""
    limits: Limits = attrs.field(default=None, converter=check_limits)
    """How much the server may ask of this side."""
