"""The application's commands, its database, and its journal."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import sqlalchemy as sa
from desk.database import metadata, seen, trouble
from integrations.processes import Process, Project

from aggstream.journal import JournalReader, StoredEvent
from aggstream.simulator import Simulator

PROJECT = Path(__file__).parent / "project"
EVERYTHING = 1_000_000


class Desk(Project):
    """Starts commands of the application with a database of its handlers and the simulator's user."""

    def __init__(self, database: str, agg: Simulator, directory: Path) -> None:
        """Make the tables, and nothing else.

        Args:
            database: the URL of an empty database.
            agg: whose service is meant.
            directory: where the journal is to be, and what commands write.
        """
        self.journal = directory / "instance" / "aggstream.db"
        super().__init__(
            PROJECT,
            agg,
            directory,
            DESK_TOKEN=agg.sign_in("usr_1", lifetime=3600).access_token,
            DESK_INSTANCE=str(self.journal.parent),
            FLASK_SQLALCHEMY_DATABASE_URI=database,
            FLASK_APP="desk",
        )
        self.engine = sa.create_engine(database, poolclass=sa.NullPool)
        metadata.create_all(self.engine)

    def __call__(self, *arguments: str, **environment: str) -> Process:
        return self.python("-m", "flask", *arguments, **environment)

    def stream(self, *arguments: str, **environment: str) -> Process:
        """Start the stream."""
        return self("aggstream", "run", "--log-format", "json", *arguments, **environment)

    def stored(self, **wanted: str) -> list[StoredEvent]:
        """Return what is in the journal, oldest first."""
        if not self.journal.exists():
            return []
        with JournalReader(self.journal) as reader:
            return reader.find(limit=EVERYTHING, **wanted)  # type: ignore[arg-type]  # a state is a text

    def ends(self) -> dict[str, str | None]:
        """Return how orders have ended, as far as handlers are done with it."""
        return {s.order_id or "": s.sub_event for s in self.stored(state="done") if s.terminal}

    def seen(self) -> list[str]:
        """Return the ids of the events that the handler has written, in order."""
        with self.engine.connect() as connection:
            return list(connection.scalars(sa.select(seen.c.event_id).order_by(seen.c.id)))

    def handlers(self) -> set[str]:
        """Return which handlers have written something."""
        with self.engine.connect() as connection:
            return set(connection.scalars(sa.select(seen.c.handler)))

    def redelivered(self) -> list[bool]:
        """Return whether each of them was marked so."""
        with self.engine.connect() as connection:
            return list(connection.scalars(sa.select(seen.c.redelivered).order_by(seen.c.id)))

    def trouble(self) -> Callable[[], None]:
        """Let the handler fail until what is returned is called."""
        with self.engine.begin() as connection:
            connection.execute(trouble.insert().values(id=1))

        def mend() -> None:
            with self.engine.begin() as connection:
                connection.execute(trouble.delete())

        return mend
