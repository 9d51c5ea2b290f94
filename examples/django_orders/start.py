"""Start everything, against the simulator, and stop it on Ctrl-C: `python start.py [--port 8000] [--rate 2.5]`.

Two users with an AGG account each, one process for each account's stream, and the web server. What ends by itself
is started again, as a service manager would do it. All of it is in a directory that is gone afterwards.
It needs `pip install 'aggstream[django,simulator]' whitenoise gunicorn`; without gunicorn, the framework's own
server for development serves the pages.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse
from pathlib import Path
from typing import TypeAlias

import django
from django.core.management import call_command

from aggstream.simulator import Simulator

PROJECT = Path(__file__).parent / "project"
USERS = ("trader1", "trader2")
A_MONTH = 30 * 86400.0
PAUSE = 0.5

Process: TypeAlias = "tuple[subprocess.Popen[bytes], list[str]]"
"""What runs, and its command."""


def web_server(port: int) -> list[str]:
    """Return the command: gunicorn where it is installed. A page's live events take a thread for some seconds."""
    if importlib.util.find_spec("gunicorn") is None:
        return [sys.executable, "manage.py", "runserver", "--noreload", f"127.0.0.1:{port}"]
    options = ["--workers", "2", "--threads", "16", "--bind", f"127.0.0.1:{port}", "--graceful-timeout", "1"]
    return [sys.executable, "-m", "gunicorn", *options, "--log-level", "warning", "config.wsgi"]


def control(agg: Simulator) -> str:
    """Return the URL by which the simulator is driven over HTTP."""
    return urllib.parse.urljoin(agg.rest_url, "/control/")


def prepare(agg: Simulator, directory: str, rate: float) -> str:
    """Make the database with its users, and what the processes need to know; return the users' password."""
    os.environ |= {
        "DJANGO_SETTINGS_MODULE": "config.settings",
        "ORDERS_SECRET_KEY": secrets.token_urlsafe(40),
        "ORDERS_DATABASE": str(Path(directory) / "orders.db"),
        "ORDERS_MARKET": control(agg) + "play",
        "ORDERS_RATE": str(rate),
        "AGGSTREAM_URL": agg.url,
        "AGGSTREAM_REST_URL": agg.rest_url,
        "AGGSTREAM_APP_ID": agg.app_id,
        "AGGSTREAM_ORIGIN": agg.origin,
    }
    for name in USERS:
        token = agg.sign_in(f"usr_{name}", lifetime=A_MONTH).access_token
        os.environ[f"ORDERS_TOKEN_{name.upper()}"] = token
    sys.path.insert(0, str(PROJECT))
    django.setup()
    from django.contrib.auth.models import User  # noqa: PLC0415  (once Django is set up)
    from django.db import connection  # noqa: PLC0415

    call_command("migrate", verbosity=0)
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA journal_mode=WAL")  # who reads does not wait for who writes
    password = secrets.token_hex(4)
    for name in USERS:
        User.objects.create_user(name, password=password)
    connection.close()
    return password


def run(commands: list[list[str]]) -> None:
    """Run commands until the end is asked for; what ends before is started again."""
    running: dict[int, Process] = {}
    try:
        for command in commands:
            start(command, running)
        while True:
            number, status = os.wait()
            process, command = running.pop(number)
            process.returncode = os.waitstatus_to_exitcode(status)
            with contextlib.suppress(ProcessLookupError):  # the workers of a server that was killed
                os.killpg(number, signal.SIGKILL)
            time.sleep(PAUSE)
            start(command, running)
    except KeyboardInterrupt:
        print("stopping", flush=True)
    finally:
        for process, _ in running.values():
            process.terminate()
        for process, _ in running.values():
            process.wait()


def start(command: list[str], running: dict[int, Process]) -> None:
    # A session of its own: Ctrl-C in the terminal comes to this process alone.
    process = subprocess.Popen(command, cwd=PROJECT, start_new_session=True)
    # It is kept: one that nobody has is waited for by the next Popen, and `os.wait` does not hear of its end.
    running[process.pid] = process, command
    print(f"process {process.pid}: {' '.join(command[1:])}", flush=True)


def end(*_: object) -> None:
    """Ask for the end, once: interrupted again, it would leave processes behind."""
    for asked in (signal.SIGINT, signal.SIGTERM):
        signal.signal(asked, signal.SIG_IGN)
    raise KeyboardInterrupt


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8000, help="of the pages; default: 8000")
    parser.add_argument("--rate", type=float, default=2.5, help="events of an order a second; default: 2.5")
    args = parser.parse_args()
    if importlib.util.find_spec("whitenoise") is None:
        parser.error("it needs whitenoise: pip install whitenoise")
    try:
        socket.create_server(("127.0.0.1", args.port)).close()
    except OSError as error:
        parser.error(f"port {args.port}: {error.strerror}; name another one with --port")
    for asked in (signal.SIGINT, signal.SIGTERM):
        signal.signal(asked, end)
    with tempfile.TemporaryDirectory() as directory, Simulator() as agg:
        password = prepare(agg, directory, args.rate)
        users = " or ".join(USERS)
        print(f"Sign in at http://127.0.0.1:{args.port}/ as {users}, password {password}; Ctrl-C ends it")
        print(f"The simulator is driven at {control(agg)}", flush=True)
        streams = [[sys.executable, "manage.py", "aggstream", "--account", name] for name in USERS]
        run([*streams, web_server(args.port)])


if __name__ == "__main__":
    main()
