"""Real HS256 access tokens, and refresh tokens that rotate. Pure: no socket, and the clock is the caller's."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

import jwt

if TYPE_CHECKING:
    from collections.abc import Callable

_ALGORITHM = "HS256"
_CLAIMS = ["sub", "iat", "exp", "jti"]


class TokenRefused(Exception):
    """An access or refresh token that does not stand; the text says why and never quotes the token."""


@dataclass(frozen=True)
class SignedIn:
    """The tokens that a user gets by signing in. Its repr masks both.

    Attributes:
        user_id: whose tokens these are.
        access_token: the JWT for the socket and for REST.
        refresh_token: buys the next pair, once.
    """

    user_id: str
    access_token: str
    refresh_token: str

    def __repr__(self) -> str:
        return f"SignedIn(user_id={self.user_id!r}, access_token='***', refresh_token='***')"


@dataclass(frozen=True)
class Grant:
    """The claims of a verified access token."""

    user_id: str
    expires_at: float
    serial: int


@dataclass
class _Family:
    """All refresh tokens that descend from one sign-in; only the newest is good."""

    user_id: str
    lifetime: float
    current: str = ""
    revoked: bool = False


class Issuer:
    """Signs, verifies, rotates and expires the tokens of one simulator.

    Args:
        lifetime: seconds that an access token lives, unless the sign-in says otherwise.
        reuse_revokes: whether presenting a spent refresh token ends the whole family, as a service does that
            takes the second use for theft. Access tokens already issued live on until they expire.
        now: seconds since the epoch.
    """

    def __init__(self, *, lifetime: float, reuse_revokes: bool, now: Callable[[], float]) -> None:
        self._lifetime = lifetime
        self._reuse_revokes = reuse_revokes
        self._now = now
        self._secret = secrets.token_bytes(32)
        self._serial = 0
        # Serials up to these have been called in: of everybody, and of single users.
        self._called_in = 0
        self._called_in_of: dict[str, int] = {}
        # Spent tokens stay known: recognising one is what `reuse_revokes` is about.
        self._families: dict[str, _Family] = {}

    def sign_in(self, user_id: str, lifetime: float | None = None) -> SignedIn:
        """Start a family of tokens for the user, each access token living `lifetime` seconds."""
        if lifetime is None:
            lifetime = self._lifetime
        return self._issue(_Family(user_id, lifetime))

    def refresh(self, refresh_token: str) -> SignedIn:
        """Spend a refresh token on a new pair.

        Raises:
            TokenRefused: it is unknown, was spent before, or its family was revoked.
        """
        family = self._families.get(refresh_token)
        if family is None:
            raise TokenRefused("the refresh token is unknown")
        if family.current != refresh_token:
            family.revoked = family.revoked or self._reuse_revokes
            raise TokenRefused("the refresh token was used before")
        if family.revoked:
            raise TokenRefused("the session was revoked because a refresh token was used twice")
        return self._issue(family)

    def verify(self, access_token: str) -> Grant:
        """Return what the token grants.

        Raises:
            TokenRefused: it is malformed, not ours, expired or called in.
        """
        try:
            # PyJWT cuts `exp` to whole seconds; lives of a fraction of a second are judged below.
            options = {"require": _CLAIMS, "verify_exp": False, "verify_iat": False}
            claims = jwt.decode(access_token, self._secret, algorithms=[_ALGORITHM], options=options)  # type: ignore[arg-type]
        except jwt.InvalidTokenError as error:
            raise TokenRefused("the token is invalid") from error
        grant = Grant(claims["sub"], float(claims["exp"]), int(claims["jti"]))
        if self.seconds_left(grant) <= 0:
            raise TokenRefused("the token has expired")
        return grant

    def seconds_left(self, grant: Grant) -> float:
        """Return for how long the grant still stands; zero or less when it has expired or was called in."""
        if grant.serial <= max(self._called_in, self._called_in_of.get(grant.user_id, 0)):
            return 0.0
        return grant.expires_at - self._now()

    def expire(self, user_id: str | None = None) -> None:
        """Call in every access token issued so far, to that user or to everybody. Refresh tokens stand."""
        if user_id is None:
            self._called_in = self._serial
        else:
            self._called_in_of[user_id] = self._serial

    def _issue(self, family: _Family) -> SignedIn:
        self._serial += 1
        now = self._now()
        claims = {
            "sub": family.user_id,
            "iat": now,
            "exp": now + family.lifetime,
            "jti": str(self._serial),
        }
        family.current = f"rt_{secrets.token_urlsafe(24)}"
        self._families[family.current] = family
        access_token = jwt.encode(claims, self._secret, algorithm=_ALGORITHM)
        return SignedIn(family.user_id, access_token, family.current)
