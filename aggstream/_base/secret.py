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
        if len(self._text) < _SHORTEST_SEARCHED:
            return False
        if "\\" not in text:  # nearly always, and then nothing in it is written in another way
            return self._text[:_SHORTEST_BEGINNING] in text
        return self._beginning().search(text) is not None

    def redact(self, text: str) -> str:
        """Return `text` with the secret masked, even cut short: for a server's words that may echo it."""
        if not self.begins_in(text):
            return text
        pieces: list[str] = []
        at = 0
        for found in self._beginning().finditer(text):
            if found.start() >= at:
                pieces += (text[at : found.start()], MASK)
                at = self._end_in(text, found.start())
        return "".join((*pieces, text[at:]))

    def _beginning(self) -> re.Pattern[str]:
        return re.compile("".join(map(_form, self._text[:_SHORTEST_BEGINNING])))

    def _end_in(self, text: str, at: int) -> int:
        """Return where the secret ends in a text in which it begins at a place."""
        for character in self._text:
            length = _length_at(character, text, at)
            if not length:
                break
            at += length
        return at

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


def _length_at(character: str, text: str, at: int) -> int:
    """Return the length of a character in a text, maybe as JSON's escape; 0 if it does not stand there."""
    if text.startswith(character, at):
        return 1
    if text[at : at + 6].lower() == f"\\u{ord(character):04x}":
        return 6
    return 2 if character == "/" and text.startswith("\\/", at) else 0


def _form(character: str) -> str:
    """Return a pattern for a character, maybe as JSON's escape: some services write `+` and `=` so."""
    slash = r"|\\/" if character == "/" else ""
    return f"(?:{re.escape(character)}|\\\\u(?i:{ord(character):04x}){slash})"
