"""What `manage.py aggstream` does: wait until the stream is nobody's, run it, and end when told to."""

from __future__ import annotations

import contextlib
import enum
import logging
import queue
import signal
from typing import TypeAlias

from django.db import DatabaseError

from aggstream.client import Client
from aggstream.errors import AggStreamError, JournalError, JournalInUse
from aggstream.events import Event, Stopped
from aggstream.integrations.django._connections import in_request
from aggstream.integrations.django._handlers import handlers
from aggstream.integrations.django._ownership import Ownership, ownership_of
from aggstream.integrations.django._patience import Patience, one_line
from aggstream.integrations.django._settings import Account
from aggstream.integrations.django._store import DatabaseStore
from aggstream.integrations.django.signals import event_received

logger = logging.getLogger("aggstream")

FAILED = 1
"""The exit code if the stream failed, or something was left to do."""
_WITHOUT_DATABASE = 1.0

Inbox: TypeAlias = "queue.SimpleQueue[signal.Signals | Client]"
"""Signals that ask for the end, and clients that have come to theirs."""


class _End(enum.Enum):
    """Why a stream comes to its end."""

    ASKED = enum.auto()
    FAILED = enum.auto()
    LOST = enum.auto()
    """It is another process's."""


class Service:
    """One account's stream, in the thread that calls `run`."""

    def __init__(self, account: Account, *, drain: float) -> None:
        """Make one.

        Args:
            account: whose stream.
            drain: seconds that handlers have to finish once the end is asked for.
        """
        self.inbox: Inbox = queue.SimpleQueue()
        """Where the end is asked for, also by a signal handler."""
        self._account = account
        self._drain = drain

    def run(self) -> int:
        """Run until the end is asked for, or the stream fails; return the exit code.

        Raises:
            ConfigurationError: an option cannot work.
            SystemExit: a handler called `sys.exit()`.
        """
        while True:
            ownership = ownership_of(self._account)
            try:
                if not self._is_our_turn(ownership):
                    return 0
                code = self._run_stream(ownership)
            finally:
                ownership.release()
            if code is not None:
                return code
            if self._is_asked_within(_WITHOUT_DATABASE):
                return 0

    def _is_our_turn(self, ownership: Ownership) -> bool:
        """Wait until this process owns the stream; False: the end is asked for."""
        told = ""
        while True:
            try:
                if ownership.acquire():
                    logger.info("%s: this process runs the stream", self._account.name)
                    return True
                state, pause = "standing by: another process runs the stream", ownership.look_every
            except DatabaseError as error:
                state, pause = f"the database cannot be used: {one_line(error)}", _WITHOUT_DATABASE
            if state != told:
                told = state
                logger.warning("%s: %s", self._account.name, state)
            if self._is_asked_within(pause):
                return False

    def _is_asked_within(self, seconds: float) -> bool:
        """Wait for the end to be asked for."""
        with contextlib.suppress(queue.Empty):
            return isinstance(self.inbox.get(timeout=seconds), signal.Signals)
        return False

    def _run_stream(self, ownership: Ownership) -> int | None:
        """Run the stream; return the exit code, or None if this process is to wait for its turn again."""
        patience = Patience(self._account.database)
        store = DatabaseStore(
            self._account.database,
            stream=ownership.stream,
            owner=ownership.owner,
            options=self._account.store,
            patience=patience,
        )
        client = self._account.client(store)
        self._register(client)
        try:
            client.start()
        except JournalError as error:
            logger.warning("%s: %s", self._account.name, error)
            return None
        end = self._watch(client, ownership, store)
        # A database that is away is waited for no longer: what it does not store now is read from REST later.
        patience.end()
        try:
            report = client.stop(self._drain)
        except JournalInUse:
            return None
        except AggStreamError:  # it was logged where it came about
            return FAILED
        if end is _End.LOST:
            return None
        return 0 if report and end is _End.ASKED else FAILED

    def _register(self, client: Client) -> None:
        count = client.include(handlers, around=in_request)
        if not (count or event_received.receivers):
            logger.warning(
                "%s: nothing handles events, so they are stored only: no app in INSTALLED_APPS has an "
                "agg_handlers.py that registers a handler, and nothing receives the signal",
                self._account.name,
            )
        if event_received.receivers:
            client.on("*")(in_request(self._send))
        client.on(Stopped)(lambda _: self.inbox.put(client))

    def _send(self, event: Event) -> None:
        event_received.send(sender=type(event), event=event, account=self._account.name)

    def _watch(self, client: Client, ownership: Ownership, store: DatabaseStore) -> _End:
        """Return when the end is asked for, or has come."""
        while True:
            try:
                told = self.inbox.get(timeout=ownership.look_every)
            except queue.Empty:
                # One died without a word, or the stream has failed and handlers still have their turn.
                dead = [name for name, is_alive in client.health().threads.items() if not is_alive]
                if dead:
                    logger.error("%s: no longer running: %s", self._account.name, ", ".join(dead))  # noqa: TRY400
                    return _End.FAILED
                if not ownership.is_held():
                    logger.warning("%s: another process has taken the stream over", self._account.name)
                    return _End.LOST
                with contextlib.suppress(JournalError):  # a database that is away is told of where it matters
                    client.redeliver(store.revived())
            else:
                if isinstance(told, signal.Signals):
                    logger.info("%s: %s asks for the end", self._account.name, told.name)
                    return _End.ASKED
                if told is client:
                    return _End.FAILED
