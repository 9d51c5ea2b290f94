"""What the looks of one doubt came to, for the report that handlers are given."""

from __future__ import annotations

import attrs

from aggstream._stream.looks import Look
from aggstream.errors import AggStreamError
from aggstream.events import Reconciled


@attrs.define(eq=False)
class Tally:
    """Counts what the looks of one doubt have read and told. It belongs to the I/O thread."""

    began: float
    """The moment when the doubt began."""
    changed: int = 0
    """How many events the handlers were given of what the looks have read."""
    has_failed: bool = False
    """True once handlers were told that REST does not answer."""
    _pages: int = 0
    _orders: set[str] = attrs.field(factory=set)

    def add(self, look: Look) -> None:
        """Count what a complete look has read and told."""
        self._orders |= look.records.keys()
        self._pages += look.pages
        self.changed += look.changed

    def report(
        self,
        gaps: tuple[int, ...],
        now: float,
        *,
        resolved: bool,
        error: AggStreamError | None,
        unlisted: tuple[str, ...] = (),
    ) -> Reconciled:
        """Return the event that tells what the looks came to.

        Args:
            gaps: the numbers of the gaps that the doubt stands for.
            now: the moment.
            resolved: whether nothing is in doubt any more.
            error: why something is.
            unlisted: the open orders that the last look did not list.
        """
        return Reconciled(
            gaps=gaps,
            resolved=resolved,
            error=error,
            orders=len(self._orders),
            pages=self._pages,
            changed=self.changed,
            took=now - self.began,
            unlisted=unlisted,
        )
