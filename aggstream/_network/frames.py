"""Parses WebSocket frames with websocket-client, adds limits, and can go on later on a non-blocking socket.

Nearly every message is a text in one short frame. `whole_texts` cuts these messages out of the bytes directly,
twenty times faster than the library. The library parses all other frames.
"""

from __future__ import annotations

import codecs
import os
from typing import Any, cast

from websocket import ABNF, WebSocketProtocolException, continuous_frame, frame_buffer

from aggstream._base.limits import Limits
from aggstream.errors import LimitExceeded

# The first byte of a frame that holds a whole text message. And the second byte of a frame whose length is in the
# next two bytes.
_WHOLE_TEXT = 0x80 | ABNF.OPCODE_TEXT
_TWO_BYTES = 126
# The first byte of a frame that holds a whole ping, or a whole pong.
_PING_OR_PONG = (0x80 | ABNF.OPCODE_PING, 0x80 | ABNF.OPCODE_PONG)
LONGEST_CONTROL_FRAME = 125
"""The largest payload of a control frame, in bytes."""


def whole_texts(data: bytes, at: int, largest: int, most: int) -> tuple[list[str], int]:
    """Cut whole, short text messages out of the bytes that were read. Stop at the first frame of another kind.

    Args:
        data: the bytes that were read.
        at: the index in `data` at which a frame begins.
        largest: the largest payload, in bytes.
        most: the largest number of messages to cut out.

    Returns:
        The messages, and the index at which the next frame begins, which the library must parse.
    """
    texts: list[str] = []
    end = len(data)
    try:
        while at + 1 < end and data[at] == _WHOLE_TEXT and len(texts) < most:
            length = data[at + 1]
            start = at + 2
            if length >= _TWO_BYTES:
                if length > _TWO_BYTES or at + 3 >= end:
                    break
                length = data[start] << 8 | data[at + 3]
                start = at + 4
            stop = start + length
            if stop > end or length > largest:
                break
            texts.append(data[start:stop].decode())
            at = stop
    except UnicodeDecodeError:
        return texts, at  # the library reaches this frame next, and its caller handles the error
    return texts, at


def whole_ping_or_pong(data: bytes, at: int) -> tuple[int, bytes, int] | None:
    """Cut a whole ping or pong out of the bytes that were read.

    Args:
        data: the bytes that were read.
        at: the index in `data` at which a frame begins.

    Returns:
        The opcode, the payload, and the index at which the next frame begins; None if the frame is of another
        kind, or not whole, and the library must parse it.
    """
    if at + 1 >= len(data) or data[at] not in _PING_OR_PONG or data[at + 1] > LONGEST_CONTROL_FRAME:
        return None
    stop = at + 2 + data[at + 1]
    return None if stop > len(data) else (data[at] & 0x0F, data[at + 2 : stop], stop)


def short_frame(payload: bytes, opcode: int) -> bytes:
    """Return a whole frame of a client, masked, with a payload of up to 125 bytes.

    A pong is nearly all that most connections send, and the library takes ten times as long for it.

    Args:
        payload: what it carries.
        opcode: of the frame.
    """
    size = len(payload)
    mask = os.urandom(4)
    key = (mask * (size // 4 + 1))[:size]
    masked = int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")
    return bytes((0x80 | opcode, 0x80 | size)) + mask + masked.to_bytes(size, "big")


class LimitedFrameBuffer(frame_buffer):
    """Refuses a frame that is too large after reading its header, before it reads the payload."""

    def __init__(self, recv: Any, limits: Limits) -> None:
        # `bytes.decode` validates UTF-8, because the library's own validation is two hundred times slower.
        super().__init__(recv, skip_utf8_validation=True)
        self._limits = limits
        self._received = bytearray()

    @property
    def is_partial(self) -> bool:
        """True if a part of a frame has arrived."""
        return self.header is not None or bool(self._received)

    @property
    def payload(self) -> tuple[int, bytearray] | None:
        """The opcode and the arrived part of the payload of a frame; None if the frame's header is incomplete."""
        if self.header is None or self.length is None or self.mask_value is None:
            return None
        return self.header[4], self._received

    def recv_strict(self, bufsize: int) -> bytes:
        # This method replaces the library's, which adds up the lengths of all pieces again for each new piece.
        received = self._received
        while len(received) < bufsize:
            received += self.recv(bufsize - len(received))
        self._received = bytearray()
        return bytes(received)

    def recv_length(self) -> None:
        super().recv_length()
        length = self.length or 0
        for limit in ("frame_size", "message_size"):
            if length > (most := getattr(self._limits, limit)):
                raise LimitExceeded(f"a frame of {length} bytes", limit=limit, value=most)

    def recv_mask(self) -> None:
        if self.has_mask():
            raise WebSocketProtocolException("a server must not mask its frames")
        super().recv_mask()


class LimitedContinuation(continuous_frame):
    """Puts messages together from fragments. The library's own class is slow if a message has many fragments.

    Each part of a text is decoded as soon as it arrives, so that invalid UTF-8 is found at once.
    """

    def __init__(self, limits: Limits) -> None:
        super().__init__(fire_cont_frame=False, skip_utf8_validation=True)
        self._limits = limits
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._texts: list[str] = []
        self._parts: list[bytes] = []
        self._frames = 0
        self._size = 0
        # The number of bytes of the present frame that are decoded.
        self._decoded = 0

    @property
    def is_partial(self) -> bool:
        """True between the first and the last fragment of a message."""
        return self._frames > 0

    def check_begun(self, opcode: int, payload: bytearray) -> None:
        """Decode the arrived part of a frame if the frame belongs to a text message.

        Raises:
            UnicodeDecodeError: the part is not UTF-8.
        """
        if (self.recving_frames if opcode == ABNF.OPCODE_CONT else opcode) == ABNF.OPCODE_TEXT:
            self._texts.append(self._decoder.decode(bytes(payload[self._decoded :])))
            self._decoded = len(payload)

    def put(self, frame: ABNF) -> str | bytes | None:
        """Add a frame; return the message if the frame completes it, otherwise None.

        Raises:
            UnicodeDecodeError: the text of the message is not UTF-8.
            LimitExceeded: the message is larger than its limits.
            WebSocketProtocolException: the protocol does not allow the frame at this place.
        """
        self.validate(frame)
        if frame.opcode != ABNF.OPCODE_CONT:
            self.recving_frames = frame.opcode
        data = cast("bytes", frame.data)
        self._frames += 1
        self._size += len(data)
        self._check(self._size, "message_size", f"a message of {self._size} bytes or more")
        self._check(self._frames, "fragments", f"a message of {self._frames} fragments or more")
        if self.recving_frames != ABNF.OPCODE_TEXT:
            self._parts.append(data)
        elif frame.fin and self._frames == 1 and not self._decoded:
            self._texts.append(data.decode())
        else:
            self._texts.append(self._decoder.decode(data[self._decoded :], final=bool(frame.fin)))
            self._decoded = 0
        return self._whole() if frame.fin else None

    def _whole(self) -> str | bytes:
        message = "".join(self._texts) if self.recving_frames == ABNF.OPCODE_TEXT else b"".join(self._parts)
        self.recving_frames = None
        self._texts, self._parts = [], []
        self._frames = self._size = 0
        return message

    def _check(self, number: int, limit: str, what: str) -> None:
        if number > (most := getattr(self._limits, limit)):
            raise LimitExceeded(what, limit=limit, value=most)
