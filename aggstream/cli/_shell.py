"""The command's manners in a shell: exit codes, one line on stderr for a failure, and signals."""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import sys
from collections.abc import Iterator

OK = 0
FAILED = 1
USAGE = 2
NOT_FILLED = 3
UNKNOWN = 4
_SIGNALLED = 128
# One character for one where columns must stay where they are.
_PLAIN = {
    "\N{BLACK CIRCLE}": "*",
    "\N{MULTIPLICATION SIGN}": "x",
    "\N{NOT EQUAL TO}": "!=",
    "\N{HORIZONTAL ELLIPSIS}": "~",
}

EXIT_CODES = """\
Exit codes:
  0         ended as asked; `wait`: all orders were filled
  1         the stream, the REST API or the journal failed
  2         wrong usage or settings
  3         `wait`: an order has ended without being filled in full: it failed,
            expired, was cancelled, or was filled in part; or the word of its end
            and its amounts disagree ("filled", but some remains)
  4         `wait`, `orders`: not known, because the time ran out, or because
            something may have been missed
  130, 143  Ctrl-C, SIGTERM
Of several orders the worst one counts: 4 before 3, and 3 before 0."""
"""For help texts."""


class Failure(Exception):
    """Ends the command with one line on stderr and an exit code."""

    def __init__(self, message: str, code: int = FAILED) -> None:
        super().__init__(message)
        self.code = code


def printable(text: str) -> str:
    """Return a foreign text on one line and without what a terminal would obey."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def note(text: str) -> None:
    """Tell the person at the terminal something; stdout is for the stream alone."""
    sys.stderr.write(f"aggstream: {printable(text)}\n")
    sys.stderr.flush()


def write_line(line: str) -> None:
    """Write one line to stdout at once: the reader of the pipe is meant to see it now."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def prepare_streams() -> None:
    """Let nothing that is written be an error of the stream it goes to.

    What would go to a stdout or stderr that the caller has closed (`>&-`) goes nowhere, and a character that the
    terminal's encoding lacks is written as one that it has.
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
    return "".join(_PLAIN.get(character, "?") for character in text), error.end


def abandon_stdout() -> None:
    """Let nothing be written to stdout any more, neither what is buffered when the interpreter ends."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def exit_code(number: int) -> int:
    """Return the code by which a shell knows that a signal ended a program."""
    return _SIGNALLED + number


@contextlib.contextmanager
def extra(name: str, *packages: str) -> Iterator[None]:
    """Around imports: turn a missing package of an extra into a `Failure` that says what to install."""
    try:
        yield
    except ImportError as error:
        # The simulator says in words of its own what it misses; the cause says it by name.
        cause = error.__cause__ if isinstance(error.__cause__, ImportError) else error
        missing = (cause.name or "").partition(".")[0]
        if missing not in packages:
            raise
        raise Failure(f"{missing} is not installed: pip install 'aggstream[{name}]'", USAGE) from None
