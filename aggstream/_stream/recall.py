"""What the journal of an earlier process knows of orders, for the tracker of this one."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

from aggstream._base.times import NS_PER_MS
from aggstream._stream.catch_up import Reconciler
from aggstream._stream.gaps import Outage
from aggstream.errors import DecodeError
from aggstream.orders._tracker import Tracker

if TYPE_CHECKING:
    from aggstream.journal import EventStore


def take_up(journal: EventStore, outage: Outage, reconciler: Reconciler, tracker: Tracker) -> None:
    """Take up where an earlier process has ended: in a gap, with the orders that it knew to be open.

    Raises:
        JournalError: the journal cannot be read.
    """
    received_ns, timestamp = journal.last_received_ns(), journal.last_timestamp()
    if received_ns is None:
        return
    outage.begin_in_gap(max(received_ns, journal.closed_ns or 0))
    # Of a service that had told nothing yet, at least what is older than the first connection is no news.
    since = received_ns // NS_PER_MS if timestamp is None else timestamp
    reconciler.known_before(since, journal.history_until())
    tracker.know_until(timestamp)
    for order_id in journal.open_orders():
        recall(journal, order_id, tracker)


def recall(journal: EventStore, order_id: str, tracker: Tracker) -> bool:
    """Know again of an order what is in the journal; tell whether that is something, and whole.

    Raises:
        JournalError: the journal cannot be read.
    """
    stored = journal.events_of(order_id)
    events = []
    for entry in stored:
        with contextlib.suppress(DecodeError):  # of another version; it is told of when it is delivered again
            events.append(entry.event)
    tracker.expect(order_id)
    tracker.fold(events, time.monotonic())
    return bool(events) and len(events) == len(stored)
