"""Run the Autobahn client suite against the transport: how other people test a WebSocket client.

    python tests/scripts/autobahn.py

The suite's server (autobahntestsuite 0.8.2) needs Python 2.7, which is looked for as `python2.7` and among pyenv's
versions, or given with --python2. It is installed into an environment of its own, in a temporary directory or in
--cache, where the next run finds it. The cases are all 301 that are not about compression (12 and 13), which the
transport does not offer. Prints how many there were of each result, and each that is not OK; the exit code is 1 if
one failed, or was not strict, or if a connection was not closed as it should have been.
"""

from __future__ import annotations

import argparse
import collections
import json
import pathlib
import selectors
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from websocket import ABNF

import aggstream
from aggstream._base.deadline import Deadline
from aggstream._base.secret import Secret
from aggstream._network.opening import connect
from aggstream._network.socket_wait import SocketWait
from aggstream._network.websocket import Binary, Message, PeerClosed, Transport
from aggstream.errors import AggStreamError

AGENT = "aggstream"
SUITE = "autobahntestsuite==0.8.2"
CASES = 301
# The largest message of the suite is 16 MiB, the most fragments are 262,144.
LIMITS = aggstream.Limits(message_size=1 << 25, frame_size=1 << 25, fragments=1 << 20)
GOOD = {"OK", "INFORMATIONAL"}
EVERY_CASE = 60.0
THE_SERVER = 30.0


def main() -> int:
    parser = argparse.ArgumentParser(description="Run the Autobahn client suite against aggstream's transport.")
    parser.add_argument("--python2", help="a Python 2.7; default: the one on the path, or pyenv's")
    parser.add_argument("--cache", type=pathlib.Path, help="keep the suite's environment here")
    parser.add_argument("--case", help="only these cases, as in 6.4.*", default="*")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        place = pathlib.Path(temporary)
        wstest = install(options.cache or place, options.python2 or python2())
        with serving(wstest, place, options.case) as port:
            count = int(ask(port, "/getCaseCount"))
            for number in range(1, count + 1):
                run_case(port, number)
                if sys.stdout.isatty():
                    sys.stdout.write(f"\r{number}/{count}")
                    sys.stdout.flush()
            ask(port, f"/updateReports?agent={AGENT}")
        results = json.loads((place / "reports" / "index.json").read_text())[AGENT]
    return judge(results, CASES if options.case == "*" else count)


def judge(results: dict[str, Any], expected: int) -> int:
    """Print the results; return the exit code."""
    bad = expected - len(results)
    for kind in ("behavior", "behaviorClose"):
        counts = collections.Counter(result[kind] for result in results.values())
        sys.stdout.write(f"\n{kind}: " + ", ".join(f"{name} {count}" for name, count in sorted(counts.items())))
    sys.stdout.write(f"\n{len(results)} of {expected} cases\n")
    for case, result in sorted(results.items(), key=lambda item: [int(part) for part in item[0].split(".")]):
        if result["behavior"] != "OK" or result["behaviorClose"] != "OK":
            sys.stdout.write(f"{case}: {result['behavior']}, close {result['behaviorClose']}\n")
        bad += result["behavior"] not in GOOD or result["behaviorClose"] not in GOOD
    return 1 if bad else 0


# --- the client -----------------------------------------------------------------------------------------


def run_case(port: int, number: int) -> None:
    """Send back whatever comes until the connection ends, one way or another."""
    with connected(port, f"/runCase?case={number}&agent={AGENT}") as messages:
        for transport, message in messages:
            if isinstance(message, list):
                for text in message:
                    transport.queue_text(text)
            elif isinstance(message, Binary):
                transport._queue(message.data, ABNF.OPCODE_BINARY)  # the client itself sends none


def ask(port: int, path: str) -> str:
    """Return the one text that the server answers with, or an empty one."""
    with connected(port, path) as messages:
        return "".join(text for _, message in messages if isinstance(message, list) for text in message)


