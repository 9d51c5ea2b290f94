"""A person's view of things: lines in colours where rich is installed, and tables that fit the terminal."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeAlias

import attrs

from aggstream.cli._lines import Line, Segment, as_line
from aggstream.cli._shell import note, printable, write_line
from aggstream.events import Event

Paint: TypeAlias = "Callable[[Iterable[Segment]], None]"

_GAP = "  "
_INDENT = " " * 4


def has_reader() -> bool:
    """Return True if a person reads stdout, and not a program."""
    return sys.stdout.isatty()


def width() -> int:
    """Return how many columns the terminal has now."""
    return shutil.get_terminal_size().columns


def line_printer() -> Callable[[Line], None]:
    """Return what prints a line that tells of a moment, on several lines of the terminal if need be."""
    paint = painter()

    def show(line: Line) -> None:
        for segments in line.wrapped(width()):
            paint(segments)

    return show


def painter() -> Paint:
    """Return what prints one line of the terminal."""
    try:
        from aggstream.cli._render import paint  # noqa: PLC0415  (an extra)
    except ModuleNotFoundError:  # rich is an extra
        return _paint_plainly
    return paint


def _paint_plainly(segments: Iterable[Segment]) -> None:
    write_line("".join(text for text, _ in segments).rstrip())


def print_aside(event: Event) -> None:
    """Tell a person of an event, beside what a program reads."""
    line = as_line(event)
    note(f"{line.label}: {line.text}")


@attrs.frozen
class Column:
    """A column of a table."""

    title: str
    rank: int = 0
    """How early it leaves the columns for a line below, where the terminal is narrow: 0 last of all."""
    right: bool = False
    is_note: bool = False
    """True if it always stands in the line below."""


TableRow: TypeAlias = "Sequence[Segment]"
"""As many segments as there are columns; one without a text is nothing to tell."""


def lay_out(columns: Sequence[Column], rows: Sequence[TableRow], most: int) -> Iterator[list[Segment]]:
    """Yield the lines of a table, which is no wider than `most` if no word in it is.

    No text is cut, and no word broken, so that what is an id can be copied. What has no room in a row stands below
    it, with its title. A column in which there is nothing is left out.
    """
    columns, rows = _with_text(columns, rows)
    widths = [max(len(column.title), *(len(row[n][0]) for row in rows)) for n, column in enumerate(columns)]
    upright = _upright(columns, widths, most)
    yield _row([(columns[n].title, "dim") for n in upright], [widths[n] for n in upright], columns, upright)
    for row in rows:
        yield _row([row[n] for n in upright], [widths[n] for n in upright], columns, upright)
        below = [(columns[n], *row[n]) for n in range(len(columns)) if n not in upright and row[n][0]]
        yield from _below(below, most)


def _with_text(columns: Sequence[Column], rows: Sequence[TableRow]) -> tuple[Sequence[Column], Sequence[TableRow]]:
    """Return the columns in which there is a text, and their cells, printable."""
    used = [n for n in range(len(columns)) if any(row[n][0] for row in rows)]
    cells = [[(printable(row[n][0]), row[n][1]) for n in used] for row in rows]
    return [columns[n] for n in used], cells


def _upright(columns: Sequence[Column], widths: Sequence[int], most: int) -> list[int]:
    """Return which columns have room beside each other."""
    ranks = sorted({column.rank for column in columns}, reverse=True)
    for rank in [*ranks, -1]:
        upright = [n for n, column in enumerate(columns) if not column.is_note and (column.rank <= rank or n == 0)]
        if sum(widths[n] for n in upright) + len(_GAP) * (len(upright) - 1) <= most:
            break
    return upright


def _row(
    cells: TableRow, widths: Sequence[int], columns: Sequence[Column], upright: Sequence[int]
) -> list[Segment]:
    segments: list[Segment] = []
    for (text, style), width, n in zip(cells, widths, upright, strict=True):
        padding = " " * (width - len(text))
        gap = _GAP if segments else ""
        segments += [(gap + padding, ""), (text, style)] if columns[n].right else [(gap, ""), (text, style)]
        if not columns[n].right:
            segments.append((padding, ""))
    return segments


def _below(cells: Sequence[tuple[Column, str, str]], most: int) -> Iterator[list[Segment]]:
    """Yield the lines for what had no room, several to a line."""
    line: list[Segment] = []
    used = 0
    for column, text, style in cells:
        title = "" if column.is_note else f"{column.title} "
        needed = len(title) + len(text)
        if line and used + len(_GAP) + needed > most:
            yield line
            line = []
        if not line:
            line, used = [(_INDENT, "")], len(_INDENT)
        else:
            line.append((_GAP, ""))
            used += len(_GAP)
        if used + needed > most:  # alone in its line, and still too long for it
            broken = textwrap.wrap(
                title + text, most - len(_INDENT), break_long_words=False, break_on_hyphens=False
            )
            for piece in broken[:-1]:
                yield [(_INDENT, ""), (piece, style)]
            line, used = [(_INDENT, ""), (broken[-1], style)], len(_INDENT) + len(broken[-1])
        else:
            line += [(title, "dim"), (text, style)]
            used += needed
    if line:
        yield line
