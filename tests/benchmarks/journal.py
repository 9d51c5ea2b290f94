"""Measure how many events a second a journal stores and settles, and how long one batch takes.

    python tests/benchmarks/journal.py [--directory /var/lib/app] [--seconds 2]

The disk decides, so measure on the one that will hold the journal. Prints a table: for each `synchronous` and size
of a batch the events stored a second, the median and 99th percentile of one `store`, and the events done a second.
The last column is the floor: the events a second that SQLite itself stores in the same tables with the same
indexes, by one statement a table, without anything around it.

The events are of 50 orders at a time, each of which ends with its tenth event. With `--one-order` they are of one
order that never ends, which is the worst case for the index of an order's events.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import itertools
import json
import pathlib
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any, Literal

from aggstream._base.limits import Limits
from aggstream._protocol.codec import Codec
from aggstream.events import UserEvent
from aggstream.journal import Journal, JournalOptions
from aggstream.journal._file import connect, transaction
from aggstream.journal._owned_file import _WAL_PAGES, _WAL_SIZE
from aggstream.journal._stored import INSERT, to_row

_ALIVE = 50
_EVENTS_OF_ONE = 10

MESSAGE = {
    "type": "order_event",
    "event": "step_completed",
    "userId": "usr_xyz789",
    "orderId": "ord_abc123",
    "venue": "kalshi",
    "filledAmountRaw": "1000000000000000000",
    "remainingAmountRaw": "0",
    "dagRunId": "run_0123456789",
    "stepId": "step_0123456789",
    "stepType": "execute_trade",
    "templateName": "buy_on_venue",
    "attempt": 0,
}


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure how fast a journal stores and settles events.")
    parser.add_argument("--directory", type=pathlib.Path, help="where the file is made; default: a temporary one")
    parser.add_argument("--seconds", type=float, default=2.0, help="for each row (default: 2)")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16, 256], help="sizes (default: 1 16 256)")
    parser.add_argument("--one-order", action="store_true", help="all events are of one order that never ends")
    options = parser.parse_args()
    sys.stdout.write(
        f"{'synchronous':<12}{'batch':>6}{'stored/s':>11}{'p50 ms':>9}{'p99 ms':>9}{'done/s':>10}{'floor/s':>11}\n"
    )
    modes: tuple[Literal["normal", "full"], ...] = ("normal", "full")
    for mode in modes:
        for batch in options.batches:
            with tempfile.TemporaryDirectory(dir=options.directory) as directory:
                path = pathlib.Path(directory, "journal.db")
                with Journal(JournalOptions(path=path, synchronous=mode)) as journal:
                    row, count = measure(journal, happening(one_order=options.one_order), batch, options.seconds)
            floor = measure_sqlite(options, mode, batch, count)
            row += f"{floor:>11,.0f}"
            sys.stdout.write(f"{mode:<12}{batch:>6}{row}\n")
    return 0


def happening(*, one_order: bool) -> Iterator[UserEvent]:
    """Yield events for ever."""
    codec, orders = Codec(Limits()), random.Random(1)
    alive: collections.Counter[str] = collections.Counter()
    for number in itertools.count(1_710_000_000_000):
        message: dict[str, Any] = {**MESSAGE, "timestamp": number}
        if not one_order:
            while len(alive) < _ALIVE:
                alive[f"ord_{orders.getrandbits(64):016x}"] = 0
            message["orderId"] = order_id = orders.choice(list(alive))
            alive[order_id] += 1
            if alive[order_id] == _EVENTS_OF_ONE:
                message["event"] = "filled"
                del alive[order_id]
        event = codec.decode(json.dumps(message), time.time_ns())
        assert isinstance(event, UserEvent)
        yield event


def measure(journal: Journal, happens: Iterator[UserEvent], batch: int, seconds: float) -> tuple[str, int]:
    """Return the figures, and of how many events they are."""
    count = 0
    storing: list[float] = []
    settling: list[float] = []
    while sum(storing) + sum(settling) < seconds or len(storing) < 2:
        events = list(itertools.islice(happens, batch))
        began = time.perf_counter()
        seqs = journal.store(events)
        stored = time.perf_counter()
        journal.done([seq for seq in seqs if seq is not None])
        settling.append(time.perf_counter() - stored)
        storing.append(stored - began)
        count += batch
    cuts = statistics.quantiles(storing, n=100)
    return (
        f"{count / sum(storing):>11,.0f}{cuts[49] * 1000:>9.2f}{cuts[98] * 1000:>9.2f}"
        f"{count / sum(settling):>10,.0f}"
    ), count


def measure_sqlite(options: argparse.Namespace, mode: Literal["normal", "full"], batch: int, count: int) -> float:
    """Return how many events a second go into the journal's tables when rows are all that there is to do."""
    happens, storing = happening(one_order=options.one_order), 0.0
    with tempfile.TemporaryDirectory(dir=options.directory) as directory:
        path = str(pathlib.Path(directory, "journal.db"))
        Journal(JournalOptions(path=path)).close()
        with contextlib.closing(connect(path)) as connection:
            connection.execute(f"PRAGMA synchronous = {mode}")
            connection.execute(f"PRAGMA wal_autocheckpoint = {_WAL_PAGES}")
            connection.execute(f"PRAGMA journal_size_limit = {_WAL_SIZE}")
            for first in range(1, count + 1, batch):
                seqs = range(first, first + batch)
                facts = [(1, seq, *to_row(event)) for seq, event in zip(seqs, happens, strict=False)]
                began = time.perf_counter()
                with transaction(connection):
                    connection.executemany(INSERT, facts)
                    connection.execute("INSERT INTO states (seq) SELECT seq FROM facts WHERE seq >= ?", (first,))
                storing += time.perf_counter() - began
                # As in the journal, what is done leaves the index of what is pending.
                with transaction(connection):
                    connection.execute(
                        "UPDATE states SET state = 'done', settled_ns = 1 "
                        "WHERE account = 1 AND state = 'pending' AND seq >= ?",
                        (first,),
                    )
    return count / storing


if __name__ == "__main__":
    sys.exit(main())
