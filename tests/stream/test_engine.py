"""One engine for many streams: deadlines, wake-ups, and that no stream holds up another one."""

from __future__ import annotations

import errno
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from clients import BRISK
from streams import Streams
from waiting import DEADLINE, Until

from aggstream import Event, OrderEvent, OrderSubmitted
from aggstream._delivery.registry import key_of
from aggstream._delivery.workers import Workers
from aggstream._stream.engine import Driven, Engine, on_common_tick
from aggstream.simulator import Simulator

# --- deadlines and wake-ups -----------------------------------------------------------------------------


class Thing:
    """What an engine drives: it notes its steps, and has the deadlines that it is given."""

    def __init__(self, *deadlines: float | None) -> None:
        self.wake_at: float | None = None
        self.is_woken = False
        self.is_ended = False
        self.steps: list[float] = []
        self._deadlines = list(deadlines)

    def step(self, polled_at: float) -> float | None:
        self.steps.append(polled_at)
        if not self._deadlines:
            self.is_ended = True
            return None
        return self._deadlines.pop(0)

    def next_deadline(self) -> float | None:
        return None

    def broken(self, error: BaseException) -> None:
        raise error


@pytest.fixture
def engine() -> Iterator[Engine]:
    engine = Engine("test", Workers(1, "test"))
    engine.open()
    yield engine
    engine._close()


@pytest.mark.parametrize("wait", [1e-4, 0.01, 0.3, 1.0, 7.0, 10.0, 25.0, 300.0, 86_400.0])
def test_a_deadline_is_late_by_an_eighth_of_its_time_and_by_a_second_at_most_and_never_early(wait: float) -> None:
    for now in (0.1, 12_345.678, 1e7 / 3):
        at = now + wait
        late = on_common_tick(at, now) - at
        assert 0 <= late <= min(wait / 8, 1.0) + 1e-9


def test_deadlines_of_many_fall_on_common_moments() -> None:
    now = 1000.0
    assert len({on_common_tick(now + 25 + number / 1000, now) for number in range(1000)}) <= 2
    assert on_common_tick(now - 1.0, now) == now - 1.0


def test_a_thing_is_stepped_when_it_was_woken_and_when_its_deadline_has_passed(engine: Engine) -> None:
    began = time.monotonic()
    thing = Thing(began + 0.05, None)
    engine.add(thing)
    engine.turn()
    assert len(thing.steps) == 1
    while len(thing.steps) < 2:
        engine.turn()
        assert time.monotonic() < began + DEADLINE
    assert thing.steps[1] >= began + 0.05
    engine.wake(thing)
    engine.turn()
    assert len(thing.steps) == 3


def test_it_is_stepped_once_however_often_it_was_woken(engine: Engine) -> None:
    thing = Thing(None, None)
    engine.add(thing)
    for _ in range(100):
        engine.wake(thing)
    engine.turn()
    assert len(thing.steps) == 1


def test_a_later_deadline_takes_the_place_of_an_earlier_one_and_the_heap_does_not_grow(engine: Engine) -> None:
    thing = Thing(None)
    engine.add(thing)
    engine.turn()
    now = time.monotonic()
    for number in range(10_000):
        engine.schedule(thing, now + 1000 + number)
    assert len(engine._deadlines) < 2000
    engine.schedule(thing, now - 1)
    engine.turn()
    assert len(thing.steps) == 2
    assert thing.wake_at is None


def test_what_has_ended_is_stepped_no_more(engine: Engine) -> None:
    thing, other = Thing(), Thing(None, None)
    engine.add(thing)
    engine.add(other)
    engine.turn()
    engine.wake(thing)
    engine.wake(other)
    engine.turn()
    assert (len(thing.steps), len(other.steps)) == (1, 2)


