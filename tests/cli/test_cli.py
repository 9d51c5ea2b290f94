"""The command, as a shell sees it: real processes, pipes and pseudo-terminals, against the simulator."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import urllib3
from shells import DEADLINE, Shell, one_line

import aggstream
from aggstream.cli._token_pair_file import TokenPairFile
from aggstream.simulator import SignedIn, Simulator

SUMMARY_KEYS = ["type", "sent", "received", "missed", "gaps", "reconnects", "refreshes", "decode_failures"]
REST = ("--rest-url", "http://127.0.0.1:9")
QUICK = ("demo", "--orders", "4", "--rate", "100")

SUBMITTED = {"type": "order_submitted", "venue": "kalshi", "orderId": "ord_1", "side": "buy", "price": 0.55}
SUBMITTED |= {"size": 100, "outcomeId": "vmo_1", "timestamp": 1}
BALANCE = {"type": "balance_update", "venue": "kalshi", "tradingBalanceCents": 94500}
BALANCE |= {"walletBalanceCents": 100000, "timestamp": 2}
STARTED = {"type": "order_event", "event": "dag_started", "orderId": "ord_1", "timestamp": 3}
FILLED = {"type": "order_event", "event": "filled", "orderId": "ord_1", "timestamp": 4}
FAILED = {"type": "order_event", "event": "order_failed", "orderId": "ord_2", "timestamp": 5}
UNHEARD: dict[str, Any] = {"type": "order_dreamt_of", "orderId": "ord_2"}
FRAMES: list[dict[str, Any]] = [SUBMITTED, BALANCE, STARTED, FILLED, FAILED, UNHEARD]


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    with Simulator(heartbeat_interval=0.05) as simulator:
        yield simulator


@pytest.fixture
def signed_in(simulator: Simulator, shell: Shell) -> SignedIn:
    """A user whose settings are in the shell's environment."""
    signed_in = simulator.sign_in()
    shell.environment |= {
        "AGGSTREAM_URL": simulator.url,
        "AGGSTREAM_APP_ID": simulator.app_id,
        "AGGSTREAM_ORIGIN": simulator.origin,
        "AGGSTREAM_TOKEN": signed_in.access_token,
    }
    return signed_in


# --- the command line -----------------------------------------------------------------------------------------


def test_it_tells_its_version(shell: Shell) -> None:
    assert shell.run("--version") == (0, [f"aggstream {aggstream.__version__}"], "")


def test_without_a_command_it_prints_its_help_and_fails(shell: Shell) -> None:
    code, lines, errors = shell.run()
    assert (code, lines) == (2, [])
    assert all(name in errors for name in ("demo", "listen", "simulate"))


@pytest.mark.parametrize("command", ["demo", "listen", "wait", "orders", "journal", "simulate"])
def test_each_command_has_help(shell: Shell, command: str) -> None:
    code, lines, errors = shell.run(command, "--help")
    assert (code, errors) == (0, "")
    assert lines[0].startswith(f"usage: aggstream {command}")


@pytest.mark.parametrize("command", ["demo", "simulate"])
def test_a_missing_extra_is_named(shell: Shell, command: str) -> None:
    code, lines, errors = shell.run(command, without="aiohttp jwt")
    assert (code, lines) == (2, [])
    assert one_line(errors)
    assert "pip install 'aggstream[" in errors


def test_the_demo_in_a_terminal_asks_for_rich(shell: Shell) -> None:
    command = shell.start("demo", without="rich", size=(80, 24))
    assert command.process.wait(DEADLINE) == 2
    assert command.stderr == "aggstream: rich is not installed: pip install 'aggstream[demo]'\n"


# --- listen ---------------------------------------------------------------------------------------------------


