"""Events for those who pull: the buffer behind `events()`, and `wait_for()`'s look at each event."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import aggstream
from aggstream import BalanceUpdate, ConfigurationError, ConnectionLost, Event, Gap, OrderEvent, StateError
from aggstream._base.deadline import Deadline
from aggstream._delivery.expectation import Expectation
from aggstream._delivery.pull import EventIterator, PullBuffer
from aggstream._delivery.registry import key_of
from aggstream._protocol.codec import Codec

decode = Codec(aggstream.Limits()).decode

DEADLINE = 30.0
BALANCE = BalanceUpdate(venue="kalshi", trading_balance_cents=1, wallet_balance_cents=2, timestamp=3)


def gap(number: int) -> Gap:
    return Gap(number=number, started_ns=1, ended_ns=2)


def opened(size: int = 10) -> PullBuffer:
    buffer = PullBuffer(size, 1 << 20, "test")
    buffer.open()
    return buffer


def nothing() -> None:
    pass


def iterate(
    buffer: PullBuffer, timeout: float | None = 0.0, **callbacks: Callable[[], None]
) -> EventIterator[Event]:
    settings = {"guard": nothing, "at_end": nothing, **callbacks}
    return EventIterator(buffer, key_of("*"), timeout, **settings)


@contextlib.contextmanager
def in_thread(call: Callable[[], object]) -> Iterator[threading.Event]:
    """Make a call in another thread; yields what is set once it has returned, and waits for that at the end."""
    done = threading.Event()

    def run() -> None:
        call()
        done.set()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield done
    finally:
        thread.join(DEADLINE)
        assert done.is_set()


def test_nothing_is_kept_before_it_is_opened() -> None:
    buffer = PullBuffer(10, 1 << 20, "test")
    buffer.put(gap(1), 0)
    buffer.open()
    assert buffer.get(Deadline(0)) is None


def test_events_come_in_order_and_each_once() -> None:
    buffer = opened()
    for number in range(5):
        buffer.put(gap(number), 0)
    assert list(iterate(buffer)) == [gap(number) for number in range(5)]
    assert list(iterate(buffer)) == []


def test_nothing_is_lost_between_two_loops() -> None:
    buffer = opened()
    buffer.put(gap(1), 0)
    assert list(iterate(buffer)) == [gap(1)]
    buffer.put(gap(2), 0)
    assert list(iterate(buffer)) == [gap(2)]


def test_a_loop_ends_when_no_event_comes_in_time() -> None:
    assert list(iterate(opened(), 0.01)) == []


def test_a_waiting_loop_gets_an_event_when_it_comes() -> None:
    buffer = opened()
    found: list[Event | None] = []
    with in_thread(lambda: found.append(buffer.get(Deadline(DEADLINE)))):
        buffer.put(gap(1), 0)
    assert found == [gap(1)]


def test_several_loops_share_the_events() -> None:
    buffer = opened(1000)
    found: list[Event] = []
    with (
        in_thread(lambda: found.extend(iterate(buffer, None))),
        in_thread(lambda: found.extend(iterate(buffer, None))),
    ):
        for number in range(500):
            buffer.put(gap(number), 0)
        buffer.end()
    assert sorted(event.number for event in found if isinstance(event, Gap)) == list(range(500))


def test_the_end_comes_after_everything_before_it() -> None:
    buffer = opened()
    buffer.put(gap(1), 0)
    buffer.end()
    assert list(iterate(buffer, None)) == [gap(1)]


def test_a_waiting_loop_ends_with_the_stream() -> None:
    buffer = opened()
    with in_thread(lambda: list(iterate(buffer, None))):
        buffer.end()


def test_what_ended_the_stream_is_raised_after_the_last_event() -> None:
    buffer = opened()
    buffer.put(gap(1), 0)
    buffer.end()

    def at_end() -> None:
        raise ConnectionLost("reset")

    events = iterate(buffer, None, at_end=at_end)
    assert next(events) == gap(1)
    with pytest.raises(ConnectionLost):
        next(events)


def test_the_guard_is_asked_before_each_wait() -> None:
    def guard() -> None:
        raise StateError("on a thread of the client's own")

    buffer = opened()
    buffer.put(gap(1), 0)
    with pytest.raises(StateError):
        next(iterate(buffer, guard=guard))


def test_a_full_buffer_lets_the_dispatch_thread_wait_until_there_is_room() -> None:
    buffer = opened(2)
    buffer.put(gap(1), 0)
    buffer.put(gap(2), 0)
    with in_thread(lambda: buffer.put(gap(3), 0)) as done:
        assert not done.wait(0.05)
        assert buffer.get(Deadline(0)) == gap(1)
        assert done.wait(DEADLINE)
    assert list(iterate(buffer)) == [gap(2), gap(3)]


def test_a_wait_for_room_that_lasts_is_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("aggstream._delivery.pull._PATIENCE", 0.01)
    buffer = opened(1)
    buffer.put(gap(1), 0)
    logged = threading.Event()

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            logged.set()

    handler = Handler()
    logging.getLogger("aggstream").addHandler(handler)
    try:
        with in_thread(lambda: buffer.put(gap(2), 0)):
            assert logged.wait(DEADLINE)
            buffer.get(Deadline(0))
    finally:
        logging.getLogger("aggstream").removeHandler(handler)
    assert "events() is not pulled" in caplog.text


@pytest.mark.parametrize("release", [PullBuffer.close, PullBuffer.stop_waiting, PullBuffer.end])
def test_a_wait_for_room_ends_when_there_is_no_need_any_more(release: Callable[[PullBuffer], None]) -> None:
    buffer = opened(1)
    buffer.put(gap(1), 0)
    with in_thread(lambda: buffer.put(gap(2), 0)):
        release(buffer)


def test_once_the_stream_stops_events_are_kept_without_a_bound() -> None:
    buffer = opened(1)
    buffer.stop_waiting()
    for number in range(5):
        buffer.put(gap(number), 0)
    buffer.end()
    assert len(list(iterate(buffer, None))) == 5


def test_closing_forgets_and_opening_begins_anew() -> None:
    buffer = opened()
    with iterate(buffer, None) as events:
        buffer.put(gap(1), 0)
    assert list(events) == []
    buffer.put(gap(2), 0)
    buffer.open()
    buffer.put(gap(3), 0)
    assert list(iterate(buffer)) == [gap(3)]


def test_closing_ends_a_waiting_loop() -> None:
    buffer = opened()
    events = iterate(buffer, None)
    with in_thread(lambda: list(events)):
        events.close()


def test_the_events_of_a_user_before_are_forgotten_and_the_others_kept() -> None:
    buffer = opened(3)
    for event in (BALANCE, gap(1), BALANCE):
        buffer.put(event, 0)
    buffer.drop_users_before(1)
    buffer.put(BALANCE, 0)  # it comes late
    buffer.put(gap(2), 0)
    assert list(iterate(buffer)) == [gap(1), gap(2)]


# --- wait_for -------------------------------------------------------------------------------------------


FILLED = OrderEvent(event="order_filled", order_id="ord_1", attempt=0, timestamp=1)
RESOLVED = decode('{"type": "market_resolved", "outcomeId": "vmo_1", "ratio": 0.5, "nothing": null}', 1)


@pytest.mark.parametrize(
    ("key", "sub_events", "fields", "event", "matches"),
    [
        ("order_event", (), {}, FILLED, True),
        ("order_event", ("filled",), {"order_id": "ord_1"}, FILLED, True),
        ("order_event", ("filled",), {"order_id": "ord_2"}, FILLED, False),
        ("order_event", ("failed",), {"order_id": "ord_1"}, FILLED, False),
        ("order_event", (), {"is_terminal": True, "family": "terminal"}, FILLED, True),
        ("order_event", (), {"venue": None}, FILLED, True),
        ("balance_update", (), {}, FILLED, False),
        ("*", (), {"order_id": "ord_1"}, FILLED, True),
        ("*", (), {"order_id": None}, BALANCE, False),
        ("market_resolved", (), {"outcomeId": "vmo_1", "ratio": 0.5}, RESOLVED, True),
        ("market_resolved", (), {"outcomeId": "vmo_2"}, RESOLVED, False),
        ("market_resolved", (), {"nothing": None}, RESOLVED, True),
        ("market_resolved", (), {"absent": None}, RESOLVED, False),
    ],
)
def test_what_is_waited_for(
    key: str, sub_events: tuple[str, ...], fields: dict[str, Any], event: Event, matches: bool
) -> None:
    expectation = Expectation(key_of(key, sub_events), fields)
    expectation.offer(event)
    assert expectation.wait(Deadline(0)) is (event if matches else None)


def test_the_first_match_counts() -> None:
    expectation = Expectation(key_of(Gap), {})
    for number in (1, 2):
        expectation.offer(gap(number))
    assert expectation.wait(Deadline(0)) == gap(1)


@pytest.mark.parametrize("key", ["order_event", OrderEvent, "gap"])
def test_a_field_that_the_class_does_not_have_is_refused(key: Any) -> None:
    with pytest.raises(ConfigurationError, match="has no field orderId"):
        Expectation(key_of(key), {"orderId": "ord_1"})


def test_giving_up_ends_the_wait() -> None:
    expectation = Expectation(key_of("*"), {})
    expectation.give_up()
    assert expectation.wait(Deadline(None)) is None
