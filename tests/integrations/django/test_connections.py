"""Connections to the database on the threads of a stream: no broken one is used, and none is left behind."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path
from typing import Any

import pytest
from django.db import OperationalError, connection
from integrations.django.conftest import on_postgres, on_sqlite
from integrations.django.manage import PROJECT, Manage
from integrations.django.test_ownership import cut_connections
from integrations.django.test_store import store_of
from journals import happened
from shop.models import Seen
from waiting import Until

from aggstream.integrations.django._connections import closing_connections, in_request
from aggstream.integrations.django._store.retrying import DatabaseRetrier
from aggstream.integrations.django.models import Event
from aggstream.simulator import Simulator


@on_postgres
def test_a_broken_connection_fails_one_call_and_is_not_used_again(database: dict[str, Any]) -> None:
    count = in_request(Seen.objects.count)
    assert count() == 0
    other = connection.copy()
    with other.cursor() as cursor:
        cursor.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    other.close()
    with pytest.raises(OperationalError):
        count()
    assert count() == 0


@on_postgres
def test_a_thread_that_has_used_the_store_closes_its_connection_at_its_end(database: dict[str, Any]) -> None:
    store = store_of(DatabaseRetrier("default"))
    held: list[object] = []

    def use() -> None:
        store.store([happened("x")])
        held.append(connection.connection)
        store.leave()
        held.append(connection.connection)

    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    assert held[0] is not None
    assert held[1] is None


@on_postgres
def test_a_function_for_tokens_leaves_no_connection(database: dict[str, Any]) -> None:
    closing_connections(Seen.objects.count)()
    assert connection.connection is None


@on_postgres
def test_connections_that_are_cut_while_the_stream_runs_cost_nothing(
    agg: Simulator, manage: Manage, until: Until
) -> None:
    process = manage.stream()
    until(lambda: process.says("live as"))
    for _ in range(3):
        agg.place_order("usr_1")
        cut_connections()
    until(lambda: Event.objects.filter(state="done").count() == agg.books("usr_1").emitted)
    assert process.end() == 0
    seen = Seen.objects.filter(handler="keep").values_list("event_id", flat=True)
    assert set(seen) == set(Event.objects.values_list("event_id", flat=True))


@on_postgres
def test_a_process_that_has_ended_holds_no_connection(agg: Simulator, manage: Manage, until: Until) -> None:
    process = manage.stream("-v", "0", PYTHONWARNINGS="always::ResourceWarning")
    until(lambda: process.says("live as"))
    agg.place_order("usr_1")
    until(lambda: Event.objects.filter(state="done").count() == agg.books("usr_1").emitted)
    assert process.end() == 0
    assert "ResourceWarning" not in process.output


@on_sqlite
def test_a_connection_that_is_not_to_be_kept_is_closed_after_each_call(database: dict[str, Any]) -> None:
    assert in_request(Seen.objects.count)() == 0
    assert connection.connection is None


CARELESS = """
import contextlib
import aggstream
from aggstream.integrations.django import on
from django.db import DatabaseError, connection, transaction
from shop.models import Seen


@on(aggstream.UserEvent)
def leaves_a_broken_transaction(event):
    with connection.cursor() as cursor, contextlib.suppress(DatabaseError):
        cursor.execute("BEGIN")
        cursor.execute("SELECT nothing")


@on(aggstream.UserEvent)
def commits_nothing(event):
    transaction.set_autocommit(False)
    Seen.objects.create(handler="lost", event_id=event.id, type=event.type)


@on(aggstream.UserEvent)
def keep(event):
    Seen.objects.create(handler="keep", event_id=event.id, type=event.type)
"""


def test_a_handler_that_leaves_its_connection_in_disorder_costs_the_next_one_nothing(
    agg: Simulator, manage: Manage, until: Until, tmp_path: Path
) -> None:
    manage.project = shutil.copytree(PROJECT, tmp_path / "project", ignore=shutil.ignore_patterns("__pycache__"))
    (manage.project / "shop" / "agg_handlers.py").write_text(CARELESS)
    process = manage.stream()
    until(lambda: process.says("live as"))
    agg.place_order("usr_1")
    emitted = agg.books("usr_1").emitted
    until(lambda: Event.objects.filter(state="done").count() == emitted)
    assert process.end() == 0
    assert list(Seen.objects.values_list("handler", flat=True)) == ["keep"] * emitted
