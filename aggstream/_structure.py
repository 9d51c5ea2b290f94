"""JSON values to fields, strictly: a wrong type is an error that names its path, never a conversion. By cattrs."""

from __future__ import annotations

import functools
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import attrs
from cattrs import AttributeValidationNote, ClassValidationError, Converter
from cattrs.gen import make_dict_structure_fn, override

from aggstream._wire import WIRE_NAMES, kind_of, whole, wire_name
from aggstream.errors import DecodeError
from aggstream.events import WIRE_TYPES, Event

_LARGEST_INT = 2**63 - 1


class WrongType(ValueError):
    """What is wrong with one value; its text never holds the value."""


def structure_str(value: object, _: object) -> str:
    """Take a string."""
    if not isinstance(value, str):
        raise WrongType(f"expected a string, got {kind_of(value)}")
    return whole(value)


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


def _field_hook(converter: Converter, field: attrs.Attribute[Any]) -> Callable[[Any, Any], Any] | None:
    if field.name in WIRE_NAMES:
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


# Finding the path of a mistake costs twice the time of not finding it, so it is looked for only once there is one.
@functools.cache
def _hooks(*, detailed: bool) -> dict[str, Callable[[Any, Any], Event]]:
    converter = strict_converter(detailed_validation=detailed)
    return {name: _hook(converter, cls) for name, cls in WIRE_TYPES.items()}


def structured(name: str, payload: dict[str, Any]) -> Event | None:
    """Return the event that a message of a type stands for; None if the type is not known.

    Raises:
        DecodeError: a field is missing or of a wrong type; names its path.
    """
    hook = _hooks(detailed=False).get(name)
    if hook is None:
        return None
    try:
        return hook(payload, None)
    except Exception:  # whatever it was, the slow way says where
        raise _explained(name, payload) from None


def _explained(name: str, payload: dict[str, Any]) -> DecodeError:
    try:
        _hooks(detailed=True)[name](payload, None)
    except ClassValidationError as group:
        return _first_problem(group)
    raise AssertionError("the two converters disagree")  # pragma: no cover


def _first_problem(group: ClassValidationError) -> DecodeError:
    problem = group.exceptions[0]
    [note] = (n for n in getattr(problem, "__notes__", ()) if isinstance(n, AttributeValidationNote))
    text = "missing" if isinstance(problem, KeyError) else str(problem)
    return DecodeError(text, path=f"$.{wire_name(note.name)}")
