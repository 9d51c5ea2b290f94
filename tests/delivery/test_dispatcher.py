"""The threads that call handlers: order, exceptions, bounds, and the end."""

from __future__ import annotations

import contextlib
import functools
import json
import pathlib
import queue
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import aggstream
from aggstream import Event, Gap, OrderEvent, Stopped
from aggstream._base.deadline import Deadline
from aggstream._base.threads import Gate
from aggstream._delivery.acks import Acks
from aggstream._delivery.dispatcher import Dispatcher
from aggstream._delivery.handler_calls import Running, name_of
from aggstream._delivery.registrar import Registrar
from aggstream._delivery.workers import Workers
from aggstream._protocol.codec import Codec
from aggstream.journal import Journal, JournalOptions

decode = Codec(aggstream.Limits()).decode

DEADLINE = 30.0


def balance(venue: str) -> Event:
    payload = {"type": "balance_update", "venue": venue, "tradingBalanceCents": 1, "walletBalanceCents": 2}
    return decode(json.dumps({**payload, "timestamp": 3}), 1)


BALANCE = balance("v")


def order_event(order_id: str, attempt: int = 0) -> Event:
    payload = {"type": "order_event", "event": "new", "orderId": order_id, "attempt": attempt, "timestamp": 1}
    return decode(json.dumps(payload), 1)


class Dispatch(Registrar):
    """A dispatcher with its handlers, and what it called back."""

    def __init__(
        self,
        *,
        workers: int = 1,
        queue_size: int = 10_000,
        queued_size: int = 1 << 20,
        coalesce_balances: bool = False,
        most_workers: int | None = None,
    ) -> None:
        super().__init__()
        self.low_water = threading.Event()
        self.low_waters: list[int] = []
        self.fatal: queue.SimpleQueue[BaseException] = queue.SimpleQueue()
        self.ended = threading.Event()
        self.workers = Workers(workers, "test")
        self.dispatcher = Dispatcher(
            self._registry,
            self.workers,
            queue_size=queue_size,
            queued_size=queued_size,
            coalesce_balances=coalesce_balances,
            name="test",
            on_low_water=self._on_low_water,
            on_fatal=self.fatal.put,
            on_end=self.ended.set,
            most_workers=most_workers,
        )
        self.released = threading.Event()

    def _on_low_water(self) -> None:
        self.low_waters.append(self.dispatcher.depth)
        self.low_water.set()

    def hold(self) -> threading.Event:
        """Let balance events wait for `released`; return what is set once one waits."""
        waits = threading.Event()

        @self.on("balance_update")
        def wait(event: Event) -> None:
            waits.set()
            assert self.released.wait(DEADLINE)

        return waits

    def put(self, *events: Event, epoch: int = 0, size: int = 0) -> None:
        for event in events:
            self.dispatcher.put(event, epoch, size)

    def finish(self) -> None:
        """Let everything be handled, and the threads end."""
        self.released.set()
        self.close()
        assert self.workers.join(Deadline(DEADLINE))

    def start(self, acks: Acks | None) -> None:
        gate = Gate()
        gate.open()
        self.dispatcher.acknowledge(acks)
        self.workers.start(gate)

    def close(self) -> None:
        self.dispatcher.close(Stopped())
        self.workers.close()


Make = Callable[..., Dispatch]


@pytest.fixture
def make() -> Iterator[Make]:
    made: list[Dispatch] = []

    def start(*, journal: Journal | None = None, **options: Any) -> Dispatch:
        dispatch = Dispatch(**options)
        made.append(dispatch)
        dispatch.start(None if journal is None else Acks(journal, dispatch.fatal.put, "test"))
        return dispatch

    yield start
    for dispatch in made:
        if any(dispatch.workers.threads().values()):
            dispatch.finish()
        assert not any(dispatch.workers.threads().values())


# --- order ----------------------------------------------------------------------------------------------


