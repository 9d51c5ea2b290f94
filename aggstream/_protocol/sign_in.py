"""Signing in on one connection: with which token, as which user, and what the service answered."""

from __future__ import annotations

import collections
import enum
from typing import Any, TypeVar

import attrs

from aggstream._protocol.commands import Authenticate
from aggstream.events import Event
from aggstream.tokens._token import Token

E = TypeVar("E", bound=Event)

# Old tokens that are still looked for in the service's words.
_REMEMBERED_SECRETS = 8


class Verdict(enum.Enum):
    """The meaning of an `authenticated` of the service."""

    RENEWED = "renewed"
    """The service has accepted another token than the one that was in use."""
    PROVEN = "proven"
    """It has accepted the token in use once more, and so has proven that it still serves this side."""
    UNASKED = "unasked"
    """It names the same user, and nothing was asked."""
    WRONG_USER = "wrong user"
    """It has signed in another user than the one that the stream belongs to."""


class SignIn:
    """Owns the tokens of a connection, and the user. It sends nothing: the session does."""

    def __init__(self, token: Token, *, expected_user: str | None) -> None:
        """Begin before the first `authenticate`.

        Args:
            token: what to sign in with.
            expected_user: the user that the stream belongs to so far; None: none yet.
        """
        self.token = token
        """The token in use."""
        self.refused = token
        """The token that the service refused last."""
        self.user_id = expected_user
        self._pending: Token | None = None
        self._queued: Token | None = None
        # The tokens that the service may still echo.
        self._secrets = collections.deque([token.secret], maxlen=_REMEMBERED_SECRETS)

    @property
    def is_pending(self) -> bool:
        """True while an `authenticate` waits for its answer."""
        return self._pending is not None

    def send(self, token: Token) -> Authenticate | None:
        """Return the command that signs in with a token.

        Args:
            token: the one in use, as a question for a proof of service, or another one.

        Returns:
            None if another `authenticate` waits for its answer: then this token's turn comes after it.
        """
        if self._pending is not None:
            self._queued = token
            return None
        self._pending = token
        if token.secret not in self._secrets:
            self._secrets.append(token.secret)
        return Authenticate(token.secret)

    def accepted(self, user_id: str | None) -> Verdict:
        """Take the service's `authenticated`; return what it means.

        Args:
            user_id: the user that it names; None if it names none.
        """
        sent, self._pending = self._pending, None
        if user_id is not None:
            if self.user_id not in (None, user_id):
                return Verdict.WRONG_USER
            self.user_id = user_id
        if sent is None:
            return Verdict.UNASKED
        if sent.secret == self.token.secret:
            return Verdict.PROVEN
        self.token = sent
        return Verdict.RENEWED

    def next_token(self) -> Token | None:
        """Return, once, the token whose turn has come; None if there is none."""
        queued, self._queued = self._queued, None
        return queued

    def refuse(self) -> None:
        """Note that the service has refused the token that it was asked about last."""
        self.refused = self._pending or self.token

    def redact(self, text: str) -> str:
        """Return a text of the service with the tokens in it masked."""
        for secret in self._secrets:
            text = secret.redact(text)
        return text

    def is_echoed(self, text: str) -> bool:
        """Return True if a message of the service may hold a token, or the beginning of one."""
        return any(secret.begins_in(text) for secret in self._secrets)

    def mask(self, event: E) -> E:
        """Return an event without the tokens in any of its fields."""
        names = [field.name for field in attrs.fields(type(event))]
        return attrs.evolve(event, **{name: self._masked(getattr(event, name)) for name in names})

    def _masked(self, value: Any) -> Any:
        for secret in self._secrets:
            value = secret.redact_json(value)
        return value
