"""The figures as text."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

from benchmarks.measurement import Measurement, Quantity
from benchmarks.pairs import Pair

_WIDTH = 100
_LEFT = (0, 1, 2, 4)  # columns of words


def render(measurement: Measurement, pairs: Sequence[Pair]) -> str:
    """Return a table: for each pair and quantity the medians, and the median and the range of the ratios."""
    rows: list[tuple[str, ...]] = [("", "better", "ours", "", "beside", "", "ratio", "from", "to")]
    rows += [row for quantity in measurement.quantities for pair in pairs for row in _rows(quantity, pair)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [measurement.title, *textwrap.wrap(measurement.notes, _WIDTH)]
    lines += ["  ".join(_aligned(row, widths)).rstrip() for row in rows]
    return "\n".join(lines) + "\n"


def _rows(quantity: Quantity, pair: Pair) -> Iterator[tuple[str, ...]]:
    ours, theirs = pair.medians(quantity.name)
    name = f"{quantity.name} ({quantity.unit})"
    better = "" if quantity.better == "neither" else quantity.better
    if pair.theirs is None:
        yield (name, better, pair.ours, number(ours), "", "", "", "", "")
        return
    ratios = pair.ratios(quantity.name)
    figures = [number(pair.ratio(quantity.name)), number(min(ratios)), number(max(ratios))] if ratios else [""] * 3
    yield (name, better, pair.ours, number(ours), pair.theirs, number(theirs), *figures)


def _aligned(row: Sequence[str], widths: Sequence[int]) -> Iterator[str]:
    for at, (cell, width) in enumerate(zip(row, widths, strict=True)):
        yield cell.ljust(width) if at in _LEFT else cell.rjust(width)


def number(value: float | None) -> str:
    """Return three digits of a figure, or all of those before the point."""
    if value is None:
        return ""
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:,.{digits}f}"
