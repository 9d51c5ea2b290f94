"""Where access tokens come from, and what the service said of them."""

from typing import TYPE_CHECKING

from aggstream._base.lazy import lazy

if TYPE_CHECKING:
    from aggstream.tokens._refreshing import RefreshingToken, TokenPair

__all__ = ["RefreshingToken", "TokenPair"]

# It loads an HTTP client, which a stream with another source of tokens does not need.
__getattr__, __dir__ = lazy(__name__, {"_refreshing": ("RefreshingToken", "TokenPair")})
