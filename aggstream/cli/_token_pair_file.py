"""A file with a pair of tokens, for several commands at the same time."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from aggstream.tokens._refreshing import TokenPair

if TYPE_CHECKING:
    from typing_extensions import Self

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_NAMES = ("access_token", "refresh_token")
_PRIVATE = 0o600


class TokenPairFile:
    """A JSON file with `refresh_token` and perhaps `access_token`. A `with` statement locks it.

    The lock prevents two commands from using the same refresh token, because the service would then revoke the
    session. On a system without such locks, only one command may use the file at a time.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()  # so that `save` replaces the target of a symbolic link, and not the link
        self._lock = -1

    def read(self) -> tuple[str | None, str]:
        """Return the access token, if there is one, and the refresh token.

        Raises:
            OSError: the file cannot be read.
            ValueError: the file's content is not valid. The text contains nothing of it.
        """
        text = self.path.read_text()
        try:
            stored: Any = json.loads(text)
        except ValueError:
            stored = None
        access, refresh = (stored.get(name) for name in _NAMES) if isinstance(stored, dict) else (None, None)
        if not refresh or not isinstance(refresh, str) or not isinstance(access, (str, type(None))):
            raise ValueError('the file must contain {"access_token": "…", "refresh_token": "…"}')
        return access or None, refresh

    def load(self) -> TokenPair | None:
        """Return the stored pair, which may be from another command; None if the file has no access token."""
        access, refresh = self.read()
        return None if access is None else TokenPair(access, refresh)

    def save(self, pair: TokenPair) -> None:
        """Replace the file in one step. After a crash it has either the old or the new pair, complete."""
        new = self.path.with_name(f"{self.path.name}.new")
        new.unlink(missing_ok=True)  # a crash may have left it, with another mode
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _PRIVATE)
        with open(descriptor, "w") as file:  # noqa: PTH123  (opens a descriptor, which has the mode)
            json.dump(dict(zip(_NAMES, attrs.astuple(pair), strict=True)), file)
            file.flush()
            os.fsync(file.fileno())
        new.replace(self.path)

    def __enter__(self) -> Self:
        if fcntl is not None:
            # The lock is on a file of its own, because `save` replaces the token file.
            self._lock = os.open(f"{self.path}.lock", os.O_RDWR | os.O_CREAT, _PRIVATE)
            fcntl.flock(self._lock, fcntl.LOCK_EX)
        return self

    def __exit__(self, *error: object) -> None:
        if fcntl is not None:
            os.close(self._lock)
