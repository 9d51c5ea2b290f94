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
import json
import re
from collections.abc import Callable, Mapping
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

import attrs
from cattrs import AttributeValidationNote, ClassValidationError, Converter
from cattrs.gen import make_dict_structure_fn, override

from aggstream._assembly import assembler
from aggstream._limits import Limits
from aggstream.errors import DecodeError
from aggstream.events import WIRE_TYPES, Event, UnknownEvent, UserEvent

__all__ = ["Codec", "strict_converter", "to_json"]

_LARGEST_INT = 2**63 - 1
# What a value takes beside its text, about: a Decimal, or a mapping and its place in another one. Short texts are
# not worth the time to count their values; so many bytes for each character is what messages in use come to.
_PER_VALUE = 128
_SHORT = 512
_PER_CHARACTER = 8
# A bracket, or a whole string, in which brackets mean nothing. A string without an end is one as well: else the
# search would begin again at each quote in it, and take a time that grows with the square of its length.
_NESTING = re.compile(r'[\[{]|[\]}]|"[^"\\]*(?:\\.[^"\\]*)*"?', re.DOTALL)


class WrongType(ValueError):
    """What is wrong with one value; its text never holds the value."""


def kind_of(value: object) -> str:
    """Return what a JSON value is, in words."""
    names = {str: "a string", bool: "a boolean", dict: "an object", list: "an array", type(None): "null"}
    return names.get(type(value), "a number")


def structure_str(value: object, _: object) -> str:
    """Take a string."""
    if not isinstance(value, str):
        raise WrongType(f"expected a string, got {kind_of(value)}")
    if value.isascii():
        return value
    return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _structure_int(value: object, _: object) -> int:
    if type(value) is int:  # and not bool, which is a subclass of it
        number = value
    elif isinstance(value, Decimal):
        # Before it is converted: that takes as long as the number is large.
        _check_bits(value)
        if value != (number := int(value)):
            raise WrongType("expected an integer, got a number with a fractional part")
    else:
        raise WrongType(f"expected an integer, got {kind_of(value)}")
    _check_bits(number)
    return number


def _check_bits(number: int | Decimal) -> None:
    if not -_LARGEST_INT <= number <= _LARGEST_INT:
        raise WrongType("expected an integer of at most 64 bits")


def structure_decimal(value: object, _: object) -> Decimal:
    """Take a number, exactly as written."""
    if isinstance(value, Decimal):
        return value
    if type(value) is int:
        return Decimal(value)
    raise WrongType(f"expected a number, got {kind_of(value)}")


