"""The commands of a project as a supervisor sees them."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import aggstream
from aggstream.simulator import Simulator

DEADLINE = 60.0


class Process:
    """A running command of the project; what it writes goes into a file."""

    def __init__(self, command: tuple[str, ...], environment: dict[str, str], output: Path, project: Path) -> None:
        self._output = output
        with output.open("w") as stream:
            self.process = subprocess.Popen(
                [sys.executable, *command],
                cwd=project,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                start_new_session=True,
            )

    @property
    def output(self) -> str:
        return self._output.read_text()

    def says(self, text: str) -> bool:
        """Tell whether it has written something; fail if it never will."""
        output = self.output
        assert text in output or self.process.poll() is None, f"it ended without saying {text!r}: {output}"
        return text in output

    def records(self) -> list[dict[str, Any]]:
        """Return what it has logged as JSON; every line must be that."""
        return [json.loads(line) for line in self.output.splitlines()]

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)  # with the child that a reloader has
        self.process.wait()

    def end(self, number: signal.Signals | None = signal.SIGTERM) -> int:
        """Send a signal, if any, and return the exit code."""
        if number is not None:
            self.process.send_signal(number)
        return self.process.wait(DEADLINE)


class Project:
    """Starts commands of a project, in an environment of its own."""

    def __init__(self, project: Path, agg: Simulator, directory: Path, **environment: str) -> None:
        """Make one.

        Args:
            project: the directory to start them in.
            agg: whose service is meant.
            directory: what they write goes there.
            environment: further variables.
        """
        ours = ("AGGSTREAM_", "DJANGO_", "FLASK_")
        self.environment = {key: value for key, value in os.environ.items() if not key.startswith(ours)}
        self.environment |= {
            "AGGSTREAM_URL": agg.url,
            "AGGSTREAM_REST_URL": agg.rest_url,
            "AGGSTREAM_APP_ID": agg.app_id,
            "AGGSTREAM_ORIGIN": agg.origin,
            "PYTHONPATH": str(Path(aggstream.__file__).parents[1]),
            "PYTHONUNBUFFERED": "1",
            **environment,
        }
        self.project = project
        self._directory = directory
        self._processes: list[Process] = []

    def python(self, *command: str, **environment: str) -> Process:
        """Start something in the project."""
        output = self._directory / f"output-{len(self._processes)}"
        process = Process(command, {**self.environment, **environment}, output, self.project)
        self._processes.append(process)
        return process

    def close(self) -> None:
        for process in self._processes:
            process.kill()
