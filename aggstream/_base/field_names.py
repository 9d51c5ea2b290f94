"""How the service's JSON calls things, and how we do."""

from __future__ import annotations

# A name of the service that its snake-case twin does not tell.
WIRE_NAMES = {
    "filled_amount_text": "filledAmountRaw",
    "remaining_amount_text": "remainingAmountRaw",
}


def wire_name(field: str) -> str:
    """Return the service's name of a field: `order_id` is `orderId` on the wire."""
    head, *rest = field.split("_")
    return WIRE_NAMES.get(field) or head + "".join(word.capitalize() for word in rest)


def kind_of(value: object) -> str:
    """Return what a JSON value is, in words."""
    names = {str: "a string", bool: "a boolean", dict: "an object", list: "an array", type(None): "null"}
    return names.get(type(value), "a number")


def whole(text: str) -> str:
    """Return a text in which halves of surrogate pairs are replaced by U+FFFD."""
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
