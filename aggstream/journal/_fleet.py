"""The owner's handle on a journal that holds the events of many accounts."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from aggstream._base.service_checks import check_account
from aggstream._base.text import shown
from aggstream.journal._file import from_column, to_column
from aggstream.journal._journal import Journal
from aggstream.journal._options import JournalOptions
from aggstream.journal._owned_file import OwnedFile
from aggstream.journal._store import Part
from aggstream.journal._stored import to_row

logger = logging.getLogger("aggstream.journal")


class FleetJournal:
    """A journal of many accounts that this process owns. Methods are thread-safe, with `Journal`'s errors."""

    def __init__(self, options: JournalOptions) -> None:
        """Open the file and own it; see `Journal`."""
        self.options = options
        self._file = OwnedFile(options)
        self.path = self._file.path
        self._views: dict[str, Journal] = {}

    def of(self, account: str, user_id: str | None = None) -> Journal:
        """Return the events of one account; see `FleetStore.of`."""
        check_account(account)
        if user_id is not None:
            self._take_over(account, user_id)
        self._views[account] = view = Journal(self.options, self._file, account)
        return view

    def unclaimed(self) -> str | None:
        """Return the user whose events a single client has stored, and no account has taken over; else None."""
        with self._file.using() as connection:
            row = connection.execute(
                "SELECT user_id FROM accounts WHERE name = '' AND user_id IS NOT NULL"
            ).fetchone()
        return None if row is None else from_column(row[0])

    def store_all(self, parts: Sequence[Part]) -> list[list[int | None] | Exception]:
        """Keep the events of many accounts, in one transaction; see `FleetStore.store_all`."""
        rows: list[list[tuple[object, ...] | None] | Exception] = []
        for part in parts:
            try:
                rows.append([to_row(event) for event in part.events])
            except ValueError as error:
                rows.append(error)
        results: list[list[int | None] | Exception] = []
        with self._file.writing() as connection:
            for part, of_part in zip(parts, rows, strict=True):
                if isinstance(of_part, Exception):
                    results.append(of_part)
                else:
                    store = self._views[part.account].store_rows
                    results.append(
                        store(connection, of_part, part.events, complete=part.complete) if of_part else []
                    )
        return results

    def retention(self, now_ns: int) -> int:
        """Delete some of the done events that need not be kept; see `Journal.retention`."""
        return self._file.retention(now_ns)

    def leave(self) -> None:
        """Do nothing: no thread holds anything of its own."""

    def close(self) -> None:
        """Merge what was written into the file, and let somebody else own it. May be called again."""
        self._file.close()

    def _take_over(self, account: str, user_id: str) -> None:
        """Let an account without events have those that a single client has stored of the same user."""
        with self._file.writing() as connection:
            taken = connection.execute(
                """UPDATE accounts SET name = ? WHERE name = '' AND user_id = ?
                AND NOT EXISTS (SELECT 1 FROM accounts AS other WHERE other.name = ?)""",
                (account, to_column(user_id), account),
            ).rowcount
        if taken:
            logger.info("the journal %s: the events of %s are now those of %a", self.path, shown(user_id), account)
