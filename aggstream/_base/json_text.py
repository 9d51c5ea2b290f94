"""JSON texts to values and back, exactly and within limits.

A number with a fraction or an exponent is a `Decimal`, exactly as written; `NaN` and `Infinity` are not JSON.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from decimal import (
    MAX_EMAX,
    MAX_PREC,
    Clamped,
    Context,
    Decimal,
    Inexact,
    InvalidOperation,
    Overflow,
    Rounded,
    Subnormal,
)
from typing import Any, NoReturn

from aggstream._base.border import raise_interruption_in
from aggstream._base.limits import Limits
from aggstream.errors import DecodeError

# A bracket, or a whole string, in which brackets mean nothing. A string without an end is one as well: else the
# search would begin again at each quote in it, and take a time that grows with the square of its length.
_NESTING = re.compile(r'[\[{]|[\]}]|"[^"\\]*(?:\\.[^"\\]*)*"?', re.DOTALL)


def refuse_constant(name: str) -> NoReturn:
    """Refuse `NaN`, `Infinity` and `-Infinity`, which the interpreter's scanner knows.

    Raises:
        DecodeError: always.
    """
    raise DecodeError(f"{name} is not JSON")


class Parser:
    """Turns JSON texts into values, within limits."""

    def __init__(self, limits: Limits) -> None:
        """Make one; it keeps no state, so any thread may use it."""
        self.exact = Context(
            prec=min(limits.number_digits, MAX_PREC),
            Emin=-min(limits.number_exponent, MAX_EMAX),
            Emax=min(limits.number_exponent, MAX_EMAX),
            traps=[Clamped, Inexact, InvalidOperation, Overflow, Rounded, Subnormal],
        )
        """Keeps the limits of decimals in C: it refuses what it would have to change."""
        self._limits = limits
        self._parse = json.JSONDecoder(
            parse_float=self._decimal, parse_int=self._integer, parse_constant=refuse_constant
        ).decode

    def parse(self, text: str) -> Any:
        """Return a JSON text's value, with `Decimal` for numbers that have a fraction or an exponent.

        Raises:
            DecodeError: it is not JSON, or past a limit.
        """
        # So few brackets cannot nest too deep; counting them is much faster than following them.
        if text.count("[") + text.count("{") > self._limits.json_depth:
            self._check_depth(text)
        try:
            return self._parse(text)
        except json.JSONDecodeError as error:
            raise_interruption_in(error)
            raise DecodeError(f"not JSON: {error.msg} at character {error.pos}") from None
        except RecursionError as error:
            raise_interruption_in(error)
            raise DecodeError("not usable JSON: nested too deep for this interpreter") from None
        except ValueError as error:
            raise_interruption_in(error)
            raise DecodeError("not usable JSON: an integer with too many digits for this interpreter") from None

    def _integer(self, text: str) -> int:
        # Before it is converted, which takes a time that grows with the square of its length.
        if len(text.lstrip("-")) > self._limits.number_digits:
            raise self._too_many_digits()
        return int(text)

    def _decimal(self, text: str) -> Decimal:
        try:
            return self.exact.create_decimal(text)
        except ArithmeticError as error:
            raise_interruption_in(error)
            most = self._limits.number_exponent
        # Which of the two it was. Its exponent may be beyond what the class can hold.
        try:
            exponent = Decimal(text).adjusted()
        except ArithmeticError as error:
            raise_interruption_in(error)
        else:
            if -most <= exponent <= most:
                raise self._too_many_digits()
        raise DecodeError(f"a number with an exponent above limits.number_exponent ({most})")

    def _too_many_digits(self) -> DecodeError:
        return DecodeError(f"a number of more than limits.number_digits ({self._limits.number_digits}) digits")

    def _check_depth(self, text: str) -> None:
        depth = 0
        for match in _NESTING.finditer(text):
            found = match[0]
            if found in "[{":
                depth += 1
                if depth > self._limits.json_depth:
                    raise DecodeError(f"nested deeper than limits.json_depth ({self._limits.json_depth})")
            elif found in "]}":
                depth -= 1


def to_json(value: Any) -> str:
    """Return the JSON text of a value, on one line, with `Decimal` as the number that it was written as.

    Raises:
        TypeError: the value, or something in it, has no JSON form.
        ValueError: a number is not finite.
    """
    if isinstance(value, Decimal):
        if not value.is_finite():
            raise ValueError("a number that is not finite has no JSON form")
        return str(value)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{json.dumps(str(k))}: {to_json(v)}" for k, v in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(to_json, value)) + "]"
    return json.dumps(value, allow_nan=False)
