"""A run of the tests leaves no server behind, however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import reaper
from waiting import DEADLINE, Until

pytestmark = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="this system has no /proc")

RUN = """
import signal, subprocess, sys, threading
for ignored in (signal.SIGINT, signal.SIGHUP):  # as they are for what a shell has put into the background
    signal.signal(ignored, signal.SIG_DFL)
sys.path.insert(0, sys.argv[1])
import reaper
reaper.begin()
HANG = "import threading; threading.Event().wait()"
BEGIN = f"import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', {HANG!r}]).pid, flush=True);"
server = subprocess.Popen(
    [sys.executable, "-c", BEGIN + HANG], stdout=subprocess.PIPE, text=True, start_new_session=True
)
print(server.pid, server.stdout.readline().strip(), reaper.directory("data"), flush=True)
if sys.argv[2] != "end":
    threading.Event().wait()
"""


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


@pytest.mark.parametrize("how", ["SIGKILL", "SIGINT", "SIGTERM", "SIGHUP", "end"])
def test_servers_and_their_children_and_directories_end_with_the_run(how: str, until: Until) -> None:
    command = [sys.executable, "-c", RUN, str(Path(reaper.__file__).parent), how]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True
    ) as run:
        assert run.stdout is not None
        server, child, directory = run.stdout.readline().split()
        assert how == "end" or not (is_gone(int(server)) or is_gone(int(child)))
        if how != "end":
            os.killpg(run.pid, getattr(signal, how))
        run.wait(DEADLINE)
    until(lambda: is_gone(int(server)) and is_gone(int(child)) and not Path(directory).exists())
