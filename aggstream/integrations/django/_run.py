"""The owner of a stream in a Django project, with the store in the database and the client."""

from __future__ import annotations

import contextlib
import logging

from django.db import DatabaseError

from aggstream.client import Client
from aggstream.errors import JournalError
from aggstream.events import Event
from aggstream.integrations._service import OwnerUnknown
from aggstream.integrations.django._connections import in_request
from aggstream.integrations.django._handlers import handlers
from aggstream.integrations.django._owner.ownership import ownership_of
from aggstream.integrations.django._settings import DjangoAccount
from aggstream.integrations.django._store.retrying import DatabaseRetrier, one_line
from aggstream.integrations.django._store.store import DatabaseStore
from aggstream.integrations.django.signals import event_received

logger = logging.getLogger("aggstream.integrations.django")


class DatabaseStreamOwner:
    """Implements `StreamOwner`."""

    def __init__(self, account: DjangoAccount) -> None:
        self._account = account
        self._ownership = ownership_of(account)
        self._retrier = DatabaseRetrier(account.database)
        self._store: DatabaseStore | None = None
        self.poll_every = self._ownership.poll_every

    def acquire(self) -> bool:
        try:
            return self._ownership.acquire()
        except DatabaseError as error:
            raise OwnerUnknown(f"the database cannot be used: {one_line(error)}") from error

    def is_held(self) -> bool:
        return self._ownership.is_held()

    def client(self) -> Client:
        self._store = DatabaseStore(
            self._account.database,
            stream=self._ownership.stream,
            owner=self._ownership.owner,
            options=self._account.store,
            retrier=self._retrier,
            status_names=self._account.status_names,
        )
        client = self._account.client(self._store)
        count = client.include(handlers, around=in_request)
        if not (count or event_received.receivers):
            logger.warning(
                "%s: nothing handles events, so they are stored only: no app in INSTALLED_APPS has an "
                "agg_handlers.py that registers a handler, and nothing receives the signal",
                self._account.name,
            )
        if event_received.receivers:
            client.on("*")(in_request(self._send))
        return client

    def redeliver_revived(self, client: Client) -> None:
        assert self._store is not None
        with contextlib.suppress(JournalError):  # the store logs an unavailable database elsewhere
            client.redeliver(self._store.revived())

    def end(self) -> None:
        # The next stream reads events that are not stored now from REST.
        self._retrier.end()

    def release(self) -> None:
        self._ownership.release()

    def _send(self, event: Event) -> None:
        event_received.send(sender=type(event), event=event, account=self._account.name)
