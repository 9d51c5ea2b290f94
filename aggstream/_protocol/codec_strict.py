"""Messages to events, strictly, by cattrs: for what the fast codecs do not take, with the path of a mistake."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import attrs
from cattrs import AttributeValidationNote, ClassValidationError, Converter
from cattrs.gen import make_dict_structure_fn, override

from aggstream._base.field_names import WIRE_NAMES, wire_name
from aggstream._base.strict import strict_converter, structure_raw_amount
from aggstream.errors import DecodeError
from aggstream.events import WIRE_TYPES, Event


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
    for ours in ("raw", "received_ns", "account", "source", "redelivered", "text", "stored_id", "named_as"):
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
        return _first_problem(name, group)
    raise AssertionError("the two converters disagree")  # pragma: no cover


def _first_problem(name: str, group: ClassValidationError) -> DecodeError:
    problem = group.exceptions[0]
    [note] = (n for n in getattr(problem, "__notes__", ()) if isinstance(n, AttributeValidationNote))
    text = "missing" if isinstance(problem, KeyError) else str(problem)
    return DecodeError(text, path=f"$.{wire_name(note.name)}", message_type=name)
