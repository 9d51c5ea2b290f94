"""Ends what a test run has started, also if the run itself is killed: databases, web servers, browsers.

A process of its own waits until the run is gone. It knows the processes of the run by a word in their environment,
which children inherit, and its directories by the same word in their names.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

VARIABLE = "AGGSTREAM_TEST_RUN"
# What is ended may have started something meanwhile.
_PASSES = 20


def begin() -> None:
    """Begin a run: everything that this process starts from now on ends with it."""
    run = uuid.uuid4().hex[:16]
    os.environ[VARIABLE] = run
    waiting = subprocess.Popen(
        [sys.executable, __file__, run],
        stdin=subprocess.PIPE,  # which nobody else inherits, so it ends with this process
        env={key: value for key, value in os.environ.items() if key != VARIABLE},
        start_new_session=True,  # a Ctrl-C is for the run
    )
    assert waiting.stdin is not None
    atexit.register(_end, waiting)


def directory(name: str) -> Path:
    """Make a directory that ends with the run."""
    return Path(tempfile.mkdtemp(prefix=f"aggstream-{os.environ.get(VARIABLE, 'norun')}-{name}-"))


def _end(waiting: subprocess.Popen[bytes]) -> None:
    assert waiting.stdin is not None
    waiting.stdin.close()
    waiting.wait()


def _processes(run: str) -> Iterator[int]:
    word = f"{VARIABLE}={run}\0".encode()
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if word in (entry / "environ").read_bytes() + b"\0":
                yield int(entry.name)


def _reap(run: str) -> None:
    for _ in range(_PASSES):
        found = list(_processes(run))
        if not found:
            break
        for pid in found:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
    for left in Path(tempfile.gettempdir()).glob(f"aggstream-{run}-*"):
        shutil.rmtree(left, ignore_errors=True)


if __name__ == "__main__":
    sys.stdin.read()  # until the run has ended, however it did
    _reap(sys.argv[1])
