"""One direction of one connection through the proxy."""

from __future__ import annotations

import collections
import errno
import random
import socket
import time
from typing import Protocol

_READ_SIZE = 65536
_MOST_WAITING = 1 << 20


class FaultsLike(Protocol):
    """The members of `Faults`. They are read anew for each piece, because another thread may change them."""

    slice_size: int | None
    latency: float
    rate: float | None
    stalled: bool
    blackhole: bool
    corrupt: float
    reset_after: int | None
    half_close_after: int | None


class Pipe:
    """Carries bytes from one socket to another. Belongs to the proxy's thread; neither socket blocks."""

    def __init__(
        self, source: socket.socket, sink: socket.socket, faults: FaultsLike, chance: random.Random
    ) -> None:
        self.source = source
        self.has_ended = False
        """True once the sink was told the end."""
        self.wants_write = False
        self._sink = sink
        self._faults = faults
        self._random = chance
        # Pieces, each with the time before which it may not pass.
        self._waiting: collections.deque[tuple[float, bytes]] = collections.deque()
        self._size = 0
        self._read_end = False
        self._swallowed = False
        self._may_send_at = 0.0

    @property
    def wants_read(self) -> bool:
        """True while there is room for more."""
        return not self._read_end and self._size < _MOST_WAITING

    @property
    def is_held_up(self) -> bool:
        """True if only a change of the faults lets it go on."""
        return self._faults.stalled and (bool(self._waiting) or self._read_end) and not self.has_ended

    @property
    def due(self) -> float | None:
        """When the next piece may pass, on the monotonic clock; None if nothing waits for the time."""
        if self._faults.stalled or self.wants_write or not self._waiting:
            return None
        return max(self._waiting[0][0], self._may_send_at)

    @property
    def is_orphaned(self) -> bool:
        """True if its source went away into a black hole that is over: now the network can say so."""
        return self._swallowed and self._read_end and not self._faults.blackhole

    def carry(self, *, readable: bool) -> None:
        """Read what is there, and pass on what may pass.

        Raises:
            OSError: the connection is broken, or is to be reset now.
        """
        if readable and self.wants_read:
            self._read()
        self._swallowed = self._swallowed or self._faults.blackhole
        if self._swallowed:
            self._waiting.clear()
            self._size = 0
            self.wants_write = False
        elif not self._faults.stalled:
            self._send()

    def _read(self) -> None:
        try:
            data = self.source.recv(_READ_SIZE)
        except BlockingIOError:
            return
        if not data:
            self._read_end = True
            return
        if self._faults.corrupt:
            data = bytes(byte ^ self._flip() for byte in data)
        self._waiting.append((time.monotonic() + self._faults.latency, data))
        self._size += len(data)

    def _flip(self) -> int:
        return 1 << self._random.randrange(8) if self._random.random() < self._faults.corrupt else 0

    def _send(self) -> None:
        self.wants_write = False
        while self._waiting:
            at, data = self._waiting[0]
            now = time.monotonic()
            if now < max(at, self._may_send_at):
                return
            try:
                sent = self._sink.send(data[: self._piece_size(len(data))])
            except BlockingIOError:
                self.wants_write = True
                return
            self._waiting.popleft()
            if sent < len(data):
                self._waiting.appendleft((at, data[sent:]))
            self._size -= sent
            if (rate := self._faults.rate) is not None:
                self._may_send_at = now + sent / rate
            self._count(sent)
            if self.has_ended:
                return
        if self._read_end and not self.has_ended:
            self._end()

    def _piece_size(self, size: int) -> int:
        faults = self._faults
        bounds = [faults.slice_size, faults.reset_after, faults.half_close_after]
        if (rate := faults.rate) is not None:
            bounds.append(max(1, int(rate / 100)))
        return min([size, *(bound for bound in bounds if bound is not None)])

    def _count(self, sent: int) -> None:
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
                self._waiting.clear()
                self._size = 0
                self._end()

    def _end(self) -> None:
        self.has_ended = True
        self._sink.shutdown(socket.SHUT_WR)
