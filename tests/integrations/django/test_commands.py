"""What starts a stream, and what does not; and how the process is seen from outside."""

from __future__ import annotations

import http.client
import json
import shutil
from pathlib import Path

import pytest
from integrations.command_claims import CommandClaims, StartBroken
from integrations.django.conftest import on_sqlite
from integrations.django.manage import PROJECT, Manage
from shop.models import Seen
from waiting import Until

from aggstream.integrations.django.models import Event
from aggstream.simulator import Simulator

pytestmark = on_sqlite

TESTS = """
from django.test import TestCase
from shop.models import Seen

class T(TestCase):
    def test_nothing(self):
        assert not Seen.objects.exists()
"""


def test_no_other_command_starts_a_stream(
    agg: Simulator, manage: Manage, port: int, until: Until, tmp_path: Path
) -> None:
    manage.project = shutil.copytree(PROJECT, tmp_path / "project", ignore=shutil.ignore_patterns("__pycache__"))
    (manage.project / "shop" / "tests.py").write_text(TESTS)
    server = manage("runserver", f"127.0.0.1:{port}")  # with its reloader
    commands = [
        manage("check"),
        manage("migrate"),
        manage("makemigrations", "--check", "--dry-run"),
        manage("shell", "-c", "from aggstream.integrations.django import on; print('on', on)"),
        manage("test", "shop"),
    ]
    for command in commands:
        assert command.end(None) == 0, command.output
    assert "Ran 1 test" in commands[-1].output
    until(lambda: server.says("Quit the server"))
    answer = http.client.HTTPConnection("127.0.0.1", port)
    answer.request("GET", "/admin/login/")
    assert answer.getresponse().status == 200
    answer.close()
    assert agg.counts.handshakes == 0
    server.end()


def test_the_reloader_begins_anew_when_code_changes_and_nothing_is_lost(
    agg: Simulator, manage: Manage, until: Until, tmp_path: Path
) -> None:
    manage.project = shutil.copytree(PROJECT, tmp_path / "project", ignore=shutil.ignore_patterns("__pycache__"))
    process = manage.stream("--reload")
    until(lambda: process.says("live as") and agg.connections == 1)
    agg.place_order("usr_1", scenario="filled")
    handlers = manage.project / "shop" / "agg_handlers.py"
    handlers.write_text(handlers.read_text().replace('handler="keep"', 'handler="changed"'))

    def has_begun_anew() -> bool:
        handlers.touch()  # again and again, because nobody tells when the reloader has its first look
        return process.output.count("live as") >= 2

    until(has_begun_anew)
    agg.place_order("usr_1", scenario="failed")
    until(lambda: Event.objects.filter(state="done", terminal=True).count() == 2)
    assert Seen.objects.filter(handler="changed").exists()
    assert "standing by" not in process.output  # the one before has let go
    process.end()


def test_a_project_without_handlers_is_told_that_events_are_stored_only(
    agg: Simulator, manage: Manage, until: Until, tmp_path: Path
) -> None:
    manage.project = shutil.copytree(PROJECT, tmp_path / "project", ignore=shutil.ignore_patterns("__pycache__"))
    (manage.project / "shop" / "agg_handlers.py").unlink()
    process = manage.stream()
    until(lambda: process.says("live as"))
    assert "they are stored only: no app in INSTALLED_APPS" in process.output
    assert process.end() == 0


def test_tables_that_are_not_there_are_named(manage: Manage, tmp_path: Path) -> None:
    empty = {"ENGINE": "django.db.backends.sqlite3", "NAME": str(tmp_path / "empty.db")}
    process = manage("aggstream", SHOP_DATABASE=json.dumps(empty))
    assert process.end(None) == 1
    assert process.output.endswith("run `manage.py migrate`\n")


@pytest.fixture
def start_broken(manage: Manage) -> StartBroken:
    return lambda *arguments: manage("aggstream", *arguments, SHOP_BROKEN="yes")


class TestCommand(CommandClaims):
    """The claims that all frameworks share."""


@pytest.mark.parametrize("use_tz", ["yes", "no"])
def test_time_zones_may_be_off(agg: Simulator, manage: Manage, until: Until, use_tz: str) -> None:
    process = manage.stream(SHOP_USE_TZ=use_tz)
    until(lambda: process.says("live as"))
    agg.place_order("usr_1")
    until(lambda: Event.objects.filter(state="done").count() == agg.books("usr_1").emitted)
    standby = manage.stream(SHOP_USE_TZ=use_tz)
    until(lambda: standby.says("standing by"))
    assert process.end() == 0
    until(lambda: standby.says("live as"))
    assert standby.end() == 0
