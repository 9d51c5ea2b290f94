"""One open connection: reading and sending. Its session says what to do with what comes."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence

from aggstream._base.suspension import SuspensionWatch
from aggstream._delivery.queue_items import SizedEvent
from aggstream._network import websocket as wire
from aggstream._protocol.commands import Authenticate, Ping
from aggstream._protocol.session import Session
from aggstream._stream.engine import Driven, Engine
from aggstream._stream.pipeline import Pipeline
from aggstream.errors import AggStreamError, ConnectionLost, DecodeError
from aggstream.health import Counters

logger = logging.getLogger("aggstream.stream")


class Connection:
    """A session and its transport. It belongs to the I/O thread."""

    def __init__(
        self,
        session: Session,
        transport: wire.Transport,
        owner: Driven,
        engine: Engine,
        pipeline: Pipeline,
        counters: Counters,
        *,
        name: str,
    ) -> None:
        """Take over a connection that has just been opened.

        Args:
            session: its protocol.
            transport: its socket.
            owner: the stream, which is stepped when there is more to do than to hand events on.
            engine: waits for the socket.
            pipeline: takes the events.
            counters: count the messages.
            name: begins the log lines.
        """
        self.session = session
        self.owner = owner
        self.step_at = math.inf
        """When the stream's next deadline is worth computing anew, in monotonic seconds: whatever comes puts most
        deadlines off."""
        self._transport = transport
        self._engine = engine
        self._pipeline = pipeline
        self._counters = counters
        self._name = name
        self._suspension = SuspensionWatch()
        self._reads = True
        self._watches_write = False
        # Events that came and were not handed on, because the session wants something first.
        self._received: Sequence[SizedEvent] = ()
        # The number of the message that has come in part.
        self._partial: int | None = None
        session.connection_made(time.monotonic())

    def ready(self, *, writable: bool) -> bool:
        """Read, and hand on what comes.

        Nearly always a message is an event for the handlers and nothing else. Then nobody else is asked.

        Args:
            writable: True: the socket takes bytes, so what waits is sent before.

        Returns:
            True if the stream has something to do.
        """
        transport, session = self._transport, self.session
        try:
            if writable:
                transport.flush()
            events = self._read() if self._reads else ()
            if transport.wants_write != self._watches_write:
                self._watch()
        except AggStreamError as error:
            session.connection_lost(error)
            return True
        except (OSError, MemoryError) as error:  # the system refuses to watch the socket, or has no memory
            session.connection_lost(ConnectionLost(f"the connection cannot be used: {wire.words(error)}"))
            return True
        if not session.wants_nothing():
            self._received = [*self._received, *events]
            return True
        now = time.monotonic()
        has_more_to_do = bool(events) and self._pipeline.take(events, now)
        if transport.has_buffered and self._reads:
            self._engine.read_again(self)
        if now >= self.step_at:
            self.note_suspension(now)
            self._engine.schedule(self.owner, self.owner.next_deadline())
        return has_more_to_do

    def take_received(self) -> Sequence[SizedEvent]:
        """Return the events that were received and not handed on."""
        received, self._received = self._received, ()
        return received

    def watch(self, *, read: bool) -> None:
        """Wait for the socket from now on.

        Args:
            read: whether to read; else only what waits to be sent is sent.
        """
        self._reads = read
        try:
            self._watch()
        except (OSError, MemoryError) as error:
            self.session.connection_lost(ConnectionLost(f"the connection cannot be used: {wire.words(error)}"))
            self._engine.wake(self.owner)
        if read and self._transport.has_buffered:
            self._engine.read_again(self)

    def _watch(self) -> None:
        self._watches_write = self._transport.wants_write
        self._engine.watch(self._transport.fd, self, read=self._reads, write=self._watches_write)

    def send(self) -> None:
        """Send what the session wants to be sent, as far as the socket takes it."""
        transport = self._transport
        commands = self.session.data_to_send()
        if not (commands or transport.wants_write):
            return
        try:
            for command in commands:
                if isinstance(command, Authenticate):
                    transport.queue_text(command.text())
                elif isinstance(command, Ping):
                    transport.queue_ping()
                else:
                    transport.queue_close(command.code, command.reason)
            transport.flush()
        except AggStreamError as error:
            self.session.connection_lost(error)

    def note_suspension(self, now: float) -> None:
        """Tell the session if the machine was suspended, which its clock does not show."""
        if slept := self._suspension.slept(now):
            logger.info("%s: the machine was suspended for %.0f s", self._name, slept)
            self.session.slept(slept)

    def drop(self) -> None:
        """Close the socket, after what was still to be sent."""
        try:
            self._transport.flush()
        except AggStreamError:
            logger.debug("%s: the connection was gone before the close frame", self._name)
        self._engine.forget(self._transport.fd)
        self._transport.abort()

    def detach(self) -> None:
        """Close a forked child's descriptor only: the connection is the parent's."""
        self._transport.detach()

    def _read(self) -> Sequence[SizedEvent]:
        session = self.session
        now, wall = time.monotonic(), time.time_ns()
        messages: list[wire.Message] = []
        failure: AggStreamError | None = None
        try:
            partial = self._transport.receive(messages)
        except AggStreamError as error:
            failure = error
        if messages:
            self._pipeline.gaps.heard_ns = wall
        events: Sequence[SizedEvent] = ()
        for message in messages:
            if isinstance(message, list):
                self._counters.messages += len(message)
                more = session.receive_texts(message, now, wall)
                events = [*events, *more] if events else more
                continue
            if isinstance(message, wire.ControlFrame):
                session.receive_control_frame(now)
                continue
            if isinstance(message, wire.Binary):
                text = message.data.decode(errors="backslashreplace")
                session.receive_undecodable(text, DecodeError("a binary message"), now, wall)
            else:
                session.receive_close(message.code, message.reason, now)
            events = [*events, *session.sized_events_received()]
        if failure is not None:
            session.connection_lost(failure)
        elif partial != self._partial:
            self._partial = partial
            session.receive_partial(partial, now)
        if self._transport.wants_write:  # pings were answered
            self._transport.flush()
        return events
