"""The journal's file: how it is made, opened and written, and what SQLite's errors mean."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import pathlib
import sqlite3
import stat
import threading
import time
from collections.abc import Iterator

from aggstream.errors import JournalCorrupt, JournalError, JournalFull, JournalInUse, StateError

logger = logging.getLogger("aggstream.journal")

BUSY_TIMEOUT = 5.0
"""Seconds for which a lock of another program (a backup, a tool) is waited for, by tools and at the opening."""

# Others may not read the file, and only its owner may write it.
_MODE = stat.S_IRUSR | stat.S_IWUSR | stat.S_IRGRP
_NO_DESCRIPTORS = (errno.EMFILE, errno.ENFILE)


def create_private(path: str) -> None:
    """Make an empty file that only its owner may read, if there is no file.

    SQLite gives the files beside it the same mode. A file that is there is not even opened: closing it would
    release the locks that this process holds on it.

    Raises:
        JournalFull: it cannot be made.
    """
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    except FileExistsError:
        pass
    except OSError as error:
        path = path.removesuffix("-owner")
        if error.errno in _NO_DESCRIPTORS:
            raise _no_descriptors(path) from error
        raise JournalFull(f"the journal {path} cannot be made: {error.strerror}", path=path) from error


def make_private(path: str) -> None:
    """Remove, from the mode of a journal's files, the rights that only the journal's owner may have.

    The caller must know that the file is a journal: a file of another program stays as it is.
    """
    for name in (path, f"{path}-wal", f"{path}-shm", f"{path}-owner"):
        with contextlib.suppress(OSError):  # it is not there; or it is somebody else's, and SQLite says so
            mode = stat.S_IMODE(os.stat(name).st_mode)  # noqa: PTH116
            if mode & ~_MODE:
                os.chmod(name, mode & _MODE)  # noqa: PTH101
                logger.warning("the mode of %s was %03o: it is %03o now", name, mode, mode & _MODE)


def places_of(*paths: str) -> tuple[tuple[int, int] | None, ...]:
    """Return what tells the files at some paths from any others; None for one that is not there."""
    places: list[tuple[int, int] | None] = []
    for name in paths:
        try:
            found = os.stat(name)  # noqa: PTH116  (for each write)
        except OSError:
            places.append(None)
        else:
            places.append((found.st_dev, found.st_ino))
    return tuple(places)


def patiently(connection: sqlite3.Connection, path: str, statement: str) -> None:
    """Execute a statement. Wait for as long as another program, a backup say, holds a lock on the file."""
    since = time.monotonic()
    told_after = BUSY_TIMEOUT
    while True:
        try:
            connection.execute(statement)
        except sqlite3.OperationalError as error:
            if not is_locked(error):
                raise
            waited = time.monotonic() - since
            if waited >= told_after:
                told_after *= 2
                logger.warning("another program has locked the journal %s for %.0f s: events wait", path, waited)
        else:
            return


def connect(path: str, *, timeout: float = BUSY_TIMEOUT) -> sqlite3.Connection:
    """Open a file that is there. Any one thread at a time may use the connection, which begins no transactions."""
    uri = pathlib.Path(path).absolute().as_uri() + "?mode=rw"
    return sqlite3.connect(uri, uri=True, timeout=timeout, isolation_level=None, check_same_thread=False)


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection, path: str | None = None) -> Iterator[None]:
    """All that is written in it is written, or nothing is.

    Args:
        connection: to the file.
        path: the file, if a lock of another program is waited for; None: only for a short while.
    """
    try:
        connection.execute("BEGIN IMMEDIATE")
    except sqlite3.OperationalError as error:
        if path is None or not is_locked(error):
            raise
        patiently(connection, path, "BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # some failures have ended it already
            with contextlib.suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
        raise


@contextlib.contextmanager
def translated(path: str) -> Iterator[None]:
    """Raise what SQLite raises as the journal's own errors."""
    try:
        yield
    except sqlite3.ProgrammingError:
        raise  # a mistake of ours says nothing about the file
    except sqlite3.DatabaseError as error:
        raise _meaning(error, path) from error


