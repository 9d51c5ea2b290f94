"""Tables that an earlier version of aggstream has filled, after `manage.py migrate`."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import attrs
import pytest
from django.core.management import call_command
from django.db import connection, connections
from django.db.migrations.executor import MigrationExecutor
from integrations.django.databases import create, point_at, sqlite
from integrations.django.test_store import store_of
from journals import CODEC, happened, id_of_version_1
from service_messages import BALANCE_UPDATE

from aggstream.events import OrderEvent, UserEvent
from aggstream.integrations.django._store.retrying import DatabaseRetrier
from aggstream.integrations.django.models import Event, Order, Stream

USER = "usr_1"
_numbers = itertools.count()


@pytest.fixture(params=["sqlite", "postgres", "mariadb"])
def old_tables(request: pytest.FixtureRequest, tmp_path: Path, nothing_left_behind: None) -> Iterator[None]:
    """A database with the empty tables of version 1, which this process uses."""
    config = sqlite(tmp_path / "shop.db")
    if request.param != "sqlite":
        server = request.getfixturevalue(request.param)
        name = f"old_{next(_numbers)}"
        create(server, name)
        config = server.config(name)
    point_at(config)
    call_command("migrate", "aggstream", "0001_initial", verbosity=0)
    yield
    connections.close_all()


def fill(account: str, user_id: str, facts: Sequence[UserEvent]) -> None:
    """Store events as version 1 did: with its ids, and with what its words said of orders."""
    state = MigrationExecutor(connection).loader.project_state(("aggstream", "0001_initial"))
    stream_model, order_model, event_model = (
        state.apps.get_model("aggstream", name) for name in ("Stream", "Order", "Event")
    )
    stream = stream_model.objects.create(account=account, user_id=user_id)
    for fact in facts:
        row: dict[str, Any] = {"order": None}
        if isinstance(fact, OrderEvent):
            is_end = fact.event in ("filled", "failed", "cancelled", "expired")
            row["order"], _ = order_model.objects.update_or_create(
                stream=stream, order_id=fact.order_id, defaults={"status": fact.event, "is_terminal": is_end}
            )
            row |= {"sub_event": fact.event, "terminal": is_end}
        event_model.objects.create(
            stream=stream,
            event_id=id_of_version_1(fact),
            type=fact.type,
            source=fact.source,
            timestamp=fact.timestamp,
            received_ns=fact.received_ns,
            text=fact.text,
            state="done",
            settled_ns=1,
            **row,
        )


def old_facts() -> list[UserEvent]:
    """Return events of some orders. To version 1 some of their words said nothing."""
    balance = CODEC.decode(BALANCE_UPDATE, 1)
    assert isinstance(balance, UserEvent)
    return [
        happened("a", "step_started"),
        happened("a", "filled", filled="5"),
        happened("b", "open"),
        balance,
        happened("c", "FILLED", filled="7"),
        happened("d", "Routing"),
        attrs.evolve(happened("e", "expired"), source="reconcile"),
        happened("f", "partially_filled", filled="1"),
    ]


def told(*facts: UserEvent) -> list[UserEvent]:
    """Return events as this version's stream tells them to its user."""
    return [attrs.evolve(fact, user_id=USER) for fact in facts]


@pytest.mark.usefixtures("old_tables")
def test_old_events_keep_their_ids_and_are_not_delivered_anew_but_new_ones_are() -> None:
    facts = old_facts()
    fill("a", USER, facts)
    fill("empty", "usr_2", [])
    ids = [id_of_version_1(fact) for fact in facts]
    call_command("migrate", verbosity=0)
    assert list(Event.objects.order_by("pk").values_list("event_id", flat=True)) == ids
    newest = max(Event.objects.values_list("pk", flat=True))
    noted = dict(Stream.objects.values_list("account", "old_ids_until"))
    assert noted == {"a": newest, "empty": 0}

    store = store_of(DatabaseRetrier("default"))
    store.belongs_to(USER)
    again = told(*facts)
    assert all(new.id != id_of_version_1(new) for new in again)
    from_rest = [
        attrs.evolve(happened(order_id, word, filled=filled), source="reconcile", user_id=USER)
        for order_id, word, filled in (("b", "open", None), ("c", "filled", "7.0"), ("a", "FILLED", "5"))
    ]
    assert store.store([*again, *from_rest]) == [None] * (len(again) + len(from_rest))
    new = told(
        happened("a", "filled", filled="9"),  # it adds an amount
        happened("a", "step_started"),
        happened("b", "filled"),
        happened("g", "open"),
    )
    seqs = store.store(new)
    assert [stored.seq for stored in store.pending()] == seqs
    assert None not in seqs
    assert [stored.event.id for stored in store.pending()] == [event.id for event in new]
    assert store_of(DatabaseRetrier("default"), owner="next").store(new + again) == [None] * (
        len(new) + len(again)
    )


@pytest.mark.usefixtures("old_tables")
def test_old_orders_are_judged_by_the_words_that_are_known_now() -> None:
    fill("a", USER, old_facts())
    call_command("migrate", verbosity=0)
    store = store_of(DatabaseRetrier("default"))
    orders = {
        order_id: (status, is_terminal, is_unclear)
        for order_id, status, is_terminal, is_unclear in Order.objects.values_list(
            "order_id", "status", "is_terminal", "is_unclear"
        )
    }
    assert orders == {
        "a": ("filled", True, False),
        "b": ("open", False, False),
        "c": ("filled", True, False),
        "d": ("routing", False, True),
        "e": ("expired", True, False),
        "f": ("partially_filled", False, False),
    }
    assert store.recall().open_orders == {"b", "f"}
    assert (store.recall().known_until, store.recall().is_searched) == (None, False)
    store.retention(10**18 * 9)
    assert set(Order.objects.values_list("order_id", flat=True)) == {"b", "f"}
