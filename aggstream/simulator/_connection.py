"""One WebSocket connection on the server's side. Only the simulator's event loop may use it."""

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

    from aggstream.simulator._tokens import Claims

# The number of queued frames at which the player must wait for a client that reads slowly.
_HIGH_WATER = 4096
# The number of frames that are written before other tasks of the loop run. Only then the loop finds out that a
# connection is lost. Before it does, asyncio warns of the fifth write to a lost TLS transport, and a large frame
# takes two writes.
_FRAMES_PER_TURN = 2
# The seconds after a stall in which a connection reads and does not write.
_READ_ONLY_TIME = 0.01
# The seconds that the client has to read what is queued and to answer the close.
_CLOSE_TIMEOUT = 5.0


class _Close(NamedTuple):
    code: int
    reason: str


def reset(transport: asyncio.Transport, tcp: socket.socket) -> None:
    """End a connection with a TCP RST. What was not written yet is lost."""
    # The socket may be closed already.
    with suppress(OSError):
        # With a linger time of 0 the kernel sends a RST instead of a FIN.
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


class ServerConnection:
    """Sends frames, acknowledgements and at last the close, in order, from a queue of its own.

    Sending never waits, so the events of one moment have the same order on every connection.

    Raises:
        ConnectionResetError: the client has left already.
    """

    def __init__(self, request: web.Request) -> None:
        if request.transport is None:
            raise ConnectionResetError("the client is gone")
        self.socket = web.WebSocketResponse(timeout=_CLOSE_TIMEOUT, autoping=False, compress=False)
        self.claims: Claims | None = None
        self.closing = False
        self.stalled = False
        # The timers of this connection, by name: the heartbeat, and the expiry of the token.
        self.timers: dict[str, asyncio.TimerHandle] = {}
        self._transport = request.transport
        # Read here and not later, because a closed TLS transport raises on this call.
        self._tcp = self._transport.get_extra_info("socket")
        self._outbox: deque[str | _Close] = deque()
        self._has_items = asyncio.Event()
        self._not_stalled = asyncio.Event()
        self._not_stalled.set()
        self._has_room = asyncio.Event()
        self._has_room.set()

    @property
    def user_id(self) -> str | None:
        """The user whose events this connection gets; None without a token, and while it is closing."""
        return None if self.closing or self.claims is None else self.claims.user_id

    def send(self, frame: str | dict[str, Any]) -> None:
        """Queue a frame: a text as it is, an object as JSON. After a close this does nothing."""
        if not self.closing:
            self._queue(frame if isinstance(frame, str) else json.dumps(frame, separators=(",", ":")))

    def close(self, code: int, reason: str) -> None:
        """Queue the close, behind everything that is queued already."""
        if not self.closing:
            self._queue(_Close(code, reason))
            self._mark_closing()

    def abort(self) -> None:
        """Reset the connection with a TCP RST. What is queued is lost."""
        self._mark_closing()
        reset(self._transport, self._tcp)

    def stall(self, stalled: bool) -> None:
        """Stop reading and writing but leave TCP open; or, with `stalled` False, go on from there."""
        if stalled == self.stalled:
            return
        self.stalled = stalled
        # Pings that are not read get no pong, and a close that is not read gets no answer, as on a dead route.
        if stalled:
            self._not_stalled.clear()
        else:
            self._not_stalled.set()
        # A closed TLS transport raises on both calls below.
        if self._transport.is_closing():
            return
        if stalled:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def set_timer(self, name: str, delay: float, callback: Callable[[ServerConnection], None]) -> None:
        """Call `callback` with this connection after `delay` seconds. Replaces an earlier timer of that name."""
        self.cancel_timer(name)
        self.timers[name] = asyncio.get_running_loop().call_later(delay, callback, self)

    def cancel_timer(self, name: str) -> None:
        """Cancel the timer of that name if there is one."""
        if timer := self.timers.pop(name, None):
            timer.cancel()

    async def wait_for_room(self) -> None:
        """Wait while too many frames are queued."""
        await self._has_room.wait()

    async def serve(self, receive: Callable[[ServerConnection, str | None], None]) -> None:
        """Send and receive until the connection has ended.

        Args:
            receive: called with the text of each message; with None for a binary message.
        """
        reader = asyncio.create_task(self._read(receive))
        writer = asyncio.create_task(self._write())
        try:
            await asyncio.wait({reader, writer}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._mark_closing()
            for task in (reader, writer):
                task.cancel()
            ends = await asyncio.gather(reader, writer, return_exceptions=True)
            # aiohttp can only close while no other task reads, so the reader must end first. aiohttp's close then
            # reads up to the client's answer; with unread data the kernel would send a reset.
            if isinstance(last := ends[1], _Close):
                await self.socket.close(code=last.code, message=last.reason.encode())
        for end in ends:
            if isinstance(end, Exception):
                raise end

    async def _read(self, receive: Callable[[ServerConnection, str | None], None]) -> None:
        # Writing a pong fails if the client has left.
        with suppress(ConnectionError):
            async for message in self.socket:
                if message.type is WSMsgType.PING:
                    await self.socket.pong(message.data)
                    await asyncio.sleep(0)  # let other tasks run, as after frames
                elif message.type is not WSMsgType.PONG and not self.closing:
                    receive(self, message.data if message.type is WSMsgType.TEXT else None)

    async def _write(self) -> _Close | None:
        for written in itertools.count(1):
            while not self._outbox:
                self._has_items.clear()
                await self._has_items.wait()
            while not self._not_stalled.is_set():
                await self._not_stalled.wait()
                # The reader first takes what arrived in the stall: after a client's close, nothing may be sent.
                await asyncio.sleep(_READ_ONLY_TIME)
            item = self._outbox.popleft()
            if len(self._outbox) < _HIGH_WATER // 2:
                self._has_room.set()
            if isinstance(item, _Close):
                return item
            try:
                await self.socket.send_str(item)
            except ConnectionError:
                break
            if written % _FRAMES_PER_TURN == 0:
                await asyncio.sleep(0)
        return None

    def _queue(self, item: str | _Close) -> None:
        self._outbox.append(item)
        self._has_items.set()
        if len(self._outbox) >= _HIGH_WATER:
            self._has_room.clear()

    def _mark_closing(self) -> None:
        """Mark the connection as closing, cancel its timers, and wake the tasks that wait for room."""
        self.closing = True
        self._has_room.set()
        for name in tuple(self.timers):
            self.cancel_timer(name)