def test_all_missing_settings_are_named_at_once_with_option_and_variable(shell: Shell) -> None:
    code, lines, errors = shell.run("listen")
    assert (code, lines) == (2, [])
    assert one_line(errors)
    for name in ("--app-id", "--origin", "--token", "AGGSTREAM_APP_ID", "AGGSTREAM_ORIGIN", "AGGSTREAM_TOKEN"):
        assert name in errors


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--origin", "app.example/"], "origin must read https://"),
        (["--token", "two words"], "the token must be printable ASCII"),
        (["--token", "Bearer eyJ"], "the token must be given without 'Bearer '"),
        (["--token-file", "nowhere"], "--token-file: the token file nowhere cannot be read: No such file"),
        (["--token-file", os.devnull], "is empty"),
        ([*REST, "--refresh-token-file", "nowhere"], "--refresh-token-file: cannot read nowhere: No such file"),
        ([*REST, "--refresh-token-file", os.devnull], "the file must contain {"),
        (["--rest-url", "ws://127.0.0.1"], "rest_url must begin with"),
        (["--rest-url", "http://api.agg.market"], "--allow-insecure"),
        (["--journal", ""], "journal: path must be"),
        (["--ca-file", "nowhere"], "--ca-file: cannot use nowhere"),
        (["--url", "ws://ws.agg.market/ws"], "--allow-insecure"),
        (["--url", "https://ws.agg.market/ws"], "url must begin with wss://"),
        (["--type", "balance_update", "--event", "filled"], "has no sub-events"),
    ],
)
def test_a_setting_that_cannot_work_is_explained(
    shell: Shell, signed_in: SignedIn, arguments: list[str], said: str
) -> None:
    code, lines, errors = shell.run("listen", *arguments)
    assert (code, lines) == (2, [])
    assert one_line(errors)
    assert said in errors
    assert "two words" not in errors


def test_a_refused_token_is_one_line_and_never_shown(shell: Shell, signed_in: SignedIn) -> None:
    token = signed_in.access_token[:-4] + "AAAA"
    shell.environment["AGGSTREAM_TOKEN"] = token
    code, lines, errors = shell.run("listen")
    assert code == 1
    assert one_line(errors)
    assert "refused" in errors
    assert token not in errors + "".join(lines)


def test_a_refused_origin_is_one_line(shell: Shell, signed_in: SignedIn) -> None:
    code, _, errors = shell.run("listen", "--origin", "https://other.example")
    assert code == 1
    assert one_line(errors)
    assert "403" in errors


def test_messages_are_written_as_received_without_any_extra(
    shell: Shell, simulator: Simulator, signed_in: SignedIn
) -> None:
    command = shell.start("listen", without="rich aiohttp jwt")
    assert simulator.wait_for_connections(1, timeout=DEADLINE)
    message = (
        '{"type": "order_submitted", "venue": "kalshi", "orderId": "o", "side": "buy", "price": 0.5500,'
        ' "size": 1E+2, "outcomeId": "v", "timestamp": 1710000000000, "new": [9007199254740993]}'
    )
    simulator.push(message)
    assert [event["type"] for event in (command.event(), command.event())] == ["connected", "authenticated"]
    assert command.line() == message
    code, rest = command.end(signal.SIGINT)
    assert (code, command.stderr) == (130, "")
    assert json.loads(rest[-1])["type"] == "stopped"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--type", "order_submitted"], [SUBMITTED]),
        (["--type", "order_submitted", "--type", "balance_update"], [SUBMITTED, BALANCE]),
        (["--event", "filled", "--event", "failed"], [FILLED, FAILED]),
        (["--order", "ord_1"], [SUBMITTED, STARTED, FILLED]),
        (["--order", "ord_2", "--type", "order_event"], [FAILED]),
        (["--order", "ord_1", "--order", "ord_2"], [SUBMITTED, STARTED, FILLED, FAILED, UNHEARD]),
        (["--type", "order_dreamt_of"], [UNHEARD]),
    ],
)
def test_only_what_matches_the_filters_is_written(
    shell: Shell, simulator: Simulator, signed_in: SignedIn, arguments: list[str], expected: list[dict[str, Any]]
) -> None:
    command = shell.start("listen", *arguments)
    assert simulator.wait_for_connections(1, timeout=DEADLINE)
    last = {**expected[0], "timestamp": 999}
    for frame in [*FRAMES, last]:
        simulator.push(frame)
    assert [command.event() for _ in range(len(expected) + 1)] == [*expected, last]
    assert command.end(signal.SIGTERM) == (143, [])


