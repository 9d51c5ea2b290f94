"""The REST API, asked by a program with `RestClient`, or by the stream."""

from typing import TYPE_CHECKING

from aggstream._base.lazy import lazy
from aggstream.rest._options import RestOptions

if TYPE_CHECKING:
    from aggstream.rest._client import RestClient

__all__ = ["RestClient", "RestOptions"]

# It loads an HTTP client, which a stream without REST does not need.
__getattr__, __dir__ = lazy(__name__, {"_client": ("RestClient",)})
