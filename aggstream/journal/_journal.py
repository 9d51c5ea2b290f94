"""The owner's handle on a journal."""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeGuard

from aggstream._base.fork_and_exit import call_in_child
from aggstream._base.text import shown
from aggstream.errors import JournalError, JournalFull, StateError, UserMismatch
from aggstream.events import OrderEvent, OrderSubmitted, UserEvent
from aggstream.events._user import id_of_version_1, is_among
from aggstream.journal._file import (
    BUSY_TIMEOUT,
    connect,
    create_private,
    from_column,
    make_private,
    never_close,
    patiently,
    places_of,
    to_column,
    to_integer,
    transaction,
    translated,
)
from aggstream.journal._file_lock import FileLock
from aggstream.journal._options import JournalOptions
from aggstream.journal._retention import Retention
from aggstream.journal._schema import IS_OVER, check_version, create, is_new, upgrade
from aggstream.journal._store import StoreMemory
from aggstream.journal._stored import (
    INSERT,
    JournalCounts,
    StoredEvent,
    count_all,
    from_row,
    last_times,
    to_row,
    understood,
)

if TYPE_CHECKING:
    from typing_extensions import Self

logger = logging.getLogger("aggstream.journal")

_SHOWN_ERROR = 500
_SHOWN_USER = 40
# The log is merged into the file when it has so many pages. A page that was written many times is merged once, and
# what is merged is waited for, so more at once costs less, but one `store` in some then takes longer: about 15 ms.
_WAL_PAGES = 2000
# The log is cut to this size, if a reader or a large transaction once made it grow beyond it.
_WAL_SIZE = 16 << 20


