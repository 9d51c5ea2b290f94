"""Who handles what: keys, order, typos, and look-ups that stay small."""

from __future__ import annotations

import functools
import json
import logging
import threading
import tracemalloc
from typing import Any

import pytest

import aggstream
from aggstream import ConfigurationError, Event
from aggstream._delivery.registrar import Registrar
from aggstream._delivery.registry import Key, check_handler, key_of
from aggstream._protocol.codec import Codec
from aggstream.events import LIFECYCLE_TYPES, WIRE_TYPES

decode = Codec(aggstream.Limits()).decode


def order_event(event: str, **fields: Any) -> Event:
    return decode(json.dumps({"type": "order_event", "event": event, "orderId": "o", "timestamp": 1, **fields}), 1)


def unknown(name: str, **fields: Any) -> Event:
    return decode(json.dumps({"type": name, **fields}), 1)


BALANCE = decode(
    '{"type": "balance_update", "venue": "v", "tradingBalanceCents": 1, "walletBalanceCents": 2, "timestamp": 3}',
    1,
)
GAP = aggstream.Gap(number=1, started_ns=1, ended_ns=2)


class Recorder(Registrar):
    """A registrar that hands events over, and a list of who was called."""

    def __init__(self) -> None:
        super().__init__()
        self.called: list[str] = []

    def handler(self, name: str) -> Any:
        def handle(event: Event) -> None:
            self.called.append(name)

        return handle

    def hand_over(self, event: Event) -> list[str]:
        self.called = []
        for handler in self._registry.handlers(event):
            handler(event)
        return self.called


@pytest.fixture
def registrar() -> Recorder:
    return Recorder()


# --- what matches ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "sub_events", "event", "matches"),
    [
        ("order_event", (), order_event("filled"), True),
        ("order_event", ("filled",), order_event("filled"), True),
        ("order_event", ("filled",), order_event("order_filled"), True),
        ("order_event", ("order_filled",), order_event("filled"), True),
        ("order_event", ("order_filled",), order_event("order_filled"), True),
        ("order_event", ("filled", "failed"), order_event("failed"), True),
        ("order_event", ("filled",), order_event("partially_filled"), False),
        ("order_event", ("never_seen",), order_event("never_seen"), True),
        ("order_event", (), BALANCE, False),
        ("balance_update", (), BALANCE, True),
        (aggstream.OrderEvent, ("filled",), order_event("order_filled"), True),
        (aggstream.OrderEvent, ("filled",), order_event("failed"), False),
        (aggstream.BalanceUpdate, (), BALANCE, True),
        (aggstream.UserEvent, (), BALANCE, True),
        (aggstream.UserEvent, (), order_event("filled"), True),
        (aggstream.UserEvent, (), GAP, False),
        (aggstream.LifecycleEvent, (), GAP, True),
        (aggstream.LifecycleEvent, (), BALANCE, False),
        (aggstream.ControlMessage, (), unknown("heartbeat"), True),
        (Event, (), BALANCE, True),
        (Event, (), GAP, True),
        ("*", (), GAP, True),
        ("*", (), BALANCE, True),
        ("*", (), unknown("market_resolved"), True),
        ("market_resolved", (), unknown("market_resolved"), True),
        ("market_resolved", (), unknown("arb_market_update"), False),
        ("market_resolved", ("final",), unknown("market_resolved", event="final"), True),
        ("market_resolved", ("final",), unknown("market_resolved", event="draft"), False),
        ("market_resolved", ("final",), unknown("market_resolved", event=5), False),
        (aggstream.UnknownEvent, (), unknown("market_resolved"), True),
        (aggstream.UnknownEvent, ("final",), unknown("x", event="final"), True),
        (aggstream.UnknownEvent, (), BALANCE, False),
        ("gap", (), GAP, True),
        ("gap", (), unknown("gap"), False),
        ("stopped", (), unknown("stopped"), False),
        (aggstream.LifecycleEvent, (), unknown("gap"), False),
        (aggstream.UnknownEvent, (), unknown("gap"), True),
    ],
)
def test_which_key_means_which_event(
    registrar: Recorder, key: Any, sub_events: tuple[str, ...], event: Event, matches: bool
) -> None:
    registrar.on(key, *sub_events)(registrar.handler("called"))
    assert registrar.hand_over(event) == (["called"] if matches else [])
    assert registrar.hand_over(event) == (["called"] if matches else [])


