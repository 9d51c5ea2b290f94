"""Imports only go down, and importing the package loads only what it needs."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import aggstream

ROOT = Path(aggstream.__file__).parent
LAYERS = [
    [
        "errors",
        "typing",
        "_deadline",
        "_secret",
        "_stacks",
        "_version",
        "_signals",
        "_threads",
        "_timers",
        "_checks",
        "_suspension",
        "_processes",
        "_amounts",
        "_lazy",
        "_greenlets",
        "_wire",
    ],
    ["events", "_state", "_token", "_commands", "_health", "_limits", "_processes", "_records"],
    [
        "_json",
        "_assembly",
        "_quick",
        "_quick_msgspec",
        "_structure",
        "_codec",
        "_registry",
        "_backoff",
        "_options",
        "_poller",
        "_frames",
        "_work",
        "_waiter",
        "_pull",
        "_providers",
        "_proxy",
        "_liveness",
        "_records_codec",
        "_balance_snapshot",
        "_rest_options",
        "orders",
        "_fold",
        "_tracker",
        "_tracking",
        "_following",
        "_retries",
    ],
    [
        "session",
        "transport",
        "_opening",
        "_dispatcher",
        "tokens",
        "rest",
        "_rest_calls",
        "_credentials",
        "_liveness",
        "_outage",
        "_watchdog",
        "_tunnel",
        "_http",
        "journal",
        "_receipts",
        "_reconcile",
        "_reading",
        "_outbox",
        "_intake",
        "_rest_choice",
        "_connector",
        "_memory",
    ],
    ["_runner", "_checkup"],
    ["client", "__init__"],
    ["simulator", "testing"],
    ["cli", "__main__", "integrations"],
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
FILES = sorted(ROOT.rglob("*.py"))


def component(path: Path) -> str:
    """Return the module or the package directly below `aggstream` that a file belongs to."""
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def modules_imported(path: Path) -> Iterator[str]:
    """Return the full names of the modules that a file imports, wherever in it the import stands."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: imports are absolute"
            assert node.module is not None
            if node.module != "aggstream":
                yield node.module
            else:
                yield from (f"aggstream.{alias.name}" for alias in node.names)


def components_imported(path: Path) -> Iterator[str]:
    for name in modules_imported(path):
        top, _, rest = name.partition(".")
        if top == "aggstream":
            first = rest.partition(".")[0]
            # What is no module is a name that the package itself exports.
            is_module = (ROOT / f"{first}.py").exists() or (ROOT / first / "__init__.py").exists()
            yield first if first and is_module else "__init__"


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_every_module_has_a_layer_and_every_row_a_module() -> None:
    assert {component(path) for path in FILES} == set(LEVEL)


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_only_go_down(path: Path) -> None:
    own = component(path)
    up = {name for name in components_imported(path) if LEVEL[name] > LEVEL[own]}
    assert not up, f"{own} (layer {LEVEL[own]}) imports upwards: {sorted(up)}"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_only_the_transport_knows_the_websocket_library(path: Path) -> None:
    imports = any(name.partition(".")[0] == "websocket" for name in modules_imported(path))
    assert not imports or name_of(path) in ("transport.py", "_opening.py", "_frames.py")


@pytest.mark.parametrize("path", [path for path in FILES if component(path) == "integrations"], ids=name_of)
def test_an_integration_knows_its_own_framework_and_what_they_share_none(path: Path) -> None:
    below = path.relative_to(ROOT / "integrations").parts
    own = below[0] if len(below) > 1 else None
    others = {"django", "flask"} - {own}
    for name in modules_imported(path):
        top, _, rest = name.partition(".")
        assert top not in {*others, *(("werkzeug", "click") if own != "flask" else ())}
        assert not (top == "aggstream" and set(rest.split(".")[:2]) & others), name


def test_the_session_and_what_is_below_it_know_no_socket_and_no_thread() -> None:
    for name in ("session", "_state", "_codec", "_records_codec", "_commands", "_token"):
        imported = {module.partition(".")[0] for module in modules_imported(ROOT / f"{name}.py")}
        assert not imported & {"socket", "select", "selectors", "threading", "asyncio", "ssl", "time", "random"}, (
            name
        )


def test_importing_the_package_loads_neither_simulator_nor_command_nor_what_only_they_need() -> None:
    loaded = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; before = set(sys.modules); import aggstream; print(*set(sys.modules) - before)",
        ],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()
    unwanted = {
        "django",
        "flask",
        "aiohttp",
        "jwt",
        "rich",
        "argparse",
        "aggstream.simulator",
        "aggstream.testing",
        "aggstream.cli",
    }
    # What only REST, a journal, or a connection needs.
    unwanted |= {"urllib3", "http.client", "sqlite3", "cattrs", "asyncio"}
    assert not unwanted & set(loaded)
    assert "aggstream.client" in loaded


def test_importing_the_package_starts_no_thread_and_touches_no_signal() -> None:
    code = (
        "import signal, threading\n"
        "before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]\n"
        "import aggstream\n"
        "assert threading.active_count() == 1\n"
        "assert before == [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]\n"
    )
    finished = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert finished.stdout == finished.stderr == ""


@pytest.mark.parametrize("name", ["aggstream", "aggstream.journal"])
def test_what_is_loaded_when_asked_for_is_there_as_if_it_were_loaded_at_once(name: str) -> None:
    code = (
        f"import {name} as package\n"
        "assert set(package.__all__) <= set(dir(package))\n"
        f"from {name} import *\n"
        "assert all(vars(package)[name] is getattr(package, name) for name in package.__all__)\n"
        "assert not hasattr(package, 'nothing')\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_modules_that_are_loaded_when_asked_for_can_be_reached_through_the_package() -> None:
    code = (
        "import aggstream\n"
        "assert aggstream.journal.JournalReader and aggstream.rest.RestClient and aggstream.tokens.TokenPair\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_nothing_is_loaded_once_there_are_threads() -> None:
    code = (
        "import sys, threading, aggstream\n"
        "from aggstream.simulator import Simulator\n"
        "with Simulator() as agg:\n"
        "    client = aggstream.Client(app_id='app_demo123', origin='https://app.example', url=agg.url,\n"
        "        token=agg.sign_in('u').access_token, rest_url=agg.rest_url)\n"
        "    agg.place_order('u', scenario='filled')\n"
        "    before = set(sys.modules)\n"
        "    with client:\n"
        "        client.wait_until_caught_up(30)\n"
        "        agg.place_order('u', scenario='failed')\n"
        "        agg.drop()\n"
        "        client.wait_for('resumed', timeout=30)\n"
        "        client.wait_until_caught_up(30)\n"
        "    print(*(set(sys.modules) - before))\n"
    )
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert run.stdout.split() == []
