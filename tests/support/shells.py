"""The command `aggstream` as a shell sees it: processes, pipes and pseudo-terminals."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import threading
from pathlib import Path
from typing import IO, Any

import aggstream
from aggstream.simulator import SignedIn, Simulator

DEADLINE = 30.0


class Command:
    """A running `aggstream`. Whatever hangs is killed at the deadline, and then the reading test fails."""

    def __init__(self, process: subprocess.Popen[str], stdout: IO[str], stderr: Path) -> None:
        self.process = process
        self._stdout = stdout
        self._stderr = stderr
        self._screen = ""

    def line(self) -> str:
        line = self._stdout.readline()
        assert line, f"it ended: {self.stderr}"
        return line.rstrip("\n")

    def event(self) -> dict[str, Any]:
        event = json.loads(self.line())
        assert isinstance(event, dict)
        return event

    def events_until(self, name: str) -> list[dict[str, Any]]:
        events = [self.event()]
        while events[-1]["type"] != name:
            events.append(self.event())
        return events

    def screen_until(self, text: str) -> str:
        """Read what a terminal gets until `text` is in it; return all that it got so far."""
        while text not in self._screen:
            try:
                chunk = os.read(self._stdout.fileno(), 65536).decode(errors="replace")
            except OSError:  # how a pseudo-terminal says that nobody writes to it any more
                chunk = ""
            assert chunk, f"it ended without {text!r}: {self._screen}"
            self._screen += chunk
        return self._screen

    def close_stdout(self) -> None:
        self._stdout.close()

    def end(self, number: signal.Signals | None = None) -> tuple[int, list[str]]:
        """Send a signal, if any, and return the exit code and the lines that were left on stdout."""
        if number is not None:
            self.process.send_signal(number)
        rest = [] if self._stdout.closed else self._stdout.read().splitlines()
        return self.process.wait(DEADLINE), rest

    @property
    def stderr(self) -> str:
        return self._stderr.read_text()


class Shell:
    """Starts the command in an environment without settings."""

    def __init__(self, directory: Path, stack: contextlib.ExitStack) -> None:
        self.directory = directory
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith("AGGSTREAM_")}
        self.environment |= {"TERM": "xterm-256color", "PYTHONIOENCODING": "utf-8", "HOME": str(directory)}
        # The package under test, wherever it was imported from.
        self.environment["PYTHONPATH"] = str(Path(aggstream.__file__).parents[1])
        for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES"):
            self.environment.pop(name, None)
        self._stack = stack
        self._count = 0

    def start(
        self, *arguments: str, without: str = "", preamble: str = "", size: tuple[int, int] | None = None
    ) -> Command:
        """Start it.

        Args:
            arguments: the command's.
            without: packages that it is not to find.
            preamble: Python that runs before it.
            size: columns and lines of the terminal that it is to have; None: a pipe.
        """
        code = ["-m", "aggstream"]
        if without or preamble:
            blocked = f"import sys; sys.modules.update(dict.fromkeys({without.split()!r}))"
            code = ["-c", f"{blocked}\n{preamble}\nfrom aggstream.cli import main; sys.exit(main())"]
        self._count += 1
        stderr = self.directory / f"stderr-{self._count}"
        with contextlib.ExitStack() as opened:
            errors = opened.enter_context(stderr.open("w"))
            slave: int = subprocess.PIPE
            if size is not None:
                master, slave = pty.openpty()
                opened.callback(os.close, slave)
                fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", size[1], size[0], 0, 0))
            process = subprocess.Popen(
                [sys.executable, *code, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=slave,
                stderr=errors,
                env=self.environment,
                cwd=self.directory,
                text=True,
            )
        stdout = os.fdopen(master) if size is not None else process.stdout
        assert stdout is not None
        self._stack.callback(self._clean_up, process, stdout, watchdog := threading.Timer(DEADLINE, process.kill))
        watchdog.start()
        return Command(process, stdout, stderr)

    @staticmethod
    def _clean_up(process: subprocess.Popen[str], stdout: IO[str], watchdog: threading.Timer) -> None:
        watchdog.cancel()
        watchdog.join()
        process.kill()
        process.wait()
        stdout.close()

    def run(self, *arguments: str, without: str = "", preamble: str = "") -> tuple[int, list[str], str]:
        """Run it to its end; return the exit code, the lines of stdout, and stderr."""
        command = self.start(*arguments, without=without, preamble=preamble)
        code, lines = command.end()
        return code, lines, command.stderr


def one_line(text: str) -> bool:
    return text.startswith("aggstream: ") and text.count("\n") == 1 and text.endswith("\n")


def settings_of(simulator: Simulator, signed_in: SignedIn) -> dict[str, str]:
    """Return the variables that `aggstream simulate` prints."""
    return {
        "AGGSTREAM_URL": simulator.url,
        "AGGSTREAM_REST_URL": simulator.rest_url,
        "AGGSTREAM_APP_ID": simulator.app_id,
        "AGGSTREAM_ORIGIN": simulator.origin,
        "AGGSTREAM_TOKEN": signed_in.access_token,
    }


def without_colour(screen: str) -> list[str]:
    """Return the lines of what a terminal was sent."""
    return re.sub(r"\x1b\[[0-9;]*m", "", screen).replace("\r", "").split("\n")
