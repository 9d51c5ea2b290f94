"""Inserts events and their orders into the tables, inside a transaction of the owner."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from aggstream.events import OrderEvent, OrderSubmitted, UserEvent
from aggstream.events._user import id_of_version_1, is_among
from aggstream.integrations.django._columns import NAME, key, storable
from aggstream.integrations.django._store.order_rows import FIELDS, JUDGED, OrderStates
from aggstream.integrations.django._store.queries import PAGE, StreamRows, pages, stored
from aggstream.integrations.django.models import Event, Order
from aggstream.journal import StoredEvent
from aggstream.journal._file import to_integer
from aggstream.journal._stored import newest_timestamp, understood

_CHANGED = 50


class EventInserter:
    """Inserts events. Only the thread that stores events uses it."""

    def __init__(self, rows: StreamRows, status_names: Mapping[str, str]) -> None:
        self._rows = rows
        self._states = OrderStates(
            lambda order: stored(rows.events.filter(order=order), user_id=rows.user_id), status_names
        )
        self.old_ids_until = 0
        """Events up to this number have ids of version 1."""

    def forget_states(self) -> None:
        """Forget the states of orders, because the transaction of the last call may be rolled back."""
        self._states.forget()

    def insert(self, by_id: Mapping[str, UserEvent], newest: int, *, complete: bool) -> dict[str, int]:
        """Insert events that are not repeats, and update their orders.

        Args:
            by_id: events by their ids.
            newest: the largest number of an event that is known to be stored.
            complete: True: everything that happened before these events is known.

        Returns:
            The numbers of the events that are not repeats, by their ids.
        """
        found = self._numbers(by_id)
        new = {id_: event for id_, event in by_id.items() if id_ not in found}
        if self.old_ids_until and new:
            new = self._without_old(new)
        # A broken connection may hide that the previous attempt succeeded. The events of that attempt are not
        # repeats. Their numbers are larger than `newest`, because only the owner stores events.
        seqs = {id_: seq for id_, seq in found.items() if seq > newest}
        if new:
            orders = self.orders_by_id(
                {key(order_id) for e in new.values() if (order_id := _order_id(e)) is not None}
            )
            rows = [self._row(id_, event, orders) for id_, event in new.items()]
            Event.objects.using(self._rows.database).bulk_create(rows, batch_size=PAGE)
            self._update_orders(orders, new.values())
            if complete:
                self._note_complete_until(list(new.values()))
            seqs |= self._numbers(new)
        return seqs

    def judge_again(self) -> None:
        """Update the orders that have not ended, because this process may know more words than the one before.

        It may be of a newer version, or `status_names` may name more of the service's words.
        """
        for page in pages(self._rows.orders.filter(is_terminal=False)):
            of_order: dict[int, list[StoredEvent]] = {order.pk: [] for order in page}
            pk_of = {order.order_id: order.pk for order in page}
            for event in stored(self._rows.events.filter(order__in=page)):
                of_order[pk_of[str(event.order_id)]].append(event)
            changed = [order for order in page if self._states.judge(order, of_order[order.pk])]
            self._rows.orders.bulk_update(changed, JUDGED, batch_size=_CHANGED)

    def _without_old(self, new: Mapping[str, UserEvent]) -> dict[str, UserEvent]:
        """Return the events without those that version 1 has stored, under the ids that it made for them."""
        of_none = {id_of_version_1(event) for event in new.values() if _order_id(event) is None}
        stored_ids = {id_ for id_, pk in self._numbers(of_none).items() if pk <= self.old_ids_until}
        of_order: dict[str, list[StoredEvent]] = {}
        for page in pages({key(id_) for event in new.values() if (id_ := _order_id(event)) is not None}):
            old = self._rows.events.filter(pk__lte=self.old_ids_until, order__order_id__in=page)
            for entry in stored(old):
                of_order.setdefault(str(entry.order_id), []).append(entry)
        known = {order_id: understood(some) for order_id, some in of_order.items()}

        def is_old(event: UserEvent) -> bool:
            order_id = _order_id(event)
            if order_id is None:
                return id_of_version_1(event) in stored_ids
            return is_among(event, known.get(key(order_id), ()))

        return {id_: event for id_, event in new.items() if not is_old(event)}

    def _numbers(self, ids: Collection[str]) -> dict[str, int]:
        found: dict[str, int] = {}
        for page in pages(ids):
            found |= dict(self._rows.events.filter(event_id__in=page).values_list("event_id", "pk"))
        return found

    def orders_by_id(self, ids: Collection[str]) -> dict[str, Order]:
        """Return the orders with some ids, by their ids. Create the missing orders."""
        found = self._orders_found(ids)
        new = [order_id for order_id in ids if order_id not in found]
        rows = [Order(stream_id=self._rows.stream, order_id=order_id) for order_id in new]
        Order.objects.using(self._rows.database).bulk_create(rows, batch_size=PAGE)
        return found | self._orders_found(new)

    def _orders_found(self, ids: Collection[str]) -> dict[str, Order]:
        found = (self._rows.orders.filter(order_id__in=page) for page in pages(ids))
        return {order.order_id: order for some in found for order in some}

    def _row(self, id_: str, event: UserEvent, orders: dict[str, Order]) -> Event:
        if not event.text:
            raise ValueError("an event without its text cannot be stored: nothing could be made of it again")
        order_id = _order_id(event)
        return Event(
            stream_id=self._rows.stream,
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

    def _update_orders(self, orders: dict[str, Order], events: Iterable[UserEvent]) -> None:
        of_order: dict[str, list[UserEvent]] = {}
        for event in events:
            if (order_id := _order_id(event)) is not None:
                of_order.setdefault(key(order_id), []).append(event)
        changed = [orders[id_] for id_, some in of_order.items() if self._states.update(orders[id_], some)]
        self._rows.orders.bulk_update(changed, FIELDS, batch_size=_CHANGED)

    def _note_complete_until(self, events: Sequence[UserEvent]) -> None:
        known = self._rows.own.values_list("last_timestamp", flat=True).get()
        newest = [at for at in (known, newest_timestamp(events)) if at is not None]
        self._rows.own.update(
            last_received_ns=to_integer(events[-1].received_ns), last_timestamp=max(newest, default=None)
        )


def _order_id(event: UserEvent) -> str | None:
    return event.order_id if isinstance(event, (OrderSubmitted, OrderEvent)) else None