def test_a_type_that_is_not_known_gets_a_hint(shell: Shell, simulator: Simulator, signed_in: SignedIn) -> None:
    command = shell.start("listen", "--type", "order_submited")
    assert simulator.wait_for_connections(1, timeout=DEADLINE)
    command.end(signal.SIGTERM)
    assert one_line(command.stderr)
    assert "order_submited" in command.stderr
    assert "order_submitted" in command.stderr


def test_an_outage_is_told(shell: Shell, simulator: Simulator, signed_in: SignedIn) -> None:
    command = shell.start("listen")
    filtered = shell.start("listen", "--type", "order_submitted")
    assert simulator.wait_for_connections(2, timeout=DEADLINE)
    simulator.drop(code=1001)
    outage = {event["type"]: event for event in command.events_until("resumed")}
    assert outage["disconnected"]["code"] == 1001
    assert "1001" in outage["reconnecting"]["error"]
    assert outage["gap"]["started_at"] < outage["gap"]["ended_at"]
    assert outage["resumed"]["downtime"] > 0
    assert simulator.wait_for_connections(2, timeout=DEADLINE)
    simulator.push(SUBMITTED)
    # Its stdout is for what was asked; what the person must know stands beside it.
    assert filtered.event() == SUBMITTED
    assert [line.split(":")[1].strip() for line in filtered.stderr.splitlines()] == [
        "reconnecting", "gap", "resumed", "reconciled",
    ]  # fmt: skip


def test_a_token_file_is_read_for_each_connection(
    shell: Shell, simulator: Simulator, signed_in: SignedIn, tmp_path: Path
) -> None:
    file = tmp_path / "token"
    file.write_text(f"{signed_in.access_token}\n")
    command = shell.start("listen", "--token-file", str(file), "--auth", "query")
    command.events_until("connected")
    assert simulator.wait_for_connections(1, timeout=DEADLINE)
    simulator.expire_tokens()
    file.write_text(simulator.sign_in().access_token)
    simulator.drop()
    assert "token_refreshed" in [event["type"] for event in command.events_until("resumed")]


def test_commands_that_share_a_file_of_tokens_outlive_them(
    shell: Shell, simulator: Simulator, signed_in: SignedIn, tmp_path: Path
) -> None:
    file = tmp_path / "tokens.json"
    file.write_text(json.dumps({"refresh_token": signed_in.refresh_token}))
    arguments = ("listen", "--refresh-token-file", str(file), "--rest-url", simulator.rest_url)
    commands = [shell.start(*arguments) for _ in range(2)]
    before = ""
    for _ in range(2):
        assert simulator.wait_for_connections(2, timeout=DEADLINE)
        after = file.read_text()
        assert after != before
        assert file.stat().st_mode & 0o777 == 0o600
        before = after
        simulator.expire_tokens()
        for command in commands:
            assert "token_refreshed" in [event["type"] for event in command.events_until("resumed")]
    assert simulator.counts.refreshes_refused == 0
    assert json.loads(before)["access_token"] not in "".join(command.stderr for command in commands)


