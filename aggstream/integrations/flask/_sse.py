"""A user's events from the journal that is theirs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from aggstream.errors import JournalError
from aggstream.integrations._sse import ASK_AGAIN, HEARTBEAT, PAGE, Row, frames
from aggstream.journal import JournalReader

logger = logging.getLogger("aggstream")

T = TypeVar("T")


class Feed:
    """The events of one user. Belongs to one thread, which holds no file open while it waits."""

    def __init__(self, paths: Iterable[str], user_id: str) -> None:
        """Make one.

        Args:
            paths: the journals among which the user's may be; none needs to be there yet.
            user_id: the user's id by AGG.
        """
        self._paths = list(paths)
        self._user_id = user_id

    def frames(self, after: int | None, *, seconds: float, heartbeat: float = HEARTBEAT) -> Iterator[str]:
        """Return what an `EventSource` reads; see `aggstream.integrations._feed.frames`.

        Args:
            after: the `seq` of the event after which to begin; None: the newest.
            seconds: after which to end.
            heartbeat: seconds of silence after which a comment is sent.
        """
        newest = self._read(JournalReader.newest, 0)
        if newest is None:
            return iter([ASK_AGAIN])
        # Not after what nobody has stored: the journal may have been begun anew since the page was made.
        begin = newest if after is None else min(after, newest)
        return frames(self._look, begin, seconds=seconds, heartbeat=heartbeat)

    def _look(self, after: int) -> list[Row] | None:
        def rows(reader: JournalReader) -> list[Row]:
            return [(event.seq, event.type, event.text) for event in reader.find(after=after, limit=PAGE)]

        nothing: list[Row] = []
        return self._read(rows, nothing)

    def _read(self, look: Callable[[JournalReader], T], nothing: T) -> T | None:
        """Look into the user's journal; return `nothing` if there is none, and None if that cannot be told."""
        problem: Exception | None = None
        for path in self._paths:
            try:
                if Path(path).exists():
                    with JournalReader(path) as reader:
                        if reader.user_id == self._user_id:
                            return look(reader)
            except (JournalError, OSError) as error:  # another one may be the user's
                problem = error
        if problem is None:
            return nothing
        logger.warning("live events end, because the journal cannot be read: %s", problem)
        return None
