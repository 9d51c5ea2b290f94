"""`aggstream journal` and `aggstream listen --journal`, as a shell sees them."""

from __future__ import annotations

import datetime as dt
import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from journals import happened
from shells import DEADLINE, Shell, one_line, settings_of, without_colour
from waiting import Until

from aggstream.cli.journal import seq_or_id
from aggstream.journal import Journal, JournalOptions, JournalReader
from aggstream.simulator import SignedIn, Simulator

NUMBER = 6
BROKEN_PIPE = "import os; r, w = os.pipe(); os.close(r); sys.stdout = os.fdopen(w, 'w')"

FULL_ONCE = """
import errno, os
class Stdout:
    is_full, real = True, sys.stdout
    def write(self, text):
        if Stdout.is_full:
            Stdout.is_full = False
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return self.real.write(text)
    def __getattr__(self, name):
        return getattr(self.real, name)
sys.stdout = Stdout()
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "events.db"


@pytest.fixture
def filled(path: Path) -> Path:
    """A journal with two done events, two dead and two pending ones, of two orders in turn."""
    with Journal(JournalOptions(path=path, max_attempts=1)) as journal:
        journal.store([happened(f"ord_{n % 2}", "filled" if n == 5 else f"step_{n}") for n in range(NUMBER)])
        journal.done([1, 2])
        for seq in (3, 4):
            journal.failed(seq, "ValueError: no such luck")
    return path


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    with Simulator(heartbeat_interval=0.05) as simulator:
        yield simulator


@pytest.fixture
def signed_in(simulator: Simulator, shell: Shell) -> SignedIn:
    """A user whose settings are in the shell's environment, without a REST API."""
    signed_in = simulator.sign_in()
    shell.environment |= settings_of(simulator, signed_in)
    del shell.environment["AGGSTREAM_REST_URL"]
    return signed_in


def states(path: Path) -> dict[int, str]:
    with JournalReader(path) as reader:
        return {stored.seq: stored.state for stored in reader.find(limit=1000)}


def user_events(lines: list[str]) -> list[dict[str, Any]]:
    return [event for event in map(json.loads, lines) if "id" in event]


# --- list, show, export ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], [1, 2, 3, 4, 5, 6]),
        (["--state", "dead"], [3, 4]),
        (["--order", "ord_1"], [2, 4, 6]),
        (["--type", "balance_update"], []),
        (["--after", "2", "--limit", "2"], [3, 4]),
        (["--order", "ord_1", "--state", "pending"], [6]),
    ],
)
def test_a_list_is_filtered_and_in_a_pipe_one_json_object_a_line(
    shell: Shell, filled: Path, arguments: list[str], expected: list[int]
) -> None:
    code, lines, errors = shell.run("journal", "list", str(filled), *arguments)
    assert (code, errors) == (0, "")
    assert [json.loads(line)["seq"] for line in lines] == expected


@pytest.mark.parametrize("without", ["", "rich"])
def test_in_a_terminal_a_list_is_a_table_with_a_summary(shell: Shell, filled: Path, without: str) -> None:
    command = shell.start("journal", "list", str(filled), without=without, size=(80, 24))
    screen = without_colour(command.screen_until("total: 2 pending, 2 done, 2 dead"))
    assert screen[0].split() == ["seq", "state", "event", "order", "received", "source", "failed"]
    assert screen[1].split()[:4] == ["1", "done", "step_0", "ord_0"]
    assert any("ValueError: no such luck" in line for line in screen)
    assert max(map(len, screen)) <= 80
    assert command.process.wait(DEADLINE) == 0


def test_a_list_that_ends_at_its_limit_says_how_to_go_on(shell: Shell, filled: Path) -> None:
    command = shell.start("journal", "list", str(filled), "--limit", "4", size=(80, 24))
    command.screen_until("--after 4 lists them")
    command = shell.start("journal", "list", str(filled), "--order", "nowhere", size=(80, 24))
    command.screen_until("no such events")


def test_one_event_is_shown_by_its_number_or_its_id(shell: Shell, filled: Path) -> None:
    code, lines, errors = shell.run("journal", "show", str(filled), "3")
    assert (code, errors) == (0, "")
    assert len(lines) > 10
    shown = json.loads("\n".join(lines))
    assert (shown["seq"], shown["state"], shown["message"]["orderId"]) == (3, "dead", "ord_0")
    assert shell.run("journal", "show", str(filled), shown["id"]) == (0, lines, "")


def test_an_id_of_digits_alone_is_no_number() -> None:
    assert [seq_or_id(text) for text in ("17", "f" * 24, "1" * 24)] == [17, "f" * 24, "1" * 24]


def test_an_event_that_is_not_there_is_one_line(shell: Shell, filled: Path) -> None:
    for event in ("99", "f" * 24):
        code, lines, errors = shell.run("journal", "show", str(filled), event)
        assert (code, lines) == (1, [])
        assert one_line(errors)
        assert event in errors


