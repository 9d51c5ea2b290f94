"""websocket-client's frame parsing, with limits, and resumable on a socket that does not block.

Nearly all that comes is whole text messages of one short frame each. They are cut out of what was read, twenty
times faster than a frame goes through the library's layers; the library does everything else.
"""

from __future__ import annotations

import codecs
from typing import Any, cast

from websocket import ABNF, WebSocketProtocolException, continuous_frame, frame_buffer

from aggstream._base.limits import Limits
from aggstream.errors import LimitExceeded

# The first byte of an only frame with a text, and the second one of a frame whose length follows in two bytes.
_WHOLE_TEXT = 0x80 | ABNF.OPCODE_TEXT
_TWO_BYTES = 126


def whole_texts(data: bytes, at: int, largest: int, most: int) -> tuple[list[str], int]:
    """Cut whole, short text messages out of what was read, up to the first frame that is anything else.

    Args:
        data: what was read.
        at: where a frame begins in it.
        largest: the most bytes of a payload.
        most: how many messages to cut out at most.

    Returns:
        The messages, and where the frame begins that is the library's.
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
        return texts, at  # the library comes to it as well, and its border says what is done then
    return texts, at


class LimitedFrameBuffer(frame_buffer):
    """Refuses a frame by its header, before its payload is read."""

    def __init__(self, recv: Any, limits: Limits) -> None:
        # The validation of UTF-8 is left to `bytes.decode`: the library's own is two hundred times slower.
        super().__init__(recv, skip_utf8_validation=True)
        self._limits = limits
        self._received = bytearray()

    @property
    def is_partial(self) -> bool:
        """True if a frame has begun to come."""
        return self.header is not None or bool(self._received)

    @property
    def payload(self) -> tuple[int, bytearray] | None:
        """The opcode and the part that has come of a frame's payload; None if its header is not complete."""
        if self.header is None or self.length is None or self.mask_value is None:
            return None
        return self.header[4], self._received

    def recv_strict(self, bufsize: int) -> bytes:
        # The library adds up the lengths of all pieces for each new one.
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
    """Puts messages together. The library's own adds the parts up at a cost of the square of their number.

    Texts are decoded as they come, so that what is no UTF-8 is found as soon as it is there.
    """

    def __init__(self, limits: Limits) -> None:
        super().__init__(fire_cont_frame=False, skip_utf8_validation=True)
        self._limits = limits
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._texts: list[str] = []
        self._parts: list[bytes] = []
        self._frames = 0
        self._size = 0
        # How much of the present frame is decoded.
        self._decoded = 0

    @property
    def is_partial(self) -> bool:
        """True between the first and the last fragment of a message."""
        return self._frames > 0

    def check_begun(self, opcode: int, payload: bytearray) -> None:
        """Decode the part of a frame that has come so far, if it is a text's.

        Raises:
            UnicodeDecodeError: it is no UTF-8.
        """
        if (self.recving_frames if opcode == ABNF.OPCODE_CONT else opcode) == ABNF.OPCODE_TEXT:
            self._texts.append(self._decoder.decode(bytes(payload[self._decoded :])))
            self._decoded = len(payload)

    def put(self, frame: ABNF) -> str | bytes | None:
        """Take a frame; return the message that it completes, if it does.

        Raises:
            UnicodeDecodeError: it is no UTF-8.
            LimitExceeded: it is larger than what is accepted.
            WebSocketProtocolException: the frame may not come here.
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
