"""Texts of the service in columns of a database, which take neither every character nor every length."""

from __future__ import annotations

import hashlib
from decimal import Decimal
from typing import Any

from django.db import models
from django.db.backends.base.base import BaseDatabaseWrapper

NAME = 100
"""The length of a column for a name: a status, a venue."""
KEY = 200
"""The length of a column for an id, and of its index."""


def storable(text: str) -> str:
    """Return a text that every database takes: no NUL, and no half of a surrogate pair."""
    return text.replace("\0", "\ufffd").encode(errors="replace").decode()


def key(text: str, length: int = KEY) -> str:
    """Return what stands for a text in a column: itself, or its hash if it is too long or not storable.

    Nor may it end in a space, which some databases ignore when they compare. Equal texts have equal keys, and the
    key of a key is itself. No id of the service is known to need a hash.
    """
    if len(text) <= length and storable(text) == text and not text.endswith(" "):
        return text
    return "~" + hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=20).hexdigest()


class _Exact:
    """Compared character by character, and takes all of Unicode.

    MySQL's tables do what their collation says, which by default takes "A" for "a", and may know few characters.
    """

    def db_parameters(self, connection: BaseDatabaseWrapper) -> Any:
        """Return what the column is made with."""
        parameters = super().db_parameters(connection)  # type: ignore[misc]  # of the field
        return {**parameters, "collation": "utf8mb4_bin"} if connection.vendor == "mysql" else parameters


class NameField(_Exact, models.CharField):  # type: ignore[type-arg]  # generic in the stubs alone
    """A name or a key."""


class WordsField(_Exact, models.TextField):  # type: ignore[type-arg]  # generic in the stubs alone
    """A text of any length."""


class ExactField(models.TextField):  # type: ignore[type-arg]  # generic in the stubs alone
    """A number exactly as it was told, for which some databases have no type; `Decimal` in Python."""

    def from_db_value(self, value: str | None, expression: Any, connection: Any) -> Decimal | None:
        """Return the number of a column."""
        return self.to_python(value)

    def to_python(self, value: Any) -> Any:
        """Return the number of a text."""
        return None if value is None else Decimal(value)

    def get_prep_value(self, value: Any) -> str | None:
        """Return the column of a number."""
        return None if value is None else str(value)


class RawAmountField(ExactField):
    """An amount in base units; `int` in Python."""

    def to_python(self, value: Any) -> Any:
        """Return the number of a text."""
        return None if value is None else int(value)