def test_events_are_handled_in_the_order_they_were_queued(make: Make) -> None:
    dispatch = make()
    seen: list[Any] = []
    dispatch.on("*")(seen.append)
    events = [order_event(f"ord_{number % 7}", number) for number in range(500)]
    dispatch.put(*events)
    dispatch.finish()
    assert seen == [*events, Stopped()]
    assert dispatch.dispatcher.delivered == 500
    assert dispatch.dispatcher.depth == 0


def test_all_handlers_of_an_event_run_before_the_next_event(make: Make) -> None:
    dispatch = make()
    seen: list[Any] = []
    dispatch.on(OrderEvent)(lambda event: seen.append(("first", event.order_id)))
    dispatch.on(OrderEvent)(lambda event: seen.append(("second", event.order_id)))
    dispatch.put(order_event("a"), order_event("b"))
    dispatch.finish()
    assert seen == [("first", "a"), ("second", "a"), ("first", "b"), ("second", "b")]


def test_handlers_run_on_a_named_thread_that_the_dispatcher_knows_as_its_own(make: Make) -> None:
    dispatch = make()
    seen: list[Any] = []

    @dispatch.on("*")
    def handler(event: Event) -> None:
        seen.append((threading.current_thread().name, dispatch.workers.is_own_thread()))

    dispatch.put(BALANCE)
    dispatch.finish()
    assert seen[0] == ("test-dispatch", True)
    assert not dispatch.workers.is_own_thread()


def test_several_workers_keep_the_order_of_each_order_id(make: Make) -> None:
    dispatch = make(workers=4)
    seen: dict[str, list[int | None]] = {}
    threads: set[str] = set()
    being_handled: set[str] = set()
    at_once: list[str] = []

    @dispatch.on(OrderEvent)
    def handler(event: OrderEvent) -> None:
        if event.order_id in being_handled:
            at_once.append(event.order_id)
        being_handled.add(event.order_id)
        seen.setdefault(event.order_id, []).append(event.attempt)
        threads.add(threading.current_thread().name)
        being_handled.remove(event.order_id)

    for number in range(200):
        dispatch.put(*(order_event(f"ord_{order}", number) for order in range(10)))
    dispatch.finish()
    assert len(seen) == 10
    assert all(numbers == list(range(200)) for numbers in seen.values())
    assert not at_once
    assert len(threads) > 1


def test_with_several_workers_one_order_does_not_wait_for_another(make: Make) -> None:
    dispatch = make(workers=4)
    waits = dispatch.hold()
    handled = threading.Event()
    dispatch.on(OrderEvent)(lambda event: handled.set())
    dispatch.put(BALANCE)
    assert waits.wait(DEADLINE)
    dispatch.put(*(order_event(f"ord_{number}") for number in range(20)))
    assert handled.wait(DEADLINE)
    assert not dispatch.released.is_set()


def test_half_of_a_surrogate_pair_in_an_order_id_finds_its_worker(make: Make) -> None:
    dispatch = make(workers=4)
    seen: list[Any] = []
    dispatch.on(OrderEvent)(seen.append)
    dispatch.put(order_event("ord_\ud83d"))
    dispatch.finish()
    assert [event.order_id for event in seen] == ["ord_\ufffd"]


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_the_last_event_comes_last(make: Make, workers: int) -> None:
    dispatch = make(workers=workers)
    seen: list[Any] = []

    @dispatch.on("*")
    def handler(event: Event) -> None:
        if isinstance(event, OrderEvent):
            assert not dispatch.ended.is_set()
        seen.append(event.type)

    dispatch.put(*(order_event(f"ord_{number}") for number in range(300)))
    dispatch.finish()
    assert seen == ["order_event"] * 300 + ["stopped"]
    assert dispatch.ended.is_set()