def test_one_command_at_a_time_refreshes_from_a_file(tmp_path: Path) -> None:
    fcntl = pytest.importorskip("fcntl")
    file = tmp_path / "tokens.json"
    with TokenPairFile(file), (tmp_path / "tokens.json.lock").open() as other, pytest.raises(BlockingIOError):
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_refresh_token_needs_a_rest_api_of_the_same_service(
    shell: Shell, signed_in: SignedIn, tmp_path: Path
) -> None:
    file = tmp_path / "tokens.json"
    file.write_text(json.dumps({"refresh_token": signed_in.refresh_token}))
    code, _, errors = shell.run("listen", "--refresh-token-file", str(file))
    assert code == 2
    assert one_line(errors)
    assert "--rest-url" in errors


def test_what_rest_tells_says_so(shell: Shell, simulator: Simulator, signed_in: SignedIn) -> None:
    order = simulator.begin_order(scenario="filled")
    order.advance()
    piped = shell.start("listen", "--rest-url", simulator.rest_url)
    shown = shell.start("listen", "--rest-url", simulator.rest_url, size=(80, 24))
    assert simulator.wait_for_connections(2, timeout=DEADLINE)
    piped.events_until("reconciled")
    shown.screen_until("nothing is missing: 1 order read")
    simulator.refuse_connections(2)
    simulator.drop()
    order.finish()
    events = piped.events_until("reconciled")
    [filled] = [event for event in events if event.get("event") == "filled"]
    assert (filled["source"], filled["redelivered"], len(filled["id"])) == ("reconcile", False, 24)
    assert filled["orderId"] == order.order_id
    assert [event["resolved"] for event in events if event["type"] == "reconciled"] == [True]
    assert "[from REST]" in shown.screen_until("balance_snapshot")


def test_a_token_that_the_service_echoes_is_not_shown(
    shell: Shell, simulator: Simulator, signed_in: SignedIn
) -> None:
    command = shell.start("listen", "--verbose")
    assert simulator.wait_for_connections(1, timeout=DEADLINE)
    simulator.push({"type": "error", "message": f"what is {signed_in.access_token}?", "channel": "x"})
    assert command.events_until("error")[-1]["message"] == "what is ***?"
    _, rest = command.end(signal.SIGINT)
    assert "live as" in command.stderr
    assert signed_in.access_token not in command.stderr + "".join(rest)


