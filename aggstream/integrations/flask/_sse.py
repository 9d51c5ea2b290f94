"""A user's stored events, read from the journal that is theirs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

from aggstream.errors import JournalError
from aggstream.integrations._sse import PAGE, EventRow, Unreadable
from aggstream.journal import JournalReader

T = TypeVar("T")


class JournaledEvents:
    """See `aggstream.integrations._sse.UserEvents`."""

    def __init__(self, paths: Iterable[str], user_id: str) -> None:
        """Make one.

        Args:
            paths: the journals among which the user's may be; none needs to be there yet.
            user_id: the user's id by AGG.
        """
        self._paths = list(paths)
        self._user_id = user_id

    def newest(self) -> int:
        """Return the `seq` of the newest event; 0 if there is none."""
        return self._read(JournalReader.newest) or 0

    def page_after(self, number: int) -> list[EventRow]:
        """Return the events whose `seq` is larger."""

        def rows(reader: JournalReader) -> list[EventRow]:
            return [(event.seq, event.type, event.text) for event in reader.find(after=number, limit=PAGE)]

        return self._read(rows) or []

    def _read(self, question: Callable[[JournalReader], T]) -> T | None:
        """Ask the user's journal; return None if no journal is theirs.

        Raises:
            Unreadable: a journal cannot be read, and it may be theirs.
        """
        problem: Exception | None = None
        for path in self._paths:
            try:
                if Path(path).exists():
                    with JournalReader(path) as reader:
                        if reader.user_id == self._user_id:
                            return question(reader)
            except (JournalError, OSError) as error:  # another one may be the user's
                problem = error
        if problem is None:
            return None
        raise Unreadable(str(problem))
