"""Looking into a journal, and putting events back into it, also while a stream owns it."""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import pathlib
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any

import attrs

from aggstream._base.times import EPOCH
from aggstream.errors import ConfigurationError, JournalError, StateError
from aggstream.journal._file import connect, from_column, to_column, to_integer, transaction, translated
from aggstream.journal._schema import check_version
from aggstream.journal._stored import JournalCounts, JournalState, StoredEvent, count_all, from_row

if TYPE_CHECKING:
    from typing_extensions import Self

# A page is read at once, so that neither memory nor the owner's log grows with a slow reader.
_PAGE = 500


@contextlib.contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[tuple[sqlite3.Connection, str]]:
    real = os.path.realpath(path)
    if not pathlib.Path(real).is_file():
        raise JournalError(f"there is no journal at {real}", path=real)
    with translated(real), contextlib.closing(connect(real)) as connection:
        check_version(connection, real)
        yield connection, real


@attrs.frozen
class StoredAccount:
    """One account of a journal."""

    name: str
    """Empty for that of a single client."""
    user_id: str | None
    pending: int
    done: int
    dead: int
    last_received_ns: int | None
    """When its last event was received; nanoseconds since the epoch."""


_ACCOUNTS = """
SELECT name, user_id, COUNT(*) FILTER (WHERE state = 'pending'), COUNT(*) FILTER (WHERE state = 'done'),
    COUNT(*) FILTER (WHERE state = 'dead'), last_received_ns
FROM accounts LEFT JOIN states ON states.account = accounts.number
GROUP BY accounts.number HAVING name != '' OR COUNT(state) ORDER BY name
"""


class JournalReader:
    """Reads a journal that any process may own, and changes nothing in it. For one thread at a time.

    Raises (from every method but `close`):
        JournalCorrupt: the file is damaged.
        JournalFull: it cannot be read.
        JournalInUse: another program holds a lock on the file for more than 5 seconds.
        StateError: the reader is closed.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Open a journal.

        Raises:
            JournalError: there is none; `JournalCorrupt` if it is damaged, or something else.
        """
        with contextlib.ExitStack() as stack:
            connection, self.path = stack.enter_context(_opened(path))
            connection.execute("PRAGMA query_only = ON")
            self._connection: sqlite3.Connection | None = connection
            self._user_id = _user_of(connection)
            self._stack = stack.pop_all()

    def find(
        self,
        *,
        state: JournalState | None = None,
        order_id: str | None = None,
        of_type: str | None = None,
        account: str | None = None,
        after: int = 0,
        limit: int = 100,
    ) -> list[StoredEvent]:
        """Return the events for which everything holds that is given, oldest first.

        Args:
            state: their state.
            order_id: their order.
            of_type: their type's name.
            account: the name of their account; empty: that of a single client.
            after: the `seq` after which to begin.
            limit: how many at most.
        """
        given = {"after": after, "order_id": order_id, "of_type": of_type, "account": account}
        query, values = _select("*", state, given)
        with self._using() as connection:
            rows = connection.execute(query, {**values, "limit": limit}).fetchall()
        return [from_row(row, self._user_id) for row in rows]

    def show(self, event: int | str) -> StoredEvent | None:
        """Return one event by its `seq` (a number) or its `id` (a text); None if it is not there."""
        is_seq = isinstance(event, int)
        query = "SELECT * FROM events WHERE seq = ?" if is_seq else "SELECT * FROM events WHERE id = ?"
        value = _value(event)
        with self._using() as connection:
            row = connection.execute(query, (value,)).fetchone()
        return None if row is None else from_row(row, self._user_id)

    def newest(self) -> int:
        """Return the `seq` of the newest event; 0 if there is none."""
        with self._using() as connection:
            [last] = connection.execute("SELECT COALESCE(MAX(seq), 0) FROM states").fetchone()
        return int(last)

    def accounts(self) -> list[StoredAccount]:
        """Return the accounts that have events here, or had them, by name. A single client's name is empty."""
        with self._using() as connection:
            rows = connection.execute(_ACCOUNTS).fetchall()
        return [
            StoredAccount(from_column(name), None if user_id is None else from_column(user_id), *counts)
            for name, user_id, *counts in rows
        ]

    def export(self) -> Iterator[StoredEvent]:
        """Yield all events that are there now, oldest first, a page of them in memory at a time."""
        place, last = 0, self.newest()
        while page := self.find(after=place, limit=_PAGE):
            for stored in page:
                if stored.seq > last:
                    return
                yield stored
            place = page[-1].seq

    def counts(self) -> JournalCounts:
        """Return how many events are in each state, and the size on disk."""
        with self._using() as connection:
            return count_all(connection, self.path)

    @property
    def user_id(self) -> str | None:
        """The id of the user whose events these are; None if nobody has signed in yet, or several have."""
        with self._using() as connection:
            return _user_of(connection)

    def close(self) -> None:
        """Let go of the file. May be called again."""
        self._connection = None
        self._stack.close()

    @contextlib.contextmanager
    def _using(self) -> Iterator[sqlite3.Connection]:
        if self._connection is None:
            raise StateError("the reader is closed")
        with translated(self.path):
            yield self._connection

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def retry(path: str | os.PathLike[str], seqs: Iterable[int] | None = None, *, account: str | None = None) -> int:
    """Make dead events pending again, with all attempts before them; return how many there were.

    The stream that owns the journal delivers them when it is started next, or looks for what is pending.

    Args:
        path: the journal's file.
        seqs: which; None for all that are dead.
        account: the name of their account; None: of all accounts.

    Raises:
        JournalError: there is no journal, or it cannot be written; the class says why.
    """
    with _opened(path) as (connection, _):
        if seqs is None:
            return _revive(connection, "dead", {"account": account})
        return sum(_revive(connection, "dead", {"first": seq, "last": seq, "account": account}) for seq in seqs)


