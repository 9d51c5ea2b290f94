"""The protocols that a user may implement, and the names of types that appear in signatures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeAlias, runtime_checkable

__all__ = ["TokenProvider", "TokenSource"]


@runtime_checkable
class TokenProvider(Protocol):
    """Where access tokens come from, when a plain function is not enough."""

    def get_token(self, *, stale: str | None = None) -> str:
        """Return an access token (a JWT, the one that the REST API takes).

        Runs on the thread `aggstream-tokens`, one call at a time, and may block for up to `token_timeout`. A
        `RestClient` calls it on the thread that uses the client, one call at a time, too.

        Args:
            stale: a token that the server refused, or that is about to expire: return another one.
                None if any token that is good now will do.

        Raises:
            TokenUnavailable: there is none this time; the stream tries again after a pause.
            AuthenticationRejected: the session is over; the stream stops with this error.
        """
        ...


TokenSource: TypeAlias = "str | Callable[[], str] | TokenProvider"
"""A token, a function that returns one, or a provider."""
