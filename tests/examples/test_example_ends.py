"""The end of the examples that start several processes."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from waiting import Until

EXAMPLES = Path(__file__).parents[2] / "examples"


def unused_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return str(free.getsockname()[1])


@pytest.mark.parametrize(
    ("name", "has_pages", "streams"),
    [("django_orders", True, 2), ("flask_orders", True, 2), ("django_celery", False, 1)],
)
def test_who_asks_for_the_end_again_and_again_leaves_nothing_behind(
    name: str, has_pages: bool, streams: int, tmp_path: Path, until: Until
) -> None:
    command = [
        sys.executable,
        str(EXAMPLES / name / "start.py"),
        *(["--port", unused_port()] if has_pages else []),
    ]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    reading, writing = os.pipe()
    with open(reading, "rb", buffering=0) as output:
        os.set_blocking(reading, False)
        process = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=writing, stderr=writing
        )
        os.close(writing)
        written = bytearray()

        def says(words: bytes, times: int) -> bool:
            written.extend(output.read() or b"")
            assert process.poll() is None, written.decode()
            return written.count(words) >= times

        def has_ended() -> bool:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(next(signals))
            return process.poll() is not None

        signals = itertools.cycle([signal.SIGINT, signal.SIGTERM])
        try:
            until(lambda: says(b"live as", streams))
            until(has_ended)
            while left := output.read():  # until the end, which does not come while somebody could write
                written.extend(left)
        finally:
            process.kill()
            process.wait()
    assert left == b"", f"a process is left: {written.decode()}"
    assert process.returncode == 0, written.decode()
    assert list(tmp_path.iterdir()) == []
