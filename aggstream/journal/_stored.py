"""An event as it is stored: what is written of it, and how it is made again."""

from __future__ import annotations

import contextlib
import datetime as dt
import pathlib
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, TypeAlias

import attrs

from aggstream._base.json_text import Parser
from aggstream._base.limits import Limits
from aggstream._base.times import NS_PER_MS, moment_of_ns
from aggstream._protocol.codec import Codec
from aggstream.errors import DecodeError
from aggstream.events import BalanceSnapshot, Event, OrderEvent, OrderSubmitted, Source, UserEvent
from aggstream.journal._file import from_column, to_column, to_integer
from aggstream.rest._snapshot import decode_snapshot

JournalState: TypeAlias = Literal["pending", "done", "dead"]
"""Its handlers have not finished; they have; they failed so often that it was set aside."""

# A time that is further ahead of this machine's clock than any time zone is no time.
_DAY_MS = 86_400_000
_HUGE = 1_000_000
# A text that was within the limits when it was received must come back, whatever the limits are now.
_BOUNDLESS = Limits(json_depth=_HUGE, number_digits=_HUGE, number_exponent=_HUGE)
_CODEC, _PARSER = Codec(_BOUNDLESS), Parser(_BOUNDLESS)

DECODERS: dict[str, Callable[[str, int], Event]] = {
    BalanceSnapshot.TYPE: lambda text, received_ns: decode_snapshot(text, received_ns, _PARSER),
}
"""How events of a type are made again from text and `received_ns`, if they are no messages of the service."""


@attrs.frozen
class JournalCounts:
    """How much is in a journal."""

    pending: int
    done: int
    dead: int
    size: int
    """Of the file and what is not yet merged into it, in bytes on disk."""


@attrs.frozen
class StoredEvent:
    """One event of a journal. The fields are the columns of the view `events`, in their order."""

    seq: int
    """Its place in the order in which events were stored; never used twice."""
    id: str
    """`UserEvent.id` when it was stored."""
    type: str
    sub_event: str | None
    order_id: str | None
    terminal: bool
    """True if it was the end of its order when it was stored."""
    source: Source
    timestamp: int
    """The service's clock, in milliseconds, as far as 64 bits hold it; `event` has it exactly."""
    received_ns: int
    text: str = attrs.field(repr=False)
    state: JournalState
    attempts: int
    """How often its handlers have failed."""
    last_error: str | None
    settled_ns: int | None
    user_id: str | None = attrs.field(default=None, kw_only=True)
    """The user whose event it is; None if the store does not say."""
    account: str = attrs.field(default="", kw_only=True)
    """The name of the account whose event it is; empty for that of a single client."""

    @property
    def received_at(self) -> dt.datetime:
        """When it was received, in UTC, cut to microseconds."""
        return _moment(self.received_ns)

    @property
    def settled_at(self) -> dt.datetime | None:
        """When it became done or dead, in UTC, cut to microseconds; None while it is pending."""
        return None if self.settled_ns is None else _moment(self.settled_ns)

    @property
    def event(self) -> UserEvent:
        """The event, made again from its text each time, with `redelivered` true.

        Raises:
            DecodeError: this version does not understand the text. It stays in the journal.
        """
        event = DECODERS.get(self.type, _CODEC.decode)(self.text, self.received_ns)
        if not isinstance(event, UserEvent):
            raise DecodeError("no event about orders and balances in this version", path="$.type")
        user_id = event.user_id or self.user_id
        return attrs.evolve(
            event,
            source=self.source,
            redelivered=True,
            stored_id=self.id,
            user_id=user_id,
            account=self.account,
        )

    def as_dict(self) -> dict[str, Any]:
        """Return everything about it in a form for JSON; `message` is the parsed text, with `Decimal`s.

        If the text is not understood, `message` is None and `text` holds it.
        """
        try:
            content = {"message": _PARSER.parse(self.text)}
        except DecodeError:
            content = {"message": None, "text": self.text}
        settled_at = self.settled_at
        return {
            "seq": self.seq,
            "id": self.id,
            "account": self.account,
            "state": self.state,
            "type": self.type,
            "event": self.sub_event,
            "order_id": self.order_id,
            "terminal": self.terminal,
            "source": self.source,
            "timestamp": self.timestamp,
            "received_ns": self.received_ns,
            "received_at": self.received_at.isoformat(),
            "settled_at": None if settled_at is None else settled_at.isoformat(),
            "attempts": self.attempts,
            "last_error": self.last_error,
            **content,
        }


