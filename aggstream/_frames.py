"""websocket-client's frame parsing, with limits, and resumable on a socket that does not block."""

from __future__ import annotations

from typing import Any

from websocket import ABNF, WebSocketProtocolException, continuous_frame, frame_buffer

from aggstream._limits import Limits
from aggstream.errors import LimitExceeded


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
    """Collects fragments in a list, because adding them up costs the square of their number."""

    def __init__(self, limits: Limits) -> None:
        super().__init__(fire_cont_frame=False, skip_utf8_validation=True)
        self._limits = limits
        self._parts: list[bytes] = []
        self._size = 0
        self._opcode = ABNF.OPCODE_TEXT

    @property
    def is_partial(self) -> bool:
        """True between the first and the last fragment of a message."""
        return bool(self._parts)

    def add(self, frame: Any) -> None:
        if frame.opcode != ABNF.OPCODE_CONT:
            self._opcode = frame.opcode
            self.recving_frames = frame.opcode
        self._parts.append(frame.data)
        self._size += len(frame.data)
        self._check(self._size, "message_size", f"a message of {self._size} bytes or more")
        self._check(len(self._parts), "fragments", f"a message of {len(self._parts)} fragments or more")
        if frame.fin:
            self.recving_frames = None

    def extract(self, frame: Any) -> tuple[int, Any]:
        frame.data = b"".join(self._parts)
        self._parts = []
        self._size = 0
        return self._opcode, frame

    def _check(self, number: int, limit: str, what: str) -> None:
        if number > (most := getattr(self._limits, limit)):
            raise LimitExceeded(what, limit=limit, value=most)
