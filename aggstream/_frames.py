"""websocket-client's frame parsing, with limits, and resumable on a socket that does not block."""

from __future__ import annotations

from typing import Any

from websocket import ABNF, WebSocketProtocolException, continuous_frame, frame_buffer

# An empty fragment takes memory, too.
_LEAST_PER_FRAGMENT = 64


class MessageTooBig(WebSocketProtocolException):
    """A frame or a message is larger than this side accepts."""


class LimitedFrameBuffer(frame_buffer):
    """Refuses a frame by its header, before its payload is read."""

    def __init__(self, recv: Any, limit: int) -> None:
        # The validation of UTF-8 is left to `bytes.decode`: the library's own is two hundred times slower.
        super().__init__(recv, skip_utf8_validation=True)
        self._limit = limit

    def recv_length(self) -> None:
        super().recv_length()
        if self.length is not None and self.length > self._limit:
            raise MessageTooBig(f"a frame of {self.length} bytes")

    def recv_mask(self) -> None:
        if self.has_mask():
            raise WebSocketProtocolException("a server must not mask its frames")
        super().recv_mask()


class LimitedContinuation(continuous_frame):
    """Collects fragments in a list, because adding them up costs the square of their number."""

    def __init__(self, limit: int) -> None:
        super().__init__(fire_cont_frame=False, skip_utf8_validation=True)
        self._limit = limit
        self._parts: list[bytes] = []
        self._size = 0
        self._opcode = ABNF.OPCODE_TEXT

    def add(self, frame: Any) -> None:
        if frame.opcode != ABNF.OPCODE_CONT:
            self._opcode = frame.opcode
            self.recving_frames = frame.opcode
        self._parts.append(frame.data)
        self._size += len(frame.data) if frame.fin else max(len(frame.data), _LEAST_PER_FRAGMENT)
        if self._size > self._limit:
            raise MessageTooBig(f"a message of more than {self._limit} bytes")
        if frame.fin:
            self.recving_frames = None

    def extract(self, frame: Any) -> tuple[int, Any]:
        frame.data = b"".join(self._parts)
        self._parts = []
        self._size = 0
        return self._opcode, frame
