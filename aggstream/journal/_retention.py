"""Which done events are deleted, and when: a little at a time, so that nobody waits for it."""

from __future__ import annotations

import sqlite3

from aggstream._base.times import NS_PER_SECOND
from aggstream.journal._file import transaction
from aggstream.journal._schema import IS_OVER

# A step looks at so many events, and gives so many pages back: a few milliseconds each.
_EVENTS = 200
_PAGES = 256
# One page in so many may stay empty: what comes next fills it, without the file growing again.
_SPARE = 8

_OLDEST = """
SELECT seq, settled_ns FROM states
WHERE state = 'done' AND settled_ns >= :settled_ns AND (settled_ns > :settled_ns OR seq > :seq)
ORDER BY settled_ns, seq LIMIT :events
"""
# Deleted numbers are not used again either.
_REMEMBER = "UPDATE meta SET last_seq = MAX(last_seq, COALESCE((SELECT MAX(seq) FROM facts), 0))"
# An order is open while it has events and no end. So its events stay until it has one, and its end stays until
# nothing else of it is there, or what is left would look like an open order for ever.
_DELETE = f"""
DELETE FROM facts WHERE seq = ? AND (
    order_id IS NULL
    OR NOT terminal AND {IS_OVER}
    OR terminal AND NOT EXISTS (
        SELECT 1 FROM facts AS other
        WHERE other.account = facts.account AND other.order_id = facts.order_id AND NOT other.terminal
    )
)
"""  # noqa: S608


class Retention:
    """Deletes a little at a time, and remembers where to go on. Not thread-safe: the journal's lock guards it."""

    def __init__(self, *, keep_for: float, max_size: int) -> None:
        """Make one.

        Args:
            keep_for: seconds for which done events are kept.
            max_size: bytes past which the oldest of them are deleted early.
        """
        self._keep_for_ns = int(keep_for * NS_PER_SECOND)
        self._max_size = max_size
        self._place = (0, 0)

    def step(self, connection: sqlite3.Connection, path: str, now_ns: int) -> int:
        """Look at the oldest done events after the place, delete those that may go, and return their number."""
        deleted = 0
        with transaction(connection, path):
            settled_ns, seq = self._place
            oldest = {"settled_ns": settled_ns, "seq": seq, "events": _EVENTS}
            rows = connection.execute(_OLDEST, oldest).fetchall()
            # An event that may not go yet is passed over, and comes again once the place is back at the beginning.
            place = rows[-1][::-1] if len(rows) == _EVENTS else (0, 0)
            connection.execute(_REMEMBER)
            for seq, settled_ns in rows:
                if settled_ns >= now_ns - self._keep_for_ns and not self._is_too_large(connection):
                    place = (0, 0)
                    break
                if connection.execute(_DELETE, (seq,)).rowcount:
                    connection.execute("DELETE FROM states WHERE seq = ?", (seq,))
                    deleted += 1
        self._place = place
        self._shrink(connection)
        return deleted

    def _is_too_large(self, connection: sqlite3.Connection) -> bool:
        used = _pragma(connection, "page_count") - _pragma(connection, "freelist_count")
        return used * _pragma(connection, "page_size") > self._max_size

    def _shrink(self, connection: sqlite3.Connection) -> None:
        empty = _pragma(connection, "freelist_count") - _pragma(connection, "page_count") // _SPARE
        if empty > 0:
            # Not `execute`, which goes one step of a statement without columns, so would give one page back.
            connection.executescript(f"PRAGMA incremental_vacuum({min(empty, _PAGES)})")


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    [value] = connection.execute(f"PRAGMA {name}").fetchone()
    assert isinstance(value, int)
    return value
