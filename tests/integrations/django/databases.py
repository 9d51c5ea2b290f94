"""The databases that Django's tests use."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from django.core.management import call_command
from django.db import connections
from integrations.servers import Server


def point_at(database: dict[str, Any]) -> None:
    """Let this process use a database."""
    connections.close_all()
    configured = connections.configure_settings({"default": dict(database)})["default"]
    connections.settings["default"].clear()
    connections.settings["default"].update(configured)
    with contextlib.suppress(AttributeError):  # this thread may have none yet
        del connections["default"]


def migrate(database: dict[str, Any]) -> None:
    """Make the tables."""
    point_at(database)
    call_command("migrate", verbosity=0)
    connections.close_all()


def sqlite(path: Path) -> dict[str, Any]:
    """Return what DATABASES says of a file."""
    return {"ENGINE": "django.db.backends.sqlite3", "NAME": str(path), "OPTIONS": {"timeout": 20}}


def create(server: Server, name: str, options: str = "") -> None:
    """Make an empty database."""
    point_at(server.config(server.maintenance))
    with connections["default"].cursor() as cursor:
        cursor.execute(f"CREATE DATABASE {name} {options}")
