"""Measure how many events a second a journal stores and settles, and how long one batch takes.

    python tests/benchmarks/journal.py [--directory /var/lib/app] [--seconds 2]

The disk decides, so measure on the one that will hold the journal. Prints a table: for each `synchronous` and size
of a batch the events stored a second, the median and 99th percentile of one `store`, and the events done a second.
"""

from __future__ import annotations

import argparse
import itertools
import json
import pathlib
import statistics
import sys
import tempfile
import time
from typing import Literal

from aggstream._codec import Codec
from aggstream._limits import Limits
from aggstream.events import UserEvent
from aggstream.journal import Journal, JournalOptions

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
    options = parser.parse_args()
    sys.stdout.write(f"{'synchronous':<12}{'batch':>6}{'stored/s':>11}{'p50 ms':>9}{'p99 ms':>9}{'done/s':>10}\n")
    modes: tuple[Literal["normal", "full"], ...] = ("normal", "full")
    for mode in modes:
        for batch in options.batches:
            with tempfile.TemporaryDirectory(dir=options.directory) as directory:
                path = pathlib.Path(directory, "journal.db")
                with Journal(JournalOptions(path=path, synchronous=mode)) as journal:
                    row = measure(journal, batch, options.seconds)
            sys.stdout.write(f"{mode:<12}{batch:>6}{row}\n")
    return 0


def measure(journal: Journal, batch: int, seconds: float) -> str:
    codec, numbers, count = Codec(Limits()), itertools.count(1), 0
    storing: list[float] = []
    settling: list[float] = []
    while sum(storing) + sum(settling) < seconds or len(storing) < 2:
        events: list[UserEvent] = []
        for number in itertools.islice(numbers, batch):
            event = codec.decode(json.dumps({**MESSAGE, "timestamp": number}), time.time_ns())
            assert isinstance(event, UserEvent)
            events.append(event)
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
    )


if __name__ == "__main__":
    sys.exit(main())
