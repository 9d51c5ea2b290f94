"""A Django project, its databases, and the simulator."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import django
import pytest
from django.db import connections
from integrations.conftest import running
from integrations.django.databases import create, migrate, point_at, sqlite
from integrations.django.manage import Manage
from integrations.servers import MariaDB, Postgres

from aggstream.simulator import Simulator

# For this process alone: what other tests start has settings of its own.
os.environ["DJANGO_SETTINGS_MODULE"] = "settings"
django.setup()
del os.environ["DJANGO_SETTINGS_MODULE"]

USER = "usr_1"


@pytest.fixture(scope="session")
def mariadb() -> Iterator[MariaDB]:
    yield from running(MariaDB)


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sqlite") / "template.db"
    migrate(sqlite(path))
    return path


@pytest.fixture(scope="session")
def postgres_template(postgres: Postgres) -> str:
    create(postgres, "template")
    migrate(postgres.config("template"))
    return "template"


def _new_sqlite(request: pytest.FixtureRequest) -> dict[str, Any]:
    path = request.getfixturevalue("tmp_path") / "shop.db"
    shutil.copy(request.getfixturevalue("sqlite_template"), path)
    return sqlite(path)


def _new_postgres(request: pytest.FixtureRequest) -> dict[str, Any]:
    server = request.getfixturevalue("postgres")
    template = request.getfixturevalue("postgres_template")
    name = f"shop_{next(_numbers)}"
    create(server, name, f"TEMPLATE {template}")
    config: dict[str, Any] = server.config(name)
    return config


def _new_mariadb(request: pytest.FixtureRequest) -> dict[str, Any]:
    server = request.getfixturevalue("mariadb")
    name = f"shop_{next(_numbers)}"
    create(server, name)
    config: dict[str, Any] = server.config(name)
    migrate(config)
    return config


_numbers = iter(range(1_000_000))
_KINDS: dict[str, Callable[[pytest.FixtureRequest], dict[str, Any]]] = {
    "sqlite": _new_sqlite,
    "postgres": _new_postgres,
    "mariadb": _new_mariadb,
}


@pytest.fixture(params=_KINDS)
def database(request: pytest.FixtureRequest, nothing_left_behind: None) -> Iterator[dict[str, Any]]:
    """A database with empty tables, which this process uses as well."""
    config = _KINDS[request.param](request)
    point_at(config)
    yield config
    connections.close_all()


on_sqlite = pytest.mark.parametrize("database", ["sqlite"], indirect=True)
on_postgres = pytest.mark.parametrize("database", ["postgres"], indirect=True)


@pytest.fixture
def manage(database: dict[str, Any], agg: Simulator, tmp_path: Path) -> Iterator[Manage]:
    starter = Manage(database, agg, tmp_path)
    yield starter
    starter.close()
