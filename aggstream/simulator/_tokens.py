"""Issues and verifies access tokens (JWTs, HS256) and rotating refresh tokens. It does no I/O."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

import jwt

if TYPE_CHECKING:
    from collections.abc import Callable

_ALGORITHM = "HS256"
_REQUIRED_CLAIMS = ["sub", "iat", "exp", "jti"]


class TokenRefused(Exception):
    """An access or refresh token is not valid. The text says why, and never contains the token."""


@dataclass(frozen=True)
class SignedIn:
    """The tokens that a user gets by signing in. The repr masks both.

    Attributes:
        user_id: the user's id.
        access_token: the JWT for the WebSocket and for REST.
        refresh_token: the token to exchange for the next pair. It works once.
    """

    user_id: str
    access_token: str
    refresh_token: str

    def __repr__(self) -> str:
        return f"SignedIn(user_id={self.user_id!r}, access_token='***', refresh_token='***')"


@dataclass(frozen=True)
class Claims:
    """The claims of a verified access token."""

    user_id: str
    expires_at: float
    serial: int


@dataclass
class _Family:
    """The refresh tokens that descend from one sign-in. Only the newest of them is valid."""

    user_id: str
    lifetime: float
    current: str = ""
    revoked: bool = False


class TokenIssuer:
    """Signs, verifies, rotates and expires the tokens of one simulator.

    Args:
        lifetime: the seconds that an access token is valid, unless `sign_in` gives another lifetime.
        reuse_revokes: True: a second use of a refresh token revokes its whole family, because the service takes it
            for theft. Access tokens that were issued before stay valid until they expire.
        now: returns the time in seconds since the epoch.
    """

    def __init__(self, *, lifetime: float, reuse_revokes: bool, now: Callable[[], float]) -> None:
        self._lifetime = lifetime
        self._reuse_revokes = reuse_revokes
        self._now = now
        self._secret = secrets.token_bytes(32)
        self._serial = 0
        # Access tokens with serials up to these are expired: those of all users, and those of one user by id.
        self._last_expired = 0
        self._last_expired_of: dict[str, int] = {}
        # Used refresh tokens stay in here, so that a second use is recognised.
        self._families: dict[str, _Family] = {}

    def sign_in(self, user_id: str, lifetime: float | None = None) -> SignedIn:
        """Start a family of tokens for the user. Each of its access tokens is valid for `lifetime` seconds."""
        if lifetime is None:
            lifetime = self._lifetime
        return self._issue(_Family(user_id, lifetime))

    def refresh(self, refresh_token: str) -> SignedIn:
        """Exchange a refresh token for a new pair.

        Raises:
            TokenRefused: the token is unknown, it was used before, or its family is revoked.
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

    def verify(self, access_token: str) -> Claims:
        """Return the claims of a valid access token.

        Raises:
            TokenRefused: the token is malformed, signed by another key, or expired.
        """
        try:
            # PyJWT cuts `exp` to whole seconds, so the expiry is checked below, with fractions of a second.
            options = {"require": _REQUIRED_CLAIMS, "verify_exp": False, "verify_iat": False}
            decoded = jwt.decode(access_token, self._secret, algorithms=[_ALGORITHM], options=options)  # type: ignore[arg-type]
        except jwt.InvalidTokenError as error:
            raise TokenRefused("the token is invalid") from error
        claims = Claims(decoded["sub"], float(decoded["exp"]), int(decoded["jti"]))
        if self.seconds_left(claims) <= 0:
            raise TokenRefused("the token has expired")
        return claims

    def seconds_left(self, claims: Claims) -> float:
        """Return the seconds until the token expires; 0 or less if it has expired."""
        if claims.serial <= max(self._last_expired, self._last_expired_of.get(claims.user_id, 0)):
            return 0.0
        return claims.expires_at - self._now()

    def expire(self, user_id: str | None = None) -> None:
        """Let all access tokens issued so far expire: the user's, or everybody's. Refresh tokens stay valid."""
        if user_id is None:
            self._last_expired = self._serial
        else:
            self._last_expired_of[user_id] = self._serial

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