@contextmanager
def connected(port: int, path: str) -> Iterator[Iterator[tuple[Transport, object]]]:
    selector = selectors.DefaultSelector()
    opening = SocketWait()
    deadline = Deadline(EVERY_CASE)
    transport = connect(
        Secret(f"ws://127.0.0.1:{port}{path}"),
        addresses=socket.getaddrinfo("127.0.0.1", port, type=socket.SOCK_STREAM),
        host="127.0.0.1",
        route=None,
        ssl_context=None,
        origin="http://127.0.0.1",
        headers={},
        limits=LIMITS,
        deadline=deadline,
        wait=opening.wait,
        made=lambda _: None,
    )
    transport._largest_backlog = 1 << 30  # the client itself sends nothing large
    try:
        yield received(transport, selector, deadline)
    finally:
        selector.close()
        transport.abort()
        opening.close()


def received(
    transport: Transport, selector: selectors.BaseSelector, deadline: Deadline
) -> Iterator[tuple[Transport, object]]:
    """Yield what comes, and send what waits, as the client's I/O thread does, until either side has closed."""
    # The answers to what came before the end must be sent before the close frame, which the client itself need not
    # care for: it answers nothing.
    closes: list[tuple[int, str]] = []
    selector.register(transport.fd, selectors.EVENT_READ)
    queue_close = transport.queue_close
    transport.queue_close = lambda code, reason="": closes.append((code, reason))  # type: ignore[method-assign]
    while not deadline.expired():
        timeout = 0.0 if transport.has_buffered else deadline.remaining()
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if transport.wants_write else 0)
        selector.modify(transport.fd, events)
        selector.select(timeout)
        messages: list[Message] = []
        is_over = False
        try:
            transport.receive(messages)
        except AggStreamError:
            is_over = True  # a close frame waits that says what the server did wrong
        for message in messages:
            yield transport, message
            is_over = is_over or isinstance(message, PeerClosed)
        for close in closes:
            queue_close(*close)
        closes.clear()
        transport.flush()
        if is_over:
            return
    sys.stdout.write("\na case took too long\n")


# --- the server -----------------------------------------------------------------------------------------


def python2() -> str:
    """Return a Python 2.7 of this machine."""
    candidates = [shutil.which("python2.7"), shutil.which("python2")]
    pyenv = shutil.which("pyenv")
    if pyenv is not None:
        root = subprocess.run([pyenv, "root"], check=True, capture_output=True, text=True).stdout.strip()
        candidates += map(str, pathlib.Path(root).glob("versions/2.7*/bin/python2.7"))
    for found in candidates:
        # pyenv has a command of that name on the path also where no such version is chosen, and it only fails.
        if (
            found is not None
            and subprocess.run([found, "-c", ""], check=False, capture_output=True).returncode == 0
        ):
            return found
    sys.exit("the suite needs Python 2.7: install one (pyenv install 2.7.18), or name it with --python2")


def install(place: pathlib.Path, python: str) -> pathlib.Path:
    """Return the suite's command, installed into an environment of its own if it is not there yet."""
    wstest = place / "suite" / "bin" / "wstest"
    if not wstest.exists():
        venv.create(place / "tools", with_pip=True)
        tools = place / "tools" / "bin"
        # The last virtualenv that makes environments for Python 2.7.
        quietly = ["install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([tools / "pip", *quietly, "virtualenv<20.22"], check=True)
        subprocess.run([tools / "virtualenv", "--quiet", "--python", python, place / "suite"], check=True)
        subprocess.run([place / "suite" / "bin" / "pip", *quietly, SUITE], check=True)
    return wstest


@contextmanager
def serving(wstest: pathlib.Path, place: pathlib.Path, case: str) -> Iterator[int]:
    """Run the suite's server; yield its port."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    spec = {
        "url": f"ws://127.0.0.1:{port}",
        "outdir": str(place / "reports"),
        "cases": [case],
        "exclude-cases": ["12.*", "13.*"],
        "exclude-agent-cases": {},
    }
    (place / "spec.json").write_text(json.dumps(spec))
    command = [str(wstest), "-m", "fuzzingserver", "-s", str(place / "spec.json")]
    with (place / "log").open("w+") as log, subprocess.Popen(command, stdout=log, stderr=log, cwd=place) as server:
        try:
            wait_for(port, server, place / "log")
            yield port
        finally:
            server.kill()


def wait_for(port: int, server: subprocess.Popen[bytes], log: pathlib.Path) -> None:
    deadline = Deadline(THE_SERVER)
    while not deadline.expired() and server.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    sys.exit(f"the suite's server did not start:\n{log.read_text()}")


if __name__ == "__main__":
    sys.exit(main())
