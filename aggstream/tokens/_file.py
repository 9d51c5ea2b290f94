"""A token in a file, which another program renews."""

from __future__ import annotations

import os
from pathlib import Path

from aggstream._base.border import border, raise_interruption_in
from aggstream.errors import ConfigurationError, TokenUnavailable

_LARGEST = 65536


class FileToken:
    """A token provider that reads the access token from a file, each time that a token is needed.

    Another program renews the file, as sidecars and secret managers do. It should write a new file and rename it,
    so that nobody reads half a token. If the file is renewed late, the stream tries again: see
    `ReconnectPolicy.fatal_after`.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Make a provider. The file is not read yet.

        Args:
            path: the file. It holds the token and nothing else but white space around it.

        Raises:
            ConfigurationError: `path` is not a path.
        """
        try:
            self.path = Path(path)
        except TypeError:
            raise ConfigurationError(f"path must be a path, got {type(path).__name__}") from None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.path)!r})"

    @border
    def get_token(self, *, stale: str | None = None) -> str:
        """Return the token in the file. The method reads the file on the calling thread.

        Args:
            stale: is not used: the file is read again in any case.

        Raises:
            TokenUnavailable: the file cannot be read, is empty, or holds something else. A later call may help.
        """
        del stale  # a traceback may show local variables
        try:
            with self.path.open("rb") as file:
                text = file.read(_LARGEST + 1)
        except OSError as error:
            raise_interruption_in(error)
            reason = error.strerror or type(error).__name__
            raise TokenUnavailable(f"the token file {self.path} cannot be read: {reason}") from None
        problem = None
        if len(text) > _LARGEST:
            problem = "is too large for a token"
        elif not text.strip():
            problem = "is empty"
        elif not text.isascii():
            problem = "holds something else than a token"
        if problem is not None:
            del text
            raise TokenUnavailable(f"the token file {self.path} {problem}")
        return text.decode().strip()
