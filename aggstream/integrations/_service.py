"""A process beside the web workers: it waits until no process runs the stream, runs it, and ends when told to."""

from __future__ import annotations

import atexit
import contextlib
import enum
import logging
import queue
import signal
import threading
from collections.abc import Callable
from typing import Protocol, TypeAlias

from aggstream._base.signals import caught_signals
from aggstream.client import Client
from aggstream.errors import AggStreamError, JournalError, JournalInUse
from aggstream.events import Stopped

logger = logging.getLogger("aggstream.integrations")

FAILED = 1
"""The exit code if the stream failed, or something was left to do."""
_AGAIN = 1.0
_AT_RELOAD = 3.0

Inbox: TypeAlias = "queue.SimpleQueue[signal.Signals | Client]"
"""Signals that ask for the end, and clients that have come to theirs."""


class _End(enum.Enum):
    """Why a stream comes to its end."""

    ASKED = enum.auto()
    FAILED = enum.auto()
    LOST = enum.auto()
    """It is another process's."""


class CannotTell(Exception):
    """Nobody can tell just now whose the stream is; says why."""


class Turn(Protocol):
    """One time of having an account's stream. Belongs to one thread."""

    poll_every: float
    """Seconds after which to call `acquire`, or `is_held` and `look`, again."""

    def acquire(self) -> bool:
        """Take the stream if nobody has it; return True if that is so. May wait for a second.

        Raises:
            CannotTell: ask again later.
            JournalError: asking again would not help.
        """
        ...

    def is_held(self) -> bool:
        """Hold on to it; False: somebody else has it."""
        ...

    def client(self) -> Client:
        """Make the client of the stream that is held, with its handlers.

        Raises:
            ConfigurationError: an option cannot work.
        """
        ...

    def redeliver_revived(self, client: Client) -> None:
        """Give the client what is to be delivered once more."""
        ...

    def end(self) -> None:
        """Wait for nothing any more that is away, from now on and where it is waited: the stream is to end."""
        ...

    def release(self) -> None:
        """Let somebody else have it. Never fails; may be called again."""
        ...


class Service:
    """One account's stream, in the thread that calls `run`."""

    def __init__(self, account: str, turn: Callable[[], Turn], *, drain: float) -> None:
        """Make one.

        Args:
            account: the account's name.
            turn: makes the next time of having its stream.
            drain: seconds that handlers have to finish once the end is asked for.
        """
        self.inbox: Inbox = queue.SimpleQueue()
        """Where the end is asked for, also by a signal handler."""
        self._account = account
        self._turn = turn
        self._drain = drain

    def run(self) -> int:
        """Run until the end is asked for, or the stream fails; return the exit code.

        In the main thread SIGINT and SIGTERM ask for the end; SIGINT for the second time does not wait for it.

        Raises:
            ConfigurationError: an option cannot work.
            JournalError: the stream's events cannot be kept, and waiting does not help.
            SystemExit: a handler called `sys.exit()`.
        """
        try:
            with caught_signals(self.inbox.put):
                return self._run()
        except KeyboardInterrupt:  # asked for twice
            return 128 + signal.SIGINT

    def run_beside_reloader(self) -> int:
        """Run in a thread that ends with the main one, which ends when the code has changed; then end in order."""
        is_done = threading.Event()

        def end() -> None:
            self.inbox.put(signal.SIGTERM)
            is_done.wait(_AT_RELOAD)

        atexit.register(end)
        try:
            return self.run()
        finally:
            is_done.set()

    def _run(self) -> int:
        while True:
            turn = self._turn()
            try:
                if not self._is_our_turn(turn):
                    return 0
                code = self._run_stream(turn)
            finally:
                turn.release()
            if code is not None:
                return code
            if self._is_asked_within(_AGAIN):
                return 0

    def _is_our_turn(self, turn: Turn) -> bool:
        """Wait until this process owns the stream; False: the end is asked for."""
        told = ""
        while True:
            try:
                if turn.acquire():
                    logger.info("%s: this process runs the stream", self._account)
                    return True
                state, pause = "standing by: another process runs the stream", turn.poll_every
            except CannotTell as error:
                state, pause = str(error), _AGAIN
            if state != told:
                told = state
                logger.warning("%s: %s", self._account, state)
            if self._is_asked_within(pause):
                return False

    def _is_asked_within(self, seconds: float) -> bool:
        """Wait for the end to be asked for."""
        with contextlib.suppress(queue.Empty):
            return isinstance(self.inbox.get(timeout=seconds), signal.Signals)
        return False

    def _run_stream(self, turn: Turn) -> int | None:
        """Run the stream; return the exit code, or None if this process is to wait for its turn again."""
        client = turn.client()
        client.on(Stopped)(lambda _: self.inbox.put(client))
        try:
            client.start()
        except JournalError as error:
            logger.warning("%s: %s", self._account, error)
            return None
        end = self._watch(client, turn)
        turn.end()
        try:
            report = client.stop(self._drain)
        except JournalInUse:
            return None
        except AggStreamError:  # it was logged where it came about
            return FAILED
        if end is _End.LOST:
            return None
        return 0 if report and end is _End.ASKED else FAILED

    def _watch(self, client: Client, turn: Turn) -> _End:
        """Return when the end is asked for, or has come."""
        while True:
            try:
                told = self.inbox.get(timeout=turn.poll_every)
            except queue.Empty:
                # One died without a word, or the stream has failed and handlers still have their turn.
                dead = [name for name, is_alive in client.health().threads.items() if not is_alive]
                if dead:
                    logger.error("%s: no longer running: %s", self._account, ", ".join(dead))  # noqa: TRY400
                    return _End.FAILED
                if not turn.is_held():
                    logger.warning("%s: another process has taken the stream over", self._account)
                    return _End.LOST
                turn.redeliver_revived(client)
            else:
                if isinstance(told, signal.Signals):
                    logger.info("%s: %s asks for the end", self._account, told.name)
                    return _End.ASKED
                if told is client:
                    return _End.FAILED
