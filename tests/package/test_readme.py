"""What the README shows is run as it stands."""

from __future__ import annotations

import os
import pathlib
import re
import signal
import subprocess
import sys

import pytest
from other_server import Peer, ServeFunction
from service_messages import BALANCE_UPDATE, ORDER_EVENT, ORDER_SUBMITTED
from waiting import DEADLINE

import aggstream
from aggstream.simulator import Simulator

README = (pathlib.Path(__file__).parents[2] / "README.md").read_text()
PYTHON = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def program(text: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-u", "-W", "error", "-c", text],
        env={**os.environ, **{f"AGGSTREAM_{name.upper()}": value for name, value in environment.items()}},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_the_first_program_prints_what_happens_to_an_order_in_the_simulator() -> None:
    with Simulator(seed=3) as agg:
        token = agg.sign_in("usr_1").access_token
        with program(PYTHON[0], app_id=agg.app_id, origin=agg.origin, token=token, url=agg.url) as process:
            assert agg.wait_for_connections(1, timeout=DEADLINE)
            order = agg.place_order("usr_1", scenario="filled")
            assert process.stdout is not None
            lines = [process.stdout.readline()]
            while " filled " not in lines[-1]:
                lines.append(process.stdout.readline())
                assert lines[-1]
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=DEADLINE)
    assert err == ""
    assert process.returncode == 130
    assert re.fullmatch(rf"{order} (buy|sell) \d+ at 0\.\d+\n", lines[0])


def test_the_first_program_takes_the_examples_byte_for_byte_from_another_server(
    other_server: ServeFunction,
) -> None:
    def script(peer: Peer) -> None:
        peer.sign_in()
        peer.send(ORDER_SUBMITTED, BALANCE_UPDATE, ORDER_EVENT, ORDER_EVENT.replace("dag_started", "failed"))
        peer.wait_closed()

    server = other_server(script)
    with program(PYTHON[0], app_id="a", origin="https://b.example", token="t0ken", url=server.url) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(2)]
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=DEADLINE)
    assert err == ""
    assert lines == ["ord_abc123 buy 100 at 0.55\n", "ord_abc123 failed None string\n"]


def test_the_program_with_the_simulator_runs() -> None:
    [text] = [block for block in PYTHON if "Simulator(seed=1)" in block]
    with program(f"import aggstream\n{text}") as process:
        out, err = process.communicate(timeout=DEADLINE)
    assert (out, process.returncode) == ("Verdict.FILLED\n", 0)
    # It drops the connection; what the client does about it until it is stopped is in the log.
    assert all("next attempt" in line for line in err.splitlines()), err


@pytest.mark.parametrize("number", range(len(PYTHON)))
def test_every_block_is_python(number: int) -> None:
    compile(PYTHON[number], f"README, block {number}", "exec")


def test_the_tables_name_every_event_and_every_option() -> None:
    import inspect

    classes = [value for value in vars(aggstream).values() if isinstance(value, type)]
    events = [c for c in classes if issubclass(c, aggstream.Event)]
    assert [c.__name__ for c in events if f"`{c.__name__}`" not in README] == []
    options = inspect.signature(aggstream.Client).parameters
    assert [name for name in options if f"`{name}" not in README] == []
