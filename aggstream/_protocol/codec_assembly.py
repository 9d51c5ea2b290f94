"""The last step of the quick ways to a frozen event: a function for each class, made of its fields.

It takes only messages that are in order. `codec.py` sees to the others, and explains what is wrong with them.

A frozen attrs instance is made by its `__init__` at several times the cost of a plain one. So an event is filled
in as an instance of a subclass which has the same layout and allows assignment, and then becomes what it is.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any, TypeAlias, cast

import attrs

from aggstream._base.field_names import wire_name
from aggstream.events import Heartbeat, UserEvent

Assemble: TypeAlias = Callable[[dict[str, Any], str, int], "UserEvent | Heartbeat | None"]
"""Takes a JSON object without `type`, which it uses up, its text, and when it came. None: it is not in order."""
Complete: TypeAlias = Callable[[Any, str, int], "UserEvent | Heartbeat | None"]
"""Takes an object with all of the wire's fields, its text, and when it came. None: it is not in order."""

SMALLEST, LARGEST = -(2**63) + 1, 2**63 - 1
"""The integers that fit into 64 bits, so that no number of any length is compared or converted."""
_INTEGER = f"type(v) is int and {SMALLEST} <= v <= {LARGEST}"
_NUMBER = f"if {_INTEGER}: v = Decimal(v)\n elif type(v) is not Decimal: return None"
# How a value is found to be in order, by the type of its field.
_STATEMENTS: dict[Any, str] = {
    str: "if type(v) is not str: return None",
    int: f"if not ({_INTEGER}): return None",
    Decimal: _NUMBER,
    str | None: "if v is not None and type(v) is not str: return None",
    int | None: f"if v is not None and not ({_INTEGER}): return None",
}
_BEGINS = '{"type"'
_GIVEN = ("text", "received_ns")


def wire_fields(cls: type[UserEvent]) -> list[attrs.Attribute[Any]]:
    """Return a class's fields that come by the wire, which may be absent if their default is None."""
    attrs.resolve_types(cls)
    return [field for field in _settable(cls) if field.default in (attrs.NOTHING, None)]


def _settable(cls: type[UserEvent]) -> list[attrs.Attribute[Any]]:
    """Return a class's fields but for those that are given, and `raw`, which is made when it is asked for."""
    return [field for field in attrs.fields(cls) if field.name not in (*_GIVEN, "raw")]


def assembler(cls: type[UserEvent]) -> Assemble:
    """Make the function that makes an event of a JSON object, for a class of texts, integers and decimals."""
    lines: list[str] = []
    for field in wire_fields(cls):
        absent = "" if field.default is attrs.NOTHING else ", None"
        lines += [
            f"v = payload.pop({wire_name(field.name)!r}{absent})",
            _STATEMENTS[field.type],
            f"event.{field.name} = v",
        ]
    lines.append("if payload and not all(map(is_plain, payload.values())): return None")
    return cast("Assemble", _function(cls, lines))


def completer(cls: type[UserEvent]) -> Complete:
    """Make the function that makes an event of an object in which only numbers are left to be looked at."""
    lines: list[str] = []
    for field in wire_fields(cls):
        if field.type is Decimal:
            lines += [f"v = payload.{field.name}", _NUMBER, f"event.{field.name} = v"]
        else:
            lines.append(f"event.{field.name} = payload.{field.name}")
    return cast("Complete", _function(cls, lines))


def heartbeat(payload: dict[str, Any], text: str, received_ns: int) -> Heartbeat | None:
    """Take an object without `type` as `Assemble` does. It may have `ts`, behind its type, and nothing else."""
    ts = payload.get("ts", 0)
    if len(payload) > ("ts" in payload) or type(ts) is not int or not SMALLEST <= ts <= LARGEST:
        return None
    if not text.startswith(_BEGINS):
        return None  # `raw` would have another order
    return Heartbeat(ts=ts, received_ns=received_ns, raw={"type": Heartbeat.TYPE, **payload})


def _function(cls: type[UserEvent], lines: list[str]) -> object:
    # A field that the wire does not have is the same in all events.
    constants = {
        field.name: field.default for field in _settable(cls) if field.default not in (attrs.NOTHING, None)
    }
    body = [
        "event = new(filled_in)",
        *(f"event.{name} = {name}" for name in (*_GIVEN, *constants)),
        *lines,
        "event.__class__ = cls",
        "return event",
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
    head = "def make(payload, text, received_ns):\n "
    exec(head + "\n ".join(body), names)  # noqa: S102  (of our own classes' fields, as attrs and cattrs do)
    return names["make"]


def _is_plain(value: object) -> bool:
    """Return True if a value that no field takes is within the limits, whatever they are for numbers' digits."""
    if type(value) is int:
        return SMALLEST <= value <= LARGEST
    return value is None or type(value) in (str, bool, Decimal)