def test_an_export_is_everything_in_order_with_numbers_as_they_were_written(shell: Shell, path: Path) -> None:
    with Journal(JournalOptions(path=path)) as journal:
        for _ in range(3):
            journal.store([happened("ord_1") for _ in range(400)])
    code, lines, errors = shell.run("journal", "export", str(path))
    assert (code, errors) == (0, "")
    with JournalReader(path) as reader:
        assert [json.loads(line) for line in lines] == [
            json.loads(json.dumps(stored.as_dict())) for stored in reader.export()
        ]
    assert len(lines) == 1200


def test_an_export_whose_reader_has_enough_ends_quietly(shell: Shell, path: Path) -> None:
    with Journal(JournalOptions(path=path)) as journal:
        journal.store([happened("ord_1") for _ in range(2000)])
    command = shell.start("journal", "export", str(path))
    command.line()
    command.close_stdout()
    assert (command.process.wait(DEADLINE), command.stderr) == (0, "")


# --- retry and replay -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "number", "now_pending"),
    [
        (["retry", "--all-dead"], 2, [3, 4, 5, 6]),
        (["retry", "4", "1"], 1, [4, 5, 6]),
        (["replay", "--order", "ord_0"], 1, [1, 5, 6]),
        (["replay", "--first", "2", "--last", "4"], 1, [2, 5, 6]),
        (["replay", "--since", "2001-01-01T00:00:00Z"], 2, [1, 2, 5, 6]),
        (["replay", "--since", "2999-01-01"], 0, [5, 6]),
    ],
)
def test_events_are_made_pending_and_counted(
    shell: Shell, filled: Path, arguments: list[str], number: int, now_pending: list[int]
) -> None:
    code, [line], errors = shell.run("journal", arguments[0], str(filled), *arguments[1:])
    assert (code, json.loads(line)) == (0, {"made_pending": number})
    assert [seq for seq, state in states(filled).items() if state == "pending"] == now_pending
    assert one_line(errors)
    assert ("next start of the stream" in errors) == bool(number)


def test_in_a_terminal_what_was_made_pending_is_told_in_words(shell: Shell, filled: Path) -> None:
    command = shell.start("journal", "retry", str(filled), "--all-dead", size=(80, 24))
    command.screen_until(
        "2 dead events made pending; they are delivered at the next start of the stream that uses"
    )
    assert (command.process.wait(DEADLINE), command.stderr) == (0, "")


def test_a_time_without_a_zone_is_the_local_one(shell: Shell, filled: Path) -> None:
    shell.environment["TZ"] = "Pacific/Kiritimati"  # 14 hours ahead of UTC
    tomorrow = dt.datetime.now(dt.timezone.utc) + dt.timedelta(hours=13)
    arguments = ("journal", "replay", str(filled), "--since")
    _, [line], _ = shell.run(*arguments, tomorrow.strftime("%Y-%m-%dT%H:%M:%S"))
    assert json.loads(line) == {"made_pending": 2}
    _, [line], _ = shell.run(*arguments, tomorrow.strftime("%Y-%m-%dT%H:%M:%SZ"))
    assert json.loads(line) == {"made_pending": 0}


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["retry", "PATH"],
        ["retry", "PATH", "3", "--all-dead"],
        ["replay", "PATH"],
        ["replay", "PATH", "--since", "yesterday"],
        ["list", "PATH", "--state", "odd"],
        ["list", "PATH", "--limit", "0"],
    ],
)
def test_wrong_usage_ends_with_2_and_changes_nothing(shell: Shell, filled: Path, arguments: list[str]) -> None:
    before = states(filled)
    code, lines, errors = shell.run("journal", *(str(filled) if word == "PATH" else word for word in arguments))
    assert (code, lines) == (2, [])
    assert "aggstream" in errors
    assert "Traceback" not in errors
    assert states(filled) == before


@pytest.mark.parametrize(
    "arguments", [["list"], ["show", "1"], ["export"], ["retry", "--all-dead"], ["replay", "--first", "1"]]
)
def test_what_is_no_journal_is_one_line_and_left_as_it_is(shell: Shell, path: Path, arguments: list[str]) -> None:
    words = (arguments[0], str(path), *arguments[1:])
    code, lines, errors = shell.run("journal", *words)
    assert (code, lines) == (1, [])
    assert one_line(errors)
    assert "there is no journal at" in errors
    assert not path.exists()
    path.write_bytes(b"no database at all " * 100)
    code, lines, errors = shell.run("journal", *words)
    assert (code, lines) == (1, [])
    assert one_line(errors)
    assert "damaged, or is no journal" in errors
    assert path.read_bytes() == b"no database at all " * 100


# --- listen ---------------------------------------------------------------------------------------------------


