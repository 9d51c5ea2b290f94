"""JSON values to fields, strictly: a wrong type is an error that names its path, never a conversion. By cattrs."""

from __future__ import annotations

from decimal import Decimal

from cattrs import Converter

from aggstream._base.field_names import kind_of, whole

_LARGEST_INT = 2**63 - 1


class WrongType(ValueError):
    """A value has a wrong type. The error's text never holds the value."""


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
    """Take an amount in base units: a string, or a number."""
    # Documented as a string because it is too big for a double. A JSON number is exact here as well, and dropping
    # the news of a fill for its spelling would help nobody.
    if value is None:
        return None
    if type(value) is int or isinstance(value, Decimal):
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
