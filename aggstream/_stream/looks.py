"""The kinds of looks at REST: which orders each is about, which of them are news, and when it has read enough."""

from __future__ import annotations

from typing import ClassVar

import attrs

from aggstream._base.times import milliseconds
from aggstream.errors import DecodeError, RestError
from aggstream.events._records import OrderRecord, OrdersPage
from aggstream.orders._tracker import Tracker


@attrs.define(eq=False, repr=False, kw_only=True)
class Look:
    """One pass over the REST API, newest orders first. The subclasses say what it is for."""

    reads_balances: ClassVar[bool] = True
    """False if it is about some orders only: then it reads no balances, and its end is no news for anybody."""

    began: float
    """When it began, in monotonic seconds."""
    gaps: tuple[int, ...] = ()
    """The numbers of the gaps that it closes."""
    holds_until: float | None = None
    """When live events are no longer held back for it, in monotonic seconds; None: they are not held."""
    news_after: int | None = None
    """The service's time, in milliseconds, after which a change may be news; None: no change is."""
    missing: set[str] = attrs.field(factory=set)
    """Orders that are known to be open: they must be found, however far back they are."""
    wanted: set[str] = attrs.field(factory=set)
    """Orders that nothing is known of, and that REST may not have either."""
    looked_for: frozenset[str] = frozenset()
    """The wanted orders that were there when it began."""

    problem: DecodeError | None = None
    """Why an order that was read was not understood."""
    cursor: str | None = None
    """The page that comes next; None before the first one, and after the last."""
    orders_read: bool = False
    """True once no more pages are needed."""
    reached: bool = False
    """True once nothing that is unknown can have changed further back."""
    pages: int = 0
    orders: int = 0
    changed: int = 0
    """How many events were made of it."""

    def is_of_interest(self, record: OrderRecord, *, has_ended: bool) -> bool:
        """Return True if the look is about this order."""
        return True

    def is_news(self, record: OrderRecord, *, was_open: bool, has_ended: bool) -> bool:
        """Return True if handlers are told of a record that says more than they were told.

        Args:
            record: what REST says of the order.
            was_open: whether the order was known, and not known to have ended.
            has_ended: whether it has ended, by the record.
        """
        if was_open:
            return True
        changed = milliseconds(record.updated_at or record.created_at)
        # In doubt an event too many is better than one that is missing.
        return self.news_after is not None and (changed is None or changed > self.news_after)

    def page_read(self, page: OrdersPage, tracker: Tracker) -> None:
        """Note which orders a page has shown, and where the next page is."""
        found = {record.id for record in page.orders}
        self.missing -= found
        self.wanted -= found
        self.reached = self.reached or self._reaches_far_enough(page, tracker)
        self.cursor = page.next_cursor

    def has_read_enough(self, most_pages: int) -> bool:
        """Return True if no further page is needed.

        Raises:
            RestError: further pages are needed, and there are none, or too many.
        """
        is_last = self.pages >= most_pages
        if self.cursor is None:
            if self.missing and self.problem is not None:
                raise RestError(
                    f"an order that has not ended may be the one that is not understood: {self.problem}"
                )
            return True
        if self.reached and not self.missing and (is_last or not self.wanted):
            return True
        if is_last:
            raise RestError(f"what may have changed is further back than {self.pages} pages: see max_pages")
        return False

    def _reaches_far_enough(self, page: OrdersPage, tracker: Tracker) -> bool:
        raise NotImplementedError


class FirstLook(Look):
    """Nothing was known before: the newest orders are read, and those that are open among the next ones."""

    def _reaches_far_enough(self, page: OrdersPage, tracker: Tracker) -> bool:
        return all(tracker.is_terminal(record.id) for record in page.orders)


class GapLook(Look):
    """Something may have been missed since a time: all is read that can have changed after it."""

    def _reaches_far_enough(self, page: OrdersPage, tracker: Tracker) -> bool:
        created = [milliseconds(record.created_at) for record in page.orders]
        oldest = min((at for at in created if at is not None), default=None)
        return oldest is not None and self.news_after is not None and oldest <= self.news_after


class Search(Look):
    """A program tracks orders that nothing is known of. Handlers are not told: the stream may be about to."""

    reads_balances = False

    def is_of_interest(self, record: OrderRecord, *, has_ended: bool) -> bool:
        """Return True if the order is wanted."""
        return record.id in self.wanted

    def is_news(self, record: OrderRecord, *, was_open: bool, has_ended: bool) -> bool:
        """Return False: the program learns of it by the order that it tracks."""
        return False

    def _reaches_far_enough(self, page: OrdersPage, tracker: Tracker) -> bool:
        return True


class Sweep(Look):
    """The pages behind those of the first look are searched for orders that are still open, however old."""

    reads_balances = False

    def is_of_interest(self, record: OrderRecord, *, has_ended: bool) -> bool:
        """Return True if the order is open, wanted, or has ended since the first look."""
        is_wanted = record.id in self.wanted
        return is_wanted or not has_ended or self.is_news(record, was_open=False, has_ended=has_ended)

    def is_news(self, record: OrderRecord, *, was_open: bool, has_ended: bool) -> bool:
        """Return True if the order has ended since the first look: that it is still open is no news."""
        return has_ended and super().is_news(record, was_open=was_open, has_ended=has_ended)

    def has_read_enough(self, most_pages: int) -> bool:
        """Return True after the last page, or after so many that it is given up."""
        return self.cursor is None or self.pages >= most_pages

    def _reaches_far_enough(self, page: OrdersPage, tracker: Tracker) -> bool:
        return False
