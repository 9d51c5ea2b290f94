"""What comes over a connection, on its way to the handlers.

Nearly always a message is an event for the handlers and nothing else, so that is done in a loop of its own, which
ends when there is anything more to do.
"""

from __future__ import annotations

import time

from aggstream._base.deadline import nearest, seconds_until
from aggstream._delivery.dispatcher import Dispatcher
from aggstream._network import websocket as wire
from aggstream._network.poller import Poller
from aggstream._protocol.session import Session
from aggstream._stream.catch_up import Reconciler
from aggstream._stream.event_log import Outbox
from aggstream._stream.gaps import Outage
from aggstream.errors import AggStreamError, DecodeError
from aggstream.health import Counters


class Intake:
    """Reads a connection and passes events on. It belongs to the I/O thread."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        counters: Counters,
        outage: Outage,
        reconciler: Reconciler,
        *,
        look_every: float | None,
    ) -> None:
        """Make one.

        Args:
            dispatcher: who may be behind.
            counters: count the messages.
            outage: is told of each sign of life.
            reconciler: what the events pass on their way.
            look_every: seconds after a delivery at which the owner wants to look at the handlers.
        """
        self._dispatcher = dispatcher
        self._counters = counters
        self._outage = outage
        self._reconciler = reconciler
        self._look_every = look_every

    def take(
        self, session: Session, transport: wire.Transport, outbox: Outbox, poller: Poller, until: float | None
    ) -> None:
        """Wait, and pass on what comes, until there is something else to do.

        Args:
            session: what the messages are for.
            transport: where they come from.
            outbox: where the events go.
            poller: waits.
            until: the owner's next deadline, on the monotonic clock.

        Raises:
            JournalError: an event could not be written down, and the stream is to end then.
        """
        began = time.monotonic()
        # By then the deadlines are worth another look: most are put off by whatever comes.
        enough = None if until is None else began + (until - began) / 2
        while self.wait(session, transport, poller, until) and session.wants_nothing():
            now = session.last_heard
            if self.pass_on(session, outbox) and self._look_every is not None:
                until = nearest(until, now + self._look_every)
            if poller.woken or self.is_behind() or (enough is not None and now >= enough):
                return

    def wait(
        self,
        session: Session,
        transport: wire.Transport,
        poller: Poller,
        until: float | None,
        *,
        read: bool = True,
    ) -> bool:
        """Wait for the connection, and do what it is ready for; tell whether anything was read."""
        timeout = seconds_until(until)
        if read and transport.has_buffered:
            timeout = 0.0
        readable, writable = poller.wait(transport.fd, read=read, write=transport.wants_write, timeout=timeout)
        reads = read and (readable or writable or transport.has_buffered)
        try:
            if writable:
                transport.flush()
            if reads:
                self._read(session, transport)
        except AggStreamError as error:
            session.connection_lost(error)
        return reads

    def pass_on(self, session: Session, outbox: Outbox) -> bool:
        """Send the events that a session has received on their way; tell whether any were queued.

        Raises:
            JournalError: one could not be written down, and the stream is to end then.
        """
        events = session.sized_events_received()
        if not events:
            return False
        self._reconciler.receive(events, session.last_heard)
        return outbox.put_all(self._reconciler.events())

    def is_behind(self) -> bool:
        """Tell whether reading should wait: for the handlers, or for what is held back."""
        return self._dispatcher.is_full() or self._reconciler.is_full()

    def _read(self, session: Session, transport: wire.Transport) -> None:
        now, wall = time.monotonic(), time.time_ns()
        for message in transport.receive():
            self._outage.heard(wall)
            if isinstance(message, list):
                self._counters.messages += len(message)
                session.receive_texts(message, now, wall)
            elif isinstance(message, wire.ControlFrame):
                session.receive_control_frame(now)
            elif isinstance(message, wire.Binary):
                text = message.data.decode(errors="backslashreplace")
                session.receive_undecodable(text, DecodeError("a binary message"), now, wall)
            else:
                session.receive_close(message.code, message.reason, now)
        session.receive_partial(transport.partial, now)
        if transport.wants_write:  # pings were answered
            transport.flush()
