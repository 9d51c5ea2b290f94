"""A Django project, its databases, and the simulator."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import django
import pytest
from django.core.management import call_command
from django.db import connections
from integrations.django.processes import Manage
from integrations.django.servers import MariaDB, Postgres, Server

from aggstream.simulator import Simulator

os.environ["DJANGO_SETTINGS_MODULE"] = "settings"
django.setup()

USER = "usr_1"


def point_at(database: dict[str, Any]) -> None:
    """Let this process use a database."""
    connections.close_all()
    configured = connections.configure_settings({"default": dict(database)})["default"]
    connections.settings["default"].clear()
    connections.settings["default"].update(configured)
    with contextlib.suppress(AttributeError):  # this thread may have none yet
        del connections["default"]


def _running(kind: type[Postgres | MariaDB]) -> Iterator[Any]:
    if (why_not := kind.why_not()) is not None:
        pytest.skip(why_not)
    server = kind()
    yield server
    server.remove()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    yield from _running(Postgres)


@pytest.fixture(scope="session")
def mariadb() -> Iterator[MariaDB]:
    yield from _running(MariaDB)


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sqlite") / "template.db"
    point_at(_sqlite(path))
    call_command("migrate", verbosity=0)
    connections.close_all()
    return path


@pytest.fixture(scope="session")
def postgres_template(postgres: Postgres) -> str:
    _create(postgres, "postgres", "template")
    _migrate(postgres, "template")
    return "template"


def _create(server: Server, maintenance: str, name: str, options: str = "") -> None:
    point_at(server.config(maintenance))
    with connections["default"].cursor() as cursor:
        cursor.execute(f"CREATE DATABASE {name} {options}")


def _migrate(server: Server, name: str) -> None:
    point_at(server.config(name))
    call_command("migrate", verbosity=0)
    connections.close_all()


def _sqlite(path: Path) -> dict[str, Any]:
    return {"ENGINE": "django.db.backends.sqlite3", "NAME": str(path), "OPTIONS": {"timeout": 20}}


def _new_sqlite(request: pytest.FixtureRequest) -> dict[str, Any]:
    path = request.getfixturevalue("tmp_path") / "shop.db"
    shutil.copy(request.getfixturevalue("sqlite_template"), path)
    return _sqlite(path)


def _new_postgres(request: pytest.FixtureRequest) -> dict[str, Any]:
    server = request.getfixturevalue("postgres")
    template = request.getfixturevalue("postgres_template")
    name = f"shop_{next(_numbers)}"
    _create(server, "postgres", name, f"TEMPLATE {template}")
    config: dict[str, Any] = server.config(name)
    return config


def _new_mariadb(request: pytest.FixtureRequest) -> dict[str, Any]:
    server = request.getfixturevalue("mariadb")
    name = f"shop_{next(_numbers)}"
    _create(server, "mysql", name)
    _migrate(server, name)
    config: dict[str, Any] = server.config(name)
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
def agg() -> Iterator[Simulator]:
    with Simulator(seed=7) as simulator:
        yield simulator


@pytest.fixture
def manage(database: dict[str, Any], agg: Simulator, tmp_path: Path) -> Iterator[Manage]:
    starter = Manage(database, agg, tmp_path)
    yield starter
    starter.close()
