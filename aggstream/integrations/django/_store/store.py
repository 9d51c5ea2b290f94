"""Stores the stream's events in the project's database, with the same guarantees as a journal."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal, TypeVar

from django.db import connections, transaction
from django.db.models import Max, Q

from aggstream._base.text import shown
from aggstream.errors import JournalError, JournalInUse, UserMismatch
from aggstream.events import UserEvent
from aggstream.integrations.django._columns import key, storable
from aggstream.integrations.django._store.inserting import EventInserter
from aggstream.integrations.django._store.masking import masked
from aggstream.integrations.django._store.queries import PAGE, StreamRows, pages, stored
from aggstream.integrations.django._store.retrying import DatabaseRetrier
from aggstream.integrations.django.models import Event, Stream
from aggstream.journal import StoredEvent, StoreMemory, StoreOptions
from aggstream.journal._file import to_integer

T = TypeVar("T")

# `retention` deletes at most this number of events in one call, because storing new events waits for it.
_MOST_DELETED = 200
_SHOWN_ERROR = 500
_SHOWN_USER = 40


class DatabaseStore:
    """An `EventStore` in the project's database. It is thread-safe.

    If the database is not available, the methods log errors and wait. The client gets this object as `journal`,
    and `open` returns the object itself. Each transaction first checks that this process is still the owner, and
    locks the stream's row until the end of the transaction. So only the owner stores events, and a former owner
    cannot change anything.
    """

    on_failure: Literal["stop"] = "stop"
    """The stream ends, and the next owner searches for the missed events."""

    def __init__(
        self,
        database: str,
        *,
        stream: int,
        owner: str,
        options: StoreOptions,
        retrier: DatabaseRetrier,
        status_names: Mapping[str, str] | None = None,
    ) -> None:
        """Make a store, without opening it.

        Args:
            database: the database's alias.
            stream: the `pk` of the stream's row.
            owner: the name of this process in the stream's row.
            options: the options for the attempts of handlers, and for the time that events are kept.
            retrier: repeats database calls while the database is not available.
            status_names: the option of `RestOptions`; None: no names.
        """
        self.options = options
        self._rows = StreamRows(database, stream=stream, owner=owner)
        self._retrier = retrier
        self._inserter = EventInserter(self._rows, status_names or {})
        self._newest = 0
        self._is_closed = self._has_failed = False
        # The time at which the previous owner ended in order; None if it did not.
        self._closed_ns: int | None = None

    def open(self) -> DatabaseStore:
        """Open the store. If the database is not available, do not wait.

        Raises:
            JournalInUse: another process has become the owner.
            JournalError: the database cannot be used.
        """
        self._closed_ns, self._newest, self._rows.user_id, self._inserter.old_ids_until = self._retrier.once(
            lambda: self._as_owner(self._begin)
        )
        return self

    # --- the life of an event ---------------------------------------------------------------------------

    def store(self, events: Sequence[UserEvent], *, complete: bool = True) -> list[int | None]:
        """Store events and update the state of their orders. The method stores all events or none.

        Args:
            events: the events.
            complete: True: everything that happened before these events is known.

        Returns:
            The `seq` of each event, which is its `pk`; None for a repeated event.

        Raises:
            ValueError: an event has no text. In this case nothing is stored.
        """
        if not events:
            return []
        by_id: dict[str, UserEvent] = {}
        for event in events:
            by_id.setdefault(event.id, event)

        def insert() -> dict[str, int]:
            try:
                return self._as_owner(lambda: self._inserter.insert(by_id, self._newest, complete=complete))
            except BaseException:
                self._inserter.forget_states()
                raise

        seqs = self._write(insert)
        self._newest = max([self._newest, *seqs.values()])
        return [seqs.pop(event.id, None) for event in events]

    def done(self, seqs: Sequence[int]) -> None:
        """Mark pending events as done, because their handlers have finished."""
        now = time.time_ns()

        def settle() -> None:
            for page in pages(seqs):
                self._rows.pending.filter(pk__in=page).update(state=Event.State.DONE, settled_ns=now)

        if seqs:
            self._write(lambda: self._as_owner(settle))

    def failed(self, seq: int, error_text: str, *, final: bool = False) -> bool:
        """Count a failure of a pending event's handlers. Return True if the event is dead now."""
        failed = {"last_error": _line(error_text)}
        dead = {"state": Event.State.DEAD, "settled_ns": time.time_ns()}

        def fail() -> bool:
            event = self._rows.pending.filter(pk=seq)
            if final:
                event.update(**failed, **dead)
                return True
            attempts = (event.values_list("attempts", flat=True).first() or 0) + 1
            is_dead = attempts >= self.options.max_attempts
            event.update(attempts=attempts, **failed, **(dead if is_dead else {}))
            return is_dead

        return self._write(lambda: self._as_owner(fail))

    def revived(self) -> list[StoredEvent]:
        """Mark dead events that a person wants to be run again as pending, and return at most one page of them.

        If the database is not available, the method raises, and does not wait.
        """
        again = self._retrier.once(lambda: list(self._rows.again.values_list("pk", flat=True)[:PAGE]))
        if not again:
            return []
        events = self._rows.events.filter(pk__in=again)
        self._retrier.once(lambda: self._as_owner(lambda: events.update(state=Event.State.PENDING)))
        return self._retrier.once(lambda: stored(events, user_id=self._rows.user_id))

    # --- what is in it ----------------------------------------------------------------------------------

    def pending(self, after: int = 0, limit: int = 500) -> list[StoredEvent]:
        """Return the pending events after the event `after`, oldest first, at most `limit` events."""
        return self._read(lambda: stored(self._rows.pending.filter(pk__gt=after), limit, self._rows.user_id))

    def events_of(self, order_id: str) -> list[StoredEvent]:
        """Return all events of an order, oldest first."""
        return self._read(
            lambda: stored(self._rows.events.filter(order__order_id=key(order_id)), user_id=self._rows.user_id)
        )

    def recall(self) -> StoreMemory:
        """Return the knowledge of earlier streams."""
        names = ("last_timestamp", "last_received_ns", "history_until", "known_until", "is_searched")
        row = self._read(lambda: self._rows.own.values(*names).first()) or {}
        open_orders = self._rows.orders.filter(is_terminal=False, is_unclear=False).values_list(
            "order_id", flat=True
        )
        return StoreMemory(
            **row, closed_ns=self._closed_ns, open_orders=self._read(lambda: frozenset(open_orders.all()))
        )

    def remember(
        self,
        *,
        open_orders: Iterable[str] = (),
        history_until: int | None = None,
        known_until: int | None = None,
        is_searched: bool = False,
    ) -> None:
        """Store for later streams: the open orders that no event names, and how far REST was searched."""
        ids = {key(order_id) for order_id in open_orders}

        def keep() -> None:
            self._inserter.orders_by_id(ids)
            if history_until is not None:
                self._rows.own.filter(history_until=None).update(history_until=to_integer(history_until))
            if known_until is not None:
                at = to_integer(known_until)
                self._rows.own.filter(Q(known_until=None) | Q(known_until__lt=at)).update(known_until=at)
            if is_searched:
                self._rows.own.update(is_searched=True)

        self._write(lambda: self._as_owner(keep))

    def belongs_to(self, user_id: str) -> None:
        """Store the user at the first sign-in. Later, check that the user is still the same.

        Raises:
            UserMismatch: the stored events belong to another user, or another account has this user.
        """
        self._write(lambda: self._as_owner(lambda: self._check_user(key(user_id), user_id)))

    def retention(self, now_ns: int) -> int:
        """Delete some old done events, and then ended orders without events. Return the number of deleted rows.

        The method keeps the events of an order that has not ended.
        """
        before = now_ns - int(self.options.keep_for * 1e9)

        def delete_old() -> int:
            may_go = Q(order=None) | Q(order__is_terminal=True) | Q(order__is_unclear=True)
            old = self._rows.events.filter(may_go, state=Event.State.DONE, settled_ns__lt=before).order_by(
                "settled_ns"
            )
            events = dict(old.values_list("pk", "order")[:_MOST_DELETED])
            self._rows.events.filter(pk__in=events).delete()
            # Only the orders of these events are checked, because checking all orders takes too long.
            left = self._rows.orders.filter(pk__in=set(events.values()) - {None}, events=None)
            orders = list(left.values_list("pk", flat=True))
            self._rows.orders.filter(pk__in=orders).delete()
            return len(events) + len(orders)

        return self._write(lambda: self._as_owner(delete_old))

    # --- the life of the handle -------------------------------------------------------------------------

    def hint(self, seq: int) -> str:
        """Return a text that tells a person where to find a dead event."""
        return f"see event {seq} in the admin; its action runs it again"

    def leave(self) -> None:
        """Close the connections of the calling thread, because the thread ends."""
        connections.close_all()

    def close(self) -> None:
        """Store the time of the stream's end, unless a change could not be stored."""
        if not self._is_closed:
            self._is_closed = True
            if not self._has_failed:
                with contextlib.suppress(JournalError):
                    closed = {"closed_ns": time.time_ns()}
                    self._retrier.once(lambda: self._rows.own.update(**closed))

    # --- inside -----------------------------------------------------------------------------------------

    def _read(self, work: Callable[[], T]) -> T:
        return self._retrier.until_done(work)

    def _write(self, work: Callable[[], T]) -> T:
        try:
            return self._retrier.until_done(work)
        except JournalError:
            self._has_failed = True
            raise

    def _as_owner(self, work: Callable[[], T]) -> T:
        with transaction.atomic(using=self._rows.database, durable=True):
            # In every database, an update locks the row until the end of the transaction.
            if not self._rows.own.update(owner=self._rows.owner):
                raise JournalInUse(
                    "another process has taken the stream over, so this one writes no more",
                    path=self._retrier.place,
                )
            return work()

    def _begin(self) -> tuple[int | None, int, str | None, int]:
        closed_ns, user_id, old_ids_until = self._rows.own.values_list(
            "closed_ns", "user_id", "old_ids_until"
        ).get()
        self._rows.own.update(closed_ns=None)
        self._rows.again.update(state=Event.State.PENDING)
        self._inserter.judge_again()
        newest = self._rows.events.aggregate(newest=Max("pk"))["newest"] or 0
        return closed_ns, newest, user_id, old_ids_until

    def _check_user(self, user_key: str, user_id: str) -> None:
        owner, received_ns = self._rows.own.values_list("user_id", "last_received_ns").get()
        if owner == user_key:
            return
        new = shown(user_id, _SHOWN_USER)
        if owner is not None:
            raise UserMismatch(
                f"the token signs in {new}, but the events of this account are those of "
                f"{shown(owner, _SHOWN_USER)}; give each user an account of its own in AGGSTREAM"
            )
        other = Stream.objects.using(self._rows.database).filter(user_id=user_key).first()
        if other is not None:
            raise UserMismatch(
                f"the token signs in {new}, whose stream is that of the account {other.account!a}; "
                f"a user has one account in AGGSTREAM"
            )
        self._rows.own.update(user_id=user_key, last_received_ns=received_ns or time.time_ns())
        self._rows.user_id = user_key


def _line(text: str) -> str:
    """Return a handler's error as one short line, with `***` in place of everything that looks like a token."""
    return storable(shown(masked(text), _SHOWN_ERROR)[1:-1])
