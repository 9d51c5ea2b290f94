"""A project whose parts are killed misses nothing; `scripts/kill_web.py` does this for minutes."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
from django.db import connection
from integrations.django.web_kills import WebKills


def test_a_project_whose_parts_are_killed_misses_nothing(
    request: pytest.FixtureRequest, database: dict[str, Any], tmp_path: Path
) -> None:
    name = {"postgresql": "postgres", "mysql": "mariadb"}.get(connection.vendor)
    server = None if name is None else request.getfixturevalue(name)
    with contextlib.ExitStack() as stack:
        kills = WebKills(stack, tmp_path, database, server, seed=1, kills=11, longest_pause=0.5)
        summary = kills.run()
    assert not summary["problems"], summary
    assert summary["from_reconcile"]
    assert summary["handled"] > 50
