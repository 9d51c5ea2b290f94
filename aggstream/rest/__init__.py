"""The client of the REST API: `RestClient` for programs, and the calls that the stream makes by itself."""

from typing import TYPE_CHECKING

from aggstream._base.lazy import lazy
from aggstream.rest._options import RestOptions

if TYPE_CHECKING:
    from aggstream.rest._client import RestClient

__all__ = ["RestClient", "RestOptions"]

# The module is loaded late, because it loads an HTTP client. A stream without REST needs none.
__getattr__, __dir__ = lazy(__name__, {"_client": ("RestClient",)})
