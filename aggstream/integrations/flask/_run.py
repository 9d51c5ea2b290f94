"""The owner of a stream in a Flask project. The process that has opened the journal is the owner."""

from __future__ import annotations

import contextlib
import logging
from pathlib import Path

from flask import Flask

from aggstream._delivery.registrar import Registrar
from aggstream.client import Client
from aggstream.errors import JournalInUse
from aggstream.integrations.flask._config import FlaskAccount
from aggstream.integrations.flask._contexts import in_context
from aggstream.journal import EventStore

logger = logging.getLogger("aggstream.integrations.flask")


class JournalStreamOwner:
    """Implements `StreamOwner`. It is also the client's `journal`, and `open` returns the opened journal."""

    poll_every = 1.0

    def __init__(self, app: Flask, account: FlaskAccount, handlers: Registrar) -> None:
        self._app = app
        self._account = account
        self._handlers = handlers
        self._journal: EventStore | None = None
        self.on_failure = account.journal.on_failure

    def acquire(self) -> bool:
        folder = Path(self._app.instance_path)
        if folder in Path(self._account.journal.path).parents:
            with contextlib.suppress(OSError):  # opening the journal raises the error
                folder.mkdir(parents=True, exist_ok=True)
        try:
            self._journal = self._account.journal.open()
        except JournalInUse:
            return False
        return True

    def open(self) -> EventStore:
        assert self._journal is not None
        return self._journal

    def is_held(self) -> bool:
        return True  # the journal stays locked until its owner closes it or dies

    def client(self) -> Client:
        client = self._account.client(self)
        if not client.include(self._handlers, around=in_context(self._app)):
            logger.warning(
                "%s: nothing handles events, so they are stored only: no module that the application has imported "
                "registers a handler",
                self._account.name,
            )
        return client

    def redeliver_revived(self, client: Client) -> None:
        """Do nothing: a journal delivers such events at the next start."""

    def end(self) -> None:
        """Do nothing: nothing ever waits for a journal."""

    def release(self) -> None:
        if self._journal is not None:
            self._journal.close()
