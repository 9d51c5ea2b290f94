"""The options of a journal, checked where they are given."""

from __future__ import annotations

import os
from typing import Literal

import attrs

from aggstream._base.checks import count
from aggstream._base.service_checks import check_account
from aggstream.errors import ConfigurationError
from aggstream.journal._store import EventStore, FleetStore, OpensFleetStore, OpensStore
from aggstream.journal._store_options import StoreOptions, one_of


def _path(value: str | os.PathLike[str]) -> str:
    path = os.fspath(value) if isinstance(value, (str, os.PathLike)) else None
    if not isinstance(path, str) or not path or "\0" in path:
        raise ConfigurationError("journal: path must be a file's path, as a text or a pathlib.Path")
    return path


@attrs.frozen(kw_only=True)
class JournalOptions(StoreOptions):
    """How events are kept on disk. Times are in seconds, sizes in bytes.

    Raises:
        ConfigurationError: an option cannot work.
    """

    path: str = attrs.field(converter=_path)
    """The SQLite file; made if it is not there. Files with `-owner`, `-wal` and `-shm` added come beside it."""
    synchronous: Literal["full", "normal"] = one_of("full", "normal")
    """With "full" stored events survive a loss of power; with "normal", which is faster, the process's death."""
    account: str = attrs.field(default="", validator=lambda _, __, it: check_account(it, allow_empty=True))
    """The account of a fleet's file whose stream a `Client` is; empty: the file is a single client's."""
    max_size: int = count(256 << 20)
    """The size past which the oldest done events are deleted early."""

    def open(self) -> EventStore:
        """Open the journal, and own it.

        Raises:
            JournalError: it cannot be opened; the class says why.
        """
        from aggstream.journal._journal import Journal  # noqa: PLC0415  (loads a database)

        return Journal(self)

    def open_fleet(self) -> FleetStore:
        """Open the journal for the accounts of a fleet, and own it.

        Raises:
            JournalError: it cannot be opened; the class says why.
        """
        from aggstream.journal._fleet import FleetJournal  # noqa: PLC0415  (loads a database)

        return FleetJournal(self)


def as_store(value: str | os.PathLike[str] | OpensStore | None) -> OpensStore | None:
    """Return what a user means by a journal.

    Raises:
        ConfigurationError: it is neither a path nor something that opens a store.
    """
    is_path = isinstance(value, (str, os.PathLike))  # a pathlib.Path has an `open`, too
    if value is None or (not is_path and callable(getattr(value, "open", None))):
        return value  # type: ignore[return-value]
    return JournalOptions(path=value)  # type: ignore[arg-type]


def as_fleet_store(value: str | os.PathLike[str] | OpensFleetStore) -> OpensFleetStore:
    """Return what a user means by the journal of a fleet.

    Raises:
        ConfigurationError: it is neither a path nor something that opens a store for many accounts.
    """
    is_path = isinstance(value, (str, os.PathLike))
    if not is_path and callable(getattr(value, "open_fleet", None)):
        return value  # type: ignore[return-value]
    return JournalOptions(path=value)  # type: ignore[arg-type]