class Journal:
    """A journal that this process owns, until it is closed or the process ends. All methods are thread-safe.

    Every method may block for as long as the disk takes, or as another program, a backup say, holds a lock on it.
    If one raises a `JournalError`, nothing of what it was to change is changed, what was stored before is safe,
    and the handle can be used further.

    Raises (from every method but `close`):
        JournalFull: the disk is full, or fails.
        JournalCorrupt: the file is damaged.
        JournalError: the files were moved or deleted. What they held is saved beside them.
        StateError: the journal is closed, or this is a forked child of the process that opened it.
    """

    def __init__(self, options: JournalOptions) -> None:
        """Open the file and own it. It is made, for the user's eyes only, if it is not there.

        Raises:
            JournalInUse: another handle owns it, of this process or another one; says which.
            JournalCorrupt: it is damaged, or is something else. It is left as it is.
            JournalFull: it cannot be made, opened or written.
        """
        self.options = options
        self.path = os.path.realpath(options.path)  # two names of one file have one owner
        # Guards the connection: SQLite's own lock would let the transactions of two threads mix.
        self._lock = threading.Lock()
        self._is_childs = False
        self._owner: FileLock | None = None
        self._connection: sqlite3.Connection | None = None
        self._retention = Retention(keep_for=options.keep_for, max_size=options.max_size)
        # When the owner before this one closed it; None if it was killed, or if there was none.
        self._closed_ns: int | None = None
        # What tells the files from others that may stand in their places: the journal's, the lock's, and SQLite's
        # log of what is not merged yet with its index.
        self._places: tuple[tuple[int, int] | None, ...] = ()
        self._watched = tuple(self.path + end for end in ("", "-owner", "-wal", "-shm"))
        # Up to this number events have ids of version 1.
        self._old_ids_until = 0
        self._user_id: str | None = None
        try:
            self._owner = FileLock(self.path)
            self._open()
            call_in_child(self, Journal._abandon)
        except BaseException:  # whatever was raised: the file must not stay owned
            self._release()
            raise

    def _open(self) -> None:
        create_private(self.path)
        with translated(self.path):
            self._connection = connection = connect(self.path)
            new = is_new(connection)
            if new:
                connection.execute("PRAGMA auto_vacuum = INCREMENTAL")  # has no effect later
            else:
                check_version(connection, self.path)
            make_private(self.path)
            self._places = self._places_now()
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
                self._closed_ns, self._old_ids_until, user_id = connection.execute(
                    "SELECT closed_ns, old_ids_until, user_id FROM meta"
                ).fetchone()
                self._user_id = None if user_id is None else from_column(user_id)
                connection.execute("UPDATE meta SET owner_pid = ?, closed_ns = NULL", (os.getpid(),))
            # Only now is the log certainly there.
            self._places = (*self._places[:2], *self._places_now()[2:])

    # --- the life of an event ---------------------------------------------------------------------------

    def store(self, events: Sequence[UserEvent], *, complete: bool = True) -> list[int | None]:
        """Write events, in one transaction: when this returns, they are on disk.

        Args:
            events: the events.
            complete: whether everything is known that happened before them. If not, `last_timestamp` and
                `last_received_ns` stay where they are, for a later process to begin there.

        Returns:
            For each event its `seq`; None for one that is stored already, so it is a repeat.

        Raises:
            ValueError: an event was made without its text. Nothing is stored.
        """
        rows: list[tuple[object, ...] | None] = [to_row(event) for event in events]
        if not rows:
            return []
        with self._writing() as connection:
            last, anything_followed = connection.execute(_BEFORE).fetchone()
            if self._old_ids_until:
                old = self._old_by_order(connection, events)
                rows = [
                    None if self._has_old(connection, event, old) else row
                    for event, row in zip(events, rows, strict=True)
                ]
            seqs = _insert(connection, rows, last)
            if anything_followed:
                ends = [(to_column(event.order_id),) for event in events if _is_end(event)]
                connection.executemany("DELETE FROM followed WHERE order_id = ?", ends)
            fresh = [event for event, seq in zip(events, seqs, strict=True) if seq is not None]
            if fresh and complete:
                connection.execute(_LAST, last_times(fresh))
        return seqs

    def _old_by_order(
        self, connection: sqlite3.Connection, events: Sequence[UserEvent]
    ) -> dict[str, list[UserEvent]]:
        """Return what version 1 stored of the orders of some events."""
        old: dict[str, list[UserEvent]] = {}
        for order_id in {event.order_id for event in events if isinstance(event, (OrderEvent, OrderSubmitted))}:
            rows = connection.execute(_OLD_OF_ORDER, (to_column(order_id), self._old_ids_until))
            old[order_id] = understood(from_row(row, self._user_id) for row in rows)
        return old

    def _has_old(
        self, connection: sqlite3.Connection, event: UserEvent, old: Mapping[str, Sequence[UserEvent]]
    ) -> bool:
        """Return True if version 1 has stored an event, under the id that it made for it."""
        if isinstance(event, (OrderEvent, OrderSubmitted)):
            return is_among(event, old[event.order_id])
        values = (id_of_version_1(event), self._old_ids_until, to_integer(event.timestamp))
        return connection.execute(_OLD_OF_NONE, values).fetchone() is not None

    def done(self, seqs: Sequence[int]) -> None:
        """Note, in one transaction, that the handlers of these pending events have finished."""
        if not seqs:
            return
        now = time.time_ns()
        with self._writing() as connection:
            connection.executemany(
                "UPDATE states SET state = 'done', settled_ns = ? WHERE seq BETWEEN ? AND ? AND state = 'pending'",
                [(now, first, last) for first, last in _ranges(seqs)],
            )

    def failed(self, seq: int, error_text: str, *, final: bool = False) -> bool:
        """Note that a handler of this pending event has failed; return True if the event is dead now.

        Args:
            seq: which event.
            error_text: what went wrong; a short line of it is kept.
            final: set it aside as dead at once, and count no attempt: its text is not understood, say.
        """
        values = {
            "seq": seq,
            "words": _line(error_text),
            "attempts": 0 if final else 1,
            "most": 0 if final else self.options.max_attempts,
            "now": time.time_ns(),
        }
        with self._writing() as connection:
            connection.execute(_FAILED, values)
            row = connection.execute("SELECT state FROM states WHERE seq = ?", (seq,)).fetchone()
        return row is not None and row[0] == "dead"

    # --- what is in it ----------------------------------------------------------------------------------

    def pending(self, after: int = 0, limit: int = 500) -> list[StoredEvent]:
        """Return the pending events that were stored after the event `after`, oldest first, at most `limit`."""
        query = "SELECT * FROM events WHERE state = 'pending' AND seq > ? ORDER BY seq LIMIT ?"
        return self._events(query, after, limit)

    def events_of(self, order_id: str) -> list[StoredEvent]:
        """Return all events of an order, oldest first."""
        return self._events("SELECT * FROM events WHERE order_id = ? ORDER BY seq", to_column(order_id))

    def recall(self) -> StoreMemory:
        """Return what earlier streams knew when they ended. Looks at all events.

        A `timestamp` that was more than a day ahead of its event's receipt does not count: it is no time.
        """
        with self._using() as connection:
            last_timestamp, last_received_ns, history_until, known_until, is_searched = connection.execute(
                "SELECT last_timestamp, last_received_ns, history_until, known_until, is_searched FROM meta"
            ).fetchone()
            open_orders = connection.execute(_OPEN_ORDERS).fetchall()
        return StoreMemory(
            last_timestamp=last_timestamp,
            last_received_ns=last_received_ns,
            closed_ns=self._closed_ns,
            history_until=history_until,
            known_until=known_until,
            is_searched=bool(is_searched),
            open_orders=frozenset(from_column(order_id) for (order_id,) in open_orders),
        )

    def remember(
        self,
        *,
        open_orders: Iterable[str] = (),
        history_until: int | None = None,
        known_until: int | None = None,
        is_searched: bool = False,
    ) -> None:
        """Keep for later streams which orders are open though no event says so, and up to when all was over.

        Args:
            open_orders: they are open until their terminal event is stored.
            history_until: the service's time in milliseconds; the first one that is given is kept.
            known_until: the service's time in milliseconds; the largest one that is given is kept.
            is_searched: whether all old open orders were searched for.
        """
        followed = [(to_column(order_id),) for order_id in open_orders]
        with self._writing() as connection:
            connection.executemany("INSERT INTO followed VALUES (?) ON CONFLICT DO NOTHING", followed)
            if history_until is not None:
                connection.execute(
                    "UPDATE meta SET history_until = COALESCE(history_until, ?)", (to_integer(history_until),)
                )
            if known_until is not None:
                connection.execute(
                    "UPDATE meta SET known_until = MAX(COALESCE(known_until, :at), :at)",
                    {"at": to_integer(known_until)},
                )
            if is_searched:
                connection.execute("UPDATE meta SET is_searched = 1")

    def counts(self) -> JournalCounts:
        """Return how many events are in each state, and the size on disk. Takes longer the more there are."""
        with self._using() as connection:
            return count_all(connection, self.path)

    # --- whose it is ------------------------------------------------------------------------------------

    @property
    def user_id(self) -> str | None:
        """The id of the user whose events these are; None if no user has signed in yet."""
        value: str | bytes | None = self._value("SELECT user_id FROM meta")
        return None if value is None else from_column(value)

    def belongs_to(self, user_id: str) -> None:
        """Keep at first whose events these are, and since when; later see that they are still the same user's.

        Raises:
            UserMismatch: they are another user's.
        """
        owner = self.user_id
        if owner is None:
            with self._writing() as connection:
                connection.execute(
                    "UPDATE meta SET user_id = ?, last_received_ns = COALESCE(last_received_ns, ?)",
                    (to_column(user_id), time.time_ns()),
                )
            self._user_id = user_id
        elif owner != user_id:
            new, old = shown(user_id, _SHOWN_USER), shown(owner, _SHOWN_USER)
            raise UserMismatch(
                f"the token signs in {new}, but the journal {self.path} holds the events of {old}; "
                f"give each user a journal of its own"
            )

    # --- keeping it small -------------------------------------------------------------------------------

    def retention(self, now_ns: int) -> int:
        """Delete some of the done events that are too old, or too many; give the space back to the disk.

        Events of an order that has not ended stay, and of one that has ended the end goes last. Does little at a
        time: call it again soon while it returns more than 0, else every few minutes.

        Args:
            now_ns: the time, in nanoseconds since the epoch.

        Returns:
            How many were deleted.
        """
        with self._using() as connection:
            return self._retention.step(connection, self.path, now_ns)

    def checkpoint(self) -> None:
        """Merge what was written into the file, as far as readers let it; SQLite itself does so now and then."""
        with self._using() as connection:
            _merge(connection)

    # --- the life of the handle -------------------------------------------------------------------------

    def hint(self, seq: int) -> str:
        """Return the command that shows an event."""
        return f"aggstream journal show {self.path} {seq}"

    def leave(self) -> None:
        """Do nothing: no thread holds anything of its own."""

    def close(self) -> None:
        """Merge what was written into the file, and let somebody else own it. May be called again.

        Never fails: what could go wrong costs no event. In a forked child it leaves everything to the parent.
        """
        with self._lock:
            connection = self._connection
            if connection is not None:
                if self._places_now() != self._places:
                    logger.error("%s", self._gone())
                with contextlib.suppress(sqlite3.Error), transaction(connection):
                    connection.execute("UPDATE meta SET owner_pid = NULL, closed_ns = ?", (time.time_ns(),))
                with contextlib.suppress(sqlite3.Error):
                    _merge(connection)
                self._release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _release(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.close()
        if self._owner is not None:
            self._owner.release()

    def _abandon(self) -> None:
        """Forget the files, in a forked child: they are its parent's."""
        self._lock = threading.Lock()
        self._is_childs = True
        connection, self._connection = self._connection, None
        if connection is not None and self._owner is not None:
            never_close(connection)
            never_close(self._owner.connection)

    @contextlib.contextmanager
    def _using(self, *, writes: bool = False) -> Iterator[sqlite3.Connection]:
        with self._lock, translated(self.path):
            if self._is_childs:
                raise StateError("the journal belongs to the parent process: open one in the process that uses it")
            if self._connection is None:
                raise StateError("the journal is closed")
            if not writes:
                patiently(self._connection, self.path, "SELECT 1 FROM meta")
            yield self._connection

    @contextlib.contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._using(writes=True) as connection:
            if self._places_now() != self._places:
                raise self._gone()
            with transaction(connection, self.path):
                yield connection

    def _places_now(self) -> tuple[tuple[int, int] | None, ...]:
        return places_of(*self._watched)

    def _gone(self) -> JournalError:
        """Save what is stored, and return the error that tells of it: the files are not in their places any more.

        Another stream could make a journal of its own in this one's place, and nobody would find what is stored
        here.
        """
        assert self._connection is not None
        place = self._places_now()[0]
        saved = self.path
        # If only a file beside it is gone, what is in the log can still be merged into it.
        if place != self._places[0] or not _is_merged(self._connection):
            saved += "" if place is None else f".saved-{time.time_ns()}"
            with contextlib.suppress(sqlite3.Error, OSError, JournalError):
                create_private(saved)
                with contextlib.closing(connect(saved)) as copy:
                    self._connection.backup(copy)
        self._places = self._places_now()
        return JournalError(
            f"the journal {self.path} was moved or deleted while a stream used it. What is stored stands in "
            f"{saved} now; start again with that file, and leave it and the files beside it in their places",
            path=self.path,
        )

    def _events(self, query: str, *values: object) -> list[StoredEvent]:
        with self._using() as connection:
            rows = connection.execute(query, values).fetchall()
        return [from_row(row, self._user_id) for row in rows]

    def _value(self, query: str, *values: object) -> Any:
        with self._using() as connection:
            row = connection.execute(query, values).fetchone()
        return row[0]


# The number after which the next event's comes, and whether any orders are followed, which hardly ever are.
_BEFORE = """
SELECT MAX(last_seq, COALESCE((SELECT MAX(seq) FROM facts), 0)), EXISTS (SELECT 1 FROM followed) FROM meta
"""
_FAILED = """
UPDATE states SET attempts = attempts + :attempts, last_error = :words,
    state = CASE WHEN attempts + :attempts < :most THEN 'pending' ELSE 'dead' END,
    settled_ns = CASE WHEN attempts + :attempts < :most THEN NULL ELSE :now END
WHERE seq = :seq AND state = 'pending'
"""
_OPEN_ORDERS = f"""
SELECT order_id FROM facts WHERE order_id IS NOT NULL GROUP BY order_id HAVING NOT {IS_OVER}
UNION SELECT order_id FROM followed
"""  # noqa: S608
_LAST = """
UPDATE meta SET last_received_ns = :received_ns,
    last_timestamp = MAX(COALESCE(last_timestamp, :timestamp), COALESCE(:timestamp, last_timestamp))
"""


_OLD_OF_ORDER = "SELECT * FROM events WHERE order_id = ? AND seq <= ?"
_OLD_OF_NONE = "SELECT 1 FROM facts WHERE id = ? AND seq <= ? AND timestamp = ? AND order_id IS NULL"


def _insert(
    connection: sqlite3.Connection, rows: Sequence[tuple[object, ...] | None], last: int
) -> list[int | None]:
    """Insert rows with the numbers after `last`; return for each its number, or None for a repeat.

    A row that is None is known to be a repeat.
    """
    numbers = range(last + 1, last + 1 + len(rows))
    fresh = [(seq, *row) for seq, row in zip(numbers, rows, strict=True) if row is not None]
    connection.executemany(INSERT, fresh)
    stored = {seq for (seq,) in connection.execute("SELECT seq FROM facts WHERE seq > ?", (last,))}
    connection.execute("INSERT INTO states (seq) SELECT seq FROM facts WHERE seq > ?", (last,))
    return [seq if seq in stored else None for seq in numbers]


def _ranges(seqs: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Yield the first and the last of each run of numbers without a gap."""
    ordered = sorted(seqs)
    first = last = ordered[0]
    for seq in ordered:
        if seq > last + 1:
            yield first, last
            first = seq
        last = seq
    yield first, last


def _is_end(event: UserEvent) -> TypeGuard[OrderEvent]:
    return isinstance(event, OrderEvent) and event.is_terminal


def _line(text: str) -> str:
    return shown(text, _SHOWN_ERROR)[1:-1]  # without the quotes, which mark a text inside others


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