def test_a_tap_sees_each_event_before_its_handlers(make: Make) -> None:
    dispatch = make()
    seen: list[Any] = []
    dispatch.dispatcher.calls.taps = (lambda event, epoch, size: seen.append("tap"),)
    dispatch.on("*")(lambda event: seen.append("handler"))
    dispatch.put(BALANCE)
    dispatch.finish()
    assert seen == ["tap", "handler"] * 2


def test_a_handler_may_register_and_remove_handlers(make: Make) -> None:
    dispatch = make()
    seen: list[Any] = []

    @dispatch.on("balance_update")
    def first(event: Event) -> None:
        seen.append("first")
        dispatch.off(first)
        dispatch.once("balance_update")(lambda event: seen.append("second"))

    dispatch.put(BALANCE, BALANCE, BALANCE)
    dispatch.finish()
    assert seen == ["first", "second"]


# --- exceptions -----------------------------------------------------------------------------------------


def test_a_handlers_exception_is_logged_and_told_and_the_rest_runs(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    dispatch = make()
    seen: list[Any] = []
    errors: list[tuple[BaseException, Event]] = []
    error = ValueError("boom")

    @dispatch.on("balance_update")
    def fails(event: Event) -> None:
        raise error

    dispatch.on("*")(lambda event: seen.append(event.type))
    dispatch.dispatcher.calls.error_handlers = (lambda error, event: errors.append((error, event)),)
    dispatch.put(BALANCE, order_event("a"))
    dispatch.finish()
    assert seen == ["balance_update", "order_event", "stopped"]
    assert errors == [(error, BALANCE)]
    assert dispatch.dispatcher.handler_errors == 1
    [record] = caplog.records
    assert "balance_update" in record.getMessage()
    assert record.exc_info is not None
    assert record.exc_info[1] is error


def test_an_on_error_that_raises_is_logged_and_the_rest_runs(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    dispatch = make()
    seen: list[Any] = []

    @dispatch.on("balance_update")
    def fails(event: Event) -> None:
        raise ValueError

    def bad_on_error(error: BaseException, event: Event) -> None:
        raise KeyError

    dispatch.on("*")(lambda event: seen.append(event.type))
    dispatch.dispatcher.calls.error_handlers = (bad_on_error, lambda error, event: seen.append("second on_error"))
    dispatch.put(BALANCE)
    dispatch.finish()
    assert seen == ["second on_error", "balance_update", "stopped"]
    assert len(caplog.records) == 2


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit()], ids=repr)
def test_what_is_to_end_the_program_is_fatal_and_the_thread_lives_on(make: Make, error: BaseException) -> None:
    dispatch = make()
    seen: list[Any] = []

    @dispatch.on("balance_update")
    def leaves(event: Event) -> None:
        raise error

    dispatch.on("*")(lambda event: seen.append(event.type))
    dispatch.put(BALANCE)
    assert dispatch.fatal.get(timeout=DEADLINE) is error
    dispatch.finish()
    assert seen == ["balance_update", "stopped"]
    assert dispatch.fatal.empty()


def test_an_on_error_that_leaves_the_program_is_fatal_and_the_thread_lives_on(make: Make) -> None:
    dispatch = make()
    seen: list[Any] = []

    @dispatch.on("balance_update")
    def fails(event: Event) -> None:
        raise ValueError

    dispatch.dispatcher.calls.error_handlers = (lambda error, event: sys.exit(3),)
    dispatch.on("*")(lambda event: seen.append(event.type))
    dispatch.put(BALANCE, order_event("a"))
    assert isinstance(dispatch.fatal.get(timeout=DEADLINE), SystemExit)
    dispatch.finish()
    assert seen == ["balance_update", "order_event", "stopped"]


# --- bounds ---------------------------------------------------------------------------------------------


