"""How much a server may ask of this side."""

from __future__ import annotations

import attrs

from aggstream._checks import count, seconds, without_frames
from aggstream.events import shown


@without_frames
@attrs.frozen(kw_only=True)
class Limits:
    """What is accepted from the server. Sizes are in bytes, times in seconds.

    The first five end the connection when they are passed; the rest cost the message only, which becomes a
    `DecodeFailed`. The time for connecting is `connect_timeout`.

    Raises:
        ConfigurationError: a limit is not above 0.
    """

    message_size: int = count(1 << 20)
    """The largest message, put together from its fragments."""
    frame_size: int = count(1 << 20)
    """The largest frame; it is refused by its header."""
    fragments: int = count(1024)
    """The most frames that one message may come in."""
    message_timeout: float = seconds(30.0)
    """From the first byte of a message to its last."""
    handshake_size: int = count(1 << 16)
    """The largest answer to the WebSocket handshake."""
    json_depth: int = count(64)
    """The deepest nesting of objects and arrays."""
    number_digits: int = count(64)
    """The most digits of a number."""
    number_exponent: int = count(64)
    """The largest power of ten that a number is made of, up or down."""
    queued_size: int = count(64 << 20)
    """The memory, about, that messages may take while they wait for handlers; past it reading pauses. What is made
    of a message can take thirty times the size of its text, and counts."""
    logged_text: int = count(200)
    """The most characters of the server's words in an error or a log line."""

    def shown(self, text: str) -> str:
        """Return a foreign text as one short line of printable ASCII."""
        return shown(text, self.logged_text)