@pytest.mark.parametrize("name", [*WIRE_TYPES, *LIFECYCLE_TYPES])
def test_a_types_name_and_its_class_mean_the_same(registrar: Recorder, name: str) -> None:
    handler = registrar.handler("x")
    registrar.on(name)(handler)
    cls = {**WIRE_TYPES, **LIFECYCLE_TYPES}[name]
    assert registrar.off(handler, cls) == 1


# --- registration ---------------------------------------------------------------------------------------


def test_handlers_are_called_in_the_order_of_registration_whatever_their_keys(registrar: Recorder) -> None:
    registrar.on("*")(registrar.handler("star"))
    registrar.on("order_event", "filled")(registrar.handler("sub-event"))
    registrar.on(aggstream.UserEvent)(registrar.handler("base"))
    registrar.on("order_event")(registrar.handler("type"))
    registrar.on(aggstream.OrderEvent)(registrar.handler("class"))
    assert registrar.hand_over(order_event("filled")) == ["star", "sub-event", "base", "type", "class"]


def test_several_handlers_of_one_key_are_all_called(registrar: Recorder) -> None:
    for name in ("a", "b", "c"):
        registrar.on("balance_update")(registrar.handler(name))
    assert registrar.hand_over(BALANCE) == ["a", "b", "c"]


def test_one_handler_may_be_registered_for_several_keys(registrar: Recorder) -> None:
    handler = registrar.handler("x")
    registrar.on("balance_update")(handler)
    registrar.on("order_event")(handler)
    assert registrar.hand_over(BALANCE) == ["x"]
    assert registrar.hand_over(order_event("filled")) == ["x"]


def test_the_function_is_returned_unchanged(registrar: Recorder) -> None:
    def handler(event: Event) -> int:
        return 5

    assert registrar.on("*")(handler) is handler
    assert registrar.once("order_submitted")(handler) is handler


def test_a_bound_method_of_an_object_that_nobody_else_holds_stays_registered(registrar: Recorder) -> None:
    class Account:
        def __init__(self, called: list[str]) -> None:
            self.called = called

        def changed(self, event: Event) -> None:
            registrar.called.append("method")

    registrar.on("balance_update")(Account([]).changed)
    assert registrar.hand_over(BALANCE) == ["method"]


def test_once_is_called_for_the_first_match_only(registrar: Recorder) -> None:
    registrar.once("order_event", "filled")(registrar.handler("once"))
    registrar.on("order_event")(registrar.handler("always"))
    assert registrar.hand_over(order_event("failed")) == ["always"]
    assert registrar.hand_over(order_event("filled")) == ["once", "always"]
    assert registrar.hand_over(order_event("filled")) == ["always"]


