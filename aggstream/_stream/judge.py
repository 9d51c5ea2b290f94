"""The one rule that decides what handlers are told of a record of REST."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

from aggstream._base.times import milliseconds
from aggstream._stream.gaps import OVERLAP_MS, Gaps
from aggstream._stream.looks import FirstLook, Look, Search, Sweep
from aggstream.events import normal_form, order_event_kind
from aggstream.events._records import OrderRecord
from aggstream.orders._state import Telling

# So many of the newest orders of a look are kept, to know which orders stand above them in a later look.
_MOST_LISTED = 200


class Judge:
    """Decides whether handlers are told of a record now, later or never. It belongs to the I/O thread."""

    def __init__(self, gaps: Gaps, status_names: Mapping[str, str]) -> None:
        """Make a judge.

        Args:
            gaps: what may have been missed, and up to when all is history.
            status_names: what other words for statuses mean; see `RestOptions`.
        """
        self._gaps = gaps
        self._status_names = status_names
        # The newest orders of the last complete look; None before it.
        self._listed: frozenset[str] | None = None

    def forget(self) -> None:
        """Begin anew with another user."""
        self._listed = None

    def note_listed(self, look: Look) -> None:
        """Note which orders a complete look has listed."""
        self._listed = frozenset(itertools.islice(look.records, _MOST_LISTED))

    def status_of(self, record: OrderRecord) -> str:
        """Return the normal form of a record's status, as `status_names` names it."""
        return normal_form(self.named_as(record) or record.status)

    def named_as(self, record: OrderRecord) -> str:
        """Return what `status_names` says that a record's status means; empty if it does not say."""
        return self._status_names.get(normal_form(record.status), "")

    def telling(
        self,
        look: Look,
        record: OrderRecord,
        now: float,
        known_until: int | None,
        *,
        is_known: bool,
        says_more: bool,
    ) -> Telling:
        """Return whether handlers are told of a record.

        Args:
            look: the look that has read it.
            record: what REST says of an order.
            now: the moment.
            known_until: the service's time, in milliseconds, up to which the look knows everything; None: unknown.
            is_known: whether the order is known already.
            says_more: whether the record says more than the handlers were told.
        """
        gaps = self._gaps
        history_until = gaps.history_until
        changed = milliseconds(record.updated_at)
        if changed is None and not self._is_created_by(record, history_until):
            changed = milliseconds(record.created_at)  # an older order may have changed at any time since
        if changed is not None and not gaps.clock.is_time(changed, now):
            changed = None
        if changed is not None and history_until is not None and changed <= history_until:
            return "never"
        is_undoubted = isinstance(look, (Search, Sweep)) and gaps.doubt is None
        if changed is None and (is_undoubted or isinstance(look, FirstLook)):
            return "never"
        if isinstance(look, FirstLook):
            return "later"
        if is_undoubted:
            # The stream is about to tell, or has nothing to tell. But of an order that was open before anything
            # was known, and that ended in a gap, nothing else tells.
            is_lost = isinstance(look, Sweep) and says_more and self._has_ended(record) and self._is_old(record)
            return "now" if is_lost else "later"
        is_above = changed is None and self._is_above_listed(look, record)
        if is_known:
            return "now" if says_more else "never"
        return "now" if is_above or self._is_news(record, changed, known_until) else "never"

    def _is_news(self, record: OrderRecord, changed: int | None, known_until: int | None) -> bool:
        """Return True if an order that nothing was known of may have come about unseen.

        Args:
            record: what REST says of it.
            changed: the service's time, in milliseconds, when it last changed; None if nothing tells.
            known_until: the service's time up to which everything is known; None: unknown.
        """
        if changed is None:
            return False
        if known_until is None or changed > known_until - OVERLAP_MS:
            return True
        return self._is_old(record)

    def _is_old(self, record: OrderRecord) -> bool:
        """Return True if an order is older than all that is known, and was not searched for yet."""
        return self._is_created_by(record, self._gaps.history_until) and not self._gaps.is_searched

    def _is_created_by(self, record: OrderRecord, moment: int | None) -> bool:
        """Return True if an order came about before a time of the service's, in milliseconds."""
        created = milliseconds(record.created_at)
        return created is not None and moment is not None and created <= moment

    def _is_above_listed(self, look: Look, record: OrderRecord) -> bool:
        """Return True if a record without a time stands above the newest orders of the last complete look."""
        if self._listed is None:
            return False
        look.is_below_listed = look.is_below_listed or record.id in self._listed
        return not look.is_below_listed

    def _has_ended(self, record: OrderRecord) -> bool:
        kind = order_event_kind(self.status_of(record))
        return kind is not None and kind.is_terminal
