"""Handlers that take too long are told in the log, with the place where they are."""

from __future__ import annotations

import logging
import sys
import threading
import time
import traceback

from aggstream._dispatcher import Dispatcher, Running

logger = logging.getLogger("aggstream")


class HandlerWatch:
    """Looks at what the dispatch threads run. One thread at a time may use it."""

    def __init__(self, dispatcher: Dispatcher, duration: float | None, name: str) -> None:
        """Make one.

        Args:
            dispatcher: whose handlers are watched.
            duration: seconds after which a handler is told of, and again each time it has taken twice as long;
                None: never.
            name: begins the log lines.
        """
        self._dispatcher = dispatcher
        self._duration = duration
        self._name = name
        # By thread: the run that was told of, by its beginning, and the duration at which to tell of it again.
        self._told: dict[str, tuple[float, float]] = {}

    def look(self) -> float | None:
        """Tell of every handler that takes too long; return when to look again (monotonic), or None."""
        if self._duration is None or not self._dispatcher.depth:
            return None
        # A handler that is called right after this look must be seen by the next one.
        nearest = time.monotonic() + self._duration
        for running in self._dispatcher.running():
            since, due = self._told.get(running.thread.name, (0.0, 0.0))
            if since != running.since:
                since, due = running.since, self._duration
            while due <= running.seconds:
                due *= 2
                if due > running.seconds:
                    self._tell(running)
            self._told[running.thread.name] = (since, due)
            nearest = min(nearest, since + due)
        return nearest

    def _tell(self, running: Running) -> None:
        logger.warning(
            "%s: the handler %s has been at one %s for %.1f s, and what follows waits; the thread %s is at\n%s",
            self._name,
            running.handler,
            running.event,
            running.seconds,
            running.thread.name,
            stack_of(running.thread),
        )


def stack_of(thread: threading.Thread) -> str:
    """Return where a thread is, as a traceback shows it, without the values of variables."""
    frame = None if thread.ident is None else sys._current_frames().get(thread.ident)  # noqa: SLF001  (documented)
    return "".join(traceback.format_stack(frame)) if frame is not None else "  its end\n"
