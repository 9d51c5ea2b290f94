"""JSON text to typed events, strictly: a wrong type is an error that names its path, never a conversion.

What counts as what:
- An integer is a JSON number without a fractional part: `5` and `5.0` are the integer 5, because JSON has one
  number type and a service may change its serializer. `5.9`, `"5"` and `true` are not.
- A price or a size is a JSON number, kept as `Decimal` exactly as written; `NaN` and `Infinity` are not JSON.
- Half of a surrogate pair, which a service that cuts texts by UTF-16 units can produce, becomes U+FFFD: a
  failure is not lost because its reason was cut in an emoji. `raw` keeps what was received.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
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

from aggstream._assembly import Assemble, assembler
from aggstream._limits import Limits
from aggstream._wire import kind_of, whole, wire_name
from aggstream.errors import DecodeError
from aggstream.events import WIRE_TYPES, Event, UnknownEvent, UserEvent

__all__ = ["Codec", "to_json"]

# What a value takes beside its text, about: a Decimal, or a mapping and its place in another one. Short texts are
# not worth the time to count their values; so many bytes for each character is what messages in use come to.
_PER_VALUE = 128
SHORT = 512
PER_CHARACTER = 8
# The length of a text from which on it is looked at strictly at once.
_QUICK = 4096
_DIGITS_OF_64_BITS = 19
# A bracket, or a whole string, in which brackets mean nothing. A string without an end is one as well: else the
# search would begin again at each quote in it, and take a time that grows with the square of its length.
_NESTING = re.compile(r'[\[{]|[\]}]|"[^"\\]*(?:\\.[^"\\]*)*"?', re.DOTALL)


# For what comes in great numbers, as long as it is in order.
@functools.cache
def _assemblers() -> dict[str, Assemble]:
    users = {name: cls for name, cls in WIRE_TYPES.items() if issubclass(cls, UserEvent)}
    return {name: assembler(cls, wire_name) for name, cls in users.items()}


_set_raw: Callable[[Event, Mapping[str, Any]], None] = Event.raw.__set__  # type: ignore[attr-defined]
_set_received: Callable[[Event, int], None] = Event.received_ns.__set__  # type: ignore[attr-defined]
_set_text: Callable[[UserEvent, str], None] = UserEvent.text.__set__  # type: ignore[attr-defined]


def _refuse_constant(name: str) -> NoReturn:
    raise DecodeError(f"{name} is not JSON")


class Codec:
    """Turns the service's messages into events, within limits."""

    def __init__(self, limits: Limits) -> None:
        """Make one; it keeps no state, so any thread may use it."""
        self._limits = limits
        # Not loaded by whoever only imports.
        from aggstream._structure import structured  # noqa: PLC0415

        self._structured = structured
        self._assemblers = _assemblers()
        # Keeps the limits of decimals in C: it refuses what it would have to change.
        self._exact = Context(
            prec=min(limits.number_digits, MAX_PREC),
            Emin=-min(limits.number_exponent, MAX_EMAX),
            Emax=min(limits.number_exponent, MAX_EMAX),
            traps=[Clamped, Inexact, InvalidOperation, Overflow, Rounded, Subnormal],
        )
        self._parse = json.JSONDecoder(
            parse_float=self._decimal, parse_int=self._integer, parse_constant=_refuse_constant
        ).decode
        self._between = f',"{os.urandom(8).hex()}",'
        self._begins = self._between + "{"
        # It does not count digits, but sees what has more than 64 bits.
        self._quick = _QUICK if limits.number_digits >= _DIGITS_OF_64_BITS else 0
        # Without a frame of ours for each number; how long an integer is, the assemblers see.
        self._scan: Callable[[str, int], tuple[Any, int]] = json.JSONDecoder(  # type: ignore[attr-defined]
            parse_float=self._exact.create_decimal, parse_constant=_refuse_constant
        ).scan_once

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
            raise DecodeError(f"not JSON: {error.msg} at character {error.pos}") from None
        except RecursionError:
            raise DecodeError("not usable JSON: nested too deep for this interpreter") from None
        except ValueError:
            raise DecodeError("not usable JSON: an integer with too many digits for this interpreter") from None

    def decode(self, text: str, received_ns: int) -> Event:
        """Return the event that a message of the service stands for.

        Args:
            text: the message.
            received_ns: when it came, in nanoseconds since the epoch.

        Raises:
            DecodeError: it is not a JSON object with a `type`, or a field has a wrong type, or something is past
                a limit; names the path.
        """
        # Where there is no escape, there is no half of a surrogate pair; in a short text no number takes long; and
        # with one bracket nothing nests, which the scanner would follow until the stack ends.
        if (
            len(text) < self._quick
            and text.isascii()
            and "\\" not in text
            and text.rfind("{") == 0
            and "[" not in text
        ):
            try:
                payload, end = self._scan(text, 0)
                event = self._assemblers[payload.pop("type")](payload, text, received_ns)
                if event is not None and end == len(text):
                    return event
            except Exception:  # noqa: S110  (whatever it was, the strict way finds it again, and explains it)
                pass
        return self._decode_strictly(text, received_ns)

    def decode_all(self, texts: Sequence[str], received_ns: int) -> list[Event | DecodeError]:
        """Return for each of some messages that came together what `decode` returns or raises."""
        payloads = self._scan_together(texts) if len(texts) > 1 else None
        if payloads is None:
            return [self._decode_or_error(text, received_ns) for text in texts]
        decoded: list[Event | DecodeError] = []
        assemblers = self._assemblers
        for text, payload in zip(texts, payloads, strict=True):
            try:
                event = assemblers[payload.pop("type")](payload, text, received_ns)
            except Exception:  # as above
                event = None
            decoded.append(event or self._decode_or_error(text, received_ns))
        return decoded

    def _scan_together(self, texts: Sequence[str]) -> list[Any] | None:
        """Scan messages in one go, which takes a fifth less time; None if they must be looked at one by one.

        Between them comes a text that nobody else knows, and after it each message must begin with a brace. In an
        object no text stands between two commas, so none goes on beyond its message, where there are no arrays.
        So each message is one object if there are no more values than that; and none nests deeper than it is long.
        """
        count = len(texts)
        together = self._between.join(texts)
        if (
            not together.isascii()
            or "\\" in together
            or "[" in together
            or max(map(len, texts)) >= self._quick // 4
        ):
            return None
        if together.startswith("{") + together.count(self._begins) != count:
            return None
        try:
            values, end = self._scan(f"[{together}]", 0)
        except Exception:  # as above
            return None
        return values[::2] if len(values) == 2 * count - 1 and end == len(together) + 2 else None

    def _decode_or_error(self, text: str, received_ns: int) -> Event | DecodeError:
        try:
            return self.decode(text, received_ns)
        except DecodeError as error:
            return error

    def _decode_strictly(self, text: str, received_ns: int) -> Event:
        payload = self.parse(text)
        if payload.__class__ is not dict:
            raise DecodeError(f"expected an object, got {kind_of(payload)}")
        name = payload.get("type")
        if name.__class__ is not str:
            problem = "missing" if name is None else f"expected a string, got {kind_of(name)}"
            raise DecodeError(problem, path="$.type")
        event = self._structured(name, payload)
        if event is None:
            return UnknownEvent(name=whole(name), raw=payload, received_ns=received_ns)
        # Nobody has seen the event yet: it is completed here, below attrs' guard against assignment.
        _set_received(event, received_ns)
        if isinstance(event, UserEvent):
            _set_text(event, text)
        _set_raw(event, payload)
        return event

    def _integer(self, text: str) -> int:
        # Before it is converted, which takes a time that grows with the square of its length.
        if len(text.lstrip("-")) > self._limits.number_digits:
            raise self._too_many_digits()
        return int(text)

    def _decimal(self, text: str) -> Decimal:
        try:
            return self._exact.create_decimal(text)
        except ArithmeticError:
            most = self._limits.number_exponent
        # Which of the two it was. Its exponent may be beyond what the class can hold.
        with contextlib.suppress(ArithmeticError):
            if -most <= Decimal(text).adjusted() <= most:
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


def memory_of(text: str) -> int:
    """Return about how many bytes a message takes in memory, with what is made of it; it need not be JSON."""
    if len(text) < SHORT:
        return len(text) * PER_CHARACTER
    # The text is kept, and its strings once more in `raw`.
    return 2 * text.__sizeof__() + _PER_VALUE * (text.count(",") + text.count("[") + text.count("{"))


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
