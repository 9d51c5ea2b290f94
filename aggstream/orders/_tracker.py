"""The state of all orders: the I/O thread folds events into it, any thread reads it and waits for an order's end.

Orders are folded where events arrive and not where handlers run, so that a slow handler delays no verdict, a
handler may itself wait for one, and what REST says is compared with all that had come when it was said.
"""

from __future__ import annotations

import logging
import math
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from aggstream._base.deadline import Deadline
from aggstream.events import Event, OrderEvent, OrderSubmitted, Verdict, order_event_kind, shown
from aggstream.events._amounts import raw_amount
from aggstream.events._records import OrderRecord
from aggstream.health import Continuity
from aggstream.orders._order import Order, Outcome
from aggstream.orders._state import OrderState, Telling

logger = logging.getLogger("aggstream.orders")

# Orders that have not ended are kept until they do, but a service must not be able to fill the memory with them.
_MOST_OPEN = 100_000
_REMEMBERED = 100_000
# A service can say any number of words that nobody knows.
_MOST_WORDS, _LONGEST_WORD = 32, 60


class OrderEntry(OrderState):
    """The state of one order, and the callbacks that wait for its end. Guarded by the tracker's lock."""

    __slots__ = ("__weakref__", "callbacks", "gaps", "is_abandoned")

    def __init__(self, order_id: str, gaps: int) -> None:
        super().__init__(order_id)
        self.gaps = gaps
        """How many gaps were open for ever when this began to be tracked."""
        self.is_abandoned = False
        """True if it belongs to a user who is not signed in any more."""
        self.callbacks: tuple[Callable[[Outcome], object], ...] = ()
        """Called under the lock, so they hand the outcome on and do nothing else."""


