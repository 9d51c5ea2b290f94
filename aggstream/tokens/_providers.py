"""Makes a provider from the token source that a user gives, and checks the texts of tokens."""

from __future__ import annotations

from collections.abc import Callable

from aggstream._base.secret import Secret
from aggstream.errors import ConfigurationError
from aggstream.typing import TokenProvider, TokenSource


class _FixedToken:
    """A provider that always returns the same token."""

    def __init__(self, token: Secret) -> None:
        self._token = token

    def get_token(self, *, stale: str | None = None) -> str:
        return self._token.reveal()


class _TokenFunction:
    """A provider that calls a user's function for each token."""

    def __init__(self, function: Callable[[], str]) -> None:
        self._function = function

    def get_token(self, *, stale: str | None = None) -> str:
        del stale  # if the function raises, a traceback may show the locals of this frame
        return self._function()


def as_provider(token: TokenSource | Secret) -> TokenProvider:
    """Return a token provider for the token source that a user gave.

    Raises:
        ConfigurationError: the source is not a token, a function or a provider.
    """
    if isinstance(token, Secret):
        return _FixedToken(token)
    if isinstance(token, str):
        return _FixedToken(checked_token(token))
    if isinstance(token, TokenProvider):
        return token
    if callable(token):
        return _TokenFunction(token)
    raise ConfigurationError(
        "token must be a text, a function that returns a text, or an object with a get_token method"
    )


def problem_with(token: object) -> str | None:
    """Return why a token cannot be sent, in a text without the token; None if the token can be sent."""
    if not isinstance(token, str):
        return f"the token must be a text, got {type(token).__name__}"
    if not token:
        return "the token is empty"
    if token.strip() != token:
        return "the token begins or ends with a space or a line break: strip() it"
    if token.lower().startswith("bearer "):
        return "the token must be given without 'Bearer '"
    if not token.isascii() or not token.isprintable() or " " in token:
        return "the token must be printable ASCII without spaces, as the REST API takes it"
    return None


def checked_token(token: object) -> Secret:
    """Check a token, and return it as a secret.

    Raises:
        ConfigurationError: the token cannot be sent.
    """
    problem = problem_with(token)
    if problem is not None:
        raise ConfigurationError(problem)
    assert isinstance(token, str)
    return Secret(token)
