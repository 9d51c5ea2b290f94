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
        "_timers",
        "_checks",
        "_suspension",
        "_processes",
        "_amounts",
        "_lazy",
    ],
    ["events", "_state", "_token", "_commands", "_health", "_limits", "_processes", "_records"],
    [
        "_assembly",
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


def test_the_session_and_what_is_below_it_know_no_socket_and_no_thread() -> None:
    for name in ("session", "_state", "_codec", "_records_codec", "_commands", "_token"):
        imported = {module.partition(".")[0] for module in modules_imported(ROOT / f"{name}.py")}
        assert not imported & {"socket", "select", "selectors", "threading", "asyncio", "ssl", "time", "random"}, (
            name
        )


def test_importing_the_package_loads_neither_simulator_nor_command_nor_what_only_they_need() -> None:
    loaded = subprocess.run(
        [sys.executable, "-c", "import sys, aggstream; print(*sys.modules)"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()
    unwanted = {
        "django",
        "aiohttp",
        "jwt",
        "rich",
        "argparse",
        "aggstream.simulator",
        "aggstream.testing",
        "aggstream.cli",
    }
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
