"""The open WebSocket connection.

`websocket-client` does the opening handshake (see `opening.py`) and parses the frames. The socket never blocks, so
that one thread can wait for the socket, for a wake-up and for a deadline at once; a `Transport` belongs to that
thread. This module turns the exceptions of the library and the socket into exceptions of aggstream.
"""

from __future__ import annotations

import errno
import socket
import ssl
from typing import TypeAlias, cast

import attrs
from websocket import (
    ABNF,
    WebSocketProtocolException,
    WebSocketTimeoutException,
)

from aggstream._base.fork_and_exit import close_everywhere, close_here
from aggstream._base.limits import Limits
from aggstream._base.resources import remedy_for
from aggstream._base.text import shown
from aggstream._network.frames import (
    LONGEST_CONTROL_FRAME,
    LimitedContinuation,
    LimitedFrameBuffer,
    short_frame,
    whole_ping_or_pong,
    whole_texts,
)
from aggstream._network.tls_words import tls_words
from aggstream.errors import (
    ConnectionLost,
    LimitExceeded,
    RemoteProtocolError,
)

READ_SIZE = 65536
# `receive` returns after this number of messages, or of bytes, so that its caller can do its other work.
_BATCH_SIZE = READ_SIZE
_BATCH = 400
_CONTROL_FRAMES = (ABNF.OPCODE_CLOSE, ABNF.OPCODE_PING, ABNF.OPCODE_PONG)


@attrs.frozen
class Binary:
    """A binary message. The service sends only texts."""

    data: bytes = attrs.field(repr=False)


@attrs.frozen
class ControlFrame:
    """A ping or a pong. The pong that answers a ping is already queued."""


_CONTROL_FRAME = ControlFrame()


@attrs.frozen
class PeerClosed:
    """The peer's close frame. The answer is already queued, and no message follows."""

    code: int
    reason: str = attrs.field(repr=shown)


Message: TypeAlias = "list[str] | Binary | ControlFrame | PeerClosed"
"""A received message. Text messages that follow each other directly are one list."""


class _WouldBlock(Exception):
    """The socket has no more bytes at this moment. The parser keeps the arrived part of a frame."""


def words(error: BaseException | None) -> str:
    """Return a description of another library's error that is fit for a log."""
    if error is None:
        return "the host name has no address"
    if isinstance(error, (TimeoutError, WebSocketTimeoutException)):
        return "it took longer than connect_timeout"
    if isinstance(error, ssl.SSLError):
        return tls_words(error)
    if (remedy := remedy_for(error)) is not None:
        return remedy
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return shown(str(error) or type(error).__name__)


