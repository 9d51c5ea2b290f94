"""Handlers that take too long are told in the log, with the place where they are."""

from __future__ import annotations

import logging
import time

from aggstream._base.stacks import stack_of
from aggstream._delivery.dispatcher import Dispatcher, Running

logger = logging.getLogger("aggstream")


class HandlerWatch:
    """Looks at what the dispatch threads run. One thread at a time may `look`."""

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
        # By thread: the run whose stack was told last, and the stack.
        self._stacks: dict[str, tuple[float, str]] = {}

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

    def tell_stuck(self) -> None:
        """The handlers that still run are given up: tell where they are, unless that was told."""
        for running in self._dispatcher.running():
            before = self._stacks.get(running.thread.name)
            stack = self._stack_of(running)
            if before != (running.since, stack):
                logger.warning("%s: the handler %s is at\n%s", self._name, running.handler, stack)

    def _stack_of(self, running: Running) -> str:
        stack = stack_of(running.thread)
        self._stacks[running.thread.name] = (running.since, stack)
        return stack

    def _tell(self, running: Running) -> None:
        logger.warning(
            "%s: the handler %s has been at one %s for %.1f s, and what follows waits; the thread %s is at\n%s",
            self._name,
            running.handler,
            running.event,
            running.seconds,
            running.thread.name,
            self._stack_of(running),
        )
