"""The admin shows events and orders, lets nobody change them, and has failed ones run again."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.db.backends.signals import connection_created
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from integrations.django.conftest import on_sqlite
from journals import CODEC, happened

from aggstream.events import UserEvent
from aggstream.integrations.django._store.retrying import DatabaseRetrier
from aggstream.integrations.django._store.store import DatabaseStore
from aggstream.integrations.django.models import Event, Order, Stream
from aggstream.journal import StoreOptions

JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ1c3JfMSJ9.c2lnbmF0dXJl"
REASON = f"refused <b>by</b> {JWT}"


def failed() -> UserEvent:
    message = {"type": "order_event", "event": "failed", "orderId": "ord_1", "timestamp": 5, "errorReason": REASON}
    event = CODEC.decode(json.dumps(message), 1)
    assert isinstance(event, UserEvent)
    return event


@pytest.fixture
def stored(database: None) -> list[int]:
    """Two orders: a dead event and a pending one of the first, a done one of the second."""
    stream = Stream.objects.create(account="main", owner="owner-secret", owner_name="host, process 5")
    options = StoreOptions(max_attempts=1)
    store = DatabaseStore(
        "default", stream=stream.pk, owner="owner-secret", options=options, retrier=DatabaseRetrier("default")
    )
    store.open()
    seqs = [
        seq for seq in store.store([failed(), happened("ord_1"), happened("ord_2", "filled")]) if seq is not None
    ]
    store.failed(seqs[0], f"RuntimeError: {JWT}")
    store.done([seqs[2]])
    return seqs


@pytest.fixture
def staff(stored: list[int]) -> Client:
    """Somebody who may look."""
    user = User.objects.create_user("viewer", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__startswith="view_"))
    client = Client()
    client.force_login(user)
    return client


@pytest.fixture
def boss(stored: list[int]) -> Client:
    client = Client()
    client.force_login(User.objects.create_superuser("boss"))
    return client


def page(client: Client, name: str, *arguments: object, **query: str) -> str:
    response = client.get(reverse(f"admin:aggstream_{name}", args=arguments), query)
    assert response.status_code == 200, response
    return response.content.decode()


def test_events_are_listed_filtered_and_found(staff: Client) -> None:
    everything = page(staff, "event_changelist")
    assert everything.count("ord_1") == 2
    assert everything.count("ord_2") == 1
    assert page(staff, "event_changelist", state="dead").count("ord_") == 1
    assert page(staff, "event_changelist", q="ord_2").count("ord_1") == 0


def test_an_events_payload_can_be_read_and_holds_no_token(staff: Client, stored: list[int]) -> None:
    shown = page(staff, "event_change", stored[0])
    assert "&quot;errorReason&quot;: &quot;refused &lt;b&gt;by&lt;/b&gt; ***&quot;" in shown
    assert "RuntimeError: ***" in shown
    assert JWT not in shown


def test_orders_are_listed_with_a_link_to_their_events(staff: Client) -> None:
    order = Order.objects.get(order_id="ord_1")
    assert "ord_2" not in page(staff, "order_changelist", status="failed")
    shown = page(staff, "order_change", order.pk)
    link = f"{reverse('admin:aggstream_event_changelist')}?order__id__exact={order.pk}"
    assert link in shown
    assert staff.get(link).content.decode().count("ord_1") == 2


def test_streams_show_who_runs_them_and_not_what_writing_takes(staff: Client) -> None:
    for shown in (page(staff, "stream_changelist"), page(staff, "stream_change", Stream.objects.get().pk)):
        assert "host, process 5" in shown
        assert "owner-secret" not in shown


def test_nobody_changes_anything_by_hand(boss: Client, stored: list[int]) -> None:
    for model in ("event", "order", "stream"):
        assert boss.get(reverse(f"admin:aggstream_{model}_add")).status_code == 403
        assert boss.post(reverse(f"admin:aggstream_{model}_delete", args=[1])).status_code in (302, 403)
    assert (
        boss.post(reverse("admin:aggstream_event_change", args=[stored[0]]), {"state": "done"}).status_code == 403
    )
    assert Event.objects.count() == 3


def run_again(client: Client, seqs: list[int]) -> str:
    data = {"action": "run_again", "_selected_action": seqs}
    return client.post(reverse("admin:aggstream_event_changelist"), data, follow=True).content.decode()


def test_failed_events_are_run_again_and_no_others(boss: Client, stored: list[int]) -> None:
    assert "if the stream runs: 1." in run_again(boss, stored)
    states = dict(Event.objects.values_list("pk", "state"))
    assert states == dict(zip(stored, ["again", "pending", "done"], strict=True))
    assert "None has failed" in run_again(boss, stored)


def test_who_may_only_look_runs_nothing_again(staff: Client, stored: list[int]) -> None:
    assert "run_again" not in page(staff, "event_changelist")
    run_again(staff, stored)
    assert not Event.objects.filter(state="again").exists()


def steps(work: Callable[[], object]) -> int:
    """Return how much SQLite does for it, in thousands of its instructions, which no machine's speed changes."""
    counted: list[None] = []

    def watch(connection: Any, **_: Any) -> None:
        connection.connection.set_progress_handler(lambda: counted.append(None), 1000)

    connection.close()
    connection_created.connect(watch)
    try:
        work()
    finally:
        connection_created.disconnect(watch)
        connection.close()
    return len(counted)


@on_sqlite
@pytest.mark.parametrize("place", ["event_changelist", "order_changelist", "retention"])
def test_what_it_costs_does_not_grow_with_what_is_stored(boss: Client, place: str) -> None:
    stream = Stream.objects.get()
    options = StoreOptions()
    store = DatabaseStore(
        "default", stream=stream.pk, owner="owner-secret", options=options, retrier=DatabaseRetrier("default")
    ).open()

    def work() -> object:
        return store.retention(time.time_ns()) if place == "retention" else page(boss, place)

    def more(number: int) -> None:
        ids = [f"more_{number}_{order}" for order in range(1200)]
        Order.objects.bulk_create(Order(stream=stream, order_id=id_, is_terminal=True) for id_ in ids)
        now = time.time_ns()
        Event.objects.bulk_create(
            Event(
                stream=stream,
                event_id=one.order_id,
                order=one,
                state="done",
                timestamp=1,
                received_ns=1,
                settled_ns=now,
            )
            for one in Order.objects.filter(order_id__startswith=f"more_{number}_")
        )

    more(1)
    before = steps(work)
    more(2)
    assert steps(work) <= before + 3


def test_a_page_of_many_events_takes_as_many_queries_as_one_of_few(boss: Client) -> None:
    with CaptureQueriesContext(connection) as few:
        page(boss, "event_changelist")
    other = Stream.objects.create(account="other", owner="me")
    options = StoreOptions()
    store = DatabaseStore(
        "default", stream=other.pk, owner="me", options=options, retrier=DatabaseRetrier("default")
    )
    store.open().store([happened(f"ord_{number}") for number in range(90)])
    with CaptureQueriesContext(connection) as many:
        assert page(boss, "event_changelist").count("ord_") > 90
    assert len(many) == len(few)
