"""Writes to stdout and stderr."""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import sys

# The ASCII text for a character. It is one character too where a column's width depends on it.
_ASCII_TEXTS = {
    "\N{BLACK CIRCLE}": "*",
    "\N{MULTIPLICATION SIGN}": "x",
    "\N{NOT EQUAL TO}": "!=",
    "\N{HORIZONTAL ELLIPSIS}": "~",
}


def printable(text: str) -> str:
    """Return the text without line breaks and control characters, so that it cannot control a terminal."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def print_note(text: str) -> None:
    """Write a line for people to stderr. Stdout is for the command's result only."""
    sys.stderr.write(f"aggstream: {printable(text)}\n")
    sys.stderr.flush()


def write_line(line: str) -> None:
    """Write one line to stdout, and flush it, so that the reader of a pipe sees it at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def prepare_streams() -> None:
    """Set stdout and stderr up so that writing raises no error for a closed stream or an unknown character.

    If the caller has closed a stream (`>&-`), the replacement writes nowhere. If the terminal's encoding does not
    have a character, an ASCII text is written instead.
    """
    codecs.register_error("aggstream", _in_ascii)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: PTH123, SIM115  (it lives as long as the process)
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="aggstream")


def _in_ascii(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    text = error.object[error.start : error.end]
    return "".join(_ASCII_TEXTS.get(character, "?") for character in text), error.end


def abandon_stdout() -> None:
    """Redirect stdout to nowhere, also for the text that the interpreter still flushes at its end."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
