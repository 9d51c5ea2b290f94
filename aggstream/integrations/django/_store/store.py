"""The stream's events in the project's database, with the promise of a journal."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Literal, TypeVar

from django.db import connections, transaction
from django.db.models import Max, Q

from aggstream._base.text import shown
from aggstream.errors import JournalError, JournalInUse, UserMismatch
from aggstream.events import UserEvent
from aggstream.integrations.django._columns import key, storable
from aggstream.integrations.django._store.inserting import Insertion
from aggstream.integrations.django._store.masking import masked
from aggstream.integrations.django._store.queries import PAGE, Rows, pages, stored
from aggstream.integrations.django._store.retrying import Patience
from aggstream.integrations.django.models import Event, Stream
from aggstream.journal import StoredEvent, StoreMemory, StoreOptions
from aggstream.journal._file import to_integer

T = TypeVar("T")

# So many rows at a time, because storing events waits for it.
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
        self._rows = Rows(database, stream=stream, owner=owner)
        self._patience = patience
        self._insertion = Insertion(self._rows)
        self._newest = 0
        self._is_closed = self._has_failed = False
        # When the owner before this one ended in order; None if it did not.
        self._closed_ns: int | None = None

    def open(self) -> DatabaseStore:
        """Take up what is stored, at once or not at all.

        Raises:
            JournalInUse: another process has taken the stream over.
            JournalError: the database cannot be used.
        """
        self._closed_ns, self._newest, self._rows.user_id, self._insertion.old_ids_until = self._patience.once(
            lambda: self._as_owner(self._begin)
        )
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
                return self._as_owner(lambda: self._insertion.insert(by_id, self._newest, complete=complete))
            except BaseException:
                self._insertion.undone()
                raise

        seqs = self._write(insert)
        self._newest = max([self._newest, *seqs.values()])
        return [seqs.pop(event.id, None) for event in events]

    def done(self, seqs: Sequence[int]) -> None:
        """Note that the handlers of these pending events have finished."""
        now = time.time_ns()

        def settle() -> None:
            for page in pages(seqs):
                self._rows.pending.filter(pk__in=page).update(state=Event.State.DONE, settled_ns=now)

        if seqs:
            self._write(lambda: self._as_owner(settle))

    def failed(self, seq: int, error_text: str, *, final: bool = False) -> bool:
        """Note that a handler of this pending event has failed; return True if the event is dead now."""
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
        """Return dead events that somebody wants to be run again, a page of them; they are pending from now on.

        Does not wait for the database.
        """
        again = self._patience.once(lambda: list(self._rows.again.values_list("pk", flat=True)[:PAGE]))
        if not again:
            return []
        events = self._rows.events.filter(pk__in=again)
        self._patience.once(lambda: self._as_owner(lambda: events.update(state=Event.State.PENDING)))
        return self._patience.once(lambda: stored(events, user_id=self._rows.user_id))

    # --- what is in it ----------------------------------------------------------------------------------

    def pending(self, after: int = 0, limit: int = 500) -> list[StoredEvent]:
        """Return the pending events that were stored after the event `after`, oldest first, at most `limit`."""
        return self._read(lambda: stored(self._rows.pending.filter(pk__gt=after), limit, self._rows.user_id))

    def events_of(self, order_id: str) -> list[StoredEvent]:
        """Return all events of an order, oldest first."""
        return self._read(
            lambda: stored(self._rows.events.filter(order__order_id=key(order_id)), user_id=self._rows.user_id)
        )

    def recall(self) -> StoreMemory:
        """Return what earlier streams knew when they ended."""
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
        """Keep for later streams which orders are open though no event says so, and up to when all was over."""
        ids = {key(order_id) for order_id in open_orders}

        def keep() -> None:
            self._insertion.orders_by_id(ids)
            if history_until is not None:
                self._rows.own.filter(history_until=None).update(history_until=to_integer(history_until))
            if known_until is not None:
                at = to_integer(known_until)
                self._rows.own.filter(Q(known_until=None) | Q(known_until__lt=at)).update(known_until=at)
            if is_searched:
                self._rows.own.update(is_searched=True)

        self._write(lambda: self._as_owner(keep))

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
            may_go = Q(order=None) | Q(order__is_terminal=True) | Q(order__is_unclear=True)
            old = self._rows.events.filter(may_go, state=Event.State.DONE, settled_ns__lt=before).order_by(
                "settled_ns"
            )
            events = dict(old.values_list("pk", "order")[:_TIDIED])
            self._rows.events.filter(pk__in=events).delete()
            # Of these orders alone, because it takes long to look through all.
            left = self._rows.orders.filter(pk__in=set(events.values()) - {None}, events=None)
            orders = list(left.values_list("pk", flat=True))
            self._rows.orders.filter(pk__in=orders).delete()
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
                    self._patience.once(lambda: self._rows.own.update(**closed))

    # --- inside -----------------------------------------------------------------------------------------

    def _read(self, work: Callable[[], T]) -> T:
        return self._patience.until_done(work)

    def _write(self, work: Callable[[], T]) -> T:
        try:
            return self._patience.until_done(work)
        except JournalError:
            self._has_failed = True
            raise

    def _as_owner(self, work: Callable[[], T]) -> T:
        with transaction.atomic(using=self._rows.database, durable=True):
            # An update, which locks the row until the end, in every database.
            if not self._rows.own.update(owner=self._rows.owner):
                raise JournalInUse(
                    "another process has taken the stream over, so this one writes no more",
                    path=self._patience.place,
                )
            return work()

    def _begin(self) -> tuple[int | None, int, str | None, int]:
        closed_ns, user_id, old_ids_until = self._rows.own.values_list(
            "closed_ns", "user_id", "old_ids_until"
        ).get()
        self._rows.own.update(closed_ns=None)
        self._rows.again.update(state=Event.State.PENDING)
        newest = self._rows.events.aggregate(newest=Max("pk"))["newest"] or 0
        return closed_ns, newest, user_id, old_ids_until

    def _see_to_user(self, user_key: str, user_id: str) -> None:
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
    """Return a short line of an error, which may hold anything; what looks like a token is masked."""
    return storable(shown(masked(text), _SHOWN_ERROR)[1:-1])
