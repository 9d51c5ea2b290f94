"""JSON text to typed events, strictly: a wrong type is an error that names its path, never a conversion.

What counts as what:
- An integer is a JSON number without a fractional part: `5` and `5.0` are the integer 5, because JSON has one
  number type and a service may change its serializer. `5.9`, `"5"` and `true` are not.
- A price or a size is a JSON number, kept as `Decimal` exactly as written; `NaN` and `Infinity` are not JSON.
- Half of a surrogate pair, which a service that cuts texts by UTF-16 units can produce, becomes U+FFFD: a
  failure is not lost because its reason was cut in an emoji. `raw` keeps what was received.

What comes in great numbers goes a quick way as long as it is in order; whatever that does not take, the strict way
looks at again, and explains. Of a key that comes twice the last value counts, and on a quick way only that is held
against the limits: in a short text the others cost nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any, cast

from aggstream._base.field_names import kind_of, whole
from aggstream._base.json_text import Parser
from aggstream._base.limits import Limits
from aggstream._protocol.codec_fast import JsonWay, QuickWay
from aggstream.errors import DecodeError
from aggstream.events import Event, UnknownEvent, UserEvent

__all__ = ["Codec"]

# Bytes that a value takes beside its text, about: a Decimal, or a mapping and its place in another. Short texts
# are # not worth the time to count their values; so many bytes for each character is what messages in use come to.
_PER_VALUE = 128
SHORT = 512
PER_CHARACTER = 8
# The length of a text from which on it is looked at strictly at once.
_QUICK = 4096
_DIGITS_OF_64_BITS = 19

_set_raw: Callable[[Event, Mapping[str, Any]], None] = Event.raw.__set__  # type: ignore[attr-defined]
_set_received: Callable[[Event, int], None] = Event.received_ns.__set__  # type: ignore[attr-defined]
_set_text: Callable[[UserEvent, str], None] = UserEvent.text.__set__  # type: ignore[attr-defined]


class Codec:
    """Turns the service's messages into events, within limits."""

    def __init__(self, limits: Limits) -> None:
        """Make one; it keeps no state, so any thread may use it."""
        # Not loaded by a program that only imports.
        from aggstream._protocol.codec_strict import structured  # noqa: PLC0415

        self._structured = structured
        self._parser = Parser(limits)
        # The quick ways do not count the digits of integers, but see what has more than 64 bits.
        longest = _QUICK if limits.number_digits >= _DIGITS_OF_64_BITS else 0
        self.quick = _quick_way(longest, self._parser.exact.create_decimal)
        """The fast codec, for an owner that calls it for itself and then `complete`."""

    def decode(self, text: str, received_ns: int) -> Event:
        """Return the event that a message of the service stands for.

        Args:
            text: the message.
            received_ns: when it came, in nanoseconds since the epoch.

        Raises:
            DecodeError: it is not a JSON object with a `type`, or a field has a wrong type, or something is past
                a limit; names the path.
        """
        return self.quick.decode(text, received_ns) or self._decode_strictly(text, received_ns)

    def decode_all(self, texts: Sequence[str], received_ns: int) -> list[Event | DecodeError]:
        """Return for each of some messages that came together what `decode` returns or raises."""
        return self.complete(self.quick.decode_all(texts, received_ns), texts, received_ns)

    def complete(
        self, events: Sequence[Event | None], texts: Sequence[str], received_ns: int
    ) -> list[Event | DecodeError]:
        """Return the events of some messages, after the fast codec has returned those that it takes.

        Args:
            events: what `quick.decode_all` has returned for the messages.
            texts: the messages.
            received_ns: when they came, in nanoseconds since the epoch.
        """
        if all(events):
            return cast("list[Event | DecodeError]", events)
        return [
            event or self._decode_or_error(text, received_ns) for text, event in zip(texts, events, strict=True)
        ]

    def _decode_or_error(self, text: str, received_ns: int) -> Event | DecodeError:
        try:
            return self._decode_strictly(text, received_ns)
        except DecodeError as error:
            return error

    def _decode_strictly(self, text: str, received_ns: int) -> Event:
        payload = self._parser.parse(text)
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


def _quick_way(longest: int, create_decimal: Callable[[str], Decimal]) -> QuickWay:
    way = JsonWay(longest, create_decimal)
    try:
        from aggstream._protocol.codec_msgspec import MsgspecWay  # noqa: PLC0415  (an extra)

        return MsgspecWay(longest, create_decimal, way)
    except Exception:  # it is not there, or broken, or there for somebody else, and too old for this
        return way


def memory_of(text: str) -> int:
    """Return about how many bytes a message takes in memory, with what is made of it; it need not be JSON."""
    if len(text) < SHORT:
        return len(text) * PER_CHARACTER
    # The text is kept, and its strings once more in `raw`.
    return 2 * text.__sizeof__() + _PER_VALUE * (text.count(",") + text.count("[") + text.count("{"))
