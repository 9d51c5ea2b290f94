"""Start the stream and a Celery worker, against the simulator, until Ctrl-C: `python start.py [--rate 5]`.

Orders are placed all the time; the worker says which receipts it has written. Everything is in a directory that is
gone afterwards, or that you name. It needs `pip install 'aggstream[django,simulator]' celery`.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

from aggstream.simulator import Simulator

PROJECT = Path(__file__).parent / "project"
USER = "usr_trader1"
A_MONTH = 30 * 86400.0
TIMEOUT = 60.0


def prepare(agg: Simulator, directory: Path) -> None:
    """Make the database, and what the processes need to know."""
    (directory / "broker").mkdir(exist_ok=True)
    os.environ |= {
        "DJANGO_SETTINGS_MODULE": "receipts.settings",
        "RECEIPTS_DIRECTORY": str(directory),
        "RECEIPTS_SECRET_KEY": secrets.token_urlsafe(40),
        "AGGSTREAM_URL": agg.url,
        "AGGSTREAM_REST_URL": agg.rest_url,
        "AGGSTREAM_APP_ID": agg.app_id,
        "AGGSTREAM_ORIGIN": agg.origin,
        "AGGSTREAM_TOKEN": agg.sign_in(USER, lifetime=A_MONTH).access_token,
    }
    subprocess.run([sys.executable, "manage.py", "migrate", "--verbosity", "0"], cwd=PROJECT, check=True)


@contextlib.contextmanager
def running(*commands: list[str]) -> Iterator[None]:
    # Sessions of their own: Ctrl-C in the terminal comes to this process alone.
    processes = [subprocess.Popen(command, cwd=PROJECT, start_new_session=True) for command in commands]
    try:
        yield
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait()


def end(*_: object) -> None:
    """Ask for the end, once: interrupted again, it would leave processes behind."""
    for asked in (signal.SIGINT, signal.SIGTERM):
        signal.signal(asked, signal.SIG_IGN)
    raise KeyboardInterrupt


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=float, default=5.0, help="events of orders a second; default: 5")
    parser.add_argument("--directory", type=Path, help="where the database and the broker's files are kept")
    args = parser.parse_args()
    for asked in (signal.SIGINT, signal.SIGTERM):
        signal.signal(asked, end)
    with tempfile.TemporaryDirectory() as temporary, Simulator() as agg:
        prepare(agg, args.directory or Path(temporary))
        print(f"The simulator is driven at {urllib.parse.urljoin(agg.rest_url, '/control/')}", flush=True)
        stream = [sys.executable, "manage.py", "aggstream"]
        worker = [sys.executable, "-m", "celery", "--app", "receipts", "worker", "--concurrency", "2"]
        with contextlib.suppress(KeyboardInterrupt), running(stream, [*worker, "--loglevel", "warning"]):
            agg.wait_for_connections(1, timeout=TIMEOUT)
            agg.play(USER, orders=None, rate=args.rate)
            os.wait()  # until one of them ends by itself, which it does not


if __name__ == "__main__":
    main()