def test_it_is_full_at_its_size_and_tells_when_half_is_done(make: Make) -> None:
    dispatch = make(queue_size=10)
    waits = dispatch.hold()
    step = threading.Semaphore(0)

    @dispatch.on(OrderEvent)
    def one_step(event: Event) -> None:
        assert step.acquire(timeout=DEADLINE)

    with contextlib.ExitStack() as stack:
        stack.callback(step.release, 10)
        dispatch.put(BALANCE)
        assert waits.wait(DEADLINE)
        dispatch.put(*(order_event("a") for _ in range(8)))
        assert not dispatch.dispatcher.is_full()
        dispatch.put(order_event("a"))
        assert dispatch.dispatcher.depth == 10
        assert dispatch.dispatcher.is_full()
        assert not dispatch.low_water.is_set()
        dispatch.released.set()
        step.release(4)
        assert dispatch.low_water.wait(DEADLINE)
        assert dispatch.low_waters == [5]
        assert not dispatch.dispatcher.is_full()


def test_low_water_is_not_told_if_it_never_was_full(make: Make) -> None:
    dispatch = make(queue_size=10)
    dispatch.put(*(order_event("a") for _ in range(9)))
    dispatch.finish()
    assert not dispatch.low_water.is_set()


def test_it_can_be_full_again(make: Make) -> None:
    dispatch = make(queue_size=2)
    step = threading.Semaphore(0)

    @dispatch.on("balance_update")
    def one_step(event: Event) -> None:
        assert step.acquire(timeout=DEADLINE)

    for _ in range(3):
        dispatch.put(BALANCE, BALANCE)
        assert dispatch.dispatcher.is_full()
        step.release(2)
        assert dispatch.low_water.wait(DEADLINE)
        dispatch.low_water.clear()


def test_it_is_full_by_the_size_of_what_waits(make: Make) -> None:
    dispatch = make(queued_size=1000)
    waits = dispatch.hold()
    dispatch.put(BALANCE, size=100)
    assert waits.wait(DEADLINE)
    dispatch.put(order_event("a"), size=899)
    assert not dispatch.dispatcher.is_full()
    dispatch.put(order_event("a"), size=1)
    assert dispatch.dispatcher.is_full()
    dispatch.released.set()
    assert dispatch.low_water.wait(DEADLINE)
    assert dispatch.dispatcher._room.size <= 500
    assert not dispatch.dispatcher.is_full()


def test_one_that_is_larger_than_the_queue_is_handled_all_the_same(make: Make) -> None:
    dispatch = make(queued_size=1000)
    dispatch.hold()
    dispatch.put(BALANCE, size=5000)
    assert dispatch.dispatcher.is_full()
    dispatch.released.set()
    assert dispatch.low_water.wait(DEADLINE)
    assert not dispatch.dispatcher.is_full()


def test_a_queue_of_one_is_full_while_its_event_is_handled(make: Make) -> None:
    dispatch = make(queue_size=1)
    waits = dispatch.hold()
    dispatch.put(BALANCE)
    assert waits.wait(DEADLINE)
    assert dispatch.dispatcher.is_full()
    dispatch.released.set()
    assert dispatch.low_water.wait(DEADLINE)


def test_the_running_handler_is_told_by_name(make: Make) -> None:
    dispatch = make()
    waits = dispatch.hold()
    assert dispatch.dispatcher.running() == []
    dispatch.put(BALANCE)
    assert waits.wait(DEADLINE)
    [running] = dispatch.dispatcher.running()
    assert running.handler.endswith("wait")
    assert running.seconds >= 0
    dispatch.finish()
    assert dispatch.dispatcher.running() == []


# --- the end --------------------------------------------------------------------------------------------


def test_joining_gives_up_at_its_deadline_and_says_so(make: Make) -> None:
    dispatch = make()
    waits = dispatch.hold()
    dispatch.put(BALANCE)
    assert waits.wait(DEADLINE)
    dispatch.close()
    assert not dispatch.workers.join(Deadline(0.01))
    assert dispatch.workers.threads() == {"test-dispatch": True}
    dispatch.released.set()
    assert dispatch.workers.join(Deadline(DEADLINE))
    assert dispatch.workers.threads() == {"test-dispatch": False}


