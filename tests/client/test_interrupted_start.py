"""`start()` that is interrupted at any of its lines, as by Ctrl-C: no thread is left, no journal stays owned."""

from __future__ import annotations

import contextlib
import linecache
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from clients import MakeClient
from waiting import DEADLINE, Until

import aggstream
from aggstream.simulator import Simulator

USER = "usr_1"
# Where `start` decides, and where the journal is opened. The rest has less to lose.
FILES = {"lifetime.py", "threads.py", "_journal.py", "_file_lock.py", "fork_and_exit.py"}


@pytest.fixture(scope="module")
def agg() -> Iterator[Simulator]:
    with Simulator() as simulator:
        yield simulator


class Interruption:
    """Raises KeyboardInterrupt at the n-th line that this thread runs in one of the files."""

    def __init__(self, line: int) -> None:
        self.place: tuple[str, int] | None = None
        self._left = line

    def __call__(self, frame: FrameType, event: str, arg: object) -> Any:
        path = Path(frame.f_code.co_filename)
        return self._look if path.name in FILES and "aggstream" in path.parts else None

    def _look(self, frame: FrameType, event: str, arg: object) -> Any:
        text = linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip()
        # The interpreter runs no signal handler between the two halves of a `with`.
        if event == "line" and self.place is None and not text.startswith("with "):
            if self._left == 0:
                self.place = Path(frame.f_code.co_filename).name, frame.f_lineno
                raise KeyboardInterrupt
            self._left -= 1
        return self._look


def interrupted(client: aggstream.Client, line: int, kept: list[BaseException]) -> tuple[str, int] | None:
    """Interrupt `start` at a line; return the place, None if there are fewer lines. Keep what was raised."""
    interruption = Interruption(line)
    before = sys.gettrace()
    sys.settrace(interruption)
    try:
        client.start()
    except KeyboardInterrupt as error:
        kept.append(error)
    else:
        assert interruption.place is None, f"swallowed at {interruption.place}"
    finally:
        sys.settrace(before)
    return interruption.place


@pytest.mark.parametrize("has_journal", [False, True], ids=["plain", "journal"])
def test_an_interrupted_start_leaves_nothing_behind(
    agg: Simulator, client_of: MakeClient, until: Until, tmp_path: Path, has_journal: bool
) -> None:
    kept: list[BaseException] = []  # what a program keeps must keep no journal owned
    line = 0
    while True:
        journal = tmp_path / f"{line}.db" if has_journal else None
        token = agg.sign_in(USER).access_token
        client = client_of(agg.url, token=token, journal=journal, rest=None, name=f"line-{line}")
        place = interrupted(client, line, kept)
        if place is None:
            client.stop()
            break
        until(lambda: not any(thread.name.startswith("line-") for thread in threading.enumerate()))
        # It can be started, unless the interruption came when all threads ran already: then it has ended.
        with contextlib.suppress(aggstream.StateError):
            client.start()
            client.wait_until_live(DEADLINE)
        assert client.stop(), place
        line += 1
    assert line > 30
