"""A text that does not show itself."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NoReturn

MASK = "***"
# Shorter secrets are not searched for in foreign text: replacing "abc" would damage what is not a secret.
_SHORTEST_SEARCHED = 8
# And so much of the beginning of a longer one: a server that quotes a token tends to cut it short.
_SHORTEST_BEGINNING = 12


class Secret:
    """Holds a token so that no repr, str, format or pickle of anything around it can show it."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """Return the text. Call it where the text goes out, and keep it in no variable that lives on."""
        return self._text

    def begins_in(self, text: str) -> bool:
        """Return True if `text` holds what `redact` masks."""
        return len(self._text) >= _SHORTEST_SEARCHED and any(form in text for form in self._beginnings())

    def redact(self, text: str) -> str:
        """Return `text` with the secret masked, even cut short: for a server's words that may echo it."""
        if len(self._text) < _SHORTEST_SEARCHED:
            return text
        pieces: list[str] = []
        at = 0
        forms = (self._text, self._text.replace("/", "\\/"))  # JSON may write a slash as `\\/`
        for found in re.finditer("|".join(map(re.escape, self._beginnings())), text):
            start = found.start()
            if start >= at:
                pieces += (text[at:start], MASK)
                at = start + max(_common(form, text[start : start + len(form)]) for form in forms)
        return "".join((*pieces, text[at:]))

    def _beginnings(self) -> tuple[str, str]:
        return self._text[:_SHORTEST_BEGINNING], self._text.replace("/", "\\/")[:_SHORTEST_BEGINNING]

    def redact_json(self, value: Any) -> Any:
        """Return a JSON value with each occurrence in its texts and keys masked."""
        if isinstance(value, str):
            return self.redact(value)
        if isinstance(value, Mapping):
            return {self.redact(key): self.redact_json(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return type(value)(self.redact_json(item) for item in value)
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


def _common(one: str, other: str) -> int:
    pairs = enumerate(zip(one, other, strict=False))
    return next((length for length, (left, right) in pairs if left != right), min(len(one), len(other)))
