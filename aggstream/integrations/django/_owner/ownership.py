"""Which process runs an account's stream: one at a time, on all hosts that use the database.

A process that takes a stream writes a name of its own into the stream's row, and every change of the store is for
that name only. So what is decided here is when a process may take over, never whether two may write at once.
"""

from __future__ import annotations

from typing import Protocol

from django.db import connections

from aggstream.integrations.django._owner.advisory_lock import AdvisoryLock
from aggstream.integrations.django._owner.lease import Lease
from aggstream.integrations.django._settings import DjangoAccount


class Ownership(Protocol):
    """Belongs to one thread. `DatabaseError` comes out of `acquire` alone."""

    owner: str
    """The name by which this process knows itself."""
    poll_every: float
    """Seconds after which to call `acquire` or `is_held` again."""

    @property
    def stream(self) -> int:
        """The `pk` of the stream's row, once it was looked for."""
        ...

    def acquire(self) -> bool:
        """Take the stream if nobody has it; return True if that is so. May wait for a second.

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


def ownership_of(account: DjangoAccount) -> Ownership:
    """Return what is set for the account, or what fits its database."""
    kind = account.lock
    if kind is None:
        kind = "advisory" if connections[account.database].vendor == "postgresql" else "lease"
    return AdvisoryLock(account) if kind == "advisory" else Lease(account)