class Tracker:
    """Holds the orders. `fold…`, `forget…` and `set_continuity` are for the I/O thread, the rest for any."""

    def __init__(self, *, kept: int, kept_for: float, name: str = "aggstream") -> None:
        """Make one.

        Args:
            kept: how many orders that have ended are remembered.
            kept_for: for how many seconds.
            name: begins the log lines.
        """
        self.unknown_statuses: tuple[str, ...] = ()
        """The words that were told as the status of an order and that nobody knows; the first 32 of them."""
        self.has_doubtful_end = False
        """True once the stream told of an end whose amounts are no ground for a verdict. `CatchUp` takes it
        back."""
        self._name = name
        # Guards everything below. It is held for a batch of events or one question, no user code runs under it,
        # and no other lock is taken.
        self._lock = threading.RLock()
        self.changed = threading.Condition(self._lock)
        self._kept = kept
        self._kept_for = kept_for
        self._orders: dict[str, OrderEntry] = {}
        self._awaited: weakref.WeakValueDictionary[str, OrderEntry] = weakref.WeakValueDictionary()
        # Those with callbacks, so that a program that waits need keep nothing else.
        self._waiting: set[OrderEntry] = set()
        # In the order of their ends, with the time.
        self._ended: dict[str, float] = {}
        # When the first of them is old enough to be forgotten.
        self._prune_at = math.inf
        # Ended and forgotten; with the end and its amount, if the handlers have them from REST.
        self._forgotten: dict[str, tuple[str, int | None] | None] = {}
        self._lost_gaps = 0
        self.continuity = Continuity.UNKNOWN
        self.stopped = False
        self.error: BaseException | None = None

    def after_fork_in_child(self) -> None:
        """Replace the lock, which a thread of the parent may hold."""
        self._lock = threading.RLock()
        self.changed = threading.Condition(self._lock)

    # --- for the I/O thread -----------------------------------------------------------------------------

    def fold(self, events: Iterable[Event], now: float) -> set[int]:
        """Take events; return the positions of those that only repeat what a reconciliation has delivered."""
        settled: list[OrderEntry] = []
        repeats: set[int] = set()
        with self._lock:
            for at, event in enumerate(events):
                if isinstance(event, OrderEvent):
                    if self._fold_event(event, settled):
                        repeats.add(at)
                elif isinstance(event, OrderSubmitted):
                    self._fold_submitted(event)
            if settled or now >= self._prune_at or len(self._orders) > _MOST_OPEN:
                self._end(settled, now)
        return repeats

    def fold_records(
        self,
        records: Sequence[OrderRecord],
        now: float,
        *,
        status_of: Callable[[OrderRecord], str],
        judge: Callable[[OrderRecord, bool, bool], Telling],
        one_unit: bool = False,
    ) -> tuple[list[OrderRecord], list[str]]:
        """Take what REST says; return the orders that the handlers are told of, and the ids of those owed to them.

        Args:
            records: the orders.
            now: monotonic seconds.
            status_of: gives the normal form of a record's status.
            judge: decides, of a record, whether its order is known, and whether it says more than the handlers
                were told, what becomes of it.
            one_unit: whether a record's amounts can be compared.
        """
        settled: list[OrderEntry] = []
        told, owed = [], []
        with self.changed:
            for record in records:
                if record.id in self._forgotten and record.id not in self._awaited:
                    continue
                order = self._find(record.id)
                status = status_of(record)
                says_more = order.says_more(status, record.filled_amount_text)
                telling = judge(record, order.is_known, says_more)
                was_terminal = order.is_terminal
                order.fold_record(record, status, telling=telling, one_unit=one_unit)
                self._note_unknown(order)
                if telling == "now":
                    told.append(record)
                elif telling == "later":
                    owed.append(record.id)
                if order.is_terminal and not was_terminal and record.id in self._orders:
                    settled.append(order)
            self._end(settled, now)
        return told, owed

    def confirm_amounts(self, records: Iterable[OrderRecord]) -> None:
        """Note what the last look at REST says of the amounts of orders whose ends are in doubt."""
        with self.changed:
            for record in records:
                order = self._orders.get(record.id)
                if order is not None and order.has_doubtful_amounts:
                    order.confirm_amounts(raw_amount(record.filled_amount_text))

    def settle_debts(self, order_ids: Iterable[str]) -> None:
        """Take what is known of some orders for told: what was owed to the handlers has lapsed."""
        with self.changed:
            for order_id in order_ids:
                if (order := self._orders.get(order_id)) is not None:
                    order.settle_debt()

    def set_unlisted(self, order_ids: Iterable[str]) -> None:
        """Note that the last look at REST did not list these orders, although they are known to be open."""
        with self.changed:
            for order_id in order_ids:
                if (order := self._orders.get(order_id)) is not None:
                    order.set_unlisted()
                    if order in self._waiting:
                        self._settle(order)
            self.changed.notify_all()

    def doubtful_orders(self) -> set[str]:
        """Return the ids of the orders that have ended with amounts that are no ground for a verdict."""
        with self.changed:
            return {id_ for id_, order in self._orders.items() if order.is_terminal and order.has_doubtful_amounts}

    def open_orders(self) -> set[str]:
        """Return the ids of the orders that are known to be open."""
        with self.changed:
            return {order_id for order_id, order in self._orders.items() if order.is_open}

    def unclear_orders(self, since: int | None) -> set[str]:
        """Return the ids of the orders whose last word nobody knows, and that were heard of since a time.

        Args:
            since: the service's time, in milliseconds; None: whenever it was.
        """
        with self.changed:
            return {
                order_id
                for order_id, order in self._orders.items()
                if order.unknown_status is not None
                and not order.is_terminal
                and (since is None or (order.last_timestamp or 0) >= since)
            }

    def knows(self, order_id: str) -> bool:
        """Return True if anything is known of an order."""
        return order_id in self._orders

    def is_terminal(self, order_id: str) -> bool:
        """Return True if an order is known to have ended."""
        order = self._orders.get(order_id)
        return order_id in self._forgotten if order is None else order.is_terminal

    def is_open(self, order_id: str) -> bool:
        """Return True if an order is known not to have ended."""
        order = self._orders.get(order_id)
        return order is not None and order.is_open

    def expect(self, order_id: str) -> None:
        """Know that there is an order, and that it has not ended as far as anybody knows."""
        with self.changed:
            self._find(order_id).is_known = True

    def set_continuity(self, continuity: Continuity, *, lost_gaps: int = 0) -> None:
        """Publish how sure what is known is; with the number of gaps that can never be closed."""
        with self.changed:
            if (self.continuity, self._lost_gaps) == (continuity, lost_gaps):
                return
            self.continuity, self._lost_gaps = continuity, lost_gaps
            for order in list(self._waiting):
                if self._is_lost(order):
                    self._settle(order)
            self.changed.notify_all()

    def forget(self) -> None:
        """Forget everything: another user's stream begins."""
        with self.changed:
            for order in (*self._orders.values(), *self._awaited.values(), *self._waiting):
                order.is_abandoned = True
            for order in list(self._waiting):
                self._settle(order)
            self._orders.clear()
            self._ended.clear()
            self._forgotten.clear()
            self._awaited = weakref.WeakValueDictionary()
            self._lost_gaps = 0
            self.unknown_statuses = ()
            self.has_doubtful_end = False
            self.changed.notify_all()

    def stop(self, error: BaseException | None) -> None:
        """The stream has ended: nobody needs to wait any more."""
        with self.changed:
            self.stopped, self.error = True, error
            self.continuity = Continuity.UNKNOWN
            for order in list(self._waiting):
                self._settle(order)
            self.changed.notify_all()

    # --- for any thread ---------------------------------------------------------------------------------

    def track(self, order_id: str) -> OrderEntry:
        """Return the order, which is watched for from now on as long as the caller keeps it."""
        with self.changed:
            order = self._orders.get(order_id) or self._awaited.get(order_id)
            if order is None:
                order = self._awaited[order_id] = OrderEntry(order_id, self._lost_gaps)
            return order

    def outcome(self, order: OrderEntry) -> Outcome:
        """Return what is known to have become of an order."""
        with self.changed:
            return self._outcome(order)

    def snapshot(self, order: OrderEntry) -> Order | None:
        """Return what is known of an order; None if nothing is."""
        with self.changed:
            return order.snapshot() if order.is_known else None

    def when_ended(self, order: OrderEntry, callback: Callable[[Outcome], object]) -> None:
        """Call a function once an order has ended, or nobody will tell of its end any more.

        It is called under the lock, on this thread or the I/O thread: it must hand the outcome on, and no more.
        """
        with self.changed:
            order.callbacks = (*order.callbacks, callback)
            self._waiting.add(order)
            if self._is_over(order):
                self._settle(order)

    def no_longer_when_ended(self, order: OrderEntry, callback: Callable[[Outcome], object]) -> None:
        """Take `when_ended` back."""
        with self.changed:
            order.callbacks = tuple(kept for kept in order.callbacks if kept is not callback)
            if not order.callbacks:
                self._waiting.discard(order)

    def wait(self, order: OrderEntry, deadline: Deadline) -> Outcome:
        """Wait until an order has ended; return what is known then.

        Without a deadline it also ends when the order may have ended in a gap that nothing will close.
        """
        with self.changed:
            while not (order.is_terminal or order.is_abandoned or self.stopped or deadline.expired()):
                if deadline.at is None and (self._is_lost(order) or order.is_unlisted):
                    break
                self.changed.wait(deadline.remaining())
            return self._outcome(order)

    def wait_until_caught_up(self, deadline: Deadline) -> bool:
        """Wait until continuity is LIVE; return True if it is."""
        with self.changed:
            while self.continuity is not Continuity.LIVE and not self.stopped and not deadline.expired():
                self.changed.wait(deadline.remaining())
            return self.continuity is Continuity.LIVE

    def orders(self) -> OrdersView:
        """Return the orders that something is known of, as a mapping of snapshots."""
        return OrdersView(self.changed, self._orders)

    # --- inside, with the lock held ---------------------------------------------------------------------

    def _fold_submitted(self, event: OrderSubmitted) -> None:
        order = self._orders.get(event.order_id) or self._find(event.order_id)
        if self._lost_gaps:
            order.gaps = self._lost_gaps  # it never grows less
        order.fold_submitted(event)

    def _fold_event(self, event: OrderEvent, settled: list[OrderEntry]) -> bool:
        order = self._orders.get(event.order_id) or self._find(event.order_id)
        was_terminal = order.is_terminal
        repeats = order.fold_event(event)
        if order.unknown_status is not None:
            self._note_unknown(order)
        if order.is_terminal:
            if self._forgotten and event.is_terminal and event.source == "stream":
                repeats = repeats or self._repeats_forgotten(event)
            if order.has_doubtful_amounts:
                self.has_doubtful_end = True
            if not was_terminal and event.order_id in self._orders:
                settled.append(order)
        return repeats

    def _repeats_forgotten(self, event: OrderEvent) -> bool:
        told = self._forgotten.get(event.order_id)
        if told is None or told[0] != event.sub_event:
            return False
        filled = event.filled_amount_raw
        return event.filled_amount_text is None or (None not in (filled, told[1]) and filled <= told[1])  # type: ignore[operator]

    def _note_unknown(self, order: OrderEntry) -> None:
        word = order.unknown_status
        if word is None or order_event_kind(word) is not None:
            return
        word = word[:_LONGEST_WORD]
        if word not in self.unknown_statuses and len(self.unknown_statuses) < _MOST_WORDS:
            self.unknown_statuses += (word,)
            logger.warning(
                "%s: %s is no status that aggstream knows: name it in RestOptions.status_names",
                self._name,
                shown(word),
            )

    def _find(self, order_id: str) -> OrderEntry:
        order = self._orders.get(order_id)
        if order is None:
            order = self._awaited.pop(order_id, None)
            if order is None:
                order = OrderEntry(order_id, self._lost_gaps)
                if order_id in self._forgotten:  # late news of it brings nothing back
                    return order
            self._orders[order_id] = order
        return order

    def _end(self, settled: list[OrderEntry], now: float) -> None:
        for order in settled:
            self._ended[order.order_id] = now
            self._settle(order)
        if settled:
            self.changed.notify_all()
        self._prune_at = math.inf
        while self._ended:
            order_id, at = next(iter(self._ended.items()))
            self._prune_at = at + self._kept_for
            if len(self._ended) <= self._kept and now <= self._prune_at:
                break
            del self._ended[order_id]
            forgotten = self._orders.pop(order_id) if order_id in self._orders else None
            self._forgotten[order_id] = None if forgotten is None else forgotten.end_told_by_rest
        while len(self._forgotten) > _REMEMBERED:
            del self._forgotten[next(iter(self._forgotten))]
        while len(self._orders) - len(self._ended) > _MOST_OPEN:
            oldest = next(order_id for order_id in self._orders if order_id not in self._ended)
            del self._orders[oldest]

    def _is_lost(self, order: OrderEntry) -> bool:
        return order.gaps < self._lost_gaps and not order.is_terminal

    def _is_over(self, order: OrderEntry) -> bool:
        return order.is_terminal or order.is_abandoned or self.stopped or order.is_unlisted or self._is_lost(order)

    def _settle(self, order: OrderEntry) -> None:
        self._waiting.discard(order)
        callbacks, order.callbacks = order.callbacks, ()
        for callback in callbacks:
            callback(self._outcome(order))

    def _outcome(self, order: OrderEntry) -> Outcome:
        snapshot = order.snapshot() if order.is_known else None
        verdict = Verdict.UNKNOWN if snapshot is None else snapshot.verdict
        return Outcome(
            order_id=order.order_id,
            verdict=verdict,
            order=snapshot,
            reason=self._why_unknown(order, snapshot) if verdict is Verdict.UNKNOWN else "",
            error=self.error if self.stopped and not order.is_terminal else None,
        )

    def _why_unknown(self, order: OrderEntry, snapshot: Order | None) -> str:
        if snapshot is not None and snapshot.is_contradicted:
            return "it was said to have ended in two ways: look at order.contradictions"
        if snapshot is not None and snapshot.is_terminal:
            return _why_end_is_unknown(snapshot)
        reasons = (
            (order.is_abandoned, "another user was signed in before its end was told"),
            (self.stopped, "nobody told of its end before the stream ended"),
            (self._is_lost(order), "it may have ended in a gap, and there is no REST API to ask: see rest_url"),
            (
                order.unknown_status is not None,
                f"{shown(order.unknown_status or '')} is no status that aggstream knows: name it in status_names",
            ),
            (order.is_unlisted, "the REST API does not list it any more, and nobody has told of its end"),
            (
                self.continuity is not Continuity.LIVE,
                "nobody has told of its end, and something may be missing: the continuity is not LIVE",
            ),
            (snapshot is None, "nothing was heard of it"),
        )
        return next((words for applies, words in reasons if applies), "it has not ended yet")


def _why_end_is_unknown(order: Order) -> str:
    if order.amounts_doubt == "unreadable":
        said = order.unreadable_amount
        what = "an amount of it" if said is None else f"its filled amount, {shown(said)},"
        return f"it ended as {order.status!a}, and {what} cannot be read"
    if order.amounts_doubt:
        return f"it ended as {order.status!a}, and its amounts say otherwise: look at order.contradictions"
    return f"it ended as {order.status!a}: give its row in ORDER_EVENTS a verdict"


class OrdersView(Mapping[str, Order]):
    """The orders by their ids, as immutable snapshots; what it shows is always the present."""

    def __init__(self, lock: threading.Condition, orders: Mapping[str, OrderEntry]) -> None:
        self._lock = lock
        self._orders = orders

    def __getitem__(self, order_id: str) -> Order:
        with self._lock:
            return self._orders[order_id].snapshot()

    def __iter__(self) -> Iterator[str]:
        with self._lock:
            return iter(list(self._orders))

    def __len__(self) -> int:
        return len(self._orders)

    def __repr__(self) -> str:
        return f"<{len(self)} orders>"