class Transport:
    """An open WebSocket connection. It is not thread-safe: one thread owns it. No method blocks."""

    def __init__(self, sock: socket.socket, leftover: bytes, limits: Limits) -> None:
        self._sock = sock
        self.fd = sock.fileno()
        """The file descriptor of the socket, to wait for."""
        self._limits = limits
        self._chunk = leftover
        self._at = 0
        self._out = bytearray()
        # Pongs pile up if the peer sends pings and does not read. With more bytes than this, `flush` gives up.
        self._largest_backlog = 1 << 20
        self._can_send = True
        self.wants_write = False
        """True if the owner must call `flush` once the socket takes bytes."""
        self._read_wants_write = False
        self.has_buffered = bool(leftover)
        """True if `receive` may return messages even when the socket has no new bytes."""
        self._budget = 0
        # A short read from a plain socket means that the socket is empty. TLS returns one record per read, so a
        # short read says nothing.
        self._reads_records = isinstance(sock, ssl.SSLSocket)
        self._is_drained = False
        self._frames = LimitedFrameBuffer(self._recv, limits)
        self._fragments = LimitedContinuation(limits)
        self._completed = 0
        # True if the library's parser holds a part of a message.
        self._is_partial = False
        self._largest = min(limits.frame_size, limits.message_size)

    # --- in ---------------------------------------------------------------------------------------------

    def receive(self, messages: list[Message]) -> int | None:
        """Append the messages that have arrived to a list, at most one batch, without waiting.

        Args:
            messages: the list. After an error it holds the messages that arrived before the error.

        Returns:
            A number for the message of which only a part has arrived, to tell it from later messages; None if no
            message has arrived in part.

        Raises:
            ConnectionLost: the connection is lost.
            RemoteProtocolError: the peer broke the protocol or exceeded a limit. `flush` will send a close frame.
        """
        if self._read_wants_write:
            self._read_wants_write, self.wants_write = False, bool(self._out)
        self.has_buffered = True
        self._is_drained = False
        self._budget = _BATCH_SIZE
        try:
            self._receive(messages)
        except _WouldBlock:
            self.has_buffered = self._budget <= 0
        except UnicodeDecodeError:
            self.queue_close(1007)
            raise RemoteProtocolError("the server sent a text that is not UTF-8") from None
        except LimitExceeded as error:
            self.queue_close(1009)
            raise error.with_traceback(None) from None
        except WebSocketProtocolException as error:
            self.queue_close(1002)
            # The text is from the library or from aggstream, not from the server, so its quotation marks go.
            rule = self._limits.shown(str(error))[1:-1]
            raise RemoteProtocolError(f"the server broke the WebSocket protocol: {rule}") from None
        except OSError as error:
            raise ConnectionLost(f"the connection broke: {words(error)}") from error
        return self._completed if self._is_partial else None

    def _receive(self, messages: list[Message]) -> None:
        left = _BATCH
        while left > 0:
            message = self._whole_texts(left) or self._next_frame()
            if message is None:
                left -= 1
            else:
                messages.append(message)
                left -= len(message) if isinstance(message, list) else 1
            if isinstance(message, PeerClosed):
                return
            if self._is_drained and self._at == len(self._chunk):
                self.has_buffered = False
                return

    def _whole_texts(self, most: int) -> list[str]:
        """Return the text messages that have arrived completely; empty if the next frame is of another kind."""
        if self._is_partial:
            return []
        if self._at == len(self._chunk):
            self._read()
        texts, self._at = whole_texts(self._chunk, self._at, self._largest, most)
        self._completed += len(texts)
        return texts

    def _next_frame(self) -> Message | None:
        if not self._frames.is_partial and (whole := whole_ping_or_pong(self._chunk, self._at)) is not None:
            opcode, payload, self._at = whole
            return self._control_frame(opcode, payload)
        try:
            return self._next_message()
        finally:
            self._is_partial = self._frames.is_partial or self._fragments.is_partial

    def _next_message(self) -> Message | None:
        """Read the next frame; return the message that it completes, or None if the message is incomplete."""
        try:
            frame = self._frames.recv_frame()
        except _WouldBlock:
            if (begun := self._frames.payload) is not None:
                self._fragments.check_begun(*begun)
            raise
        if frame.opcode in _CONTROL_FRAMES:
            payload = cast("bytes", frame.data)
            if len(payload) > LONGEST_CONTROL_FRAME or not frame.fin:
                raise WebSocketProtocolException("a control frame that is too long or fragmented")
            return self._control_frame(frame.opcode, payload)
        message = self._fragments.put(frame)
        if message is None:
            return None
        self._completed += 1
        return [message] if isinstance(message, str) else Binary(message)

    def _control_frame(self, opcode: int, payload: bytes) -> Message:
        # A control frame between two fragments must not change the fragmented message's number.
        self._completed += not self._fragments.is_partial
        if opcode == ABNF.OPCODE_CLOSE:
            return self._closed(payload)
        if opcode == ABNF.OPCODE_PING:
            self._queue(payload, ABNF.OPCODE_PONG)
        return _CONTROL_FRAME

    def _closed(self, payload: bytes) -> PeerClosed:
        code = int.from_bytes(payload[:2], "big") if payload else 1005
        reason = payload[2:].decode()
        self._queue(payload[:2], ABNF.OPCODE_CLOSE)
        return PeerClosed(code, reason)

    def _recv(self, size: int) -> bytes:
        if self._at == len(self._chunk):
            self._read()
        data = self._chunk[self._at : self._at + size]
        self._at += len(data)
        return data

    def _read(self) -> None:
        if self._budget <= 0 or self._is_drained:
            raise _WouldBlock
        try:
            chunk = self._sock.recv(READ_SIZE)
        except (BlockingIOError, ssl.SSLWantReadError):
            raise _WouldBlock from None
        except ssl.SSLWantWriteError:
            self._read_wants_write = self.wants_write = True
            raise _WouldBlock from None
        if not chunk:
            raise ConnectionResetError(errno.ECONNRESET, "the server ended it without a close frame")
        self._chunk, self._at = chunk, 0
        self._budget -= len(chunk)
        self._is_drained = len(chunk) < READ_SIZE and not self._reads_records

    # --- out --------------------------------------------------------------------------------------------

    def queue_text(self, text: str) -> None:
        """Queue a text message for `flush`. This cannot fail, so no traceback can hold the text."""
        self._queue(text.encode(), ABNF.OPCODE_TEXT)

    def queue_ping(self) -> None:
        """Queue a ping for `flush`."""
        self._queue(b"", ABNF.OPCODE_PING)

    def queue_close(self, code: int, reason: str = "") -> None:
        """Queue a close frame for `flush`."""
        self._queue(code.to_bytes(2, "big") + reason.encode(), ABNF.OPCODE_CLOSE)

    def flush(self) -> None:
        """Send as many of the queued bytes as the socket takes. If the peer is gone, `receive` raises the error.

        Raises:
            ConnectionLost: the peer sends pings and does not read the answers.
        """
        while self._out:
            try:
                sent = self._sock.send(self._out)
            except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
                if len(self._out) > self._largest_backlog:
                    raise ConnectionLost("the server asks for answers and does not read them") from None
                return
            except OSError:
                # The socket may still hold messages that the peer sent before it closed. `receive` reads them, and
                # then finds the end.
                self._can_send = False
                self._out.clear()
                break
            del self._out[:sent]
        self.wants_write = self._read_wants_write

    def abort(self) -> None:
        """Close the socket at once."""
        close_everywhere(self._sock)

    def detach(self) -> None:
        """Close only the descriptor of this process, because the connection belongs to another process."""
        close_here(self._sock)

    def _queue(self, payload: bytes, opcode: int) -> None:
        if self._can_send:
            is_short = len(payload) <= LONGEST_CONTROL_FRAME
            self._out += short_frame(payload, opcode) if is_short else ABNF.create_frame(payload, opcode).format()
            self.wants_write = True
