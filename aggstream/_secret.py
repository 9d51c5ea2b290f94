"""A text that does not show itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

MASK = "***"
# Shorter secrets are not searched for in foreign text: replacing "abc" would damage what is not a secret.
_SHORTEST_SEARCHED = 8


class Secret:
    """Holds a token so that no repr, str, format or pickle of anything around it can show it."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """Return the text. Call it where the text goes out, and keep it in no variable that lives on."""
        return self._text

    def redact(self, text: str) -> str:
        """Return `text` with each occurrence of the secret masked: for a server's words that may echo it."""
        if len(self._text) < _SHORTEST_SEARCHED:
            return text
        # JSON may write a slash as `\\/`.
        return text.replace(self._text, MASK).replace(self._text.replace("/", "\\/"), MASK)

    def redact_json(self, value: Any) -> Any:
        """Return a JSON value with each occurrence in its texts and keys masked."""
        if isinstance(value, str):
            return self.redact(value)
        if isinstance(value, Mapping):
            return {self.redact(key): self.redact_json(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self.redact_json(item) for item in value]
        return value

    def __repr__(self) -> str:
        return MASK

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return MASK

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._text == other._text

    def __hash__(self) -> int:
        return hash(self._text)

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        msg = "a secret is not pickled: hand the token over on a channel made for secrets"
        raise TypeError(msg)