def test_a_socket_whose_watching_cannot_be_changed_can_still_be_forgotten(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Quiet:
        owner: Driven = Thing()

        def ready(self, *, writable: bool) -> bool:
            return False

    def refuse(*args: Any) -> None:
        engine._selector.unregister(fd)  # as the selectors of the standard library do
        raise OSError(errno.ENOMEM, "no memory")

    ours, theirs = socket.socketpair()
    with ours, theirs:
        fd = ours.fileno()
        engine.watch(fd, Quiet(), read=True, write=False)
        with monkeypatch.context() as patched:
            patched.setattr(engine._selector, "modify", refuse)
            with pytest.raises(OSError, match="no memory"):
                engine.watch(fd, Quiet(), read=True, write=True)
        engine.forget(fd)


# --- many streams ---------------------------------------------------------------------------------------


@pytest.fixture
def agg() -> Iterator[Simulator]:
    with Simulator(app_id="a", origins=["https://app.example"]) as simulator:
        yield simulator


class Crowd(Streams):
    """Streams of users of a simulator, and what their handlers were given."""

    def __init__(self, agg: Simulator, count: int, *, workers: int = 2, **options: Any) -> None:
        super().__init__(agg.url, workers=workers, **{"reconnect": BRISK, **options})
        self.agg = agg
        self.seen: list[Event] = []
        self.registry.add(key_of(OrderSubmitted), self.seen.append, once=False)
        for number in range(count):
            self.add(self.token_of(number))

    def token_of(self, number: int) -> str:
        return self.agg.sign_in(f"usr_{number}").access_token

    def has_seen(self, order_id: str) -> bool:
        return any(isinstance(event, OrderSubmitted) and event.order_id == order_id for event in self.seen)


@pytest.fixture
def crowds() -> Iterator[list[Crowd]]:
    made: list[Crowd] = []
    yield made
    for crowd in made:
        assert crowd.stop()


def test_each_stream_is_its_users_and_all_are_driven_by_few_threads(
    agg: Simulator, crowds: list[Crowd], until: Until
) -> None:
    before = threading.active_count()
    crowd = Crowd(agg, 30)
    crowds.append(crowd)
    crowd.start()
    until(crowd.are_live)
    assert threading.active_count() - before <= 11
    orders = {agg.place_order(f"usr_{number}"): f"usr_{number}" for number in range(30)}
    until(lambda: len(crowd.seen) == 30)
    assert {event.order_id: event.user_id for event in crowd.seen if isinstance(event, OrderSubmitted)} == orders
    agg.drop()
    until(lambda: all(stream.counters.connections == 2 for stream in crowd.streams))
    until(crowd.are_live)
    assert all(stream.counters.gaps == 1 for stream in crowd.streams)


def test_a_stream_that_ends_takes_no_other_with_it(agg: Simulator, crowds: list[Crowd], until: Until) -> None:
    crowd = Crowd(agg, 2)
    crowds.append(crowd)
    refused = crowd.add("no-token-of-the-service")
    crowd.start()
    until(lambda: refused.phase == "stopped")
    assert refused.error is not None
    until(lambda: all(stream.phase == "live" for stream in crowd.streams[:2]))
    order_id = agg.place_order("usr_1")
    until(lambda: crowd.has_seen(order_id))


def test_a_token_function_that_hangs_keeps_no_other_stream_from_connecting(
    agg: Simulator, crowds: list[Crowd], until: Until
) -> None:
    release = threading.Event()
    crowd = Crowd(agg, 0)
    crowds.append(crowd)

    def hang() -> str:
        release.wait(DEADLINE)
        return crowd.token_of(0)

    hanging = crowd.add(hang)
    for number in range(1, 6):
        crowd.add(crowd.token_of(number))
    crowd.start()
    until(lambda: all(stream.phase == "live" for stream in crowd.streams[1:]))
    assert hanging.phase == "connecting"
    release.set()
    until(crowd.are_live)


def test_a_handler_that_hangs_keeps_one_thread_and_the_events_of_others_are_handled(
    agg: Simulator, crowds: list[Crowd], until: Until
) -> None:
    release = threading.Event()
    crowd = Crowd(agg, 3)
    crowds.append(crowd)

    def hang(event: OrderEvent) -> None:
        if event.user_id == "usr_0":
            release.wait(DEADLINE)

    crowd.registry.add(key_of(OrderEvent), hang, once=False)
    crowd.start()
    until(crowd.are_live)
    agg.place_order("usr_0")
    until(lambda: any(crowd.dispatchers[0].running()))
    orders = [agg.place_order(f"usr_{number}") for number in (1, 2)]
    until(lambda: all(crowd.has_seen(order_id) for order_id in orders))
    assert crowd.are_live()
    release.set()


def test_streams_take_turns_however_much_one_of_them_has_to_do(
    agg: Simulator, crowds: list[Crowd], until: Until
) -> None:
    crowd = Crowd(agg, 2, workers=1)
    crowds.append(crowd)
    orders: list[str] = []
    begun, go_on = threading.Event(), threading.Event()

    def slow(event: OrderSubmitted) -> None:
        orders.append(event.user_id or "")
        begun.set()
        go_on.wait(DEADLINE)

    crowd.registry.add(key_of(OrderSubmitted), slow, once=False)
    crowd.start()
    until(crowd.are_live)
    for _ in range(20):
        agg.place_order("usr_0")
    assert begun.wait(DEADLINE)
    until(lambda: sum(stream.counters.user_events for stream in crowd.streams) >= 20)
    agg.place_order("usr_1")
    until(lambda: crowd.streams[1].counters.user_events > 0)
    go_on.set()
    until(lambda: len(orders) == 21)
    assert "usr_1" in orders[:4]


def test_without_descriptors_for_a_connection_a_stream_waits_and_tries_again(
    agg: Simulator, crowds: list[Crowd], monkeypatch: pytest.MonkeyPatch, until: Until
) -> None:
    crowd = Crowd(agg, 4)
    crowds.append(crowd)
    crowd.start()
    until(crowd.are_live)

    def refuse(*args: Any, **options: Any) -> Any:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patched:
        patched.setattr(socket.socket, "connect_ex", refuse)
        agg.drop()
        until(lambda: all("descriptors" in str(stream.last_error) for stream in crowd.streams))
        assert not any(stream.phase == "stopped" for stream in crowd.streams)
    until(crowd.are_live)


def test_the_engine_ends_with_its_last_stream_and_leaves_no_thread(agg: Simulator, until: Until) -> None:
    before = set(threading.enumerate())
    crowd = Crowd(agg, 5)
    crowd.start()
    until(crowd.are_live)
    crowd.streams[0].request_stop()
    until(lambda: crowd.streams[0].phase == "stopped")
    assert crowd.engine.is_alive()
    assert crowd.stop()
    assert set(threading.enumerate()) <= before | {threading.current_thread()}
    assert [stream.error for stream in crowd.streams] == [None] * 5
