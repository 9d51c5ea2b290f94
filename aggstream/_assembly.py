"""The quick way from a JSON object to a frozen event: a function for each class, made of its fields.

It takes what is in order only. Whatever is not, it leaves to whoever knows how to explain it: see `_codec.py`.

A frozen attrs instance is made by its `__init__` at several times the cost of a plain one. So an event is filled
in as an instance of a subclass which has the same layout and allows assignment, and then becomes what it is.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any, TypeAlias, cast

import attrs

from aggstream.events import UserEvent

Assemble: TypeAlias = Callable[[dict[str, Any], str, int], "UserEvent | None"]
"""Takes a JSON object without `type`, which it uses up, its text, and when it came. None: it is not in order."""

# What fits into 64 bits, so that no number of any length is compared or converted.
_INTEGER = f"type(v) is int and {-(2**63) + 1} <= v <= {2**63 - 1}"
# How a value is found to be in order, by the type of its field.
_STATEMENTS = {
    str: "if type(v) is not str: return None",
    int: f"if not ({_INTEGER}): return None",
    Decimal: f"if {_INTEGER}: v = Decimal(v)\n elif type(v) is not Decimal: return None",
    str | None: "if v is not None and type(v) is not str: return None",
    int | None: f"if v is not None and not ({_INTEGER}): return None",
}
_GIVEN = {"text": "text", "received_ns": "received_ns"}


def assembler(cls: type[UserEvent], wire_name: Callable[[str], str]) -> Assemble:
    """Make the function for a class.

    Args:
        cls: whose fields are texts, integers and decimals, which may be None if they have that as their default.
        wire_name: gives a field's name in the JSON object.
    """
    attrs.resolve_types(cls)
    lines = ["def assemble(payload, text, received_ns):", " event, pop = new(filled_in), payload.pop"]
    constants: dict[str, object] = {}
    for field in attrs.fields(cls):
        name = field.name
        if name == "raw":  # is made of the text when it is asked for
            continue
        if name in _GIVEN:
            lines.append(f" event.{name} = {_GIVEN[name]}")
        elif field.default not in (attrs.NOTHING, None):  # the wire has no such field
            constants[name] = field.default
            lines.append(f" event.{name} = {name}")
        else:
            absent = "" if field.default is attrs.NOTHING else ", None"
            lines += [
                f" v = pop({wire_name(name)!r}{absent})",
                f" {_STATEMENTS[field.type]}",
                f" event.{name} = v",
            ]
    lines += [
        " if payload and not all(map(is_plain, payload.values())): return None",
        " event.__class__ = cls",
        " return event",
    ]
    # Both, because the interpreter has one slot for the two of them.
    assigns = {"__slots__": (), "__setattr__": object.__setattr__, "__delattr__": object.__delattr__}
    names = {
        **constants,
        "cls": cls,
        "filled_in": type(cls.__name__, (cls,), assigns),
        "new": object.__new__,
        "is_plain": _is_plain,
        "Decimal": Decimal,
    }
    exec("\n".join(lines), names)  # noqa: S102  (of our own classes' fields, as attrs and cattrs do)
    return cast("Assemble", names["assemble"])


def _is_plain(value: object) -> bool:
    """Tell whether a value that no field takes is within the limits, whatever they are for numbers' digits."""
    if type(value) is int:
        return -(2**63) < value < 2**63
    return value is None or type(value) in (str, bool, Decimal)