def test_once_is_called_once_however_many_threads_hand_events_over(registrar: Recorder) -> None:
    called: list[Event] = []
    rounds, threads = 100, 4

    def register() -> None:
        registrar.once("balance_update")(called.append)

    barrier = threading.Barrier(threads, action=register, timeout=30)

    def hand_over() -> None:
        for _ in range(rounds):
            barrier.wait()
            for handler in registrar._registry.handlers(BALANCE):
                handler(BALANCE)

    workers = [threading.Thread(target=hand_over) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(30)
    assert len(called) == rounds


def test_off_removes_a_handler_everywhere(registrar: Recorder) -> None:
    handler = registrar.handler("x")
    registrar.on("balance_update")(handler)
    registrar.on("*")(handler)
    registrar.on("*")(registrar.handler("other"))
    assert registrar.hand_over(BALANCE) == ["x", "x", "other"]
    assert registrar.off(handler) == 2
    assert registrar.hand_over(BALANCE) == ["other"]
    assert registrar.off(handler) == 0


def test_off_with_a_key_removes_just_that_registration(registrar: Recorder) -> None:
    handler = registrar.handler("x")
    registrar.on("order_event", "filled", "failed")(handler)
    registrar.on("order_event")(handler)
    assert registrar.off(handler, "order_event", "filled") == 0
    assert registrar.off(handler, "order_event", "order_failed", "filled") == 1
    assert registrar.hand_over(order_event("filled")) == ["x"]
    assert registrar.off(handler, aggstream.OrderEvent) == 1
    assert registrar.hand_over(order_event("filled")) == []


def test_off_takes_an_equal_bound_method(registrar: Recorder) -> None:
    class Account:
        def changed(self, event: Event) -> None: ...

    account = Account()
    registrar.on("balance_update")(account.changed)
    assert registrar.off(account.changed) == 1


def test_off_removes_a_once_handler_before_its_event(registrar: Recorder) -> None:
    handler = registrar.handler("x")
    registrar.once("balance_update")(handler)
    assert registrar.off(handler, "balance_update") == 1
    assert registrar.hand_over(BALANCE) == []


def test_what_is_registered_by_a_handler_counts_from_the_next_event_on(registrar: Recorder) -> None:
    def register(event: Event) -> None:
        registrar.called.append("first")
        registrar.off(register)
        registrar.on("balance_update")(registrar.handler("second"))

    registrar.on("balance_update")(register)
    assert registrar.hand_over(BALANCE) == ["first"]
    assert registrar.hand_over(BALANCE) == ["second"]


def test_a_handler_that_is_removed_while_its_event_is_handled_still_gets_it(registrar: Recorder) -> None:
    last = registrar.handler("last")

    def remove(event: Event) -> None:
        registrar.off(last)

    registrar.on("*")(remove)
    registrar.on("*")(last)
    assert registrar.hand_over(BALANCE) == ["last"]
    assert registrar.hand_over(BALANCE) == []


# --- typos ----------------------------------------------------------------------------------------------


class NotAnEvent:
    pass


@pytest.mark.parametrize(
    "key", [NotAnEvent, int, 5, None, b"order_event", ("order_event",), BALANCE, "", object()]
)
def test_a_key_is_a_name_or_an_event_class(registrar: Recorder, key: Any) -> None:
    for register in (registrar.on, registrar.once):
        with pytest.raises(ConfigurationError):
            register(key)
    if key is not None:
        with pytest.raises(ConfigurationError):
            registrar.off(registrar.handler("x"), key)


@pytest.mark.parametrize(
    "key", ["order_submitted", "balance_update", "gap", "*", aggstream.BalanceUpdate, aggstream.UserEvent, Event]
)
def test_a_sub_event_of_a_type_that_has_none_is_refused(registrar: Recorder, key: Any) -> None:
    with pytest.raises(ConfigurationError, match="no sub-events"):
        registrar.on(key, "filled")


@pytest.mark.parametrize("sub_event", ["", None, 5, ["filled"]])
def test_a_sub_event_is_a_text_that_is_not_empty(registrar: Recorder, sub_event: Any) -> None:
    with pytest.raises(ConfigurationError, match="sub-event"):
        registrar.on("order_event", "filled", sub_event)


async def coroutine_function(event: Event) -> None: ...


class WithCoroutine:
    async def __call__(self, event: Event) -> None: ...

    async def method(self, event: Event) -> None: ...


def no_argument() -> None: ...
def two_arguments(first: Any, second: Any) -> None: ...
def keyword_only(*, event: Any) -> None: ...
def required_keyword(event: Any, *, more: Any) -> None: ...


@pytest.mark.parametrize("handler", [None, "name", 5, BALANCE], ids=ascii)
def test_a_handler_is_callable(registrar: Recorder, handler: Any) -> None:
    with pytest.raises(ConfigurationError, match="must be a function"):
        registrar.on("*")(handler)


@pytest.mark.parametrize(
    "handler",
    [coroutine_function, WithCoroutine(), WithCoroutine().method, functools.partial(coroutine_function)],
    ids=["function", "callable", "method", "partial"],
)
def test_a_coroutine_function_is_refused(registrar: Recorder, handler: Any) -> None:
    with pytest.raises(ConfigurationError, match="coroutine"):
        registrar.on("*")(handler)


def test_a_generator_function_is_refused_because_it_would_never_run_either(registrar: Recorder) -> None:
    def generator(event: Event) -> Any:
        yield event

    async def async_generator(event: Event) -> Any:
        yield event

    for handler in (generator, async_generator):
        with pytest.raises(ConfigurationError):
            registrar.on("*")(handler)


@pytest.mark.parametrize("handler", [no_argument, two_arguments, keyword_only, required_keyword, lambda: None])
def test_a_handler_that_cannot_be_called_with_one_event_is_refused(registrar: Recorder, handler: Any) -> None:
    with pytest.raises(ConfigurationError, match="one argument"):
        registrar.on("*")(handler)
    assert registrar.hand_over(BALANCE) == []


@pytest.mark.parametrize(
    "handler",
    [
        print,
        [].append,
        lambda *events: None,
        lambda event, more=1: None,
        functools.partial(two_arguments, 1),
        dict,
    ],
)
def test_whatever_takes_one_event_is_taken(registrar: Recorder, handler: Any) -> None:
    assert registrar.on("*")(handler) is handler


def test_an_error_handler_takes_two_arguments() -> None:
    check_handler(two_arguments, arguments=2)
    with pytest.raises(ConfigurationError, match="the exception and the event"):
        check_handler(no_argument, arguments=2)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("order_submited", "order_submitted"),
        ("balance_updates", "balance_update"),
        ("Order_event", "order_event"),
        ("reconecting", "reconnecting"),
    ],
)
def test_a_near_miss_is_logged_with_a_hint_and_registered(
    registrar: Recorder, caplog: pytest.LogCaptureFixture, name: str, hint: str
) -> None:
    with caplog.at_level(logging.WARNING, "aggstream"):
        registrar.on(name)(registrar.handler("x"))
    [record] = caplog.records
    assert name in record.getMessage()
    assert record.getMessage().startswith("aggstream: ")
    assert f"did you mean {hint}?" in record.getMessage()
    assert registrar.hand_over(unknown(name)) == ["x"]


