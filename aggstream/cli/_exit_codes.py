"""The exit codes of the command, and the failures that end it with one."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

OK = 0
FAILED = 1
USAGE = 2
NOT_FILLED = 3
UNKNOWN = 4
_SIGNALLED = 128
EXIT_CODES = """\
Exit codes:
  0         success; `wait`: all orders were filled
  1         the stream, the REST API or the journal failed; `wait`, `orders`: the
            REST API failed, and the stream told nothing of the orders either
  2         wrong usage or settings
  3         `wait`: an order ended and was not filled in full: it failed, expired,
            was cancelled, or was filled in part; or its last status and its
            amounts disagree ("filled", but an amount remains)
  4         `wait`, `orders`: the result is not known, because the time ran out or
            because the client may have missed events
  130, 143  Ctrl-C, SIGTERM
With several orders the worst one decides: 4 before 3, and 3 before 0."""
"""The exit codes, for help texts."""


class Failure(Exception):
    """Ends the command with one line on stderr and an exit code."""

    def __init__(self, message: str, code: int = FAILED) -> None:
        super().__init__(message)
        self.code = code


def signal_exit_code(number: int) -> int:
    """Return the exit code for a program that a signal has ended, as shells have it."""
    return _SIGNALLED + number


@contextlib.contextmanager
def needs_extra(name: str, *packages: str) -> Iterator[None]:
    """Wrap imports of an extra's packages. If one is missing, raise a `Failure` that says what to install."""
    try:
        yield
    except ImportError as error:
        # The simulator raises an ImportError of its own; its cause has the name of the missing package.
        cause = error.__cause__ if isinstance(error.__cause__, ImportError) else error
        missing = (cause.name or "").partition(".")[0]
        if missing not in packages:
            raise
        raise Failure(f"{missing} is not installed: pip install 'aggstream[{name}]'", USAGE) from None
