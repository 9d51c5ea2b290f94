"""The ownership of a stream by an advisory lock of PostgreSQL, which goes when its holder dies.

The lock is held by a connection of its own, which does nothing else. If the connection breaks, the lock is gone,
and is taken anew if it is still to be had; the row's owner tells whether somebody has had the stream meanwhile.
"""

from __future__ import annotations

import contextlib
import hashlib

from django.db import DatabaseError, OperationalError, connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import Q

from aggstream.integrations.django._connections import in_request
from aggstream.integrations.django._owner.stream_row import StreamRow
from aggstream.integrations.django._settings import DjangoAccount

# Seconds for which `acquire` waits in the database, where it is woken when the lock is free.
_WAIT = 1.0
# A host that is gone without a word has its lock for idle + interval * count seconds, and not for hours.
_ALIVE = {"tcp_keepalives_idle": "10", "tcp_keepalives_interval": "5", "tcp_keepalives_count": "3"}
# And who waits for a database that is gone so is told after as long.
_CONNECT = {"connect_timeout": 5, "tcp_user_timeout": 10_000}
_NOT_AVAILABLE = "55P03"


class AdvisoryLock:
    """See `Ownership`."""

    def __init__(self, account: DjangoAccount) -> None:
        self._row = StreamRow(account)
        self.owner = self._row.owner
        self.poll_every = account.lease / 4
        digest = hashlib.blake2b(f"aggstream {account.name}".encode(), digest_size=8).digest()
        self._key = int.from_bytes(digest, signed=True, byteorder="big")
        self._connection: BaseDatabaseWrapper | None = None

    @property
    def stream(self) -> int:
        return self._row.stream

    @in_request
    def acquire(self) -> bool:
        try:
            self._row.find()
            if not self._is_locked():
                return False
            # With the lock, nobody else is alive who could have it.
            return self._row.take(Q(), None)
        except DatabaseError:
            self._let_go()
            raise

    @in_request
    def is_held(self) -> bool:
        try:
            self._see()
            return self._row.is_own()
        except DatabaseError:
            self._let_go()
        try:
            return self._is_locked() and self._row.is_own()
        except DatabaseError:
            self._let_go()
            return True

    @in_request
    def release(self) -> None:
        with contextlib.suppress(DatabaseError):
            self._row.give_back()
        self._let_go()

    def _is_locked(self) -> bool:
        """Take the lock, waiting a little; return True if this connection has it."""
        if self._connection is None:
            self._connection = self._connect()
        try:
            with self._connection.cursor() as cursor:
                cursor.execute("SELECT pg_advisory_lock(%s)", [self._key])
        except OperationalError as error:
            if getattr(error.__cause__, "sqlstate", getattr(error.__cause__, "pgcode", None)) == _NOT_AVAILABLE:
                return False
            raise
        return True

    def _see(self) -> None:
        """See that the connection that holds the lock is there.

        Raises:
            DatabaseError: it is not, or not any more.
        """
        if self._connection is None:
            raise OperationalError("the connection is gone")
        with self._connection.cursor() as cursor:
            cursor.execute("SELECT 1")

    def _connect(self) -> BaseDatabaseWrapper:
        connection = connections.create_connection(self._row.database)
        options = {**_CONNECT, **connection.settings_dict["OPTIONS"]}
        options.pop("pool", None)  # what is held for ever is not lent from one
        connection.settings_dict = {**connection.settings_dict, "OPTIONS": options}
        settings = {**_ALIVE, "lock_timeout": f"{_WAIT:.0f}s"}
        try:
            with connection.cursor() as cursor:
                for name, value in settings.items():
                    cursor.execute("SELECT set_config(%s, %s, false)", [name, value])
        except DatabaseError:
            connection.close()
            raise
        return connection

    def _let_go(self) -> None:
        """Close the lock's connection, and the thread's, which was broken by the same."""
        connection, self._connection = self._connection, None
        for broken in (connection, connections[self._row.database]):
            if broken is not None:
                with contextlib.suppress(DatabaseError):
                    broken.close()
