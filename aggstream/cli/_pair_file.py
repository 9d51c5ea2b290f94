"""A pair of tokens in a file, which several commands may use at the same time."""

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


class PairFile:
    """JSON with `access_token`, which may be missing, and `refresh_token`. In a `with` statement it is locked.

    The lock keeps two commands from spending the same refresh token, which would end the session. Where the system
    has no such locks, only one command at a time may use the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()  # a link stays one, and what it leads to is replaced
        self._lock = -1

    def read(self) -> tuple[str | None, str]:
        """Return the access token, if there is one, and the refresh token.

        Raises:
            OSError: the file cannot be read.
            ValueError: it does not hold what it should. The text holds nothing of what it does.
        """
        text = self.path.read_text()
        try:
            stored: Any = json.loads(text)
        except ValueError:
            stored = None
        access, refresh = (stored.get(name) for name in _NAMES) if isinstance(stored, dict) else (None, None)
        if not refresh or not isinstance(refresh, str) or not isinstance(access, (str, type(None))):
            raise ValueError('it must hold {"access_token": "…", "refresh_token": "…"}')
        return access or None, refresh

    def load(self) -> TokenPair | None:
        """Return the pair, which another command may have stored; None if there is only a refresh token."""
        access, refresh = self.read()
        return None if access is None else TokenPair(access, refresh)

    def save(self, pair: TokenPair) -> None:
        """Replace the file in one step, so that a crash leaves the old or the new pair, and never half of one."""
        new = self.path.with_name(f"{self.path.name}.new")
        new.unlink(missing_ok=True)  # a crash's, whose mode may be another
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _PRIVATE)
        with open(descriptor, "w") as file:  # noqa: PTH123  (by a descriptor, for its mode)
            json.dump(dict(zip(_NAMES, attrs.astuple(pair), strict=True)), file)
            file.flush()
            os.fsync(file.fileno())
        new.replace(self.path)

    def __enter__(self) -> Self:
        if fcntl is not None:
            # A file of its own, because this one is replaced.
            self._lock = os.open(f"{self.path}.lock", os.O_RDWR | os.O_CREAT, _PRIVATE)
            fcntl.flock(self._lock, fcntl.LOCK_EX)
        return self

    def __exit__(self, *error: object) -> None:
        if fcntl is not None:
            os.close(self._lock)