def test_joining_from_a_handler_does_not_wait_for_itself(make: Make) -> None:
    dispatch = make()
    joined: queue.SimpleQueue[bool] = queue.SimpleQueue()
    dispatch.on("balance_update")(lambda event: joined.put(dispatch.workers.join(Deadline(None))))
    dispatch.put(BALANCE)
    assert joined.get(timeout=DEADLINE) is False


def test_what_is_queued_is_not_delivered_after_abandoning(make: Make) -> None:
    dispatch = make()
    seen: list[Any] = []
    waits = dispatch.hold()
    dispatch.on(OrderEvent)(seen.append)
    dispatch.on(Stopped)(seen.append)
    dispatch.put(BALANCE)
    assert waits.wait(DEADLINE)
    dispatch.put(order_event("a"), order_event("b"))
    assert dispatch.dispatcher.abandon() >= 2
    dispatch.finish()
    assert seen == []
    assert dispatch.dispatcher.delivered == 1


def test_abandoning_counts_what_no_handler_will_get(make: Make) -> None:
    """The event that is being handled goes to all of its handlers, so it is not one of these."""
    dispatch = make()
    seen: list[Any] = []
    waits = dispatch.hold()
    dispatch.on("balance_update")(lambda event: seen.append("delivered"))
    dispatch.put(BALANCE)
    assert waits.wait(DEADLINE)
    dispatch.put(order_event("a"), order_event("b"))
    undelivered = dispatch.dispatcher.abandon()
    dispatch.finish()
    assert undelivered == 3 - len(seen)


def test_a_new_epoch_drops_user_events_that_were_queued_before_it_and_nothing_else(make: Make) -> None:
    dispatch = make()
    seen: list[Any] = []
    waits = dispatch.hold()
    dispatch.on("*")(seen.append)
    gap = Gap(number=1, started_ns=1, ended_ns=2)
    dispatch.put(BALANCE)
    assert waits.wait(DEADLINE)
    dispatch.put(order_event("old"), gap, order_event("old"))
    dispatch.dispatcher.calls.epoch = 1
    dispatch.put(order_event("old"), epoch=0)
    dispatch.put(order_event("new"), epoch=1)
    dispatch.finish()
    # The handler that was held was the first one; after it nobody gets the event of the user before.
    assert seen == [gap, order_event("new"), Stopped()]
    assert dispatch.dispatcher.stale == 3
    assert dispatch.dispatcher.depth == 0


def test_a_balance_of_another_epoch_is_not_replaced(make: Make) -> None:
    dispatch = make(coalesce_balances=True)
    waits = dispatch.hold()
    dispatch.put(BALANCE)
    assert waits.wait(DEADLINE)
    dispatch.put(BALANCE, BALANCE, epoch=0)
    dispatch.put(BALANCE, BALANCE, epoch=1)
    assert dispatch.dispatcher.depth == 3
    assert dispatch.dispatcher.coalesced == 2
    dispatch.dispatcher.calls.epoch = 1
    seen: list[Event] = []
    dispatch.on("*")(seen.append)
    dispatch.finish()
    assert [event.type for event in seen if event.type != "stopped"] == ["balances_coalesced", "balance_update"]


def test_venues_without_an_end_cost_no_memory_without_an_end(make: Make) -> None:
    dispatch = make(coalesce_balances=True, queue_size=10)
    for number in range(1000):
        dispatch.put(balance(f"venue {number}"))
        if number % 10 == 0:
            until_done = Deadline(DEADLINE)
            while dispatch.dispatcher.depth and not until_done.expired():
                threading.Event().wait(0.001)
    assert dispatch.dispatcher._balances is not None
    assert len(dispatch.dispatcher._balances._places) <= 30


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_dies_of_a_defect_says_so_and_tells_the_end(make: Make) -> None:
    dispatch = make()
    error = ValueError("a defect")

    def tap(event: Event, epoch: int, size: int) -> None:
        raise error

    dispatch.dispatcher.calls.taps = (tap,)
    dispatch.put(BALANCE)
    assert dispatch.fatal.get(timeout=DEADLINE) is error
    dispatch.close()
    assert dispatch.ended.wait(DEADLINE)
    assert dispatch.workers.join(Deadline(DEADLINE))


