"""Each example runs, against the simulator, as its docstring says."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator

import pytest
from waiting import DEADLINE

from aggstream.simulator import Simulator

EXAMPLES = pathlib.Path(__file__).parents[2] / "examples"


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    with Simulator(seed=7) as running:
        yield running


def start(
    simulator: Simulator, name: str, *arguments: str, lifetime: float = 300.0, connected: int = 1
) -> subprocess.Popen[str]:
    environment = {
        **os.environ,
        "AGGSTREAM_APP_ID": simulator.app_id,
        "AGGSTREAM_ORIGIN": simulator.origin,
        "AGGSTREAM_URL": simulator.url,
        "AGGSTREAM_REST_URL": simulator.rest_url,
        "AGGSTREAM_TOKEN": simulator.sign_in("usr_1", lifetime=lifetime).access_token,
    }
    process = subprocess.Popen(
        [sys.executable, str(EXAMPLES / name), *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert simulator.wait_for_connections(connected, timeout=DEADLINE)
    return process


def test_every_example_is_tested_here() -> None:
    text = pathlib.Path(__file__).read_text()
    assert all(f'"{path.name}"' in text for path in EXAMPLES.glob("*.py"))


def test_listen_to_orders(simulator: Simulator) -> None:
    with start(simulator, "listen_to_orders.py") as process:
        assert process.stdout is not None
        order = simulator.place_order("usr_1", scenario="filled")
        wanted = {f"{order}: filled", "to trade with", " at 0."}
        while wanted:
            line = process.stdout.readline()
            assert line, f"{wanted} did not come"
            wanted = {words for words in wanted if words not in line}
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=DEADLINE)
    assert err == ""
    assert process.returncode == 143


def test_cron_job(simulator: Simulator) -> None:
    with start(simulator, "cron_job.py", "1.0") as process:
        order = simulator.place_order("usr_1", scenario="failed")
        out, err = process.communicate(timeout=DEADLINE)
    assert err == ""
    assert process.returncode == 0
    events = [json.loads(line) for line in out.splitlines()]
    assert events[0]["type"] == "order_submitted"
    assert [e["orderId"] for e in events if e.get("event") == "failed"] == [order]
    assert len(events) == simulator.books("usr_1").sent


def test_keep_signed_in(simulator: Simulator, tmp_path: pathlib.Path) -> None:
    store = tmp_path / "session.json"
    signed_in = simulator.sign_in("usr_1", lifetime=2.0)
    store.write_text(json.dumps({"refresh_token": signed_in.refresh_token}))
    with start(simulator, "keep_signed_in.py", str(store)) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("signed in until 20")
        simulator.place_order("usr_1")
        assert process.stdout.readline().startswith("OrderSubmitted(")
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=DEADLINE)
    assert err == ""
    assert process.returncode == 130
    assert json.loads(store.read_text())["refresh_token"] != signed_in.refresh_token
    assert stat.S_IMODE(store.stat().st_mode) == 0o600


@pytest.mark.parametrize(("ending", "code"), [("filled", 0), ("failed", 1)])
def test_wait_for_fill(ending: str, code: int, simulator: Simulator) -> None:
    with start(simulator, "wait_for_fill.py", "ord_mine", str(DEADLINE)) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "waiting for ord_mine\n"
        for order in ("ord_other", "ord_mine"):
            simulator.push({"type": "order_event", "event": ending, "orderId": order, "timestamp": 1})
        out, err = process.communicate(timeout=DEADLINE)
    assert err == ""
    assert out.strip() == f"ord_mine: {ending}"
    assert process.returncode == code


def test_wait_for_fill_that_never_comes(simulator: Simulator) -> None:
    with start(simulator, "wait_for_fill.py", "ord_mine", "0.5") as process:
        out, _ = process.communicate(timeout=DEADLINE)
    assert "not known" in out
    assert process.returncode == 3


def test_a_cron_job_that_is_never_live_says_so(simulator: Simulator) -> None:
    simulator.refuse_connections(1000, status=503)
    with start(simulator, "cron_job.py", "0.5", connected=0) as process:
        out, err = process.communicate(timeout=DEADLINE)
    assert (out, process.returncode) == ("", 3)
    assert "503" in err


def test_the_examples_with_pages_look_alike() -> None:
    """Each is a thing to copy, so they share no file; these are the same."""
    django, flask = EXAMPLES / "django_orders/project/orders", EXAMPLES / "flask_orders/project/trading"
    for name in ("static/orders.css", "static/orders.js"):
        assert (django / name).read_bytes() == (flask / name).read_bytes()


@pytest.mark.parametrize("name", ["django_orders", "flask_orders"])
def test_a_port_that_is_taken_is_told_before_anything_starts(name: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        command = [sys.executable, str(EXAMPLES / name / "start.py"), "--port", port]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=False)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert f"port {port}: Address already in use" in ended.stderr
