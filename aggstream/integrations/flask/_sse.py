"""Reads a user's stored events from the user's journal."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

from aggstream.errors import JournalError
from aggstream.integrations._sse import PAGE, EventRow, Unreadable
from aggstream.journal import JournalReader

T = TypeVar("T")


class JournaledEvents:
    """Implements `aggstream.integrations._sse.UserEvents`."""

    def __init__(self, paths: Iterable[str], user_id: str) -> None:
        """Make a reader.

        Args:
            paths: the paths of all journals. One of them may be the user's journal. A journal may not exist yet.
            user_id: the AGG id of the user.
        """
        self._paths = list(paths)
        self._user_id = user_id

    def newest(self) -> int:
        """Return the `seq` of the newest event; 0 if there is none."""
        return self._read(JournalReader.newest) or 0

    def page_after(self, number: int) -> list[EventRow]:
        """Return the events whose `seq` is larger than `number`."""

        def rows(reader: JournalReader) -> list[EventRow]:
            return [(event.seq, event.type, event.text) for event in reader.find(after=number, limit=PAGE)]

        return self._read(rows) or []

    def _read(self, read: Callable[[JournalReader], T]) -> T | None:
        """Call a function with the user's journal, and return its result; None if the user has no journal.

        Raises:
            Unreadable: a journal cannot be read, and it may be the user's journal.
        """
        problem: Exception | None = None
        for path in self._paths:
            try:
                if Path(path).exists():
                    with JournalReader(path) as reader:
                        if reader.user_id == self._user_id:
                            return read(reader)
            except (JournalError, OSError) as error:  # another journal may be the user's
                problem = error
        if problem is None:
            return None
        raise Unreadable(str(problem))
