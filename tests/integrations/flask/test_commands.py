"""What starts a stream, and what does not; and how the process is seen from outside."""

from __future__ import annotations

import http.client
import shutil
import signal
import time
from pathlib import Path

import pytest
from integrations.command_claims import CommandClaims, StartBroken
from integrations.flask.conftest import on_sqlite
from integrations.flask.desks import PROJECT, Desk
from waiting import Until

from aggstream.simulator import Simulator

pytestmark = on_sqlite

TESTS = """
from desk import create_app

def test_page():
    client = create_app().test_client()
    assert client.post("/sign-in/1").status_code == 200
    assert client.get("/events?after=x").status_code == 400
"""


def copy_of_project(desk: Desk, tmp_path: Path) -> Path:
    desk.project = shutil.copytree(PROJECT, tmp_path / "project", ignore=shutil.ignore_patterns("__pycache__"))
    return desk.project


def test_no_other_command_starts_a_stream(
    agg: Simulator, desk: Desk, port: int, until: Until, tmp_path: Path
) -> None:
    (copy_of_project(desk, tmp_path) / "test_desk.py").write_text(TESTS)
    server = desk("run", "--debug", "--port", str(port))  # with its reloader
    commands = [
        desk("routes"),
        desk("shell"),
        desk("aggstream", "--help"),
        desk("aggstream", "run", "--help"),
        desk.python("-m", "pytest", "-p", "no:cacheprovider", "test_desk.py"),
    ]
    for command in commands:
        assert command.end(None) == 0, command.output
    assert "/events" in commands[0].output
    assert "Instance" in commands[1].output
    assert "1 passed" in commands[-1].output
    until(lambda: server.says("Debugger is active"))
    answer = http.client.HTTPConnection("127.0.0.1", port)
    answer.request("GET", "/events")
    assert answer.getresponse().status == 403
    answer.close()
    assert agg.counts.handshakes == 0
    assert not desk.journal.parent.exists()
    server.end()


def test_the_reloader_begins_anew_when_code_changes_and_nothing_is_lost(
    agg: Simulator, desk: Desk, until: Until, tmp_path: Path
) -> None:
    handlers = copy_of_project(desk, tmp_path) / "desk" / "stream.py"
    process = desk.stream("--reload")
    until(lambda: process.says("live as") and agg.connections == 1)
    assert agg.counts.handshakes == 1  # the parent has none
    agg.place_order("usr_1", scenario="filled")
    handlers.write_text(handlers.read_text().replace('"handler": "keep"', '"handler": "changed"'))
    until(lambda: process.output.count("live as") == 2)
    agg.place_order("usr_1", scenario="failed")
    until(lambda: len(desk.ends()) == 2 and not desk.stored(state="pending"))
    assert set(desk.seen()) == {event.id for event in desk.stored()}
    assert "changed" in desk.handlers()
    assert "standing by" not in process.output  # the one before has let go
    assert agg.counts.handshakes == 2
    process.end()


@pytest.fixture
def start_broken(desk: Desk) -> StartBroken:
    return lambda *arguments: desk("aggstream", "run", *arguments, DESK_BROKEN="yes")


class TestCommand(CommandClaims):
    """The claims that all frameworks share."""


@pytest.mark.parametrize(
    ("config", "arguments", "words"),
    [
        ({"ACCOUNTS": '{"one": {}, "two": {"JOURNAL": "2.db"}}'}, [], "say which: --account one | two"),
        ({"ACCOUNTS": '{"one": {}}'}, ["--account", "two"], "no account 'two', but 'one'"),
        ({"TOKEN": "desk.stream.nothing"}, [], "AGGSTREAM_TOKEN is a text that names no function"),
        ({"USER_ID": "desk.stream.nothing"}, [], "AGGSTREAM_USER_ID is a text that names no function"),
        ({"ORIGIN": "desk.example"}, [], "origin"),
    ],
)
def test_what_cannot_work_is_explained(
    agg: Simulator, desk: Desk, config: dict[str, str], arguments: list[str], words: str
) -> None:
    process = desk.stream(*arguments, **{f"FLASK_AGGSTREAM_{key}": value for key, value in config.items()})
    assert process.end(None) == 1
    assert process.output.startswith("Error: ")
    assert words in process.output
    assert agg.counts.handshakes == 0


def test_what_cannot_work_is_explained_beside_the_reloader_which_waits_for_it_to_be_mended(
    agg: Simulator, desk: Desk, until: Until, tmp_path: Path
) -> None:
    source = copy_of_project(desk, tmp_path) / "desk" / "__init__.py"
    good = source.read_text()
    source.write_text(good.replace("desk.stream.token", "desk.stream.nothing"))
    process = desk.stream("--reload")
    until(lambda: process.says("AGGSTREAM_TOKEN is a text that names no function"))
    assert "Traceback" not in process.output
    source.write_text(good)
    until(lambda: process.says("live as"))
    assert agg.counts.handshakes == 1
    process.end()


def test_ctrl_c_for_the_second_time_waits_for_no_handler(agg: Simulator, desk: Desk, until: Until) -> None:
    process = desk.stream("--drain", "3600", DESK_STUCK="yes")
    until(lambda: process.says("live as"))
    agg.begin_order("usr_1").advance(1)
    until(lambda: process.says("stuck"))

    sent_at = 0.0

    def is_told_again() -> bool:
        nonlocal sent_at
        if time.monotonic() > sent_at + 3:  # within a second it would be the same wish
            sent_at = time.monotonic()
            process.process.send_signal(signal.SIGINT)
        return process.process.poll() is not None

    until(is_told_again)
    assert process.process.returncode == 130


def test_handlers_have_so_long_to_finish_as_is_said(agg: Simulator, desk: Desk, until: Until) -> None:
    process = desk.stream("--drain", "0.1", DESK_STUCK="yes")
    until(lambda: process.says("live as"))
    agg.begin_order("usr_1").advance(1)
    until(lambda: process.says("stuck"))
    assert process.end() == 1
    assert [event.state for event in desk.stored()] == ["pending"]


def test_each_account_has_a_stream_and_a_journal_of_its_own(agg: Simulator, desk: Desk, until: Until) -> None:
    accounts = '{"one": {"JOURNAL": "one.db"}, "two": {"JOURNAL": "two.db", "TOKEN": "desk.stream.another_token"}}'
    variables = {"FLASK_AGGSTREAM_ACCOUNTS": accounts, "DESK_ANOTHER": agg.sign_in("usr_2").access_token}
    one, two = (desk.stream("--account", name, **variables) for name in ("one", "two"))
    until(lambda: one.says("live as 'usr_1'") and two.says("live as 'usr_2'"))
    agg.place_order("usr_2", scenario="filled")
    desk.journal = desk.journal.with_name("two.db")
    until(lambda: len(desk.stored(state="done")) == agg.books("usr_2").emitted)
    assert (one.end(), two.end()) == (0, 0)
    desk.journal = desk.journal.with_name("one.db")
    assert desk.stored() == []


def test_an_application_in_which_nothing_handles_events_is_told_so(
    agg: Simulator, desk: Desk, until: Until, tmp_path: Path
) -> None:
    module = copy_of_project(desk, tmp_path) / "desk" / "stream.py"
    module.write_text(module.read_text().replace("@agg.on(", "@AggStream().on("))
    stream = desk.stream()
    until(lambda: stream.says("live as"))
    assert stream.says("nothing handles events")
    agg.place_order("usr_1", scenario="filled")
    until(lambda: "filled" in desk.ends().values())
    assert stream.end() == 0
