"""Database columns for texts and numbers of the service. Columns limit the characters and the length of a text."""

from __future__ import annotations

import hashlib
from decimal import Decimal
from typing import Any

from django.db import models
from django.db.backends.base.base import BaseDatabaseWrapper

NAME = 100
"""The length of a column for a name, such as a status or a venue."""
KEY = 200
"""The length of a column for an id. Its index has the same length."""


def storable(text: str) -> str:
    """Return a text that every database can store: without NUL, and without half of a surrogate pair."""
    return text.replace("\0", "\ufffd").encode(errors="replace").decode()


def key(text: str, length: int = KEY) -> str:
    """Return the key that represents a text in a column. The key is the text itself, or a hash of the text.

    The key is a hash if the text is too long, cannot be stored, or ends with a space, because some databases
    ignore such a space in comparisons. Equal texts have equal keys, and the key of a key is the same key. No known
    id of the service needs a hash.
    """
    if len(text) <= length and storable(text) == text and not text.endswith(" "):
        return text
    return "~" + hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=20).hexdigest()


class _Exact:
    """Makes a column that compares texts character by character, and stores all of Unicode.

    This is necessary for MySQL, because its default collation treats "A" and "a" as equal, and may not support all
    characters.
    """

    def db_parameters(self, connection: BaseDatabaseWrapper) -> Any:
        """Return the parameters of the column."""
        parameters = super().db_parameters(connection)  # type: ignore[misc]  # the field class has it
        return {**parameters, "collation": "utf8mb4_bin"} if connection.vendor == "mysql" else parameters


class NameField(_Exact, models.CharField):  # type: ignore[type-arg]  # generic in the stubs alone
    """A column for a name or a key."""


class WordsField(_Exact, models.TextField):  # type: ignore[type-arg]  # generic in the stubs alone
    """A column for a text of any length."""


class ExactField(models.TextField):  # type: ignore[type-arg]  # generic in the stubs alone
    """A column for an exact number, `Decimal` in Python. It is stored as text, which every database has."""

    def from_db_value(self, value: str | None, expression: Any, connection: Any) -> Decimal | None:
        """Return the number for a value of the column."""
        return self.to_python(value)

    def to_python(self, value: Any) -> Any:
        """Return the number for a text."""
        return None if value is None else Decimal(value)

    def get_prep_value(self, value: Any) -> str | None:
        """Return the value of the column for a number."""
        return None if value is None else str(value)


class RawAmountField(ExactField):
    """A column for an amount in base units, `int` in Python."""

    def to_python(self, value: Any) -> Any:
        """Return the number for a text."""
        return None if value is None else int(value)
