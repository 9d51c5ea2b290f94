"""Imports only go down, and importing the package loads only what it needs."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
from rooms import FILES, ROOT, ROW, ROWS, file_of, imported_by, name_of, room_of


def modules_imported(path: Path) -> set[str]:
    """Return what a file imports, wherever in it the import stands."""
    return set(imported_by(ast.walk(ast.parse(path.read_text(encoding="utf-8")))))


def modules_needed(path: Path) -> set[str]:
    """Return what a file imports when it is loaded, and for its types: all but what functions import later."""
    nodes: list[ast.AST] = []
    waiting: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while waiting:
        node = waiting.pop()
        nodes.append(node)
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            waiting += ast.iter_child_nodes(node)
    return set(imported_by(nodes))


def files_imported(path: Path, modules: Iterable[str]) -> set[Path]:
    return {file for name in modules if name.partition(".")[0] == "aggstream" and (file := file_of(name))} - {path}


def test_every_room_has_a_row_and_every_row_rooms() -> None:
    assert {room_of(path) for path in FILES} == set(ROW)
    assert sum(map(len, ROWS)) == len(ROW), "a room stands in two rows"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_only_go_down_and_never_to_the_room_next_door(path: Path) -> None:
    own = room_of(path)
    rooms = {room_of(file) for file in files_imported(path, modules_imported(path))} - {own}
    assert not {room for room in rooms if ROW[room] >= ROW[own]}, f"{own} stands in row {ROW[own]}"


def test_there_is_no_circle_of_modules() -> None:
    needs = {path: files_imported(path, modules_needed(path)) for path in FILES}
    # A package's face imports its modules, and they may be reached by it.
    needs = {path: files for path, files in needs.items() if path.name != "__init__.py"}
    done: set[Path] = set()
    while free := {path for path in needs if path not in done and not (needs[path] & set(needs)) - done}:
        done |= free
    assert not {name_of(path) for path in set(needs) - done}


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_the_inside_of_a_public_room_is_private(path: Path) -> None:
    """The underscore is on the door of a private room; in a public one it is on each module."""
    room, *inside = path.relative_to(ROOT).with_suffix("").parts
    plain = room.startswith("_") or any(part.startswith("_") and part != "__init__" for part in inside[:-1])
    public = {"cli", "integrations"}  # their commands, and what the frameworks look for by its name
    for part in inside[-1:]:
        if part != "__init__" and room not in public:
            assert part.startswith("_") != plain, path


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_logger_is_named_after_its_room(path: Path) -> None:
    names = re.findall(r"^logger = logging.getLogger\((.*)\)", path.read_text(encoding="utf-8"), re.MULTILINE)
    room, *inside = path.relative_to(ROOT).parts
    below = [part for part in inside[:1] if part in ("django", "flask")]
    assert names in ([], [f'"{".".join(["aggstream", room.removeprefix("_"), *below])}"'])


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_only_the_network_knows_the_websocket_library(path: Path) -> None:
    imports = any(name.partition(".")[0] == "websocket" for name in modules_imported(path))
    assert not imports or name_of(path) in (f"_network/{file}.py" for file in ("websocket", "opening", "frames"))


@pytest.mark.parametrize("path", [path for path in FILES if room_of(path) == "integrations"], ids=name_of)
def test_an_integration_knows_its_own_framework_and_what_they_share_none(path: Path) -> None:
    below = path.relative_to(ROOT / "integrations").parts
    own = below[0] if len(below) > 1 else None
    others = {"django", "flask"} - {own}
    for name in modules_imported(path):
        top, _, rest = name.partition(".")
        assert top not in {*others, *(("werkzeug", "click") if own != "flask" else ())}
        assert not (top == "aggstream" and set(rest.split(".")[:2]) & others), name


@pytest.mark.parametrize("path", [path for path in FILES if room_of(path) == "_protocol"], ids=name_of)
def test_the_protocol_knows_no_socket_no_clock_and_no_thread(path: Path) -> None:
    imported = {module.partition(".")[0] for module in modules_imported(path)}
    assert not imported & {"socket", "select", "selectors", "threading", "asyncio", "ssl", "time", "random"}


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
