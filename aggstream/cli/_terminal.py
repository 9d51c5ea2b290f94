"""Prints lines for people: with colours if rich is installed, and wrapped to the terminal."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterable
from typing import TypeAlias

from aggstream.cli._event_format import Line, Segment, as_line
from aggstream.cli._std_streams import print_note, write_line
from aggstream.events import Event

Paint: TypeAlias = "Callable[[Iterable[Segment]], None]"


def is_interactive() -> bool:
    """Return True if stdout is a terminal. Then a person reads it, otherwise a program."""
    return sys.stdout.isatty()


def width() -> int:
    """Return the present number of columns of the terminal."""
    return shutil.get_terminal_size().columns


def line_printer() -> Callable[[Line], None]:
    """Return a function that prints a `Line`, wrapped to the width of the terminal."""
    paint = painter()

    def show(line: Line) -> None:
        for segments in line.wrapped(width()):
            paint(segments)

    return show


def painter() -> Paint:
    """Return a function that prints one line of segments: in colours if rich is installed."""
    try:
        from aggstream.cli._render import paint  # noqa: PLC0415  (an extra)
    except ModuleNotFoundError:  # rich is not installed
        return _paint_plainly
    return paint


def _paint_plainly(segments: Iterable[Segment]) -> None:
    write_line("".join(text for text, _ in segments).rstrip())


def print_note_of(event: Event) -> None:
    """Print an event for people to stderr, because a program reads stdout."""
    line = as_line(event)
    print_note(f"{line.label}: {line.text}")