def understood(stored: Iterable[StoredEvent]) -> list[UserEvent]:
    """Return the events that are understood. One of another version is told of when it is delivered again."""
    events = []
    for entry in stored:
        with contextlib.suppress(DecodeError):
            events.append(entry.event)
    return events


def _moment(ns: int) -> dt.datetime:
    return moment_of_ns(ns)


# Nothing but a repeat can be in the way: the numbers are those after all that were ever used.
INSERT = """
INSERT INTO facts (account, seq, id, type, event, order_id, terminal, source, timestamp, received_ns, text)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING
"""


# What stands in the column `terminal`. An order whose last word nobody knows may have ended: it is not sought for
# as an open one, and its events need not be kept for ever.
_END, _MAYBE_END = 1, 2
# How many columns the view has behind `text`, up to version 2 of the file.
_COLUMNS_OF_2 = 4


def _terminal(event: UserEvent) -> int:
    if not isinstance(event, OrderEvent):
        return 0
    kind = event.kind
    if kind is None:
        return _MAYBE_END
    return _END if kind.is_terminal else 0


def to_row(event: UserEvent) -> tuple[object, ...]:
    """Return the values for `INSERT`, but for `account` and `seq`, the first of them.

    Raises:
        ValueError: the event was made without its text, so it could not be made again.
    """
    if not event.text:
        raise ValueError("an event without its text cannot be stored: nothing could be made of it again")
    sub_event = event.sub_event
    order_id = event.order_id if isinstance(event, (OrderSubmitted, OrderEvent)) else None
    return (
        event.id,
        event.TYPE,
        None if sub_event is None else to_column(sub_event),
        None if order_id is None else to_column(order_id),
        _terminal(event),
        event.source,
        to_integer(event.timestamp),
        to_integer(event.received_ns),
        to_column(event.text),
    )


def newest_timestamp(events: Iterable[UserEvent]) -> int | None:
    """Return the largest `timestamp` of events that is a time; None if none is."""
    times = (e.timestamp for e in events if abs(e.timestamp) <= e.received_ns // NS_PER_MS + _DAY_MS)
    return max(times, default=None)


def last_times(events: Sequence[UserEvent]) -> dict[str, int | None]:
    """Return, for `_LAST`, when the last of some events was received, and the largest `timestamp` of them."""
    return {"received_ns": to_integer(events[-1].received_ns), "timestamp": newest_timestamp(events)}


def from_row(row: tuple[Any, ...], user_id: str | None = None) -> StoredEvent:
    """Return the event of a row of the view `events`.

    Args:
        row: the row.
        user_id: the user of a file of an older version, whose rows do not say it.
    """
    seq, id_, type_, sub_event, order_id, terminal, source, timestamp, received_ns, text, *rest = row
    account: str | bytes = ""
    if len(rest) > _COLUMNS_OF_2:
        *rest, account, of_row = rest
        user_id = None if of_row is None else from_column(of_row)
    return StoredEvent(
        seq,
        id_,
        type_,
        None if sub_event is None else from_column(sub_event),
        None if order_id is None else from_column(order_id),
        terminal == _END,
        source,
        timestamp,
        received_ns,
        from_column(text),
        *rest,
        user_id=user_id,
        account=from_column(account),
    )


def count_all(connection: sqlite3.Connection, path: str, account: int | None = None) -> JournalCounts:
    """Count the events of each state, of one account or of all, and measure the file."""
    # Three queries, because each is answered from the index of its state alone.
    of_account = "" if account is None else f"AND account = {account:d}"
    pending, done, dead = (
        connection.execute(f"SELECT COUNT(*) FROM states WHERE state = '{state}' {of_account}").fetchone()[0]  # noqa: S608
        for state in ("pending", "done", "dead")
    )
    return JournalCounts(pending, done, dead, _size(path) + _size(f"{path}-wal"))


def _size(path: str) -> int:
    try:
        return pathlib.Path(path).stat().st_size
    except OSError:  # without anything to merge there is no -wal
        return 0
