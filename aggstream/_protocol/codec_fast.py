"""The quick way from a text to a user event or a heartbeat, by the interpreter's own scanner.

It takes only messages that are in order, and returns None for the rest, which `codec.py` sees to.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any, Protocol, TypeAlias

from aggstream._base.json_text import refuse_constant
from aggstream._protocol.codec_assembly import Assemble, assembler, heartbeat
from aggstream.events import WIRE_TYPES, Heartbeat, UserEvent

QuickEvent: TypeAlias = UserEvent | Heartbeat
"""What a quick way takes: the events that come in great numbers, and those that come to a stream at rest."""


class QuickWay(Protocol):
    """A fast codec: it takes messages that are in order, and leaves the rest."""

    def decode(self, text: str, received_ns: int) -> QuickEvent | None:
        """Return the event that a text stands for; None: look at it strictly."""
        ...

    def decode_all(self, texts: Sequence[str], received_ns: int) -> list[QuickEvent | None]:
        """Return for each of some texts that came together what `decode` returns."""
        ...


@functools.cache
def user_events() -> dict[str, type[UserEvent]]:
    """Return the classes of what comes in great numbers, by their types' names."""
    return {name: cls for name, cls in WIRE_TYPES.items() if issubclass(cls, UserEvent)}


@functools.cache
def _assemblers() -> dict[str, Assemble]:
    return {**{name: assembler(cls) for name, cls in user_events().items()}, Heartbeat.TYPE: heartbeat}


class JsonWay:
    """See `QuickWay`."""

    def __init__(self, longest: int, create_decimal: Callable[[str], Decimal]) -> None:
        """Make one.

        Args:
            longest: the length from which on texts are not taken; in a short one no number takes long.
            create_decimal: makes a number of its text, or raises an error if it is past a limit.
        """
        self._longest = longest
        self._assemblers = _assemblers()
        self._between = f',"{os.urandom(8).hex()}",'
        self._begins = self._between + "{"
        # Without a frame of ours for each number; how long an integer is, the assemblers see.
        self._scan: Callable[[str, int], tuple[Any, int]] = json.JSONDecoder(  # type: ignore[attr-defined]
            parse_float=create_decimal, parse_constant=refuse_constant
        ).scan_once

    def decode(self, text: str, received_ns: int) -> QuickEvent | None:
        """See `QuickWay`."""
        # Where there is no escape, there is no half of a surrogate pair; and with one bracket nothing nests, which
        # the scanner would follow until the stack ends.
        if (
            len(text) < self._longest
            and text.isascii()
            and "\\" not in text
            and text.rfind("{") == 0
            and "[" not in text
        ):
            try:
                payload, end = self._scan(text, 0)
                if end == len(text):
                    return self._assemblers[payload.pop("type")](payload, text, received_ns)
            except Exception:  # noqa: S110  (whatever it was, the strict way finds it again)
                pass
        return None

    def decode_all(self, texts: Sequence[str], received_ns: int) -> list[QuickEvent | None]:
        """See `QuickWay`."""
        payloads = self._scan_together(texts) if len(texts) > 1 else None
        if payloads is None:
            return [self.decode(text, received_ns) for text in texts]
        events: list[QuickEvent | None] = []
        assemblers = self._assemblers
        for text, payload in zip(texts, payloads, strict=True):
            try:
                events.append(assemblers[payload.pop("type")](payload, text, received_ns))
            except Exception:  # as above
                events.append(None)
        return events

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
            or max(map(len, texts)) >= self._longest // 4
        ):
            return None
        if together.startswith("{") + together.count(self._begins) != count:
            return None
        try:
            values, end = self._scan(f"[{together}]", 0)
        except Exception:  # as above
            return None
        return values[::2] if len(values) == 2 * count - 1 and end == len(together) + 2 else None
