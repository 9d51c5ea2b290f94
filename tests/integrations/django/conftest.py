"""A Django project and its databases."""

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
from integrations.django.manage import Manage
from integrations.servers import Postgres

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


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sqlite") / "template.db"
    point_at(_sqlite(path))
    call_command("migrate", verbosity=0)
    connections.close_all()
    return path


@pytest.fixture(scope="session")
def postgres_template(postgres: Postgres) -> str:
    point_at(_postgres(postgres, "postgres"))
    with connections["default"].cursor() as cursor:
        cursor.execute("CREATE DATABASE template")
    point_at(_postgres(postgres, "template"))
    call_command("migrate", verbosity=0)
    connections.close_all()
    return "template"


def _sqlite(path: Path) -> dict[str, Any]:
    return {"ENGINE": "django.db.backends.sqlite3", "NAME": str(path), "OPTIONS": {"timeout": 20}}


def _postgres(server: Postgres, name: str) -> dict[str, Any]:
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": name,
        "USER": server.user,
        "HOST": "127.0.0.1",
        "PORT": str(server.port),
        "CONN_MAX_AGE": 600,  # what is not closed at the end of a thread would be left behind
    }


def _new_sqlite(request: pytest.FixtureRequest) -> dict[str, Any]:
    path = request.getfixturevalue("tmp_path") / "shop.db"
    shutil.copy(request.getfixturevalue("sqlite_template"), path)
    return _sqlite(path)


def _new_postgres(request: pytest.FixtureRequest) -> dict[str, Any]:
    server = request.getfixturevalue("postgres")
    template = request.getfixturevalue("postgres_template")
    name = f"shop_{next(_numbers)}"
    point_at(_postgres(server, "postgres"))
    with connections["default"].cursor() as cursor:
        cursor.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
    return _postgres(server, name)


_numbers = iter(range(1_000_000))
_KINDS: dict[str, Callable[[pytest.FixtureRequest], dict[str, Any]]] = {
    "sqlite": _new_sqlite,
    "postgres": _new_postgres,
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
