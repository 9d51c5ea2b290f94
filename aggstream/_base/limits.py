"""How much a server may ask of this side."""

from __future__ import annotations

import attrs

from aggstream._base.border import border_at_init
from aggstream._base.checks import count, seconds
from aggstream._base.text import shown
from aggstream.errors import ConfigurationError


@border_at_init
@attrs.frozen(kw_only=True)
class Limits:
    """Bounds on everything that the server sends.

    The first five end the connection when they are passed, `json_depth`, `number_digits` and `number_exponent`
    cost the message only, which becomes a `DecodeFailed`, and `queued_size` pauses reading. The time for
    connecting is `connect_timeout`.

    Attributes:
        message_size: bytes of the largest message, put together from its fragments.
        frame_size: bytes of the largest frame; it is refused by its header.
        fragments: the most frames that one message may come in.
        message_timeout: seconds from the first byte of a message to its last.
        handshake_size: bytes of the largest answer to the WebSocket handshake.
        json_depth: the deepest nesting of objects and arrays.
        number_digits: the most digits of a number, without zeros before the first other one, and its exponent.
        number_exponent: the largest power of ten that a number is made of, up or down.
        queued_size: bytes of memory, about, that messages may take while they wait for handlers; past it reading
            pauses. What is made of a message can take thirty times the size of its text, and counts.
        logged_text: the most characters of the server's words in an error or a log line.

    Raises:
        ConfigurationError: a limit is not above 0.
    """

    message_size: int = count(1 << 20)
    frame_size: int = count(1 << 20)
    fragments: int = count(1024)
    message_timeout: float = seconds(30.0)
    handshake_size: int = count(1 << 16)
    json_depth: int = count(64)
    number_digits: int = count(64)
    number_exponent: int = count(64)
    queued_size: int = count(64 << 20)
    logged_text: int = count(200)

    def shown(self, text: str) -> str:
        """Return a foreign text as one short line of printable ASCII."""
        return shown(text, self.logged_text)


def check_limits(value: Limits | None) -> Limits:
    """Return limits; None stands for the default ones.

    Raises:
        ConfigurationError: it is something else.
    """
    if value is not None and not isinstance(value, Limits):
        raise ConfigurationError("limits must be a Limits, or None for the default ones")
    return value or Limits()
