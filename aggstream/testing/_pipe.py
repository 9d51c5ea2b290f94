"""Carries the bytes of one direction of one connection through the proxy."""

from __future__ import annotations

import collections
import errno
import random
import socket
import time
from typing import Protocol

_READ_SIZE = 65536
_MAX_BUFFERED = 1 << 20


class PipeFaults(Protocol):
    """The fields of `Faults`. The pipe reads them again for each piece, because another thread may change them."""

    slice_size: int | None
    latency: float
    rate: float | None
    stalled: bool
    blackhole: bool
    corrupt: float
    reset_after: int | None
    half_close_after: int | None


class Pipe:
    """Carries bytes from a source to a sink, both non-blocking sockets. Only the proxy's thread uses it."""

    def __init__(self, source: socket.socket, sink: socket.socket, faults: PipeFaults, rng: random.Random) -> None:
        self.source = source
        self.has_ended = False
        """True once the sink is shut down for writing."""
        self.wants_write = False
        """True while bytes wait for room in the sink."""
        self._sink = sink
        self._faults = faults
        self._rng = rng
        # Each piece with the time before which the pipe must not send it, on the monotonic clock.
        self._pieces: collections.deque[tuple[float, bytes]] = collections.deque()
        self._buffered = 0
        self._source_ended = False
        self._is_blackholed = False
        self._may_send_at = 0.0

    @property
    def wants_read(self) -> bool:
        """True while the pipe has room for more bytes and the source has not ended."""
        return not self._source_ended and self._buffered < _MAX_BUFFERED

    @property
    def is_stalled(self) -> bool:
        """True while the pipe has something to pass on and the fault `stalled` prevents it."""
        return self._faults.stalled and (bool(self._pieces) or self._source_ended) and not self.has_ended

    @property
    def next_deadline(self) -> float | None:
        """The monotonic time at which the pipe may send its next piece; None: no piece waits for a time."""
        if self._faults.stalled or self.wants_write or not self._pieces:
            return None
        return max(self._pieces[0][0], self._may_send_at)

    @property
    def is_cut_off(self) -> bool:
        """True if the source has ended in a black hole that is off again. The proxy must reset the connection."""
        return self._is_blackholed and self._source_ended and not self._faults.blackhole

    def carry(self, *, readable: bool) -> None:
        """Read from the source if it is readable, and send to the sink what the faults allow.

        Raises:
            OSError: the connection is broken, or the fault `reset_after` requires a reset.
        """
        if readable and self.wants_read:
            self._read()
        self._is_blackholed = self._is_blackholed or self._faults.blackhole
        if self._is_blackholed:
            self._pieces.clear()
            self._buffered = 0
            self.wants_write = False
        elif not self._faults.stalled:
            self._send()

    def _read(self) -> None:
        try:
            data = self.source.recv(_READ_SIZE)
        except BlockingIOError:
            return
        if not data:
            self._source_ended = True
            return
        if self._faults.corrupt:
            data = bytes(byte ^ self._bit_to_flip() for byte in data)
        self._pieces.append((time.monotonic() + self._faults.latency, data))
        self._buffered += len(data)

    def _bit_to_flip(self) -> int:
        return 1 << self._rng.randrange(8) if self._rng.random() < self._faults.corrupt else 0

    def _send(self) -> None:
        self.wants_write = False
        while self._pieces:
            at, data = self._pieces[0]
            now = time.monotonic()
            if now < max(at, self._may_send_at):
                return
            try:
                sent = self._sink.send(data[: self._piece_size(len(data))])
            except BlockingIOError:
                self.wants_write = True
                return
            self._pieces.popleft()
            if sent < len(data):
                self._pieces.appendleft((at, data[sent:]))
            self._buffered -= sent
            if (rate := self._faults.rate) is not None:
                self._may_send_at = now + sent / rate
            self._apply_byte_limits(sent)
            if self.has_ended:
                return
        if self._source_ended and not self.has_ended:
            self._end_sink()

    def _piece_size(self, size: int) -> int:
        faults = self._faults
        bounds = [faults.slice_size, faults.reset_after, faults.half_close_after]
        if (rate := faults.rate) is not None:
            bounds.append(max(1, int(rate / 100)))
        return min([size, *(bound for bound in bounds if bound is not None)])

    def _apply_byte_limits(self, sent: int) -> None:
        faults = self._faults
        if (after := faults.reset_after) is not None:
            left = after - sent
            faults.reset_after = left if left > 0 else None
            if left <= 0:
                raise ConnectionResetError(errno.ECONNRESET, "reset on purpose")
        if (after := faults.half_close_after) is not None:
            left = after - sent
            faults.half_close_after = left if left > 0 else None
            if left <= 0:
                self._pieces.clear()
                self._buffered = 0
                self._end_sink()

    def _end_sink(self) -> None:
        self.has_ended = True
        self._sink.shutdown(socket.SHUT_WR)