class GuardedConnection:
    """The connection of a file's owner: one thread at a time, and only while the files are in their places."""

    def __init__(self, path: str) -> None:
        """Have no connection yet; `path` is the file's."""
        self.path = path
        # Guards the connection: SQLite's own lock would let the transactions of two threads mix.
        self.lock = threading.Lock()
        self.connection: sqlite3.Connection | None = None
        self._is_childs = False
        # What tells the files from others that may stand in their places: the journal's, the lock's, and SQLite's
        # log of what is not merged yet with its index.
        self._places: tuple[tuple[int, int] | None, ...] = ()
        self._watched = tuple(self.path + end for end in ("", "-owner", "-wal", "-shm"))

    @contextlib.contextmanager
    def using(self, *, writes: bool = False) -> Iterator[sqlite3.Connection]:
        with self.lock, translated(self.path):
            if self._is_childs:
                raise StateError("the journal belongs to the parent process: open one in the process that uses it")
            if self.connection is None:
                raise StateError("the journal is closed")
            if not writes:
                patiently(self.connection, self.path, "SELECT 1 FROM meta")
            yield self.connection

    @contextlib.contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        with self.using(writes=True) as connection:
            if self.places_now() != self._places:
                raise self._gone()
            with transaction(connection, self.path):
                yield connection

    def places_now(self) -> tuple[tuple[int, int] | None, ...]:
        return places_of(*self._watched)

    def _gone(self) -> JournalError:
        """Save what is stored, and return the error that says so: the files are not in their places any more."""
        raise NotImplementedError


# In Python 3.10 an error has no code, only SQLite's words, which have been the same for long.
_LOCKED = ("locked", "locking protocol")
_UNWRITABLE = ("is full", "disk i/o error", "readonly", "unable to open", "large file support")


def is_locked(error: sqlite3.OperationalError) -> bool:
    """Return True if another program holds a lock."""
    return any(word in str(error).lower() for word in _LOCKED)


def _meaning(error: sqlite3.DatabaseError, path: str) -> JournalError:
    words = str(error)
    if isinstance(error, sqlite3.OperationalError):
        if is_locked(error):
            return JournalInUse(
                f"another program holds a lock on the journal {path} for more than {BUSY_TIMEOUT:.0f} s", path=path
            )
        if _has_no_descriptors():
            return _no_descriptors(path)
        if any(word in words.lower() for word in _UNWRITABLE):
            return JournalFull(
                f"the journal {path} cannot be read or written: {words}. Make room, or see to the disk "
                f"and the file's permissions; what was stored before is safe",
                path=path,
            )
    return corrupt(path, words)


def _has_no_descriptors() -> bool:
    # Not by opening the journal: closing it again would release the locks that this process holds on it.
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        return error.errno in _NO_DESCRIPTORS
    return False


def _no_descriptors(path: str) -> JournalError:
    return JournalError(
        f"the journal {path} cannot be opened or written: the process or the system has no file descriptors left. "
        f"Raise the limit (ulimit -n), or close what is not needed; what was stored before is safe",
        path=path,
    )


def corrupt(path: str, problem: str) -> JournalCorrupt:
    """Return the error that tells what is wrong with a file, and what to do."""
    return JournalCorrupt(
        f"{path} is damaged, or is no journal: {problem}. It is left as it is. Move it away, together with its "
        f"-wal file, to start with a new one; `aggstream journal export` on a copy shows what can be read",
        path=path,
    )


_LARGEST_INT = 2**63 - 1


def to_integer(number: int) -> int:
    """Return the nearest number that SQLite can hold."""
    if -_LARGEST_INT <= number <= _LARGEST_INT:
        return number
    return _LARGEST_INT if number > 0 else -_LARGEST_INT


def to_column(text: str) -> str | bytes:
    """Return what a text is stored as: itself, so that any SQLite tool shows it, or bytes if it is no Unicode.

    Half of a surrogate pair cannot be stored as text. Equal texts are stored as equal values.
    """
    if text.isascii():  # known without a look at the characters
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode(errors="surrogatepass")
    return text


def from_column(value: str | bytes) -> str:
    """Return the text that `to_column` was given."""
    return value.decode(errors="surrogatepass") if isinstance(value, bytes) else value


def never_close(connection: sqlite3.Connection) -> None:
    """Keep a connection from being closed in a forked child, by the interpreter's end as well.

    Closing would merge and delete the parent's log if it were free just then, which it is after the parent's
    death, when another process may own the journal already. SQLite forbids a connection to cross a fork.
    """
    with contextlib.suppress(ImportError, AttributeError):  # other interpreters close nothing at their end
        import ctypes  # noqa: PLC0415  (only forked children need it)

        ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))
