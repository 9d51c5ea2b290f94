"""One WebSocket connection, seen from the server. Everything here belongs to the simulator's event loop."""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
import struct
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from aiohttp import WSMsgType, web

if TYPE_CHECKING:
    from collections.abc import Callable

    from aggstream.simulator._tokens import Grant

# Frames that may wait for a client that reads slowly, before the player has to wait as well.
_HIGH_WATER = 4096
# Frames that are written before the loop has a turn. It is in its turn that a connection is found lost, and to a
# TLS transport that is lost and does not know it yet, asyncio warns of the fifth write; a large frame takes two.
_BURST = 2
# Seconds in which a connection only reads when its stall is over.
_AFTER_STALL = 0.01
# Seconds for the client to take what is queued and answer the close.
_CLOSE_TIMEOUT = 5.0


class _Close(NamedTuple):
    code: int
    reason: str


def reset(transport: asyncio.Transport, tcp: socket.socket) -> None:
    """End a connection with a TCP RST, and forget what was not written yet."""
    # It may be gone already, its descriptor with it.
    with suppress(OSError):
        # Lingering for no time at all is what makes the kernel reset instead of saying goodbye.
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


class ServerConnection:
    """Sends in order from a queue of its own: frames, acknowledgements and at last the close.

    Sending never waits, so whatever happens at one moment stands in the same order on every connection.

    Raises:
        ConnectionResetError: the client is gone already.
    """

    def __init__(self, request: web.Request) -> None:
        if request.transport is None:
            raise ConnectionResetError("the client is gone")
        self.socket = web.WebSocketResponse(timeout=_CLOSE_TIMEOUT, autoping=False, compress=False)
        self.grant: Grant | None = None
        self.closing = False
        self.stalled = False
        # The timers of this connection: its heartbeat, and the end of its token.
        self.timers: dict[str, asyncio.TimerHandle] = {}
        self._transport = request.transport
        # Asked for now: a TLS transport that is gone fails on the question.
        self._tcp = self._transport.get_extra_info("socket")
        self._outbox: deque[str | _Close] = deque()
        self._filled = asyncio.Event()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._room = asyncio.Event()
        self._room.set()

    @property
    def user_id(self) -> str | None:
        """The user whose events this connection gets; None once it is closing."""
        return None if self.closing or self.grant is None else self.grant.user_id

    def send(self, frame: str | dict[str, Any]) -> None:
        """Queue a frame, a text as it is; after a close nothing is."""
        if not self.closing:
            self._put(frame if isinstance(frame, str) else json.dumps(frame, separators=(",", ":")))

    def close(self, code: int, reason: str) -> None:
        """Queue the close, behind all that was queued before it."""
        if not self.closing:
            self._put(_Close(code, reason))
            self._end()

    def abort(self) -> None:
        """Reset the connection (a TCP RST) and forget what is queued."""
        self._end()
        reset(self._transport, self._tcp)

    def stall(self, stalled: bool) -> None:
        """Stop reading and writing with TCP left open, or go on where it stopped."""
        if stalled == self.stalled:
            return
        self.stalled = stalled
        # Unread pings get no pong, an unread goodbye no answer: this is what a dead route looks like.
        if stalled:
            self._flowing.clear()
        else:
            self._flowing.set()
        # A TLS transport that is gone fails on both.
        if self._transport.is_closing():
            return
        if stalled:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def later(self, name: str, delay: float, callback: Callable[[ServerConnection], None]) -> None:
        """Call back with the connection after `delay` seconds, in place of the timer of that name before."""
        self.cancel(name)
        self.timers[name] = asyncio.get_running_loop().call_later(delay, callback, self)

    def cancel(self, name: str) -> None:
        """Forget a timer, if there is one."""
        if timer := self.timers.pop(name, None):
            timer.cancel()

    async def room(self) -> None:
        """Wait while too much is queued."""
        await self._room.wait()

    async def serve(self, receive: Callable[[ServerConnection, str | None], None]) -> None:
        """Send and receive until the connection has ended.

        Args:
            receive: called with each message: its text, or None for one that is not text.
        """
        reader = asyncio.create_task(self._read(receive))
        writer = asyncio.create_task(self._write())
        try:
            await asyncio.wait({reader, writer}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._end()
            for task in (reader, writer):
                task.cancel()
            ends = await asyncio.gather(reader, writer, return_exceptions=True)
            # aiohttp answers a close for us only while nobody else reads: hence here, with the reader gone.
            # Its close then waits for the client's, so that no unread data turns it into a reset.
            if isinstance(last := ends[1], _Close):
                await self.socket.close(code=last.code, message=last.reason.encode())
        for end in ends:
            if isinstance(end, Exception):
                raise end

    async def _read(self, receive: Callable[[ServerConnection, str | None], None]) -> None:
        # A pong can fail as any write can, when the client is gone.
        with suppress(ConnectionError):
            async for message in self.socket:
                if message.type is WSMsgType.PING:
                    await self.socket.pong(message.data)
                    await asyncio.sleep(0)  # as after a burst of frames
                elif message.type is not WSMsgType.PONG and not self.closing:
                    receive(self, message.data if message.type is WSMsgType.TEXT else None)

    async def _write(self) -> _Close | None:
        for written in itertools.count(1):
            while not self._outbox:
                self._filled.clear()
                await self._filled.wait()
            while not self._flowing.is_set():
                await self._flowing.wait()
                # Frames that came meanwhile are read first: after a goodbye nothing may be written.
                await asyncio.sleep(_AFTER_STALL)
            item = self._outbox.popleft()
            if len(self._outbox) < _HIGH_WATER // 2:
                self._room.set()
            if isinstance(item, _Close):
                return item
            try:
                await self.socket.send_str(item)
            except ConnectionError:
                break
            if written % _BURST == 0:
                await asyncio.sleep(0)
        return None

    def _put(self, item: str | _Close) -> None:
        self._outbox.append(item)
        self._filled.set()
        if len(self._outbox) >= _HIGH_WATER:
            self._room.clear()

    def _end(self) -> None:
        """Go out of use: nothing waits for room or for a timer any more."""
        self.closing = True
        self._room.set()
        for name in tuple(self.timers):
            self.cancel(name)
