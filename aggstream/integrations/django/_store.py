"""The stream's events in the project's database, with the promise of a journal."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any, Literal, TypeVar

from django.db import connections, transaction
from django.db.models import Max, Q, QuerySet

from aggstream.errors import JournalError, JournalInUse, UserMismatch
from aggstream.events import OrderEvent, OrderSubmitted, UserEvent, shown
from aggstream.integrations.django._columns import NAME, key, storable
from aggstream.integrations.django._folding import FIELDS, Folding
from aggstream.integrations.django._masking import masked
from aggstream.integrations.django._patience import Patience
from aggstream.integrations.django.models import Event, Order, Stream
from aggstream.journal import StoredEvent, StoreOptions
from aggstream.journal._file import to_integer
from aggstream.journal._stored import newest_timestamp

T = TypeVar("T")

# What is named in one statement: some databases take no more than a thousand values.
_PAGE = 400
_CHANGED = 50
_TIDIED = 200
_SHOWN_ERROR = 500
_SHOWN_USER = 40


class DatabaseStore:
    """An `EventStore` whose methods wait, loudly, for a database that is away. Thread-safe.

    It is what a client is given as its journal, and opens itself. Each change is made in a transaction that begins
    by seeing that the stream is still this owner's, and keeps it so. A former owner, however late, changes nothing
    any more; and all events are stored by the owner.
    """

    on_failure: Literal["stop"] = "stop"
    """The stream ends: the next owner finds out what was missed."""

    def __init__(
        self, database: str, *, stream: int, owner: str, options: StoreOptions, patience: Patience
    ) -> None:
        """Make one; nothing is opened yet.

        Args:
            database: the database's alias.
            stream: the `pk` of the stream's row.
            owner: what this process calls itself there.
            options: how often handlers are called again, and how long events are kept.
            patience: waits for the database.
        """
        self.options = options
        self._database = database
        self._pk = stream
        self._owner = owner
        self._patience = patience
        # Belongs to the I/O thread, as `store` does.
        self._folding = Folding(lambda order: self._stored(self._events.filter(order=order)))
        self._newest = 0
        self._is_closed = self._has_failed = False
        self.closed_ns: int | None = None
        """When the owner before this one ended in order, in nanoseconds since the epoch; None if it did not."""

    def open(self) -> DatabaseStore:
        """Take up what is stored, at once or not at all.

        Raises:
            JournalInUse: another process has taken the stream over.
            JournalError: the database cannot be used.
        """
        self.closed_ns, self._newest = self._patience.once(lambda: self._as_owner(self._begin))
        return self

    # --- the life of an event ---------------------------------------------------------------------------

    def store(self, events: Sequence[UserEvent], *, complete: bool = True) -> list[int | None]:
        """Keep events, all or none, and what is known of their orders by them.

        Args:
            events: the events.
            complete: whether everything is known that happened before them.

        Returns:
            For each event its `seq`, which is its `pk`; None for a repeat.

        Raises:
            ValueError: an event was made without its text. Nothing is stored.
        """
        if not events:
            return []
        by_id: dict[str, UserEvent] = {}
        for event in events:
            by_id.setdefault(event.id, event)

        def insert() -> dict[str, int]:
            try:
                return self._as_owner(lambda: self._insert(by_id, complete=complete))
            except BaseException:
                self._folding.forget()
                raise

        seqs = self._write(insert)
        self._newest = max([self._newest, *seqs.values()])
        return [seqs.pop(event.id, None) for event in events]

    def done(self, seqs: Sequence[int]) -> None:
        """Note that the handlers of these pending events have finished."""
        now = time.time_ns()

        def settle() -> None:
            for page in _pages(seqs):
                self._pending.filter(pk__in=page).update(state=Event.State.DONE, settled_ns=now)

        if seqs:
            self._write(lambda: self._as_owner(settle))

    def failed(self, seq: int, error_text: str) -> bool:
        """Note that a handler of this pending event has failed; tell whether the event is dead by now."""
        failed = {"last_error": _line(error_text)}
        dead = {"state": Event.State.DEAD, "settled_ns": time.time_ns()}

        def fail() -> bool:
            event = self._pending.filter(pk=seq)
            attempts = (event.values_list("attempts", flat=True).first() or 0) + 1
            is_dead = attempts >= self.options.max_attempts
            event.update(attempts=attempts, **failed, **(dead if is_dead else {}))
            return is_dead

        return self._write(lambda: self._as_owner(fail))

    def skip(self, seq: int, reason: str) -> None:
        """Set a pending event aside as dead at once."""
        settled = {"state": Event.State.DEAD, "last_error": _line(reason), "settled_ns": time.time_ns()}
        self._write(lambda: self._as_owner(lambda: self._pending.filter(pk=seq).update(**settled)))

    def follow(self, order_ids: Iterable[str]) -> None:
        """Note that orders are open, until an end of theirs is stored."""
        ids = {key(order_id) for order_id in order_ids}
        self._write(lambda: self._as_owner(lambda: self._orders_by_id(ids)))

    def revived(self) -> list[StoredEvent]:
        """Return dead events that somebody wants to be run again, a page of them; they are pending from now on.

        Does not wait for the database.
        """
        again = self._patience.once(lambda: list(self._again.values_list("pk", flat=True)[:_PAGE]))
        if not again:
            return []
        events = self._events.filter(pk__in=again)
        self._patience.once(lambda: self._as_owner(lambda: events.update(state=Event.State.PENDING)))
        return self._patience.once(lambda: self._stored(events))

    # --- what is in it ----------------------------------------------------------------------------------

    def pending(self, after: int = 0, limit: int = 500) -> list[StoredEvent]:
        """Return the pending events that were stored after the event `after`, oldest first, at most `limit`."""
        return self._read(lambda: self._stored(self._pending.filter(pk__gt=after), limit))

    def events_of(self, order_id: str) -> list[StoredEvent]:
        """Return all events of an order, oldest first."""
        return self._read(lambda: self._stored(self._events.filter(order__order_id=key(order_id))))

    def knows_order(self, order_id: str) -> bool:
        """Tell whether there is an event of an order."""
        return self._read(lambda: self._events.filter(order__order_id=key(order_id)).exists())

    def open_orders(self) -> set[str]:
        """Return the ids of the orders that have not ended."""
        return self._read(lambda: set(self._orders.filter(is_terminal=False).values_list("order_id", flat=True)))

    def last_timestamp(self) -> int | None:
        """Return up to when everything is known, by the service's clock, in milliseconds; None if never told."""
        return self._read(lambda: self._streams.values_list("last_timestamp", flat=True).first())

    def last_received_ns(self) -> int | None:
        """Return when the last event that was complete was received; before the first, when a user signed in."""
        return self._read(lambda: self._streams.values_list("last_received_ns", flat=True).first())

    def belongs_to(self, user_id: str) -> None:
        """Keep at first whose events these are; later see that they are still the same user's.

        Raises:
            UserMismatch: they are another user's, or another account has this user's.
        """
        self._write(lambda: self._as_owner(lambda: self._see_to_user(key(user_id), user_id)))

    def retention(self, now_ns: int) -> int:
        """Delete a few done events that are too old, and then orders that have ended; return how many.

        Events of an order that has not ended stay.
        """
        before = now_ns - int(self.options.keep_for * 1e9)

        def tidy() -> int:
            may_go = Q(order=None) | Q(order__is_terminal=True)
            old = self._events.filter(may_go, state=Event.State.DONE, settled_ns__lt=before).order_by("settled_ns")
            empty = self._orders.filter(is_terminal=True, events=None)
            events = list(old.values_list("pk", flat=True)[:_TIDIED])
            self._events.filter(pk__in=events).delete()
            orders = list(empty.values_list("pk", flat=True)[:_TIDIED])
            self._orders.filter(pk__in=orders).delete()
            return len(events) + len(orders)

        return self._write(lambda: self._as_owner(tidy))

    # --- the life of the handle -------------------------------------------------------------------------

    def hint(self, seq: int) -> str:
        """Return where a person finds an event that was set aside."""
        return f"see event {seq} in the admin; its action runs it again"

    def leave(self) -> None:
        """Close the calling thread's connections: the thread ends."""
        connections.close_all()

    def close(self) -> None:
        """Note that the stream has ended in order, unless something was not stored."""
        if not self._is_closed:
            self._is_closed = True
            if not self._has_failed:
                with contextlib.suppress(JournalError):
                    closed = {"closed_ns": time.time_ns()}
                    self._patience.once(lambda: self._streams.update(**closed))

    # --- inside -----------------------------------------------------------------------------------------

    @property
    def _streams(self) -> QuerySet[Stream]:
        return Stream.objects.using(self._database).filter(pk=self._pk, owner=self._owner)

    @property
    def _events(self) -> QuerySet[Event]:
        return Event.objects.using(self._database).filter(stream=self._pk)

    @property
    def _orders(self) -> QuerySet[Order]:
        return Order.objects.using(self._database).filter(stream=self._pk)

    @property
    def _pending(self) -> QuerySet[Event]:
        return self._events.filter(state=Event.State.PENDING)

    @property
    def _again(self) -> QuerySet[Event]:
        return self._events.filter(state=Event.State.AGAIN)

    def _read(self, work: Callable[[], T]) -> T:
        return self._patience.until_done(work)

    def _write(self, work: Callable[[], T]) -> T:
        try:
            return self._patience.until_done(work)
        except JournalError:
            self._has_failed = True
            raise

    def _as_owner(self, work: Callable[[], T]) -> T:
        with transaction.atomic(using=self._database, durable=True):
            # An update, which locks the row until the end, in every database.
            if not self._streams.update(owner=self._owner):
                raise JournalInUse(
                    "another process has taken the stream over, so this one writes no more",
                    path=self._patience.place,
                )
            return work()

    def _begin(self) -> tuple[int | None, int]:
        closed_ns = self._streams.values_list("closed_ns", flat=True).get()
        self._streams.update(closed_ns=None)
        self._again.update(state=Event.State.PENDING)
        return closed_ns, self._events.aggregate(newest=Max("pk"))["newest"] or 0

    def _insert(self, by_id: dict[str, UserEvent], *, complete: bool) -> dict[str, int]:
        """Insert what is no repeat; return its numbers by the events' ids."""
        found = self._numbers(by_id)
        new = {id_: event for id_, event in by_id.items() if id_ not in found}
        # If nobody could tell whether the attempt before has worked, and it has, its events are no repeats. They
        # are what is newer than the newest of before, because only the owner stores.
        seqs = {id_: seq for id_, seq in found.items() if seq > self._newest}
        if new:
            orders = self._orders_by_id(
                {key(order_id) for e in new.values() if (order_id := _order_id(e)) is not None}
            )
            rows = [self._row(id_, event, orders) for id_, event in new.items()]
            Event.objects.using(self._database).bulk_create(rows, batch_size=_PAGE)
            self._let_go_on(orders, new.values())
            if complete:
                self._know_until(list(new.values()))
            seqs |= self._numbers(new)
        return seqs

    def _numbers(self, ids: Collection[str]) -> dict[str, int]:
        found: dict[str, int] = {}
        for page in _pages(ids):
            found |= dict(self._events.filter(event_id__in=page).values_list("event_id", "pk"))
        return found

    def _orders_by_id(self, ids: Collection[str]) -> dict[str, Order]:
        """Return orders by their ids; make those that are new."""
        found = self._orders_found(ids)
        new = [order_id for order_id in ids if order_id not in found]
        rows = [Order(stream_id=self._pk, order_id=order_id) for order_id in new]
        Order.objects.using(self._database).bulk_create(rows, batch_size=_PAGE)
        return found | self._orders_found(new)

    def _orders_found(self, ids: Collection[str]) -> dict[str, Order]:
        pages = (self._orders.filter(order_id__in=page) for page in _pages(ids))
        return {order.order_id: order for page in pages for order in page}

    def _row(self, id_: str, event: UserEvent, orders: dict[str, Order]) -> Event:
        if not event.text:
            raise ValueError("an event without its text cannot be stored: nothing could be made of it again")
        order_id = _order_id(event)
        return Event(
            stream_id=self._pk,
            event_id=id_,
            type=key(event.type, NAME),
            sub_event=key(event.sub_event or "", NAME),
            order=None if order_id is None else orders[key(order_id)],
            terminal=isinstance(event, OrderEvent) and event.is_terminal,
            source=event.source,
            timestamp=to_integer(event.timestamp),
            received_ns=to_integer(event.received_ns),
            text=storable(event.text),
        )

    def _let_go_on(self, orders: dict[str, Order], events: Iterable[UserEvent]) -> None:
        of_order: dict[str, list[UserEvent]] = {}
        for event in events:
            if (order_id := _order_id(event)) is not None:
                of_order.setdefault(key(order_id), []).append(event)
        changed = [orders[id_] for id_, some in of_order.items() if self._folding.take(orders[id_], some)]
        self._orders.bulk_update(changed, FIELDS, batch_size=_CHANGED)

    def _know_until(self, events: Sequence[UserEvent]) -> None:
        known = self._streams.values_list("last_timestamp", flat=True).get()
        newest = [at for at in (known, newest_timestamp(events)) if at is not None]
        self._streams.update(
            last_received_ns=to_integer(events[-1].received_ns), last_timestamp=max(newest, default=None)
        )

    def _see_to_user(self, user_key: str, user_id: str) -> None:
        owner, received_ns = self._streams.values_list("user_id", "last_received_ns").get()
        if owner == user_key:
            return
        new = shown(user_id, _SHOWN_USER)
        if owner is not None:
            raise UserMismatch(
                f"the token signs in {new}, but the events of this account are those of "
                f"{shown(owner, _SHOWN_USER)}; give each user an account of its own in AGGSTREAM"
            )
        other = Stream.objects.using(self._database).filter(user_id=user_key).first()
        if other is not None:
            raise UserMismatch(
                f"the token signs in {new}, whose stream is that of the account {other.account!a}; "
                f"a user has one account in AGGSTREAM"
            )
        self._streams.update(user_id=user_key, last_received_ns=received_ns or time.time_ns())

    @staticmethod
    def _stored(events: QuerySet[Event], limit: int | None = None) -> list[StoredEvent]:
        rows = events.order_by("pk").values_list(*_COLUMNS)[:limit]
        return [_stored_event(*row) for row in rows]


# In the order of StoredEvent's fields.
_COLUMNS = (
    "pk",
    "event_id",
    "type",
    "sub_event",
    "order__order_id",
    "terminal",
    "source",
    "timestamp",
    "received_ns",
    "text",
    "state",
    "attempts",
    "last_error",
    "settled_ns",
)


def _stored_event(seq: int, id_: str, type_: str, sub_event: str, *rest: Any) -> StoredEvent:
    return StoredEvent(seq, id_, type_, sub_event or None, *rest)


def _order_id(event: UserEvent) -> str | None:
    return event.order_id if isinstance(event, (OrderSubmitted, OrderEvent)) else None


def _line(text: str) -> str:
    """Return a short line of an error, which may hold anything; what looks like a token is masked."""
    return storable(shown(masked(text), _SHOWN_ERROR)[1:-1])


def _pages(items: Iterable[T]) -> Iterator[list[T]]:
    listed = list(items)
    for at in range(0, len(listed), _PAGE):
        yield listed[at : at + _PAGE]
