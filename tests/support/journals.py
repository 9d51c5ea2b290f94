"""Events for journals, and programs that use one in a process of their own."""

from __future__ import annotations

import hashlib
import itertools
import json
import pathlib
import sqlite3
import subprocess
import sys
import time

from aggstream._base.limits import Limits
from aggstream._protocol.codec import Codec
from aggstream.events import OrderEvent, UserEvent

CODEC = Codec(Limits())
_numbers = itertools.count(1_710_000_000_000)


def happened(
    order_id: str,
    event: str = "dag_started",
    *,
    timestamp: int | None = None,
    filled: str | None = None,
    remaining: str | None = None,
) -> OrderEvent:
    """Return an event of an order, each one another."""
    message = {
        "type": "order_event",
        "event": event,
        "orderId": order_id,
        "timestamp": next(_numbers) if timestamp is None else timestamp,
    }
    amounts = {"filledAmountRaw": filled, "remainingAmountRaw": remaining}
    message |= {name: text for name, text in amounts.items() if text is not None}
    made = CODEC.decode(json.dumps(message), time.time_ns())
    assert isinstance(made, OrderEvent)
    return made


# Its table of words: which of them are the end.
_STATUSES_OF_VERSION_1 = {
    "partially_filled": False,
    "filled": True,
    "failed": True,
    "cancelled": True,
    "expired": True,
}


def id_of_version_1(event: UserEvent) -> str:
    """Return the id that aggstream 0.1 made for an event, by its own rule and its own table of words."""
    parts = [event.TYPE, event.text]
    if isinstance(event, OrderEvent):
        word = event.event.removeprefix("order_")
        is_end = _STATUSES_OF_VERSION_1.get(word)
        text = event.filled_amount_text
        amount = int(text) if text is not None and text.isdigit() else None
        if event.source == "reconcile" or is_end is not None:
            parts = ["status", event.order_id, word, "" if is_end else str(amount)]
    return hashlib.blake2b("\0".join(parts).encode(), digest_size=12).hexdigest()


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


def is_intact(path: pathlib.Path) -> bool:
    """Tell whether SQLite finds nothing wrong with a file."""
    connection = sqlite3.connect(path)
    try:
        return connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    finally:
        connection.close()


_OF_VERSION_2 = """
DROP VIEW events;
DROP INDEX facts_of_order; DROP INDEX facts_of_none; DROP INDEX facts_ends;
DROP INDEX states_pending; DROP INDEX states_dead; DROP INDEX states_done;
CREATE TABLE meta_2 (
    one INTEGER PRIMARY KEY CHECK (one = 1), version INTEGER NOT NULL, user_id TEXT, owner_pid INTEGER,
    closed_ns INTEGER, last_timestamp INTEGER, last_received_ns INTEGER, history_until INTEGER,
    known_until INTEGER, is_searched INTEGER NOT NULL DEFAULT 0, old_ids_until INTEGER NOT NULL DEFAULT 0,
    last_seq INTEGER NOT NULL DEFAULT 0
);
INSERT INTO meta_2 SELECT 1, 2, user_id, owner_pid, closed_ns, last_timestamp, last_received_ns, history_until,
    known_until, is_searched, old_ids_until, last_seq FROM meta, accounts WHERE name = '';
DROP TABLE meta; DROP TABLE accounts; ALTER TABLE meta_2 RENAME TO meta;
CREATE TABLE followed_2 (order_id TEXT PRIMARY KEY) WITHOUT ROWID;
INSERT INTO followed_2 SELECT order_id FROM followed;
DROP TABLE followed; ALTER TABLE followed_2 RENAME TO followed;
ALTER TABLE facts DROP COLUMN account;
ALTER TABLE states DROP COLUMN account;
CREATE UNIQUE INDEX facts_of_order ON facts (order_id, id) WHERE order_id IS NOT NULL;
CREATE UNIQUE INDEX facts_of_none ON facts (timestamp, id) WHERE order_id IS NULL;
CREATE INDEX facts_ends ON facts (order_id, terminal) WHERE terminal;
CREATE INDEX states_pending ON states (seq) WHERE state = 'pending';
CREATE INDEX states_dead ON states (seq) WHERE state = 'dead';
CREATE INDEX states_done ON states (settled_ns) WHERE state = 'done';
CREATE VIEW events AS
    SELECT seq, id, type, event, order_id, terminal, source, timestamp, received_ns, text,
        state, attempts, last_error, settled_ns
    FROM states JOIN facts USING (seq);
"""


def make_version_2(path: pathlib.Path) -> None:
    """Make a journal that nobody owns one of version 2, which was a single client's."""
    connection = sqlite3.connect(path)
    connection.executescript(_OF_VERSION_2)
    connection.close()
