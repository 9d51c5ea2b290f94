"""A program that is killed again and again misses nothing; `scripts/kill.py` does this hundreds of times."""

from __future__ import annotations

import contextlib
import pathlib

from kills import Kills, Settings


def test_a_program_that_is_killed_again_and_again_misses_nothing(tmp_path: pathlib.Path) -> None:
    with contextlib.ExitStack() as stack:
        summary = Kills(stack, Settings(directory=tmp_path, seed=1, kills=12)).run()
    assert not summary["problems"], summary
    assert summary["kills"] == 12
    assert summary["missing"] == 0
    assert summary["from_reconcile"]
    assert summary["redelivered"]
