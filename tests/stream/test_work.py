"""How much work a message is, counted in calls: on a noisy machine as on a quiet one, the same number.

The budgets are a little above what it takes. Whoever goes past one has found something slow, or a reason to
raise it.
"""

from __future__ import annotations

import collections
import json
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

import pytest
from line import Line
from raw_server import frame
from service_messages import BALANCE_UPDATE, ORDER_EVENT, ORDER_SUBMITTED
from waiting import Until

from aggstream._base.threads import Gate
from aggstream.events import UserEvent

# The page's three messages again and again, as many as one read takes.
FRAMES = [
    frame(json.dumps(json.loads(text), separators=(",", ":")).encode())
    for text in (ORDER_SUBMITTED, BALANCE_UPDATE, ORDER_EVENT)
] * 100
COUNT = len(FRAMES)


class Calls:
    """Counts the calls on each thread, of Python's functions and of C's."""

    def __init__(self) -> None:
        self.of: dict[int, collections.Counter[str]] = collections.defaultdict(collections.Counter)

    def __call__(self, frame: FrameType, event: str, arg: Any) -> None:
        if event in ("call", "c_call"):
            name = frame.f_code.co_name if event == "call" else getattr(arg, "__qualname__", repr(arg))
            self.of[threading.get_ident()][f"{event} {name}"] += 1

    def each(self, thread: threading.Thread | None) -> float:
        """Return how many there were on a thread for each message."""
        assert thread is not None
        assert thread.ident is not None
        return sum(self.of[thread.ident].values()) / COUNT

    def __repr__(self) -> str:
        lines = [
            f"{count / COUNT:7.2f} {name}" for calls in self.of.values() for name, count in calls.most_common()
        ]
        return "\n".join(lines)


@pytest.fixture
def line() -> Iterator[Line]:
    line = Line()
    yield line
    line.close()


def test_the_calls_for_a_message_from_the_socket_to_the_handler_stay_within_their_budget(
    line: Line, until: Until
) -> None:
    seen: list[UserEvent] = []
    for name in ("order_submitted", "balance_update", "order_event"):
        line.client.on(name)(seen.append)
    assert sum(map(len, FRAMES)) < 1 << 16
    line.send(b"".join(FRAMES))
    calls, gate = Calls(), Gate()
    gate.open()
    threading.setprofile(calls)
    try:
        line.engine.workers.start(gate)
        sys.setprofile(calls)
        line.take()
        sys.setprofile(None)
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    until(lambda: len(seen) == COUNT)
    until(lambda: line.client._dispatcher.depth == 0)
    assert calls.each(threading.current_thread()) < 33, calls
    assert calls.each(line.engine.workers._threads[0]) < 7, calls


def test_a_message_of_its_own_is_few_calls_as_well(line: Line) -> None:
    line.client.on(UserEvent)(lambda event: None)
    calls = Calls()
    for one in FRAMES:
        line.send(one)
        sys.setprofile(calls)
        try:
            line.take()
        finally:
            sys.setprofile(None)
    assert line.client._dispatcher.depth == COUNT
    assert calls.each(threading.current_thread()) < 115, calls


def test_a_heartbeat_that_nobody_listens_to_wakes_no_handlers_thread(line: Line) -> None:
    heartbeat = frame(b'{"type":"heartbeat","ts":1}')
    line.client.on("order_event")(lambda event: None)
    line.send(heartbeat)
    line.take()
    assert line.stream.counters.messages == 1
    assert line.client._dispatcher.depth == 0
    line.client.on("*")(lambda event: None)
    line.send(heartbeat)
    line.take()
    assert line.client._dispatcher.depth == 1
