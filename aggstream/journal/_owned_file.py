"""A journal's file, which one process owns: its connection, its lock, and its place on the disk."""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import threading
import time

from aggstream._base.fork_and_exit import call_in_child
from aggstream.errors import JournalError, JournalFull
from aggstream.journal._file import (
    BUSY_TIMEOUT,
    GuardedConnection,
    connect,
    create_private,
    make_private,
    never_close,
    transaction,
    translated,
)
from aggstream.journal._file_lock import FileLock
from aggstream.journal._options import JournalOptions
from aggstream.journal._retention import Retention
from aggstream.journal._schema import check_version, create, is_new, upgrade

logger = logging.getLogger("aggstream.journal")

# The log is merged into the file when it has so many pages. A page that was written many times is merged once, and
# what is merged is waited for, so more at once costs less, but one `store` in some then takes longer: about 15 ms.
_WAL_PAGES = 2000
# The log is cut to this size, if a reader or a large transaction once made it grow beyond it.
_WAL_SIZE = 16 << 20


class OwnedFile(GuardedConnection):
    """The file, until it is closed or the process ends. All methods are thread-safe."""

    def __init__(self, options: JournalOptions) -> None:
        """Open the file and own it. It is made, for the user's eyes only, if it is not there.

        Raises:
            JournalInUse: another handle owns it, of this process or another one; says which.
            JournalCorrupt: it is damaged, or is something else. It is left as it is.
            JournalFull: it cannot be made, opened or written.
        """
        super().__init__(os.path.realpath(options.path))  # two names of one file have one owner
        self.options = options
        self._owner: FileLock | None = None
        self._retention = Retention(keep_for=options.keep_for, max_size=options.max_size)
        try:
            self._owner = FileLock(self.path)
            self._open()
            call_in_child(self, OwnedFile._abandon)
        except BaseException:  # whatever was raised: the file must not stay owned
            self.release()
            raise

    def _open(self) -> None:
        create_private(self.path)
        with translated(self.path):
            self.connection = connection = connect(self.path)
            new = is_new(connection)
            if new:
                connection.execute("PRAGMA auto_vacuum = INCREMENTAL")  # has no effect later
            else:
                check_version(connection, self.path)
            make_private(self.path)
            self._places = self.places_now()
            [mode] = connection.execute("PRAGMA journal_mode = WAL").fetchone()
            if mode != "wal":
                raise JournalFull(
                    f"the journal {self.path} cannot be written: use a local disk; "
                    f"this file system has no shared memory",
                    path=self.path,
                )
            connection.execute(f"PRAGMA synchronous = {self.options.synchronous.upper()}")
            connection.execute(f"PRAGMA wal_autocheckpoint = {_WAL_PAGES}")
            connection.execute(f"PRAGMA journal_size_limit = {_WAL_SIZE}")
            with transaction(connection):
                if new:
                    create(connection)
                else:
                    upgrade(connection)
                connection.execute("UPDATE meta SET owner_pid = ?", (os.getpid(),))
            # Only now is the log certainly there.
            self._places = (*self._places[:2], *self.places_now()[2:])

    def retention(self, now_ns: int) -> int:
        """Delete some of the done events that need not be kept; see `Journal.retention`."""
        with self.using() as connection:
            return self._retention.step(connection, self.path, now_ns)

    def checkpoint(self) -> None:
        """Merge what was written into the file, as far as readers let it; SQLite itself does so now and then."""
        with self.using() as connection:
            _merge(connection)

    def close(self) -> None:
        """Note of each account that it was closed, merge what was written, and let somebody else own the file.

        It may be called again, and never fails: what could go wrong costs no event. In a forked child it leaves
        everything to the parent.
        """
        with self.lock:
            connection = self.connection
            if connection is not None:
                if self.places_now() != self._places:
                    logger.error("%s", self._gone())
                with contextlib.suppress(sqlite3.Error), transaction(connection):
                    connection.execute("UPDATE meta SET owner_pid = NULL")
                    connection.execute(
                        "UPDATE accounts SET closed_ns = ? WHERE closed_ns IS NULL", (time.time_ns(),)
                    )
                with contextlib.suppress(sqlite3.Error):
                    _merge(connection)
                self.release()

    def release(self) -> None:
        connection, self.connection = self.connection, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.close()
        if self._owner is not None:
            self._owner.release()

    def _abandon(self) -> None:
        """Forget the files, in a forked child: they are its parent's."""
        self.lock = threading.Lock()
        self._is_childs = True
        connection, self.connection = self.connection, None
        if connection is not None and self._owner is not None:
            never_close(connection)
            never_close(self._owner.connection)

    def _gone(self) -> JournalError:
        """Save what is stored, and return the error that tells of it: the files are not in their places any more.

        Another stream could make a journal of its own in this one's place, and nobody would find what is stored
        here.
        """
        assert self.connection is not None
        place = self.places_now()[0]
        saved = self.path
        # If only a file beside it is gone, what is in the log can still be merged into it.
        if place != self._places[0] or not _is_merged(self.connection):
            saved += "" if place is None else f".saved-{time.time_ns()}"
            with contextlib.suppress(sqlite3.Error, OSError, JournalError):
                create_private(saved)
                with contextlib.closing(connect(saved)) as copy:
                    self.connection.backup(copy)
        self._places = self.places_now()
        return JournalError(
            f"the journal {self.path} was moved or deleted while a stream used it. What is stored stands in "
            f"{saved} now; start again with that file, and leave it and the files beside it in their places",
            path=self.path,
        )


def _is_merged(connection: sqlite3.Connection) -> bool:
    try:
        return _merge(connection)
    except sqlite3.Error:
        return False


def _merge(connection: sqlite3.Connection) -> bool:
    """Merge the log into the file, and empty it, without waiting for readers; return True if all is merged."""
    connection.execute("PRAGMA busy_timeout = 0")
    try:
        [(busy, *_)] = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        return not busy
    finally:
        connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT * 1000:.0f}")