@pytest.mark.parametrize("name", ["market_resolved", "orderbook_delta", "arb_feed_batch", *WIRE_TYPES, "*"])
def test_other_names_are_taken_without_a_word(
    registrar: Recorder, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    with caplog.at_level(logging.DEBUG, "aggstream"):
        registrar.on(name)
    assert caplog.records == []


# --- look-ups -------------------------------------------------------------------------------------------


def memory_after(registrar: Recorder, *, names: int, length: int) -> int:
    """Return how many bytes are held after events of so many unknown types, with names of that length."""
    tracemalloc.start()
    try:
        for number in range(names):
            registrar.hand_over(unknown(f"{number:x}".rjust(length, "x")))
        return tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()


def test_thousands_of_unknown_type_names_do_not_fill_the_memory(registrar: Recorder) -> None:
    registrar.on("*")(registrar.handler("star"))
    memory_after(registrar, names=2000, length=20)
    assert memory_after(registrar, names=10_000, length=20) < 100_000
    assert registrar.hand_over(unknown("another")) == ["star"]


def test_long_unknown_type_names_do_not_fill_the_memory(registrar: Recorder) -> None:
    registrar.on("*")(registrar.handler("star"))
    assert memory_after(registrar, names=1000, length=20_000) < 2_000_000


def test_handlers_registered_after_thousands_of_names_are_found(registrar: Recorder) -> None:
    for number in range(3000):
        registrar.hand_over(unknown(f"type-{number}"))
    registrar.on("type-7")(registrar.handler("early"))
    registrar.on("type-2999")(registrar.handler("late"))
    assert registrar.hand_over(unknown("type-7")) == ["early"]
    assert registrar.hand_over(unknown("type-2999")) == ["late"]


@pytest.mark.parametrize(
    ("key", "sub_events", "hint"),
    [("order_event", ("filed",), "filled"), ("filled", (), "order_event"), ("order_filled", (), "order_event")],
)
def test_a_sub_event_that_looks_like_a_mistake_is_taken_with_a_hint(
    key: str, sub_events: tuple[str, ...], hint: str, caplog: pytest.LogCaptureFixture
) -> None:
    key_of(key, sub_events)
    assert hint in caplog.text


def test_sub_events_that_are_known_give_no_hint(caplog: pytest.LogCaptureFixture) -> None:
    key_of("order_event", ("filled", "order_failed", "step_anything", "quite_new"))
    assert not caplog.records


def test_a_hint_does_not_change_what_is_registered() -> None:
    assert key_of("order_event", ("filed",)) == Key(aggstream.OrderEvent, None, frozenset({"filed"}))
