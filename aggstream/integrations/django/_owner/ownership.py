"""The ownership of an account's stream. One process at a time is the owner, on all hosts that use the database.

The owner writes its name into the stream's row, and the store changes nothing without checking that name. So two
processes can never write at the same time. The ownership decides only when another process may become the owner.
"""

from __future__ import annotations

from typing import Protocol

from django.db import connections

from aggstream.integrations.django._owner.advisory_lock import AdvisoryLock
from aggstream.integrations.django._owner.lease import Lease
from aggstream.integrations.django._settings import DjangoAccount


class Ownership(Protocol):
    """The ownership of one stream. One thread uses it. Only `acquire` raises `DatabaseError`."""

    owner: str
    """The name of this process in the stream's row."""
    poll_every: float
    """Seconds between two calls of `acquire`, and between two calls of `is_held`."""

    @property
    def stream(self) -> int:
        """The `pk` of the stream's row; 0 before the first `acquire`."""
        ...

    def acquire(self) -> bool:
        """Become the owner if no other process is. Return True if this process is the owner now.

        The method may wait for a second.

        Raises:
            DatabaseError: the database is not available, so the owner is not known.
        """
        ...

    def is_held(self) -> bool:
        """Stay the owner. Return False if another process is the owner.

        If the database does not answer, return True, because no other process can become the owner then.
        """
        ...

    def release(self) -> None:
        """Stop being the owner, so that another process can become it. Never raises; may be called again."""
        ...


def ownership_of(account: DjangoAccount) -> Ownership:
    """Return the ownership of the kind that `LOCK` names; without `LOCK`, the kind that fits the database."""
    kind = account.lock
    if kind is None:
        kind = "advisory" if connections[account.database].vendor == "postgresql" else "lease"
    return AdvisoryLock(account) if kind == "advisory" else Lease(account)
