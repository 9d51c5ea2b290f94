"""Access tokens: their providers, their refresh, and the handling of tokens that the service refuses."""

from typing import TYPE_CHECKING

from aggstream._base.lazy import lazy

if TYPE_CHECKING:
    from aggstream.tokens._file import FileToken
    from aggstream.tokens._refreshing import RefreshingToken, TokenPair

__all__ = ["FileToken", "RefreshingToken", "TokenPair"]

# `_refreshing` is loaded late, because it loads an HTTP client. A stream with another token source needs none.
__getattr__, __dir__ = lazy(__name__, {"_file": ("FileToken",), "_refreshing": ("RefreshingToken", "TokenPair")})
