"""Which process runs an account's stream: one at a time, on all hosts that use the database.

A process that takes a stream writes a name of its own into the stream's row, and every change of the store is for
that name only. So what is decided here is when a process may take over, never whether two may write at once.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import secrets
import socket
from typing import Protocol

from django.db import DatabaseError
from django.db.models import Q
from django.db.models.functions import Now

from aggstream.integrations.django._columns import KEY, key
from aggstream.integrations.django._connections import in_request
from aggstream.integrations.django._settings import Account
from aggstream.integrations.django.models import Stream


class Ownership(Protocol):
    """Belongs to one thread. `DatabaseError` comes out of `acquire` alone."""

    owner: str
    """What this process knows itself by."""
    look_every: float
    """Seconds after which to call `acquire` or `is_held` again."""

    @property
    def stream(self) -> int:
        """The `pk` of the stream's row, once it was looked for."""
        ...

    def acquire(self) -> bool:
        """Take the stream if nobody has it; tell whether that is so. May wait for a second.

        Raises:
            DatabaseError: nobody can tell.
        """
        ...

    def is_held(self) -> bool:
        """Hold on to it; False: somebody else has it. A database that does not answer has given it to nobody."""
        ...

    def release(self) -> None:
        """Let somebody else have it. Never fails; may be called again."""
        ...


def ownership_of(account: Account) -> Ownership:
    """Return what fits the account's database."""
    return Lease(account)


class Row:
    """The stream's row, with what is common to all kinds of ownership."""

    def __init__(self, account: Account) -> None:
        self.database = account.database
        self.stream = 0
        self.owner = secrets.token_hex(16)
        self.owner_name = key(f"{socket.gethostname()}, process {os.getpid()}", KEY)
        self._account = account.name

    def find(self) -> None:
        """Look for the row; make it if it is not there."""
        if not self.stream:
            row, _ = Stream.objects.using(self.database).get_or_create(account=self._account)
            self.stream = row.pk

    def take(self, condition: Q, lease: dt.timedelta | None) -> bool:
        """Become the owner if a condition holds; tell whether it did. The owner before is none from then on."""
        rows = Stream.objects.using(self.database).filter(condition, pk=self.stream)
        until = None if lease is None else Now() + lease
        return bool(rows.update(owner=self.owner, owner_name=self.owner_name, lease_until=until))

    def is_own(self) -> bool:
        """Tell whether this process is the owner."""
        return Stream.objects.using(self.database).filter(pk=self.stream, owner=self.owner).exists()

    def give_back(self) -> None:
        """Be the owner no more."""
        own = Stream.objects.using(self.database).filter(pk=self.stream, owner=self.owner)
        own.update(owner="", owner_name="", lease_until=None)


class Lease:
    """The owner has the stream until a time of the database's clock, and renews that long before."""

    def __init__(self, account: Account) -> None:
        self._row = Row(account)
        self._lease = dt.timedelta(seconds=account.lease)
        self.owner = self._row.owner
        self.look_every = account.lease / 4

    @property
    def stream(self) -> int:
        return self._row.stream

    @in_request
    def acquire(self) -> bool:
        self._row.find()
        return self._row.take(Q(owner="") | Q(lease_until=None) | Q(lease_until__lt=Now()), self._lease)

    @in_request
    def is_held(self) -> bool:
        try:
            return self._row.take(Q(owner=self.owner), self._lease)
        except DatabaseError:
            return True

    @in_request
    def release(self) -> None:
        with contextlib.suppress(DatabaseError):
            self._row.give_back()
