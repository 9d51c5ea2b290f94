"""The rooms of the package, in rows, and which file of them a module is."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from pathlib import Path

import aggstream

ROOT = Path(aggstream.__file__).parent
ROWS = [
    {"errors", "typing", "_version"},
    {"_base"},
    {"events", "health", "_network"},
    {"tokens"},
    {"_protocol", "rest"},
    {"journal", "_delivery"},
    {"orders"},
    {"_stream"},
    {"client", "fleet"},
    {"__init__"},
    {"simulator", "testing"},
    {"cli", "integrations"},
    {"__main__"},
]
"""The rooms, lowest first: a room imports rooms of the rows above its own in this list, and itself."""
ROW = {room: number for number, rooms in enumerate(ROWS) for room in rooms}
FILES = sorted(ROOT.rglob("*.py"))


def room_of(path: Path) -> str:
    """Return the module or the package directly below `aggstream` that a file belongs to."""
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def file_of(module: str) -> Path | None:
    """Return the file of a module of the package; None if there is no such module."""
    place = ROOT.joinpath(*module.split(".")[1:])
    return next((path for path in (place.with_suffix(".py"), place / "__init__.py") if path.exists()), None)


def imported_by(nodes: Iterable[ast.AST]) -> Iterator[str]:
    """Return the full names of the modules that some statements import, of the package's own down to the file."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            assert node.module is not None
            for alias in node.names:
                module = f"{node.module}.{alias.name}"
                is_ours = node.module.partition(".")[0] == "aggstream"
                yield module if is_ours and file_of(module) else node.module