def test_events_are_in_the_journal_and_say_so_in_json(
    shell: Shell, simulator: Simulator, signed_in: SignedIn, path: Path, until: Until
) -> None:
    command = shell.start("listen", "--journal", str(path), "--journal-synchronous", "normal")
    assert simulator.wait_for_connections(1, timeout=DEADLINE)
    simulator.place_order(scenario="filled")
    shown: list[dict[str, Any]] = []
    while not shown or shown[-1].get("event") != "dag_completed":
        shown.append(command.event())
    events = [event for event in shown if "id" in event]
    with JournalReader(path) as reader:
        assert [event["id"] for event in events] == [stored.id for stored in reader.find()]
    assert {(event["source"], event["redelivered"]) for event in events} == {("stream", False)}
    # Another process may look, and put events back, while this one owns the journal.
    until(lambda: set(states(path).values()) == {"done"})
    code, [line], _ = shell.run("journal", "replay", str(path), "--last", "2")
    assert (code, json.loads(line)) == (0, {"made_pending": 2})
    code, lines, _ = shell.run("journal", "list", str(path), "--state", "pending")
    assert [json.loads(line)["seq"] for line in lines] == [1, 2]
    # But there is only one owner.
    code, lines, errors = shell.run("listen", "--journal", str(path))
    assert (code, lines) == (1, [])
    assert one_line(errors)
    assert f"process {command.process.pid}" in errors
    assert command.end(signal.SIGTERM)[0] == 143


def test_what_was_unfinished_when_it_was_killed_is_shown_at_the_next_start_and_marked(
    shell: Shell, simulator: Simulator, signed_in: SignedIn, path: Path, until: Until
) -> None:
    command = shell.start("listen", "--journal", str(path))
    assert simulator.wait_for_connections(1, timeout=DEADLINE)
    command.events_until("authenticated")
    # More than a pipe holds, so that printing stands still in the middle.
    simulator.place_orders("usr_demo", 60, scenario="filled")
    sent = simulator.books().emitted
    until(lambda: len(states(path)) == sent)
    code, lines = command.end(signal.SIGKILL)
    assert code == -signal.SIGKILL
    complete = [line for line in lines if line.endswith("}")]
    before = [event["id"] for event in user_events(complete)]
    assert 0 < len(before) < sent
    unfinished = [seq for seq, state in states(path).items() if state == "pending"]

    again = shell.start("listen", "--journal", str(path))
    events = [event for event in again.events_until("authenticated") if "id" in event]
    assert all(event["redelivered"] for event in events)
    assert len(events) == len(unfinished)
    with JournalReader(path) as reader:
        everything = [stored.id for stored in reader.export()]
    after = [event["id"] for event in events]
    assert everything[-len(after) :] == after
    assert set(before) | set(after) == set(everything)
    again.end(signal.SIGTERM)
    assert set(states(path).values()) == {"done"}


def test_what_a_reader_that_went_has_not_seen_stays_pending(
    shell: Shell, simulator: Simulator, signed_in: SignedIn, path: Path
) -> None:
    command = shell.start("listen", "--journal", str(path))
    assert simulator.wait_for_connections(1, timeout=DEADLINE)
    command.events_until("authenticated")
    command.close_stdout()
    simulator.place_order(scenario="filled")
    assert (command.process.wait(DEADLINE), command.stderr) == (0, "")
    # More often than an event may fail elsewhere before it is set aside.
    for _ in range(6):
        assert shell.run("listen", "--journal", str(path), preamble=BROKEN_PIPE) == (0, [], "")
        assert set(states(path).values()) == {"pending"}
    shown = shell.start("listen", "--journal", str(path), size=(80, 24))
    screen = shown.screen_until("authenticated")
    assert screen.count("[delivered again]") == len(states(path))


def test_nothing_is_shown_once_something_could_not_be_shown(
    shell: Shell, simulator: Simulator, signed_in: SignedIn, path: Path
) -> None:
    with Journal(JournalOptions(path=path)) as journal:
        journal.store([happened("ord_1") for _ in range(3)])
    code, lines, errors = shell.run("listen", "--journal", str(path), preamble=FULL_ONCE)
    assert (code, lines) == (1, [])
    assert errors == "aggstream: cannot write: No space left on device\n"
    assert set(states(path).values()) == {"pending"}


def test_a_signal_between_two_events_leaves_nothing_undone(
    shell: Shell, simulator: Simulator, signed_in: SignedIn, path: Path
) -> None:
    command = shell.start("listen", "--journal", str(path), "--type", "order_submitted")
    assert simulator.wait_for_connections(1, timeout=DEADLINE)
    simulator.place_order(scenario="filled")
    assert command.event()["type"] == "order_submitted"
    assert command.end(signal.SIGTERM) == (143, [])
    # What the filter left out counts as shown.
    assert set(states(path).values()) == {"done"}
