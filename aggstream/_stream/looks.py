"""The kinds of looks at REST: what each is for, in what order it reads, and when it has read enough."""

from __future__ import annotations

from typing import ClassVar

import attrs

from aggstream._base.times import milliseconds
from aggstream.errors import DecodeError, RestError
from aggstream.events import normal_form
from aggstream.events._records import OrderRecord, OrdersPage
from aggstream.orders._tracker import Tracker

# A service may send an empty page and say that there are more. It is believed so many times in a row.
_MOST_EMPTY = 3

OPEN_STATUSES = ("pending", "open", "partially_filled_open")
"""The documented statuses of orders that have not ended, as the filter `status=` takes them (assumed)."""


@attrs.define(eq=False, repr=False, kw_only=True)
class Look:
    """One pass over the REST API, the newest orders first. The subclasses say what it is for."""

    reads_balances: ClassVar[bool] = False
    """True if it reads the balances as well, after the orders."""

    began: float
    """The moment when it began."""
    known_until: int | None = None
    """The service's time, in milliseconds, up to which all is known: unknown orders that changed later are
    news."""
    wanted: set[str] = attrs.field(factory=set)
    """Orders that it must find, however far back they are, if they are listed at all."""

    looked_for: frozenset[str] = frozenset()
    """Of these, the ones that a program tracks and that nothing is known of. They need not be listed."""

    problem: DecodeError | None = None
    """Why an order that was read was not understood."""
    status: str | None = None
    """The filter of the page that comes next; None: no filter."""
    cursor: str | None = None
    """The page that comes next; None: the first one."""
    orders_read: bool = False
    """True once no more pages are needed."""
    pages: int = 0
    changed: int = 0
    """How many events were made of it."""
    records: dict[str, OrderRecord] = attrs.field(factory=dict)
    """What it has read, by the orders' ids: rows may repeat over a page's border, and the last one counts."""
    is_below_listed: bool = False
    """True once it has come to an order that the last complete look had listed."""
    _cursors: set[str] = attrs.field(factory=set)
    _empty: int = 0
    _reached: bool = False

    def page_read(self, page: OrdersPage, tracker: Tracker, *, most_pages: int) -> None:
        """Note what a page has shown, and decide whether another one is needed.

        Raises:
            RestError: another one is needed, and there is none, or the pages lead nowhere.
        """
        self.pages += 1
        self._empty = 0 if page.orders or page.problems else self._empty + 1
        self.records.update((record.id, record) for record in page.orders)
        self.wanted -= self.records.keys()
        self._reached = self._reached or self._reaches_far_enough(page, tracker)
        self.cursor = page.next_cursor
        if self.cursor is None:
            self._end_of_pages()
        elif self._reached and not self.wanted:
            self.orders_read = True
        elif self.pages >= most_pages:
            self._too_many_pages()
        elif self.cursor in self._cursors:
            raise RestError("the pages of the orders go in a circle: the REST API gave one nextCursor twice")
        elif self._empty >= _MOST_EMPTY:
            raise RestError(f"the REST API sent {self._empty} empty pages of orders in a row, and says hasMore")
        else:
            self._cursors.add(self.cursor)

    def _end_of_pages(self) -> None:
        if self.wanted and self.problem is not None:
            raise RestError(f"an order that has not ended may be the one that is not understood: {self.problem}")
        self.orders_read = True

    def _too_many_pages(self) -> None:
        if not self._reached:
            raise RestError(f"what may have changed is further back than {self.pages} pages: see max_pages")
        self.orders_read = True

    def _reaches_far_enough(self, page: OrdersPage, tracker: Tracker) -> bool:
        """Return True if nothing that the look is for can stand on a further page, but what is wanted."""
        raise NotImplementedError


class FirstLook(Look):
    """Nothing was known before: the newest orders are read, and those that are open among the next ones.

    It tells handlers nothing. What had last changed before the first sign-in is history; what changed since is
    told by the stream, or by a later look.
    """

    reads_balances = True

    def _too_many_pages(self) -> None:
        self.orders_read = True  # nothing is missing yet, and the sweep goes on with what is open further back

    def _reaches_far_enough(self, page: OrdersPage, tracker: Tracker) -> bool:
        return bool(page.orders) and not any(tracker.is_open(record.id) for record in page.orders)


class _LookBack(Look):
    """Everything is read that may have changed since a time, and what is news is told."""

    overlap_ms: int
    """By how many milliseconds before `known_until` a change may still be news."""

    def _reaches_far_enough(self, page: OrdersPage, tracker: Tracker) -> bool:
        # Orders that are open need not be passed for it: those that are known are wanted.
        created = [milliseconds(record.created_at) for record in page.orders]
        oldest = min((at for at in created if at is not None), default=None)
        return oldest is not None and self.known_until is not None and oldest <= self.known_until - self.overlap_ms


@attrs.define(eq=False, repr=False, kw_only=True)
class DoubtLook(_LookBack):
    """Something may have been missed until a short while ago."""

    reads_balances: bool = True  # type: ignore[misc]  # of some, not of the class
    overlap_ms: int = 0


@attrs.define(eq=False, repr=False, kw_only=True)
class LateLook(_LookBack):
    """REST has had the time that it needs at worst: what it shows only now is told. Nothing waits for it."""

    overlap_ms: int = 0


@attrs.define(eq=False, repr=False, kw_only=True)
class Search(Look):
    """A program tracks orders that nothing is known of."""

    def _reaches_far_enough(self, page: OrdersPage, tracker: Tracker) -> bool:
        return True


@attrs.define(eq=False, repr=False, kw_only=True)
class Sweep(Look):
    """All orders that are still open are searched for, however old they are.

    The filter by status is used as long as every record that comes has that status; else all pages are read.
    """

    statuses: list[str] = attrs.field(factory=lambda: list(OPEN_STATUSES))
    """The filters that are still to be used."""
    is_filtered: bool = True

    def is_as_filtered(self, page: OrdersPage) -> bool:
        """Return True unless the page holds an order of another status than was asked for."""
        if self.status is None:
            return True
        wanted = normal_form(self.status)
        return all(normal_form(record.status) == wanted for record in page.orders)

    def begin_next(self) -> bool:
        """Go on to the next filter; return False if there is none."""
        if not self.statuses:
            return False
        self.status = self.statuses.pop(0)
        self._begin_anew()
        return True

    def go_without_filter(self) -> None:
        """Read all pages, because the filter is not to be relied on."""
        self.is_filtered, self.status = False, None
        self.statuses.clear()
        self._begin_anew()

    def _begin_anew(self) -> None:
        """Read from the first page on, and as many pages as are read at most."""
        self.cursor, self.orders_read, self.pages = None, False, 0
        self._cursors.clear()

    def _too_many_pages(self) -> None:
        self.orders_read = True

    def _reaches_far_enough(self, page: OrdersPage, tracker: Tracker) -> bool:
        return False
