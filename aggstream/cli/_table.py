"""Lays out tables so that they fit the terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from typing import TypeAlias

import attrs

from aggstream.cli._event_format import Segment
from aggstream.cli._std_streams import printable

_GAP = "  "
_INDENT = " " * 4


@attrs.frozen
class Column:
    """A column of a table."""

    title: str
    rank: int = 0
    """In a narrow terminal, columns with the highest rank move below the row first. The first column stays."""
    right: bool = False
    is_note: bool = False
    """True if the column is always in the line below."""


TableRow: TypeAlias = "Sequence[Segment]"
"""The cells of a row, one for each column. An empty text is an empty cell."""


def table_lines(columns: Sequence[Column], rows: Sequence[TableRow], max_width: int) -> Iterator[list[Segment]]:
    """Yield the lines of a table. A line is wider than `max_width` only if a single word is.

    Texts are not cut and words are not broken, so that ids can be copied. Cells that have no room in a row follow
    below it, with their titles. Empty columns are left out.
    """
    columns, rows = _without_empty(columns, rows)
    widths = [max(len(column.title), *(len(row[n][0]) for row in rows)) for n, column in enumerate(columns)]
    in_row = _fitting_columns(columns, widths, max_width)
    yield _row_line([(columns[n].title, "dim") for n in in_row], [widths[n] for n in in_row], columns, in_row)
    for row in rows:
        yield _row_line([row[n] for n in in_row], [widths[n] for n in in_row], columns, in_row)
        rest = [(columns[n], *row[n]) for n in range(len(columns)) if n not in in_row and row[n][0]]
        yield from _lines_below(rest, max_width)


def _without_empty(
    columns: Sequence[Column], rows: Sequence[TableRow]
) -> tuple[Sequence[Column], Sequence[TableRow]]:
    """Return the columns that are not empty, and their cells without control characters."""
    used = [n for n in range(len(columns)) if any(row[n][0] for row in rows)]
    cells = [[(printable(row[n][0]), row[n][1]) for n in used] for row in rows]
    return [columns[n] for n in used], cells


def _fitting_columns(columns: Sequence[Column], widths: Sequence[int], max_width: int) -> list[int]:
    """Return the numbers of the columns that have room in a row."""
    ranks = sorted({column.rank for column in columns}, reverse=True)
    for rank in [*ranks, -1]:
        in_row = [n for n, column in enumerate(columns) if not column.is_note and (column.rank <= rank or n == 0)]
        if sum(widths[n] for n in in_row) + len(_GAP) * (len(in_row) - 1) <= max_width:
            break
    return in_row


def _row_line(
    cells: TableRow, widths: Sequence[int], columns: Sequence[Column], in_row: Sequence[int]
) -> list[Segment]:
    segments: list[Segment] = []
    for (text, style), width, n in zip(cells, widths, in_row, strict=True):
        padding = " " * (width - len(text))
        gap = _GAP if segments else ""
        segments += [(gap + padding, ""), (text, style)] if columns[n].right else [(gap, ""), (text, style)]
        if not columns[n].right:
            segments.append((padding, ""))
    return segments


def _lines_below(cells: Sequence[tuple[Column, str, str]], max_width: int) -> Iterator[list[Segment]]:
    """Yield lines with the cells that have no room in the row, several cells in a line."""
    line: list[Segment] = []
    used = 0
    for column, text, style in cells:
        title = "" if column.is_note else f"{column.title} "
        needed = len(title) + len(text)
        if line and used + len(_GAP) + needed > max_width:
            yield line
            line = []
        if not line:
            line, used = [(_INDENT, "")], len(_INDENT)
        else:
            line.append((_GAP, ""))
            used += len(_GAP)
        if used + needed > max_width:  # a single cell is too long for its line
            broken = textwrap.wrap(
                title + text, max_width - len(_INDENT), break_long_words=False, break_on_hyphens=False
            )
            for piece in broken[:-1]:
                yield [(_INDENT, ""), (piece, style)]
            line, used = [(_INDENT, ""), (broken[-1], style)], len(_INDENT) + len(broken[-1])
        else:
            line += [(title, "dim"), (text, style)]
            used += needed
    if line:
        yield line
