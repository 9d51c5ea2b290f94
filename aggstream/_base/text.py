"""Foreign text, made fit for a log line or a repr."""

from __future__ import annotations

_SHOWN = 200


def shown(text: str, most: int = _SHOWN) -> str:
    """Return a foreign text as one short line of printable ASCII, fit for a log or a repr."""
    cut = text if len(text) <= most else f"{text[:most]}… ({len(text)} characters)"
    return ascii(cut)
