"""The journal's file: how it is made, opened and written, and what SQLite's errors mean."""

from __future__ import annotations

import contextlib
import os
import pathlib
import sqlite3
from collections.abc import Iterator

from aggstream.errors import JournalCorrupt, JournalError, JournalFull, JournalInUse

BUSY_TIMEOUT = 5.0
"""Seconds for which a lock of another program (a backup, a tool) is waited for."""


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
        raise JournalFull(f"the journal {path} cannot be made: {error.strerror}", path=path) from error


def connect(path: str, *, timeout: float = BUSY_TIMEOUT) -> sqlite3.Connection:
    """Open a file that is there. Any one thread at a time may use the connection, which begins no transactions."""
    uri = pathlib.Path(path).absolute().as_uri() + "?mode=rw"
    return sqlite3.connect(uri, uri=True, timeout=timeout, isolation_level=None, check_same_thread=False)


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All that is written in it is written, or nothing is."""
    connection.execute("BEGIN IMMEDIATE")
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


# In Python 3.10 an error has no code, only SQLite's words, which have been the same for long.
_LOCKED = ("locked", "locking protocol")
_UNWRITABLE = ("is full", "disk i/o error", "readonly", "unable to open", "large file support")


def _meaning(error: sqlite3.DatabaseError, path: str) -> JournalError:
    words = str(error)
    if isinstance(error, sqlite3.OperationalError):
        if any(word in words.lower() for word in _LOCKED):
            return JournalInUse(
                f"another program holds a lock on the journal {path} for more than {BUSY_TIMEOUT:.0f} s", path=path
            )
        if any(word in words.lower() for word in _UNWRITABLE):
            return JournalFull(
                f"the journal {path} cannot be read or written: {words}. Make room, or see to the disk "
                f"and the file's permissions; what was stored before is safe",
                path=path,
            )
    return corrupt(path, words)


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
