"""A Flask application with a database of its own."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from integrations.flask.desks import Desk
from integrations.servers import Postgres

from aggstream.simulator import Simulator

_numbers = itertools.count()


def _new_postgres(server: Postgres) -> str:
    name = f"desk_{next(_numbers)}"
    url = f"postgresql+psycopg://{server.user}@127.0.0.1:{server.port}/"
    engine = sa.create_engine(f"{url}postgres", poolclass=sa.NullPool, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name}"))
    return f"{url}{name}?connect_timeout=5"


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest, tmp_path: Path, nothing_left_behind: None) -> str:
    """The URL of an empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/desk.db?timeout=0.2"
    return _new_postgres(request.getfixturevalue("postgres"))


on_sqlite = pytest.mark.parametrize("database", ["sqlite"], indirect=True)
on_postgres = pytest.mark.parametrize("database", ["postgres"], indirect=True)


@pytest.fixture
def desk(database: str, agg: Simulator, tmp_path: Path) -> Iterator[Desk]:
    starter = Desk(database, agg, tmp_path)
    yield starter
    starter.close()