def test_a_reader_that_goes_ends_it_quietly(shell: Shell, simulator: Simulator, signed_in: SignedIn) -> None:
    command = shell.start("listen")
    assert simulator.wait_for_connections(1, timeout=DEADLINE)
    command.line()
    command.close_stdout()
    simulator.push(SUBMITTED)
    assert (command.process.wait(DEADLINE), command.stderr) == (0, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a disk that is always full")
def test_a_full_disk_is_one_line(shell: Shell, signed_in: SignedIn) -> None:
    preamble = "sys.stdout = open('/dev/full', 'w')"
    code, _, errors = shell.run("listen", preamble=preamble)
    assert code == 1
    assert errors == "aggstream: cannot write: No space left on device\n"


@pytest.mark.parametrize("without", ["", "rich"])
@pytest.mark.parametrize("no_color", ["", "1"])
def test_a_terminal_gets_words_and_colour_if_it_may(
    shell: Shell, simulator: Simulator, signed_in: SignedIn, without: str, no_color: str
) -> None:
    shell.environment["NO_COLOR"] = no_color
    command = shell.start("listen", without=without, size=(80, 24))
    assert simulator.wait_for_connections(1, timeout=DEADLINE)
    simulator.push(SUBMITTED)
    simulator.push({**FAILED, "errorReason": "evil \x1b]0;title\x07"})
    screen = command.screen_until("evil")
    assert "ord_1  kalshi  buy 100 at 0.55" in screen
    assert bool(re.search(r"\x1b\[[0-9;]*3[0-9]m", screen)) == (not without and not no_color)
    assert "\x1b]0;" not in screen
    command.process.send_signal(signal.SIGINT)
    assert command.process.wait(DEADLINE) == 130


# --- simulate -------------------------------------------------------------------------------------------------


def test_what_the_simulator_prints_is_what_listen_needs(shell: Shell) -> None:
    command = shell.start("simulate", "--play", "--rate", "200", "--user", "usr_me")
    lines = [command.line()]
    while not lines[-1].startswith("aggstream listen --refresh-token-file "):
        lines.append(command.line())
    settings = dict(line.removeprefix("export ").split("=", 1) for line in lines if line.startswith("export "))
    assert any(line.startswith("refresh token  ") for line in lines)
    shell.environment |= settings
    subprocess.run(lines[-2], shell=True, check=True, cwd=shell.directory)  # noqa: S602  (what is to be pasted)
    [file] = shell.directory.glob("*.json")
    assert file.stat().st_mode & 0o777 == 0o600
    for arguments in ([], lines[-1].split()[2:]):
        listener = shell.start("listen", "--type", "order_event", *arguments)
        # Behind a busy machine's pause the first ones may be REST's, which names no user.
        event = next(event for event in iter(listener.event, None) if "userId" in event)
        assert event["userId"] == "usr_me"
        assert listener.end(signal.SIGINT)[0] == 130
    assert command.end(signal.SIGTERM) == (143, [])
    assert command.stderr == ""


def test_a_simulator_is_addressed_by_the_names_that_it_is_given(shell: Shell) -> None:
    command = shell.start("simulate", "--allowed-host", "sim", "--allowed-host", "other:9000")
    url = next(line for line in iter(command.line, None) if line.startswith("REST URL")).split()[-1]
    with urllib3.PoolManager(retries=False) as pool:
        for host, status in {
            "sim": 200,
            "sim:7": 200,
            "other:9000": 200,
            "other": 421,
            "evil.example": 421,
        }.items():
            assert pool.request("GET", f"{url}/control/state", headers={"Host": host}).status == status
    assert command.end(signal.SIGTERM)[0] == 143


def test_a_port_in_use_is_one_line(shell: Shell) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        code, lines, errors = shell.run("simulate", "--port", port)
    assert (code, lines) == (1, [])
    assert one_line(errors)
    assert f"port {port}" in errors


@pytest.mark.parametrize(
    "arguments",
    [
        ["--host", "0.0.0.0"],  # noqa: S104
        ["--user", ""],
        ["--port", "70000"],
        ["--rate", "0"],
        ["--allowed-host", "http://sim"],
    ],
)
def test_a_simulator_that_cannot_be_is_a_mistake_in_usage(shell: Shell, arguments: list[str]) -> None:
    code, lines, errors = shell.run("simulate", *arguments)
    assert (code, lines) == (2, [])
    assert "Traceback" not in errors


# --- demo -----------------------------------------------------------------------------------------------------


def test_the_demo_survives_a_drop_and_an_expiry_and_its_summary_adds_up(shell: Shell) -> None:
    # Side by side, because each waits for its token to come to its end.
    one, same, other = shell.start(*QUICK), shell.start(*QUICK), shell.start(*QUICK, "--seed", "2")
    code, lines = one.end()
    assert (code, one.stderr) == (0, "")
    events = [json.loads(line) for line in lines]
    summary = events.pop()
    assert list(summary) == SUMMARY_KEYS
    user_events = [e for e in events if e["type"] in ("order_submitted", "balance_update", "order_event")]
    assert summary["received"] == len(user_events) > 0
    assert summary["sent"] == summary["received"] + summary["missed"]
    assert (summary["gaps"], summary["reconnects"], summary["decode_failures"]) == (1, 1, 0)
    assert summary["refreshes"] >= 1
    assert {"disconnected", "gap", "resumed", "token_refreshed", "stopped"} <= {e["type"] for e in events}
    # Which events fall into the gap is a matter of timing, so the very first order must do.
    assert first_order(same.end()[1]) == first_order(lines)
    assert first_order(other.end()[1]) != first_order(lines)


def first_order(lines: list[str]) -> dict[str, Any]:
    events = [json.loads(line) for line in lines]
    return next({**e, "timestamp": None} for e in events if e["type"] == "order_submitted")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_demo_with_its_summary(shell: Shell, number: signal.Signals) -> None:
    command = shell.start("demo", "--forever", "--rate", "100")
    command.events_until("order_submitted")
    code, rest = command.end(number)
    assert (code, command.stderr) == (128 + number, "")
    summary = json.loads(rest[-1])
    assert summary["type"] == "summary"
    assert summary["sent"] == summary["received"] + summary["missed"] > 0


def test_a_demo_whose_reader_goes_ends_quietly(shell: Shell) -> None:
    command = shell.start(*QUICK)
    command.line()
    command.close_stdout()
    assert (command.process.wait(DEADLINE), command.stderr) == (0, "")


def test_books_that_do_not_add_up_fail_the_demo(shell: Shell) -> None:
    lying = (
        "import aggstream.simulator as s, aggstream.cli.demo as demo, dataclasses\n"
        "demo._LAST_EVENTS_TIMEOUT = 0.1; honest = s.Simulator.books\n"
        "def books(self, user): b = honest(self, user); return dataclasses.replace(b, emitted=b.emitted + 1)\n"
        "s.Simulator.books = books"
    )
    code, lines, errors = shell.run(*QUICK, preamble=lying)
    assert code == 1
    assert one_line(errors)
    assert "do not add up" in errors
    assert json.loads(lines[-1])["type"] == "summary"


def test_the_demo_in_a_terminal_is_a_live_table_with_a_summary(shell: Shell) -> None:
    command = shell.start(*QUICK, size=(100, 30))
    screen = command.screen_until(" missed")
    for text in ("balances", "ord_", "connection dropped (1001)", "gap of", "token refreshed", "happened ="):
        assert text in screen
    assert (command.process.wait(DEADLINE), command.stderr) == (0, "")


def test_the_demo_in_a_terminal_of_ascii_only_draws_what_it_has(shell: Shell) -> None:
    shell.environment |= {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"}
    command = shell.start(*QUICK, size=(80, 24))
    screen = command.screen_until(" missed")
    assert screen.isascii()
    for text in ("+-----", "balances", "ord_", "* ", "~", "happened ="):
        assert text in screen
    assert (command.process.wait(DEADLINE), command.stderr) == (0, "")


@pytest.mark.parametrize("without", ["", "rich"])
def test_the_stream_in_a_terminal_of_ascii_only_shows_other_characters_as_questions(
    shell: Shell, simulator: Simulator, signed_in: SignedIn, without: str
) -> None:
    shell.environment |= {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"}
    command = shell.start("listen", without=without, size=(80, 24))
    assert simulator.wait_for_connections(1, timeout=DEADLINE)
    simulator.push({**FAILED, "errorReason": "marché fermé"})
    assert "march? ferm?" in command.screen_until("ferm")
    command.process.send_signal(signal.SIGINT)
    assert command.process.wait(DEADLINE) == 130


@pytest.mark.parametrize("without", ["", "rich"])
def test_the_stream_in_a_terminal_breaks_no_word(
    shell: Shell, simulator: Simulator, signed_in: SignedIn, without: str
) -> None:
    command = shell.start("listen", without=without, size=(80, 24))
    assert simulator.wait_for_connections(1, timeout=DEADLINE)
    simulator.push({**FAILED, "errorReason": "unmistakable " * 10 + "end"})
    lines = re.sub(r"\x1b\[[0-9;]*m", "", command.screen_until("end")).splitlines()
    [start] = (at for at, line in enumerate(lines) if "unmistakable" in line and "failed" in line)
    assert all(len(line) <= 80 for line in lines[start:])
    assert sum(line.count("unmistakable") for line in lines[start:]) == 10
    command.process.send_signal(signal.SIGINT)
    assert command.process.wait(DEADLINE) == 130
