"""Logs handlers that take too long, with the place where they are."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from aggstream._base.stacks import stack_of
from aggstream._delivery.dispatcher import Dispatcher
from aggstream._delivery.handler_calls import Running

logger = logging.getLogger("aggstream.delivery")


class HandlerWatch:
    """Watches what the dispatch threads run. One thread at a time may use it: the I/O thread while it runs.

    The engine steps it as it steps a stream, from `begin` until no event waits for its handlers.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        duration: float | None,
        name: str,
        schedule: Callable[[HandlerWatch, float | None], None] = lambda watch, at: None,
    ) -> None:
        """Make one.

        Args:
            dispatcher: whose handlers are watched.
            duration: seconds after which a handler is logged, and again each time it has taken twice as long;
                None: never.
            name: begins the log lines.
            schedule: called with the moment of the first `step`, in monotonic seconds.
        """
        self.is_on = duration is None
        """True if `begin` need not be called when there are events for the handlers."""
        self.wake_at: float | None = None
        self.is_woken = False
        self.is_ended = False
        self._schedule = schedule
        self._dispatcher = dispatcher
        self._duration = duration
        self._name = name
        # By thread: the run that was logged, by its beginning, and the duration at which it is logged again.
        self._told: dict[str, tuple[float, float]] = {}
        # By thread: the run whose stack was logged last, and the stack.
        self._stacks: dict[str, tuple[float, str]] = {}

    def begin(self) -> None:
        """Watch from now on, until no event waits for its handlers."""
        if self._duration is not None:
            self.is_on = True
            self._schedule(self, time.monotonic() + self._duration)

    def step(self, polled_at: float) -> float | None:
        """Log each handler that takes too long; return when to do so again, in monotonic seconds, or None."""
        at = self.poll()
        self.is_on = at is not None
        return at

    def next_deadline(self) -> float | None:
        """Return None: `step` returns its deadlines."""
        return None

    def broken(self, error: BaseException) -> None:
        """Do nothing: it has no socket."""

    def poll(self) -> float | None:
        """Log each handler that takes too long; return when to poll again, in monotonic seconds, or None."""
        if self._duration is None or not self._dispatcher.depth:
            return None
        # A handler that is called right after this poll must be seen by the next one.
        nearest = time.monotonic() + self._duration
        for running in self._dispatcher.running():
            since, due = self._told.get(running.thread.name, (0.0, 0.0))
            if since != running.since:
                since, due = running.since, self._duration
            while due <= running.seconds:
                due *= 2
                if due > running.seconds:
                    self._log(running)
            self._told[running.thread.name] = (since, due)
            nearest = min(nearest, since + due)
        return nearest

    def log_stuck(self) -> None:
        """Log where the handlers are that still run and are given up, unless that was logged."""
        for running in self._dispatcher.running():
            before = self._stacks.get(running.thread.name)
            stack = self._stack_of(running)
            if before != (running.since, stack):
                logger.warning("%s: the handler %s is at\n%s", self._name, running.handler, stack)

    def _stack_of(self, running: Running) -> str:
        stack = stack_of(running.thread)
        self._stacks[running.thread.name] = (running.since, stack)
        return stack

    def _log(self, running: Running) -> None:
        logger.warning(
            "%s: the handler %s has been at one %s for %.1f s, and what follows waits; the thread %s is at\n%s",
            self._name,
            running.handler,
            running.event,
            running.seconds,
            running.thread.name,
            self._stack_of(running),
        )
