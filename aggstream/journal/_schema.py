"""The tables of a journal's file."""

from __future__ import annotations

import sqlite3

from aggstream.errors import JournalError
from aggstream.journal._file import corrupt

VERSION = 3
SINGLE = 1
"""The number of the account with the empty name: that of a single client's events."""

# What is known of each account. Its number stands in the other tables.
_ACCOUNTS = """CREATE TABLE accounts (
    number INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    user_id TEXT,
    closed_ns INTEGER,
    last_timestamp INTEGER,
    last_received_ns INTEGER,
    history_until INTEGER,
    known_until INTEGER,
    is_searched INTEGER NOT NULL DEFAULT 0,
    old_ids_until INTEGER NOT NULL DEFAULT 0
)"""
_META = """CREATE TABLE meta (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    version INTEGER NOT NULL,
    owner_pid INTEGER,
    last_seq INTEGER NOT NULL DEFAULT 0
)"""
# Orders that were open when REST told of them, without an event that told the handlers.
_FOLLOWED = """CREATE TABLE followed (
    account INTEGER NOT NULL, order_id TEXT NOT NULL, PRIMARY KEY (account, order_id)
) WITHOUT ROWID"""
_INDEXES = (
    # An id is there once for an account. It is a hash, and an index of hashes alone would change in another page
    # for every event, all of which have to be written. So an id stands beside those that are stored at the same
    # time: that of an order's event with its order, any other by its time. Every repeat is found: with the same id
    # come the same order, and without an order the same time, because an id is made of them, or of the message.
    "CREATE UNIQUE INDEX facts_of_order ON facts (account, order_id, id) WHERE order_id IS NOT NULL",
    "CREATE UNIQUE INDEX facts_of_none ON facts (account, timestamp, id) WHERE order_id IS NULL",
    # `terminal` is in it so that SQLite need not look at the events themselves.
    "CREATE INDEX facts_ends ON facts (account, order_id, terminal) WHERE terminal",
    # One index for each state, with only that state's rows in it: what is pending is found, and each state is
    # counted, without a look at the others.
    "CREATE INDEX states_pending ON states (account, seq) WHERE state = 'pending'",
    "CREATE INDEX states_dead ON states (account, seq) WHERE state = 'dead'",
    "CREATE INDEX states_done ON states (settled_ns) WHERE state = 'done'",
)
# A reader need not know that it is several tables. The order of the columns is that of StoredEvent's fields.
# `seq` is that of `states`, so that pages of one state are read from that state's index.
_VIEW = """CREATE VIEW events AS
    SELECT states.seq AS seq, id, type, event, order_id, terminal, source, timestamp, received_ns, text,
        state, attempts, last_error, settled_ns, accounts.name AS account, accounts.user_id AS user_id
    FROM states JOIN accounts ON accounts.number = states.account
        JOIN facts ON facts.seq = states.seq AND facts.account = states.account"""

_SCHEMA = (
    _META,
    _ACCOUNTS,
    _FOLLOWED,
    # An event, which is written once, is apart from its state, which changes: to settle an event,
    # its text need not be written again.
    f"""CREATE TABLE facts (
        seq INTEGER PRIMARY KEY,
        id TEXT NOT NULL,
        type TEXT NOT NULL,
        event TEXT,
        order_id TEXT,
        terminal INTEGER NOT NULL,
        source TEXT NOT NULL,
        timestamp INTEGER NOT NULL,
        received_ns INTEGER NOT NULL,
        text TEXT NOT NULL,
        account INTEGER NOT NULL DEFAULT {SINGLE}
    )""",
    f"""CREATE TABLE states (
        seq INTEGER PRIMARY KEY,
        state TEXT NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'done', 'dead')),
        attempts INTEGER NOT NULL DEFAULT 0,
        last_error TEXT,
        settled_ns INTEGER,
        account INTEGER NOT NULL DEFAULT {SINGLE}
    )""",
    *_INDEXES,
    _VIEW,
    f"INSERT INTO meta (one, version) VALUES (1, {VERSION})",  # noqa: S608
    f"INSERT INTO accounts (number, name) VALUES ({SINGLE}, '')",  # noqa: S608
)