def replay(
    path: str | os.PathLike[str],
    *,
    first: int | None = None,
    last: int | None = None,
    order_id: str | None = None,
    since: dt.datetime | None = None,
    account: str | None = None,
) -> int:
    """Make done events pending again for which everything holds that is given; return how many there were.

    The stream that owns the journal delivers them when it is started next, or looks for what is pending.

    Args:
        path: the journal's file.
        first: the lowest `seq`.
        last: the highest `seq`.
        order_id: their order.
        since: when they were received, or later; with a time zone.
        account: the name of their account; None: of all accounts.

    Raises:
        ConfigurationError: nothing is given, or a time without a zone.
        JournalError: there is no journal, or it cannot be written; the class says why.
    """
    given = {"first": first, "last": last, "order_id": order_id, "since": since}
    if all(value is None for value in given.values()):
        raise ConfigurationError("say which events to replay: first, last, order_id or since")
    if since is not None and since.tzinfo is None:
        raise ConfigurationError("since needs a time zone, as in datetime.now(timezone.utc)")
    with _opened(path) as (connection, _):
        return _revive(connection, "done", {**given, "account": account})


def _user_of(connection: sqlite3.Connection) -> str | None:
    """Return the user whose events are in a journal, if they are one user's."""
    try:
        rows = connection.execute("SELECT DISTINCT user_id FROM accounts WHERE user_id IS NOT NULL").fetchall()
    except sqlite3.OperationalError:  # a file of an older version, which has one user
        rows = connection.execute("SELECT user_id FROM meta WHERE user_id IS NOT NULL").fetchall()
    return from_column(rows[0][0]) if len(rows) == 1 else None


_CONDITIONS = {
    "after": "seq > :after",
    "first": "seq >= :first",
    "last": "seq <= :last",
    "order_id": "order_id = :order_id",
    "of_type": "type = :of_type",
    "account": "account = :account",
    "since": "received_ns >= :since",
}
# Spelled out, because SQLite uses the index of a state only if it sees the state in the query.
_STATES = {"pending": "state = 'pending'", "done": "state = 'done'", "dead": "state = 'dead'"}
_REVIVE = "UPDATE states SET state = 'pending', attempts = 0, settled_ns = NULL WHERE seq = ?"


def _select(columns: str, state: str | None, given: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return a query for the events for which everything holds that is given, and its values."""
    if state not in (None, *_STATES):
        raise ConfigurationError(f"state must be pending, done or dead, got {state!a}")
    values = {name: _value(value) for name, value in given.items() if value is not None}
    conditions = [_CONDITIONS[name] for name in values] + ([] if state is None else [_STATES[state]])
    where = " AND ".join(conditions)
    return f"SELECT {columns} FROM events WHERE {where} ORDER BY seq LIMIT :limit", values  # noqa: S608


def _value(value: str | int | dt.datetime) -> str | bytes | int:
    if isinstance(value, str):
        return to_column(value)
    if isinstance(value, dt.datetime):
        return to_integer((value - EPOCH) // dt.timedelta(microseconds=1) * 1000)
    return to_integer(value)


def _revive(connection: sqlite3.Connection, state: JournalState, given: Mapping[str, Any]) -> int:
    revived = place = 0
    while True:
        # In pages, so that the owner never waits for long to store what it receives.
        query, values = _select("seq", state, {**given, "after": place})
        with transaction(connection):
            page = connection.execute(query, {**values, "limit": _PAGE}).fetchall()
            connection.executemany(_REVIVE, page)
        if not page:
            return revived
        revived += len(page)
        [place] = page[-1]