def _structure_strings(value: object, _: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise WrongType(f"expected an array, got {kind_of(value)}")
    return tuple(structure_str(item, str) for item in value)


def _structure_code(value: object, _: object) -> str | int | None:
    if value is None:
        return None
    return structure_str(value, str) if isinstance(value, str) else _structure_int(value, int)


def structure_raw_amount(value: object, _: object) -> str | None:
    """Take an amount in base units: a string, or an integer."""
    # Documented as a string because it is too big for a double. A JSON integer is exact here as well, and
    # dropping the news of a fill for its spelling would help nobody.
    if value is None:
        return None
    if type(value) is int:
        return str(value)
    return structure_str(value, str)


def strict_converter(*, detailed_validation: bool) -> Converter:
    """Make a converter that refuses what cattrs would convert by default."""
    converter = Converter(detailed_validation=detailed_validation)
    converter.register_structure_hook(str, structure_str)
    converter.register_structure_hook(int, _structure_int)
    converter.register_structure_hook(Decimal, structure_decimal)
    converter.register_structure_hook_func(lambda t: t == tuple[str, ...], _structure_strings)
    converter.register_structure_hook_func(lambda t: t == str | int | None, _structure_code)
    return converter


# A name of the service that its snake-case twin does not tell.
_WIRE_NAMES = {
    "filled_amount_text": "filledAmountRaw",
    "remaining_amount_text": "remainingAmountRaw",
}


def wire_name(field: str) -> str:
    """Return the service's name of a field: `order_id` is `orderId` on the wire."""
    head, *rest = field.split("_")
    return _WIRE_NAMES.get(field) or head + "".join(word.capitalize() for word in rest)


def _field_hook(converter: Converter, field: attrs.Attribute[Any]) -> Callable[[Any, Any], Any] | None:
    if field.name in _WIRE_NAMES:
        return structure_raw_amount
    default = field.default
    if default is attrs.NOTHING or default is None or not isinstance(default, (str, int, tuple)):
        return None
    # null means the same as a field that is not there.
    usual = converter.get_structure_hook(field.type)
    return lambda value, cls: default if value is None else usual(value, cls)


def _hook(converter: Converter, cls: type[Event]) -> Callable[[Any, Any], Event]:
    attrs.resolve_types(cls)
    overrides: dict[str, Any] = {
        field.name: override(rename=wire_name(field.name), struct_hook=_field_hook(converter, field))
        for field in attrs.fields(cls)
    }
    for ours in ("raw", "received_ns", "source", "redelivered", "text"):
        if ours in overrides:
            overrides[ours] = override(omit=True)
    return make_dict_structure_fn(cls, converter, **overrides)


# Finding the path of a mistake costs twice the time of not finding it, so it is looked for only once there is
# one. Both are compiled here, at import, and not under the first event.
_FAST = strict_converter(detailed_validation=False)
_DETAILED = strict_converter(detailed_validation=True)
_fast_hooks = {name: _hook(_FAST, cls) for name, cls in WIRE_TYPES.items()}
_detailed_hooks = {name: _hook(_DETAILED, cls) for name, cls in WIRE_TYPES.items()}
# What comes in great numbers, as long as it is in order.
_assemblers = {name: assembler(cls, wire_name) for name, cls in WIRE_TYPES.items() if issubclass(cls, UserEvent)}

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
        # Where there is no escape, there is no half of a surrogate pair.
        if text.isascii() and "\\" not in text:
            try:
                payload, end = self._scan(text, 0)
                event = _assemblers[payload.pop("type")](payload, text, received_ns)
                if event is not None and end == len(text):
                    return event
            except Exception:  # noqa: S110  (whatever it was, the strict way finds it again, and explains it)
                pass
        return self._decode_strictly(text, received_ns)

    def _decode_strictly(self, text: str, received_ns: int) -> Event:
        payload = self.parse(text)
        if payload.__class__ is not dict:
            raise DecodeError(f"expected an object, got {kind_of(payload)}")
        name = payload.get("type")
        if name.__class__ is not str:
            problem = "missing" if name is None else f"expected a string, got {kind_of(name)}"
            raise DecodeError(problem, path="$.type")
        hook = _fast_hooks.get(name)
        if hook is None:
            return UnknownEvent(name=structure_str(name, str), raw=payload, received_ns=received_ns)
        try:
            event = hook(payload, None)
        except Exception:  # whatever it was, the slow way says where
            raise _explained(name, payload) from None
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
    if len(text) < _SHORT:
        return len(text) * _PER_CHARACTER
    # The text is kept, and its strings once more in `raw`.
    return 2 * text.__sizeof__() + _PER_VALUE * (text.count(",") + text.count("[") + text.count("{"))


def _explained(name: str, payload: dict[str, Any]) -> DecodeError:
    try:
        _detailed_hooks[name](payload, None)
    except ClassValidationError as group:
        return _first_problem(group)
    raise AssertionError("the two converters disagree")  # pragma: no cover


def _first_problem(group: ClassValidationError) -> DecodeError:
    problem = group.exceptions[0]
    [note] = (n for n in getattr(problem, "__notes__", ()) if isinstance(n, AttributeValidationNote))
    text = "missing" if isinstance(problem, KeyError) else str(problem)
    return DecodeError(text, path=f"$.{wire_name(note.name)}")


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
