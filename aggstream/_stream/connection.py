"""One open connection: waiting for it, reading, sending. Its session says what to do with what comes."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence

from aggstream._base.suspension import SuspensionWatch
from aggstream._delivery.queue_items import SizedEvent
from aggstream._network import websocket as wire
from aggstream._network.poller import Poller
from aggstream._protocol.commands import Authenticate, Ping
from aggstream._protocol.session import Session
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
        poller: Poller,
        pipeline: Pipeline,
        counters: Counters,
        *,
        name: str,
        watch_every: float | None,
    ) -> None:
        """Take over a connection that has just been opened.

        Args:
            session: its protocol.
            transport: its socket.
            poller: waits.
            pipeline: takes the events.
            counters: count the messages.
            name: begins the log lines.
            watch_every: seconds after a delivery at which the stream looks after its handlers; None: never.
        """
        self.session = session
        self._transport = transport
        self._poller = poller
        self._pipeline = pipeline
        self._counters = counters
        self._name = name
        self._watch_every = math.inf if watch_every is None else watch_every
        self._suspension = SuspensionWatch()
        # The number of the message that has come in part.
        self._partial: int | None = None
        session.connection_made(time.monotonic())

    def pump(self, until: float | None) -> Sequence[SizedEvent]:
        """Wait, and hand on what comes, until there is something else to do.

        Nearly always a message is an event for the handlers and nothing else, so this is a loop of its own.

        Args:
            until: the stream's next deadline, in monotonic seconds; None: it has none.

        Returns:
            Events that were received and not handed on, because the session wants something first.
        """
        now = time.monotonic()
        until = math.inf if until is None else until
        # By then the deadlines are worth computing anew: most are put off by whatever comes.
        enough = now + (until - now) / 2
        while True:
            events = self.wait(until)
            if events is None or not self.session.wants_nothing():
                return events or ()
            now = time.monotonic()
            if events and self._pipeline.take(events, now):
                until = min(until, now + self._watch_every)
            if self._poller.woken or self._pipeline.should_pause() or now >= enough:
                return ()
            if self._pipeline.gaps.has_new_doubt:  # a look at REST does not wait for the next deadline
                return ()

    def wait(self, until: float | None, *, read: bool = True) -> Sequence[SizedEvent] | None:
        """Wait for the connection, and do what it is ready for.

        Args:
            until: when to return at the latest, in monotonic seconds; None: never.
            read: whether to read; else only what waits to be sent is sent.

        Returns:
            The events that came; None if nothing was read.
        """
        transport = self._transport
        timeout = None if until is None else max(0.0, until - time.monotonic())
        if read and transport.has_buffered:
            timeout = 0.0
        try:
            readable, writable = self._poller.wait(
                transport.fd, read=read, write=transport.wants_write, timeout=timeout
            )
            if writable:
                transport.flush()
            if read and (readable or writable or transport.has_buffered):
                return self._read()
        except AggStreamError as error:
            self.session.connection_lost(error)
        except (OSError, MemoryError) as error:  # the system refuses to watch the socket, or has no memory
            self.session.connection_lost(ConnectionLost(f"the connection cannot be used: {wire.words(error)}"))
        return None

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
        self._poller.forget()
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
