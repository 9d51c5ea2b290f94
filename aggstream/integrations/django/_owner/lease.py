"""The ownership of a stream by a lease, which ends at a certain time. It works with every database."""

from __future__ import annotations

import contextlib
import datetime as dt

from django.db import DatabaseError
from django.db.models import Q

from aggstream.integrations.django._connections import in_request
from aggstream.integrations.django._owner.stream_row import Now, StreamRow
from aggstream.integrations.django._settings import DjangoAccount


class Lease:
    """Implements `Ownership`. The lease uses the database's clock, because the clocks of hosts may differ."""

    def __init__(self, account: DjangoAccount) -> None:
        self._row = StreamRow(account)
        self._lease = dt.timedelta(seconds=account.lease)
        self.owner = self._row.owner
        self.poll_every = account.lease / 4

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
