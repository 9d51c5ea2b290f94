"""Events for journals, and programs that use one in a process of their own."""

from __future__ import annotations

import itertools
import json
import pathlib
import sqlite3
import subprocess
import sys
import time
from collections.abc import Sequence

from aggstream._codec import Codec
from aggstream._limits import Limits
from aggstream.events import OrderEvent, UserEvent
from aggstream.journal._stored import to_row

CODEC = Codec(Limits())
_numbers = itertools.count(1_710_000_000_000)


def happened(order_id: str, event: str = "dag_started", *, timestamp: int | None = None) -> OrderEvent:
    """Return an event of an order, each one another."""
    message = {
        "type": "order_event",
        "event": event,
        "orderId": order_id,
        "timestamp": next(_numbers) if timestamp is None else timestamp,
    }
    made = CODEC.decode(json.dumps(message), time.time_ns())
    assert isinstance(made, OrderEvent)
    return made


PRELUDE = """
import itertools, os, random, signal, sys, threading, time
import aggstream
from aggstream.journal import Journal, JournalOptions, JournalReader
from journals import happened

def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())

def own(**options):
    return Journal(JournalOptions(path=sys.argv[1], **options))
"""


def run(program: str, path: pathlib.Path, *arguments: object) -> subprocess.Popen[str]:
    """Start a program with a journal's path as its first argument."""
    here = str(pathlib.Path(__file__).parent)
    return subprocess.Popen(
        [
            sys.executable,
            # Python 3.12 warns of a fork beside threads, which is what some of these are about.
            *(
                "-W",
                "ignore::DeprecationWarning",
                "-c",
                f"import sys; sys.path.append({here!r})\n{PRELUDE}{program}",
            ),
            *map(str, (path, *arguments)),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


_VERSION_1 = """
CREATE TABLE meta (
    one INTEGER PRIMARY KEY CHECK (one = 1), version INTEGER NOT NULL, user_id TEXT, owner_pid INTEGER,
    closed_ns INTEGER, last_timestamp INTEGER, last_received_ns INTEGER
);
CREATE TABLE events (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT UNIQUE NOT NULL, type TEXT NOT NULL, event TEXT, order_id TEXT,
    terminal INTEGER NOT NULL, source TEXT NOT NULL, timestamp INTEGER NOT NULL, received_ns INTEGER NOT NULL,
    text TEXT NOT NULL,
    state TEXT NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'done', 'dead')),
    attempts INTEGER NOT NULL DEFAULT 0, last_error TEXT, settled_ns INTEGER
);
CREATE TABLE followed (order_id TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE INDEX events_pending ON events (seq) WHERE state = 'pending';
CREATE INDEX events_dead ON events (seq) WHERE state = 'dead';
CREATE INDEX events_done ON events (settled_ns) WHERE state = 'done';
CREATE INDEX events_of_order ON events (order_id, terminal) WHERE order_id IS NOT NULL;
INSERT INTO meta VALUES (1, 1, 'usr_1', NULL, 5, 6, 7);
INSERT INTO followed VALUES ('followed');
"""


def write_version_1(path: pathlib.Path, events: Sequence[UserEvent]) -> None:
    """Write a journal as the first version of its file was: the events by turns done, dead and pending.

    One more was stored last, and is deleted.
    """
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.executescript(_VERSION_1)
    settled = itertools.cycle([("done", 1, "once", 11), ("dead", 5, "always", 12), ("pending", 2, "twice", None)])
    for event, how in zip([*events, happened("deleted")], settled, strict=False):
        connection.execute(
            "INSERT INTO events VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", (*to_row(event), *how)
        )
    connection.execute("DELETE FROM events WHERE order_id = 'deleted'")
    connection.close()


def is_intact(path: pathlib.Path) -> bool:
    """Tell whether SQLite finds nothing wrong with a file."""
    connection = sqlite3.connect(path)
    try:
        return connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    finally:
        connection.close()