# True of a row of `facts` whose order has ended, or may have because nobody knows the last word about it.
# `terminal` is 2 if nobody knew the event's word when it was stored. A known status after it says that the order
# was still open.
IS_OVER = """
EXISTS (SELECT 1 FROM facts AS said
    WHERE said.account = facts.account AND said.order_id = facts.order_id AND said.terminal AND (
    said.terminal = 1 OR NOT EXISTS (
        SELECT 1 FROM facts AS later
        WHERE later.account = said.account AND later.order_id = said.order_id AND later.seq > said.seq
            AND later.type = 'order_event' AND NOT later.terminal
            AND later.event NOT GLOB 'dag_*' AND later.event NOT GLOB 'step_*'
    )
))
"""


_INDEXES_OF_2 = (
    "facts_of_order",
    "facts_of_none",
    "facts_ends",
    "states_pending",
    "states_dead",
    "states_done",
)
# From one version to the next. The events of version 1 have ids that were made in another way.
_UPGRADES = {
    1: (
        "ALTER TABLE meta ADD COLUMN known_until INTEGER",
        "ALTER TABLE meta ADD COLUMN is_searched INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE meta ADD COLUMN old_ids_until INTEGER NOT NULL DEFAULT 0",
        "UPDATE meta SET version = 2, old_ids_until = COALESCE((SELECT MAX(seq) FROM facts), 0)",
    ),
    2: (
        _ACCOUNTS,
        f"""INSERT INTO accounts
            SELECT {SINGLE}, '', user_id, closed_ns, last_timestamp, last_received_ns, history_until, known_until,
                is_searched, old_ids_until FROM meta""",  # noqa: S608
        "ALTER TABLE meta RENAME TO meta_2",
        _META,
        "INSERT INTO meta SELECT one, 3, owner_pid, last_seq FROM meta_2",
        "DROP TABLE meta_2",
        "ALTER TABLE followed RENAME TO followed_2",
        _FOLLOWED,
        f"INSERT INTO followed SELECT {SINGLE}, order_id FROM followed_2",  # noqa: S608
        "DROP TABLE followed_2",
        "DROP VIEW events",
        f"ALTER TABLE facts ADD COLUMN account INTEGER NOT NULL DEFAULT {SINGLE}",
        f"ALTER TABLE states ADD COLUMN account INTEGER NOT NULL DEFAULT {SINGLE}",
        *(f"DROP INDEX {name}" for name in _INDEXES_OF_2),
        *_INDEXES,
        _VIEW,
    ),
}


def is_new(connection: sqlite3.Connection) -> bool:
    """Return True if nothing is in the file yet."""
    return connection.execute("SELECT 1 FROM sqlite_master").fetchone() is None


def create(connection: sqlite3.Connection) -> None:
    """Fill a new file, inside a transaction."""
    for statement in _SCHEMA:
        connection.execute(statement)


def upgrade(connection: sqlite3.Connection) -> None:
    """Make a journal of an older version one of this version, inside a transaction."""
    [version] = connection.execute("SELECT version FROM meta").fetchone()
    for older in range(version, VERSION):
        for statement in _UPGRADES[older]:
            connection.execute(statement)


def check_version(connection: sqlite3.Connection, path: str) -> None:
    """See that the file is a journal of this version, or of an older one.

    Raises:
        JournalError: it is a journal of a newer version.
        JournalCorrupt: it is something else.
    """
    names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if not {"meta", "facts"} <= names:
        raise corrupt(path, "it is a database, but no journal")
    row = connection.execute("SELECT version FROM meta").fetchone()
    version = row and row[0]
    if isinstance(version, int) and version > VERSION:
        raise JournalError(
            f"the journal {path} was written by a newer aggstream (its version is {version}, this one "
            f"knows {VERSION}): install that one, or give this one a journal of its own. It is left as it is",
            path=path,
        )
    if version not in (*_UPGRADES, VERSION):
        raise corrupt(path, f"its version is {version!a}, this aggstream knows {VERSION}")
