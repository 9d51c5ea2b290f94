"""The stream process beside the web workers. It runs the stream while no other process does."""

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
"""The exit code if the stream failed, or if handlers did not finish."""
# Seconds before the next attempt to become the owner.
_RETRY_AFTER = 1.0
# Seconds that the reloader waits for the stream to end.
_END_AT_RELOAD = 3.0

Inbox: TypeAlias = "queue.SimpleQueue[signal.Signals | Client]"
"""Signals that ask the process to end, and clients whose streams have ended."""


class _EndReason(enum.Enum):
    """The reason why a stream ends."""

    REQUESTED = enum.auto()
    FAILED = enum.auto()
    LOST = enum.auto()
    """Another process has become the owner."""


class OwnerUnknown(Exception):
    """At this moment, it is not known which process owns the stream. The text of the exception says why."""


class StreamOwner(Protocol):
    """This process as the owner of an account's stream. One thread uses it.

    Only the owner runs the stream. The process calls `acquire` until it is the owner, and `release` at the end.
    """

    poll_every: float
    """Seconds between two calls of `acquire`, and between two calls of `is_held`."""

    def acquire(self) -> bool:
        """Become the owner if no other process is. Return True if this process is the owner now.

        The method may wait for a second.

        Raises:
            OwnerUnknown: the process should try again later.
            JournalError: the process should not try again, because it would fail again.
        """
        ...

    def is_held(self) -> bool:
        """Stay the owner. Return False if another process has become the owner."""
        ...

    def client(self) -> Client:
        """Return a new client for the stream, with its handlers.

        Raises:
            ConfigurationError: an option cannot work.
        """
        ...

    def redeliver_revived(self, client: Client) -> None:
        """Give the client the dead events that a person wants to be delivered again."""
        ...

    def end(self) -> None:
        """Stop all waiting for the store, now and later, because the stream must end."""
        ...

    def release(self) -> None:
        """Stop being the owner, so that another process can become it. Never raises; may be called again."""
        ...


class Service:
    """Runs one account's stream in the thread that calls `run`."""

    def __init__(self, account: str, make_owner: Callable[[], StreamOwner], *, drain: float) -> None:
        """Make a service.

        Args:
            account: the account's name.
            make_owner: returns a new `StreamOwner` for each attempt to become the owner.
            drain: the seconds that handlers have to finish at the end.
        """
        self.inbox: Inbox = queue.SimpleQueue()
        """The requests to end. A signal handler may put a signal in here."""
        self._account = account
        self._make_owner = make_owner
        self._drain = drain

    def run(self) -> int:
        """Run the stream until a signal asks the process to end, or the stream fails. Return the exit code.

        In the main thread, SIGINT and SIGTERM ask the process to end. A second SIGINT ends it without waiting.

        Raises:
            ConfigurationError: an option cannot work.
            JournalError: the events cannot be stored, and waiting does not help.
            SystemExit: a handler called `sys.exit()`.
        """
        try:
            with caught_signals(self.inbox.put):
                return self._run()
        except KeyboardInterrupt:  # the second SIGINT
            return 128 + signal.SIGINT

    def run_beside_reloader(self) -> int:
        """Run in a thread beside a reloader. When the reloader ends the main thread, stop the stream in order."""
        is_done = threading.Event()

        def end() -> None:
            self.inbox.put(signal.SIGTERM)
            is_done.wait(_END_AT_RELOAD)

        atexit.register(end)
        try:
            return self.run()
        finally:
            is_done.set()

    def _run(self) -> int:
        while True:
            owner = self._make_owner()
            try:
                if not self._becomes_owner(owner):
                    return 0
                code = self._run_stream(owner)
            finally:
                owner.release()
            if code is not None:
                return code
            if self._is_end_requested_within(_RETRY_AFTER):
                return 0

    def _becomes_owner(self, owner: StreamOwner) -> bool:
        """Wait until this process owns the stream. Return False if the process is asked to end before that."""
        logged = ""
        while True:
            try:
                if owner.acquire():
                    logger.info("%s: this process runs the stream", self._account)
                    return True
                state, pause = "standing by: another process runs the stream", owner.poll_every
            except OwnerUnknown as error:
                state, pause = str(error), _RETRY_AFTER
            if state != logged:
                logged = state
                logger.warning("%s: %s", self._account, state)
            if self._is_end_requested_within(pause):
                return False

    def _is_end_requested_within(self, seconds: float) -> bool:
        """Wait for a request to end. Return True if a request arrives within some seconds."""
        with contextlib.suppress(queue.Empty):
            return isinstance(self.inbox.get(timeout=seconds), signal.Signals)
        return False

    def _run_stream(self, owner: StreamOwner) -> int | None:
        """Run the stream. Return the exit code, or None if this process should try to become the owner again."""
        client = owner.client()
        client.on(Stopped)(lambda _: self.inbox.put(client))
        try:
            client.start()
        except JournalError as error:
            logger.warning("%s: %s", self._account, error)
            return None
        reason = self._watch(client, owner)
        owner.end()
        try:
            report = client.stop(self._drain)
        except JournalInUse:
            return None
        except AggStreamError:  # the client has logged the error
            return FAILED
        if reason is _EndReason.LOST:
            return None
        return 0 if report and reason is _EndReason.REQUESTED else FAILED

    def _watch(self, client: Client, owner: StreamOwner) -> _EndReason:
        """Wait until the stream ends or must end, and return the reason."""
        while True:
            try:
                received = self.inbox.get(timeout=owner.poll_every)
            except queue.Empty:
                # A thread died without an event, or the stream has failed while handlers are still running.
                dead = [name for name, is_alive in client.health().threads.items() if not is_alive]
                if dead:
                    logger.error("%s: these threads ended: %s", self._account, ", ".join(dead))  # noqa: TRY400
                    return _EndReason.FAILED
                if not owner.is_held():
                    logger.warning("%s: another process has taken the stream over", self._account)
                    return _EndReason.LOST
                owner.redeliver_revived(client)
            else:
                if isinstance(received, signal.Signals):
                    logger.info("%s: %s asks the process to end", self._account, received.name)
                    return _EndReason.REQUESTED
                if received is client:
                    return _EndReason.FAILED
