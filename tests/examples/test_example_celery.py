"""The example with Celery, with a real worker, started by its one command."""

from __future__ import annotations

import re
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import urllib3
from waiting import DEADLINE, Until

START = Path(__file__).parents[2] / "examples" / "django_celery" / "start.py"
# Of the orders that the example places by itself: none while a test looks.
SLOW = "0.001"


class Example:
    """The example as it runs, what it writes, and its database."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        with self._written.open("w") as stream:
            self.process = subprocess.Popen(
                [sys.executable, str(START), "--rate", SLOW, "--directory", str(directory)],
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
            )

    @property
    def _written(self) -> Path:
        return self._directory / "output"

    @property
    def output(self) -> str:
        written = self._written.read_text()
        assert self.process.poll() is None, written
        return written

    def place_order(self, scenario: str) -> str:
        """Let the whole life of an order be played; return its id."""
        url = re.findall(r"driven at (\S+)", self.output)[0] + "orders"
        wanted = {"userId": "usr_trader1", "scenario": scenario}
        answer = urllib3.request("POST", url, json=wanted, headers={"Connection": "close"}, timeout=DEADLINE)
        return str(answer.json()["orderId"])

    def sql(self, text: str, *values: object) -> list[Any]:
        with closing(sqlite3.connect(self._directory / "receipts.db", timeout=DEADLINE)) as connection, connection:
            return connection.execute(text, values).fetchall()

    def end(self) -> int:
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(DEADLINE)


@pytest.fixture
def example(tmp_path: Path, until: Until) -> Iterator[Example]:
    running = Example(tmp_path)
    try:
        until(lambda: "live as" in running.output)
        yield running
    finally:
        running.process.terminate()
        running.process.wait(DEADLINE)


def test_a_worker_writes_one_receipt_for_each_order_that_is_filled_however_often_it_is_asked(
    example: Example, until: Until
) -> None:
    filled, failed = example.place_order("filled"), example.place_order("failed")
    until(lambda: f"receipt for {filled}: " in example.output)
    [(event_id, text)] = example.sql("SELECT event_id, text FROM receipts_receipt")
    assert re.fullmatch(r"(buy|sell) \d+ at 0\.\d+ on \w+", text)
    # As the action of the admin does it.
    example.sql("UPDATE aggstream_event SET state = 'again' WHERE event_id = ?", event_id)
    until(lambda: f"receipt for {filled}: it was there" in example.output)
    assert example.sql("SELECT event_id, text FROM receipts_receipt") == [(event_id, text)]
    assert failed not in example.output
    assert example.end() == 0