def test_what_is_done_of_a_batch_is_not_kept(make: Make) -> None:
    one = make()
    waits = one.hold()
    one.put(BALANCE)
    assert waits.wait(DEADLINE)
    events = [order_event(f"ord_{number}") for number in range(3)]
    first = weakref.ref(events[0])
    alive: list[bool] = []

    @one.on("order_event")
    def look(event: OrderEvent) -> None:
        alive.append(first() is not None)

    one.dispatcher.put_all([(event, 1) for event in events], 0)
    del events
    one.finish()
    assert alive == [True, False, False]


def test_a_message_of_any_type_goes_where_its_order_does(make: Make) -> None:
    one = make(workers=4)
    told = decode('{"type": "error", "message": "no", "orderId": "ord_2"}', 1)
    assert one.dispatcher._queue_for(told) is one.dispatcher._queue_for(order_event("ord_2"))
    assert len({one.dispatcher._queue_for(order_event(f"ord_{number}")) for number in range(20)}) == 4


def test_a_call_between_handlers_that_fails_is_logged_and_the_rest_runs(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    one = make()
    seen: list[Any] = []
    one.on("*")(seen.append)
    one.dispatcher.call(lambda: seen.remove("nothing"))
    one.put(BALANCE)
    one.finish()
    assert seen == [BALANCE, Stopped()]
    assert caplog.messages == ["test: a future's callback failed"]


def test_a_call_between_handlers_that_exits_ends_the_stream(make: Make) -> None:
    one = make()
    one.dispatcher.call(lambda: sys.exit(3))
    one.finish()
    assert isinstance(one.fatal.get_nowait(), SystemExit)


def test_what_failed_is_tried_again_also_while_only_other_messages_come(
    make: Make, tmp_path: pathlib.Path
) -> None:
    order = order_event("ord_1")
    assert isinstance(order, OrderEvent)
    calls: list[float] = []
    heartbeats: list[int] = []
    options = JournalOptions(path=tmp_path / "journal.db", retry_delay=0.01, synchronous="normal")
    with Journal(options) as journal:
        one = make(journal=journal)

        @one.on("order_event")
        def fail_once(event: OrderEvent) -> None:
            calls.append(time.monotonic())
            if len(calls) == 1:
                raise ValueError

        @one.on("heartbeat")
        def slowly(event: Event) -> None:
            while time.monotonic() < calls[0] + 0.05:  # by now it is due
                pass
            heartbeats.append(len(calls))

        one.dispatcher.put_all([(order, 1)], 0, journal.store([order]))
        one.dispatcher.put_all([(decode('{"type": "heartbeat", "ts": 1}', 1), 1)] * 3, 0)
        one.finish()
    assert heartbeats == [1, 2, 2]


class Desk:
    def __call__(self, event: Event) -> None:
        raise ValueError("closed")

    def enter(self, event: Event) -> None:
        raise ValueError("closed")


def _wrapped(event: Event) -> None:
    raise ValueError("closed")


def _wrapper(event: Event) -> None:
    _wrapped(event)


functools.update_wrapper(_wrapper, _wrapped)


@pytest.mark.parametrize(
    ("handler", "name"),
    [
        (Desk(), "Desk"),
        (Desk().enter, "Desk.enter"),
        (functools.partial(_wrapped), "_wrapped"),
        (_wrapper, "_wrapped"),
        (lambda event: 1 / 0, "<lambda>"),
    ],
)
def test_a_handlers_failure_names_its_module_its_function_the_event_and_the_order(
    handler: Callable[[Event], None], name: str
) -> None:
    assert name_of(handler) == f"{__name__}.{name}"


def test_the_log_names_the_handler_the_order_and_the_event(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    dispatch = make()
    dispatch.on("order_event")(_wrapped)
    event = order_event("ord_7")
    dispatch.put(event)
    dispatch.finish()
    assert isinstance(event, OrderEvent)
    [record] = [record for record in caplog.records if "failed on" in record.getMessage()]
    what = f"order_event of order ord_7 (event {event.id})"
    assert f"the handler {__name__}._wrapped failed on {what}" in record.getMessage()


def test_a_retry_that_is_due_does_not_wait_until_no_queue_has_anything_to_do() -> None:
    workers, gate, done = Workers(1, "test"), Gate(), threading.Event()

    class Busy:
        def serve(self, thread: threading.Thread) -> None:
            if not done.is_set():
                workers.put(self)

        def claim(self) -> bool:
            return True

        def running(self) -> list[Running]:
            return []

    class Due(Busy):
        def serve(self, thread: threading.Thread) -> None:
            done.set()

    gate.open()
    workers.start(gate)
    workers.put(Busy())
    workers.serve_at(Due(), time.monotonic())
    has_come = done.wait(DEADLINE)
    done.set()
    workers.close()
    assert workers.join(Deadline(DEADLINE))
    assert has_come


def test_lines_ask_for_a_retry_while_they_hold_no_lock(
    make: Make, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The workers hold a lock of their own when they ask the lines whether a retry is due."""
    order = order_event("ord_1")
    assert isinstance(order, OrderEvent)
    calls: list[str] = []
    is_free: list[bool] = []
    options = JournalOptions(path=tmp_path / "journal.db", retry_delay=0.01, synchronous="normal")
    with Journal(options) as journal:
        one = make(journal=journal, workers=1, most_workers=1)
        serve_at = one.workers.serve_at

        def note(lines: Any, at: float) -> None:
            is_free.append(lines._lock.acquire(blocking=False))
            if is_free[-1]:
                lines._lock.release()
            serve_at(lines, at)

        monkeypatch.setattr(one.workers, "serve_at", note)

        @one.on("order_event")
        def fail_twice(event: OrderEvent) -> None:
            calls.append(event.order_id)
            if len(calls) < 3:
                raise ValueError

        one.dispatcher.put_all([(order, 1)], 0, journal.store([order]))
        deadline, pause = time.monotonic() + DEADLINE, threading.Event()
        while one.dispatcher.depth:
            assert time.monotonic() < deadline
            pause.wait(0.01)
        one.finish()
        assert journal.counts().done == 1
    assert len(calls) == 3
    assert is_free
    assert all(is_free)


@pytest.mark.parametrize("most_workers", [None, 1])
def test_a_handler_that_leaves_the_program_is_not_called_again_before_its_end(
    make: Make, tmp_path: pathlib.Path, most_workers: int | None
) -> None:
    order = order_event("ord_1")
    assert isinstance(order, OrderEvent)
    calls: list[str] = []
    options = JournalOptions(path=tmp_path / "journal.db", retry_delay=0.001, synchronous="normal", max_attempts=2)
    with Journal(options) as journal:
        one = make(journal=journal, most_workers=most_workers)

        @one.on("order_event")
        def leave(event: OrderEvent) -> None:
            calls.append(event.order_id)
            raise SystemExit(3)

        @one.on("heartbeat")
        def slowly(event: Event) -> None:
            until = time.monotonic() + 0.02  # by then a retry would be due
            while time.monotonic() < until:
                pass

        one.dispatcher.put_all([(order, 1)], 0, journal.store([order]))
        one.dispatcher.put_all([(decode('{"type": "heartbeat", "ts": 1}', 1), 1)] * 3, 0)
        assert isinstance(one.fatal.get(timeout=DEADLINE), SystemExit)
        one.finish()
        assert (journal.counts().pending, journal.counts().dead) == (1, 0)
    assert calls == ["ord_1"]
