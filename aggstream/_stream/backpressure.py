"""When reading from the server pauses: the handlers are behind."""

from __future__ import annotations

import logging

from aggstream._delivery.dispatcher import Dispatcher
from aggstream._protocol.session import Session
from aggstream._stream.pipeline import Pipeline
from aggstream.events import ReadingPaused, ReadingResumed
from aggstream.health import Counters

logger = logging.getLogger("aggstream.stream")


class BackPressure:
    """Pauses and resumes reading. It belongs to the I/O thread; `paused` may be read by any."""

    def __init__(self, dispatcher: Dispatcher, pipeline: Pipeline, counters: Counters, name: str) -> None:
        """Begin without a pause.

        Args:
            dispatcher: has the handlers' queue.
            pipeline: holds events back, and takes the events that tell of a pause.
            counters: count the pauses.
            name: begins the log lines.
        """
        self.paused = False
        """True while reading waits."""
        self._dispatcher = dispatcher
        self._pipeline = pipeline
        self._counters = counters
        self._name = name
        self._since = 0.0

    def update(self, session: Session, now: float) -> None:
        """Pause or resume, if it is time. While the stream stops as well: the memory must not fill then either."""
        should_pause = self._pipeline.should_pause()
        if should_pause == self.paused:
            return
        if should_pause:
            self._pause(session, now)
            return
        session.resume(now)
        self.end(now)
        # What the server had to send meanwhile, it may have dropped.
        self._pipeline.overflowed(now, self._since)

    def end(self, now: float) -> None:
        """End the pause, if there is one: also when its connection is gone."""
        if self.paused:
            self.paused = False
            self._pipeline.put(ReadingResumed(paused_for=now - self._since))

    def _pause(self, session: Session, now: float) -> None:
        self.paused = True
        self._since = now
        self._counters.pauses += 1
        waiting = self._dispatcher.depth
        logger.warning("%s: reading pauses: %d events wait for their handlers", self._name, waiting)
        session.pause(now)
        self._pipeline.put(ReadingPaused(waiting=waiting))
