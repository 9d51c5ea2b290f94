"""The row of a stream. It holds the name of the process that owns the stream."""

from __future__ import annotations

import datetime as dt
import os
import secrets
import socket
from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import Q
from django.db.models.functions import Now as _Now
from django.db.models.sql.compiler import SQLCompiler

from aggstream.integrations.django._columns import KEY, key
from aggstream.integrations.django._settings import DjangoAccount
from aggstream.integrations.django.models import Stream


class Now(_Now):
    """The present time by the database's clock."""

    def as_mysql(self, compiler: SQLCompiler, connection: BaseDatabaseWrapper, **extra: Any) -> Any:
        """Return the SQL for UTC. The local time of a server may go back by an hour."""
        return self.as_sql(compiler, connection, template="UTC_TIMESTAMP(6)", **extra)


class StreamRow:
    """Reads and writes the owner in a stream's row. Every kind of ownership uses it. It raises `DatabaseError`."""

    def __init__(self, account: DjangoAccount) -> None:
        self.database = account.database
        self.stream = 0
        self.owner = secrets.token_hex(16)
        self.owner_name = key(f"{socket.gethostname()}, process {os.getpid()}", KEY)
        self._account = account.name

    def find(self) -> None:
        """Find the stream's row, or create it."""
        if not self.stream:
            row, _ = Stream.objects.using(self.database).get_or_create(account=self._account)
            self.stream = row.pk

    def take(self, condition: Q, lease: dt.timedelta | None) -> bool:
        """Become the owner if the row fulfils a condition. Return True if this process is the owner now."""
        rows = Stream.objects.using(self.database).filter(condition, pk=self.stream)
        until = None if lease is None else Now() + lease
        return bool(rows.update(owner=self.owner, owner_name=self.owner_name, lease_until=until))

    def is_own(self) -> bool:
        """Return True if this process is the owner."""
        return Stream.objects.using(self.database).filter(pk=self.stream, owner=self.owner).exists()

    def give_back(self) -> None:
        """Stop being the owner."""
        own = Stream.objects.using(self.database).filter(pk=self.stream, owner=self.owner)
        own.update(owner="", owner_name="", lease_until=None)
