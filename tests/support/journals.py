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
