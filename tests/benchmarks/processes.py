"""Runs subjects, each in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.measurement import Figures, Plan

PATIENCE = 600.0
TESTS = Path(__file__).parents[1]


class SubjectFailed(Exception):
    """A subject could not be run to its end."""


def run_subject(
    python: Path, measurement: str, subjects: Sequence[str], plan: Plan, directory: Path
) -> list[Figures]:
    """Return what a process says: the figures of each subject.

    Raises:
        SubjectFailed: it failed, or took too long; says what it wrote.
    """
    arguments = [measurement, *subjects, f"--count={plan.count}", f"--messages={plan.messages}"]
    said = _run([str(python), "-m", "benchmarks.subject", *arguments], directory)
    try:
        figures: list[Figures] = json.loads(said)
    except ValueError:
        raise SubjectFailed(f"{' '.join(arguments)} did not print figures:\n{said}") from None
    return figures


def run_plot(python: Path, figures: dict[str, Any], path: Path) -> None:
    """Have a picture of a report drawn.

    Raises:
        SubjectFailed: there is none; says what was written instead.
    """
    _run([str(python), "-m", "benchmarks.plot", str(path.absolute())], TESTS, given=json.dumps(figures))


def _run(command: list[str], directory: Path, *, given: str = "") -> str:
    what = " ".join(command[2:])
    try:
        done = subprocess.run(
            command,
            input=given,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
            cwd=directory,
            env={**os.environ, "PYTHONPATH": str(TESTS)},
        )
    except subprocess.TimeoutExpired as error:
        raise SubjectFailed(f"{what} took more than {PATIENCE:.0f} s:\n{error.stderr!r}") from None
    if done.returncode:
        raise SubjectFailed(f"{what} failed with exit code {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout
