"""`manage.py aggstream` against the simulator: what reaches handlers, and what happens when something dies."""

from __future__ import annotations

import itertools
import json
import shutil
import signal
from pathlib import Path

import pytest
from django.db import connections
from integrations.django.conftest import on_postgres, on_sqlite
from integrations.django.manage import PROJECT, Manage
from integrations.django.test_store import store_of
from integrations.processes import Process
from integrations.servers import Postgres
from integrations.stream_claims import USER, Fact, Service, StreamClaims, is_live
from journals import happened
from shop.models import Seen, Trouble
from waiting import Until

from aggstream.integrations.django._store.retrying import DatabaseRetrier
from aggstream.integrations.django.models import Event, Order, Stream
from aggstream.simulator import Simulator

DONE, DEAD = Event.State.DONE, Event.State.DEAD


class DjangoService:
    def __init__(self, manage: Manage) -> None:
        self.token = manage.environment["SHOP_TOKEN"]
        self._manage = manage

    def start(self, *, token: str | None = None, **environment: str) -> Process:
        return self._manage.stream(SHOP_TOKEN=token or self.token, **environment)

    def stored(self) -> list[Fact]:
        rows = Event.objects.order_by("pk").values_list(
            "event_id", "state", "order__order_id", "terminal", "source"
        )
        return [Fact(*row) for row in rows]

    def ends(self) -> dict[str, str | None]:
        done = Event.objects.filter(terminal=True, state=DONE).values_list("order__order_id", flat=True)
        return {order.order_id: order.status for order in Order.objects.filter(order_id__in=list(done))}

    def seen(self) -> list[str]:
        return list(Seen.objects.filter(handler="keep").order_by("pk").values_list("event_id", flat=True))


@pytest.fixture
def service(manage: Manage) -> Service:
    return DjangoService(manage)


class TestStream(StreamClaims):
    """The claims that all frameworks share."""


def all_done(count: int) -> bool:
    return bool(Event.objects.filter(state=DONE).count() == count)


def test_each_event_is_committed_before_handlers_and_signals_get_it(
    agg: Simulator, manage: Manage, until: Until
) -> None:
    process = manage.stream()
    until(lambda: is_live(agg, process))
    orders = agg.place_orders(USER, 5)
    emitted = agg.books(USER).emitted
    until(lambda: all_done(emitted))
    assert process.end() == 0

    stored = list(Event.objects.order_by("pk"))
    kept = Seen.objects.filter(handler="keep")
    assert all(seen.is_committed and not seen.redelivered for seen in kept)
    heard = Seen.objects.filter(handler="signal default").values_list("event_id", flat=True)
    assert set(heard) == {event.event_id for event in stored if event.type == "order_event"}
    assert {order.order_id: order.status for order in Order.objects.all()} == agg.terminal_orders(USER)
    assert set(orders) == set(Order.objects.filter(is_terminal=True).values_list("order_id", flat=True))
    stream = Stream.objects.get()
    assert (stream.account, stream.user_id, stream.owner) == ("default", USER, "")
    assert stream.closed_ns is not None


def test_a_handler_that_fails_too_often_leaves_its_event_to_be_run_again_while_the_stream_runs(
    agg: Simulator, manage: Manage, until: Until
) -> None:
    process = manage.stream()
    until(lambda: is_live(agg, process))
    trouble = Trouble.objects.create()
    agg.begin_order(USER).advance(1)
    until(lambda: Event.objects.filter(state=DEAD).exists())
    trouble.delete()
    event = Event.objects.get()
    assert (event.attempts, Seen.objects.count()) == (2, 0)
    assert "RuntimeError: trouble with the token ***" in event.last_error
    Event.objects.update(state=Event.State.AGAIN, attempts=0)
    until(lambda: all_done(1))
    seen = Seen.objects.get()
    assert (seen.event_id, seen.redelivered) == (event.event_id, True)
    assert process.end() == 0


def test_a_handler_that_needs_what_is_away_is_called_until_it_is_back(
    agg: Simulator, manage: Manage, until: Until
) -> None:
    setting = {"OUTAGE_ERRORS": ["builtins.RuntimeError"], "MAX_ATTEMPTS": 1, "RETRY_DELAY_MAXIMUM": 0.1}
    process = manage.stream(SHOP_AGGSTREAM=json.dumps(setting))
    until(lambda: is_live(agg, process))
    trouble = Trouble.objects.create()
    agg.begin_order(USER).advance(1)
    until(lambda: process.output.count("something that it needs is away: 'RuntimeError: trouble") > 5)
    assert Event.objects.get().state == Event.State.PENDING
    trouble.delete()
    until(lambda: all_done(1))
    assert Event.objects.get().attempts == 0
    assert process.end() == 0


@on_sqlite
def test_a_process_that_has_much_to_give_to_its_handlers_first_goes_on_until_it_is_done(
    agg: Simulator, manage: Manage, until: Until, tmp_path: Path
) -> None:
    stored = store_of(DatabaseRetrier("default"), account="default").store(
        [happened(f"ord_{n}") for n in range(5)]
    )
    Stream.objects.update(owner="")
    gate = tmp_path / "gate"
    process = manage.stream(SHOP_GATE=str(gate), SHOP_OPTIONS='{"queue_size": 1}')
    renewals: set[object] = set()

    def has_looked_after_it_often() -> bool:
        process.says("")
        renewals.add(Stream.objects.get().lease_until)
        return len(renewals) > 4

    until(has_looked_after_it_often)
    gate.touch()
    until(lambda: is_live(agg, process))
    # REST may add the balances, so not all that is stored is counted.
    until(lambda: Event.objects.filter(state=DONE, pk__in=stored).count() == len(stored))
    assert process.end() == 0


