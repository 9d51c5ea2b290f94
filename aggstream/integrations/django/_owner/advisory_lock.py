"""The ownership of a stream by an advisory lock of PostgreSQL. The lock ends when its process dies.

A separate connection holds the lock, and does nothing else. If this connection breaks, the lock is lost, and the
process takes the lock again if it is free. The owner in the stream's row tells whether another process has been
the owner in between.
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

# The seconds that `acquire` waits in the database for the lock.
_WAIT = 1.0
# A host that disappears loses its lock after idle + interval * count seconds, and not after hours.
_ALIVE = {"tcp_keepalives_idle": "10", "tcp_keepalives_interval": "5", "tcp_keepalives_count": "3"}
# A client of a database that disappears gets an error after a similar time.
_CONNECT = {"connect_timeout": 5, "tcp_user_timeout": 10_000}
_NOT_AVAILABLE = "55P03"


class AdvisoryLock:
    """Implements `Ownership`."""

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
            # No other process can own the stream while this process has the lock.
            return self._row.take(Q(), None)
        except DatabaseError:
            self._close_connections()
            raise

    @in_request
    def is_held(self) -> bool:
        try:
            self._check_connection()
            return self._row.is_own()
        except DatabaseError:
            self._close_connections()
        try:
            return self._is_locked() and self._row.is_own()
        except DatabaseError:
            self._close_connections()
            return True

    @in_request
    def release(self) -> None:
        with contextlib.suppress(DatabaseError):
            self._row.give_back()
        self._close_connections()

    def _is_locked(self) -> bool:
        """Take the lock, and wait for it for a moment. Return True if this process has the lock now."""
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

    def _check_connection(self) -> None:
        """Check that the connection that holds the lock works.

        Raises:
            DatabaseError: there is no connection, or the connection is broken.
        """
        if self._connection is None:
            raise OperationalError("the connection is gone")
        with self._connection.cursor() as cursor:
            cursor.execute("SELECT 1")

    def _connect(self) -> BaseDatabaseWrapper:
        connection = connections.create_connection(self._row.database)
        options = {**_CONNECT, **connection.settings_dict["OPTIONS"]}
        options.pop("pool", None)  # a connection that is kept for ever must not come from a pool
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

    def _close_connections(self) -> None:
        """Close the lock's connection, and the thread's connection, which the same failure has broken."""
        connection, self._connection = self._connection, None
        for to_close in (connection, connections[self._row.database]):
            if to_close is not None:
                with contextlib.suppress(DatabaseError):
                    to_close.close()
