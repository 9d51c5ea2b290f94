"""The fixtures that all tests share. What they are made of stands in `support/`."""

from __future__ import annotations

import contextlib
import gc
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import reaper
import trustme
from certificates import serving
from clients import BRISK, PRELUDE, MakeClient, Run
from other_server import OtherServer, Script, ServeFunction
from raw_server import RawServer, ServeBytes
from shells import Shell
from waiting import DEADLINE, Until

import aggstream

# No test depends on the machine's speed. Where CI decides about a change, it is not by luck that a search finds
# something old; who works on the code finds more with each run.
hypothesis.settings.register_profile("here", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "here")


def pytest_configure() -> None:
    reaper.begin()


def _descriptors() -> set[str]:
    if not os.path.isdir("/proc/self/fd"):
        return set()
    return {f"{fd}: {target}" for fd in os.listdir("/proc/self/fd") if (target := _target(fd)) is not None}


def _target(fd: str) -> str | None:
    with contextlib.suppress(OSError):
        target = os.readlink(f"/proc/self/fd/{fd}")
        # Not pipes: the server of `websockets` leaves one behind in the versions for Python 3.10.
        return target if target.startswith(("socket:", "anon_inode:")) else None
    return None


def _join(thread: threading.Thread, deadline: float) -> None:
    while True:
        remaining = deadline - time.monotonic()
        try:
            return thread.join(max(0.0, remaining))
        except RuntimeError:  # a server's thread that is about to start is listed, and cannot be joined yet
            if remaining < 0:
                raise
            threading.Event().wait(0.005)


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """Fail a test that leaves a thread or a descriptor."""
    threads = set(threading.enumerate())
    descriptors = _descriptors()
    yield
    deadline = time.monotonic() + DEADLINE
    for thread in set(threading.enumerate()) - threads:
        _join(thread, deadline)
        assert not thread.is_alive(), f"{thread.name} is left behind"
    left = _descriptors() - descriptors
    if left:  # what a cycle of garbage holds is not left behind; collecting it takes a while, so only now
        gc.collect()
        left = _descriptors() - descriptors
    assert not left, f"left behind: {left}"


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    with contextlib.ExitStack() as stack:
        yield Shell(tmp_path, stack)


@pytest.fixture(scope="session")
def until() -> Until:
    """Wait until a condition holds, with a generous deadline."""

    def wait(condition: Callable[[], object], /) -> None:
        deadline = time.monotonic() + DEADLINE
        pause = threading.Event()
        while not condition():
            assert time.monotonic() < deadline, "the condition did not come true"
            pause.wait(0.005)

    return wait


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def trusting(authority: trustme.CA) -> ssl.SSLContext:
    """A client's context that trusts the private authority."""
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


@pytest.fixture
def other_server(authority: trustme.CA) -> Iterator[ServeFunction]:
    servers: list[OtherServer] = []

    def start(script: Script, /, *, tls: bool = False) -> OtherServer:
        server = OtherServer(script, serving(authority) if tls else None)
        server.start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.close()
        assert not server.problems, server.problems


@pytest.fixture
def client_of() -> Iterator[MakeClient]:
    """Make clients that are stopped when the test ends, however it ends."""
    clients: list[aggstream.Client] = []

    def make(url: str, /, **options: Any) -> aggstream.Client:
        settings: dict[str, Any] = {
            "app_id": "app_demo123",
            "origin": "https://app.example",
            "token": "token-of-xyz789",
            "reconnect": BRISK,
            "close_timeout": 0.2,
            "rest_lag": 0,  # the simulator's REST does not trail, unless it is told to
        }
        client = aggstream.Client(url=url, **{**settings, **options})
        clients.append(client)
        return client

    yield make
    for client in clients:
        with contextlib.suppress(BaseException):
            client.stop()


@pytest.fixture
def run(authority: trustme.CA, tmp_path: Path) -> Iterator[Run]:
    """Start programs that have a client already; with `first` they do something before. What hangs is killed."""
    ca = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(ca))

    def start(program: str, url: str, /, *, first: str = "") -> subprocess.Popen[str]:
        process = subprocess.Popen(
            # Python 3.12 warns of a fork beside threads, which is what these tests are about.
            [sys.executable, "-W", "ignore::DeprecationWarning", "-c", first + PRELUDE + program, url, str(ca)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        watchdog = threading.Timer(DEADLINE, process.kill)
        watchdogs.append(watchdog)
        watchdog.start()
        return process

    watchdogs: list[threading.Timer] = []
    yield start
    for watchdog in watchdogs:
        watchdog.cancel()
        watchdog.join()


@pytest.fixture
def raw_server(authority: trustme.CA) -> Iterator[ServeBytes]:
    servers: list[RawServer] = []

    def start(script: Callable[[socket.socket], object], /, *, tls: bool = False) -> RawServer:
        server = RawServer(script, serving(authority) if tls else None)
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.close()