def test_who_is_taken_over_lets_go_and_stands_by_for_the_next_turn(
    agg: Simulator, manage: Manage, until: Until
) -> None:
    process = manage.stream()
    until(lambda: is_live(agg, process))
    Stream.objects.update(owner="another", lease_until=None)  # which dies at once
    until(lambda: process.says("another process has taken the stream over"))
    until(lambda: process.output.count("live as") == 2)
    agg.place_order(USER, scenario="filled")
    until(lambda: Order.objects.filter(is_terminal=True).exists())
    assert process.end() == 0


@on_postgres
def test_a_database_that_stops_and_starts_costs_no_event(
    agg: Simulator, manage: Manage, postgres: Postgres, until: Until
) -> None:
    process = manage.stream()
    until(lambda: is_live(agg, process))
    agg.place_order(USER)
    until(lambda: all_done(agg.books(USER).emitted))
    connections.close_all()
    postgres.stop()
    agg.place_orders(USER, 3)  # none of which can be stored now
    until(lambda: process.says("nothing is lost"))
    postgres.start()
    ended = agg.terminal_orders(USER)
    until(lambda: Order.objects.filter(is_terminal=True).count() == len(ended))
    until(lambda: all_done(agg.books(USER).emitted))
    assert process.end() == 0
    seen = Seen.objects.filter(handler="keep").values_list("event_id", flat=True)
    assert set(seen) == set(Event.objects.values_list("event_id", flat=True))


@on_postgres
def test_who_is_asked_to_end_without_a_database_ends_and_the_next_one_finds_out(
    agg: Simulator, manage: Manage, postgres: Postgres, until: Until
) -> None:
    process = manage.stream()
    until(lambda: is_live(agg, process))
    # Before it has noted this, the next process could not know that there was one.
    until(lambda: Stream.objects.get().history_until is not None)
    connections.close_all()
    postgres.stop()
    agg.place_orders(USER, 2)
    until(lambda: process.says("nothing is lost"))
    assert process.end() == 1  # something was left to do
    waiting = manage.stream()
    until(lambda: waiting.says("cannot be used"))
    postgres.start()
    until(lambda: is_live(agg, waiting))
    ended = agg.terminal_orders(USER)
    until(lambda: Event.objects.filter(terminal=True, state=DONE).count() == len(ended))
    assert waiting.end() == 0


@on_sqlite
def test_what_was_searched_and_the_names_of_statuses_count_for_the_next_process(
    agg: Simulator, manage: Manage, until: Until, tmp_path: Path
) -> None:
    manage.project = shutil.copytree(PROJECT, tmp_path / "project", ignore=shutil.ignore_patterns("__pycache__"))
    with (manage.project / "settings.py").open("a") as settings:
        settings.write('AGGSTREAM["OPTIONS"] |= {"rest_lag": 0, "rest": aggstream.RestOptions(')
        settings.write('status_names={"routing": "open"})}\n')
    moments = itertools.count(1_710_000_000_000)

    def say(word: str) -> None:
        message = {"type": "order_event", "event": word, "orderId": "ord_1", "timestamp": next(moments)}
        agg.push(message, user_id=USER)

    process = manage.stream()
    until(lambda: is_live(agg, process))
    say("Routing")
    until(lambda: Event.objects.filter(sub_event="open", state=DONE).exists())
    until(lambda: Stream.objects.get().known_until is not None and Stream.objects.get().is_searched)
    assert process.end() == 0
    known_until = Stream.objects.get().known_until
    process = manage.stream()
    until(lambda: is_live(agg, process))
    say("dag_completed")
    until(lambda: Event.objects.filter(sub_event="dag_completed", state=DONE).exists())
    order, stream = Order.objects.get(), Stream.objects.get()
    assert (order.status, order.is_unclear, order.is_terminal) == ("open", False, False)
    assert stream.is_searched
    assert stream.known_until >= known_until
    assert process.end() == 0


HANDLER = """
import sys, threading, aggstream
from aggstream.integrations.django import on

@on(aggstream.UserEvent)
def handle(event):
    {body}
"""


@pytest.mark.parametrize(("body", "code"), [("sys.exit(3)", 3), ("threading.Event().wait()", 1)])
def test_a_handler_that_exits_or_never_returns_leaves_its_event_and_the_stream_to_the_next(
    agg: Simulator, manage: Manage, until: Until, tmp_path: Path, body: str, code: int
) -> None:
    manage.project = shutil.copytree(PROJECT, tmp_path / "project", ignore=shutil.ignore_patterns("__pycache__"))
    (manage.project / "shop" / "agg_handlers.py").write_text(HANDLER.format(body=body))
    process = manage.stream("--drain", "0.1")
    until(lambda: process.says("live as"))
    agg.begin_order(USER).advance(1)
    until(Event.objects.exists)
    assert process.end(signal.SIGTERM if code == 1 else None) == code
    assert Event.objects.get().state == Event.State.PENDING
    assert Stream.objects.get().owner == ""
