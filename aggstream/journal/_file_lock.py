"""The lock on a journal: one handle owns it at a time, in all processes, for as long as its process lives."""

from __future__ import annotations

import contextlib
import os
import sqlite3

from aggstream.errors import JournalInUse
from aggstream.journal._file import connect, create_private, translated


class FileLock:
    """The lock on a journal. The system releases it when the process dies, however it dies.

    It is SQLite's lock on an empty database beside the journal: unlike a lock of our own it also holds between
    two handles of one process, and does not go when some other part of the program opens and closes the journal.
    """

    def __init__(self, path: str) -> None:
        """Take the lock.

        Raises:
            JournalInUse: somebody has it.
            JournalFull: the file for it cannot be made.
        """
        self._connection: sqlite3.Connection | None = None
        beside = f"{path}-owner"
        create_private(beside)
        with translated(beside):
            try:
                self._connection = connect(beside, timeout=0)
                # Nothing is ever written, so no file for a rollback is wanted either.
                self._connection.execute("PRAGMA journal_mode = MEMORY")
                self._connection.execute("BEGIN EXCLUSIVE")
            except sqlite3.OperationalError as error:
                self.release()
                if "locked" not in str(error):
                    raise
                raise _in_use(path) from None
            except BaseException:
                self.release()
                raise

    @property
    def connection(self) -> sqlite3.Connection:
        """The connection that holds the lock."""
        assert self._connection is not None  # it was made
        return self._connection

    def release(self) -> None:
        """Let somebody else have it."""
        if self._connection is not None:
            self._connection.close()


def _in_use(path: str) -> JournalInUse:
    pid = _owner_pid(path)
    if pid == os.getpid():
        who = "another client of this process"
    elif pid is not None:
        who = f"process {pid}"
    else:
        who = "another process"
    return JournalInUse(
        f"the journal {path} belongs to {who}: stop that first, or give each client a journal of its own",
        path=path,
    )


def _owner_pid(path: str) -> int | None:
    # Read from the journal itself, because the owner's lock on the other file keeps readers out.
    with contextlib.suppress(sqlite3.Error), contextlib.closing(connect(path, timeout=0)) as connection:
        row = connection.execute("SELECT owner_pid FROM meta").fetchone()
        if row and isinstance(row[0], int):
            return row[0]
    return None
