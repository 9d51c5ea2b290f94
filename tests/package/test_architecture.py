"""What is written for contributors is so: the rooms, the files and the functions that it names are there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from rooms import FILES, ROOT, ROWS

CHECKOUT = Path(__file__).parents[2]
ARCHITECTURE = (CHECKOUT / ".github" / "ARCHITECTURE.md").read_text(encoding="utf-8")
CONTRIBUTING = (CHECKOUT / ".github" / "CONTRIBUTING.md").read_text(encoding="utf-8")
PICTURE = ARCHITECTURE.split("```")[1]
MODULES = {name.lstrip("_") for name in ({path.stem for path in FILES} | {room for row in ROWS for room in row})}


def test_the_table_of_rooms_is_that_of_the_imports() -> None:
    table = re.findall(r"^\| (\d+) \| (`[^|]*`) \|", ARCHITECTURE, re.MULTILINE)
    rows: dict[int, set[str]] = {}
    for number, rooms in table:
        rows.setdefault(int(number), set()).update(re.findall(r"`(\w+)`", rooms))
    # The package's own two modules are no rooms.
    expected = [row - {"__init__", "__main__"} for row in ROWS]
    assert [rows[number] for number in sorted(rows)] == [row for row in expected if row]


def test_the_picture_shows_rooms_and_modules_that_are_there() -> None:
    rooms = set(re.findall(r"([a-z_]+)/(?!O)", PICTURE))
    assert rooms
    assert not {room for room in rooms if not (ROOT / room).is_dir()}
    on_the_way = set(re.findall(r"(\w+) ─+►", PICTURE)) | set(re.findall(r"─► (\w+)", PICTURE))
    assert len(on_the_way) > 8
    assert not {name.lstrip("_") for name in on_the_way} - MODULES - {"your"}


@pytest.mark.parametrize("text", [ARCHITECTURE, CONTRIBUTING], ids=["ARCHITECTURE", "CONTRIBUTING"])
def test_each_file_and_folder_that_is_named_is_there(text: str) -> None:
    files = set(re.findall(r"[\w/]+\.py\b", text)) | set(re.findall(r"\btests/\w+\b(?!/)", text))
    assert len(files) > 10
    places = (ROOT, CHECKOUT, CHECKOUT / "tests" / "scripts")
    assert not {name for name in files if not any((place / name).exists() for place in places)}


def test_each_function_that_keeps_a_promise_is_there() -> None:
    named = set(re.findall(r"`(\w+)\.(\w+)`", ARCHITECTURE))
    found = {
        (cls.name, inside.name)
        for path in FILES
        for cls in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(cls, ast.ClassDef)
        for inside in cls.body
        if isinstance(inside, ast.FunctionDef)
    }
    classes = {name for name, _ in found}
    functions = {pair for pair in named if pair[0] in classes and not pair[1].startswith("_lock")}
    assert len(functions) > 15
    assert not {pair for pair in functions - found if pair[1] != "_changed"}


def test_the_two_are_short() -> None:
    assert len(ARCHITECTURE.splitlines()) < 150
    assert len(CONTRIBUTING.splitlines()) < 110
