"""The store keeps a journal's promise in the project's database: in-process, on each kind of database."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

import attrs
import pytest
from django.db import OperationalError, connection
from journals import CODEC, happened

from aggstream.errors import JournalError, JournalInUse, UserMismatch
from aggstream.events import OrderEvent, UserEvent
from aggstream.integrations.django._store.retrying import DatabaseRetrier
from aggstream.integrations.django._store.store import DatabaseStore
from aggstream.integrations.django.models import Event, Order, Stream
from aggstream.journal import StoreMemory, StoreOptions

DEADLINE = 30.0
pytestmark = pytest.mark.usefixtures("database")


@pytest.fixture
def retrier() -> DatabaseRetrier:
    return DatabaseRetrier("default")


def store_of(
    retrier: DatabaseRetrier,
    account: str = "a",
    owner: str = "me",
    *,
    status_names: Mapping[str, str] | None = None,
    **options: Any,
) -> DatabaseStore:
    stream, _ = Stream.objects.get_or_create(account=account)
    Stream.objects.filter(pk=stream.pk).update(owner=owner)
    return DatabaseStore(
        "default",
        stream=stream.pk,
        owner=owner,
        options=StoreOptions(**options),
        retrier=retrier,
        status_names=status_names,
    ).open()


def submitted(order_id: str, **fields: object) -> UserEvent:
    message = {
        "type": "order_submitted", "venue": "kalshi", "orderId": order_id, "side": "buy", "price": 0.55,
        "size": 100, "outcomeId": "o", "timestamp": 1_700_000_000_000, **fields,
    }  # fmt: skip
    event = CODEC.decode(json.dumps(message), time.time_ns())
    assert isinstance(event, UserEvent)
    return event


def test_events_get_growing_numbers_and_repeats_get_none(retrier: DatabaseRetrier) -> None:
    store = store_of(retrier)
    one, two, three = happened("x"), happened("x"), happened("y")
    first, second, repeat = store.store([one, two, one])
    assert first is not None
    assert second is not None
    assert first < second
    assert repeat is None
    again, new = store.store([two, three])
    assert again is None
    assert new is not None
    assert new > second
    assert [stored.event for stored in store.pending()] == [one, two, three]
    assert all(stored.event.redelivered for stored in store.pending(first))
    assert [stored.seq for stored in store.pending(first, 1)] == [second]


def test_another_account_has_the_same_event_for_itself(retrier: DatabaseRetrier) -> None:
    event = happened("x")
    one, other = store_of(retrier, "a"), store_of(retrier, "b")
    assert None not in (*one.store([event]), *other.store([event]))
    assert [stored.id for stored in one.pending()] == [event.id]


def test_more_events_than_one_statement_takes_are_stored_at_once(retrier: DatabaseRetrier) -> None:
    store = store_of(retrier)
    events = [happened(f"order-{number % 450}") for number in range(900)]
    seqs = [seq for seq in store.store(events) if seq is not None]
    assert seqs == sorted(seqs)
    assert len(seqs) == 900
    store.done(seqs)
    assert store.pending() == []
    assert Event.objects.filter(state="done").count() == 900


def test_done_failed_and_skipped_events_are_pending_no_more(retrier: DatabaseRetrier) -> None:
    store = store_of(retrier, max_attempts=2)
    seqs = store.store([happened("x") for _ in range(4)])
    done, failed, skipped, pending = (seq for seq in seqs if seq is not None)
    store.done([done])
    assert [store.failed(failed, "RuntimeError: once"), store.failed(failed, "RuntimeError: twice")] == [
        False,
        True,
    ]
    store.failed(skipped, "not understood", final=True)
    assert [stored.seq for stored in store.pending()] == [pending]
    states = dict(Event.objects.values_list("pk", "state"))
    assert states == {done: "done", failed: "dead", skipped: "dead", pending: "pending"}
    assert list(Event.objects.filter(state="dead").values_list("attempts", "last_error")) == [
        (2, "RuntimeError: twice"),
        (0, "not understood"),
    ]
    store.failed(done, "too late")  # what is done stays done
    assert Event.objects.get(pk=done).state == "done"


def test_dead_events_that_are_wanted_again_are_told_once(retrier: DatabaseRetrier) -> None:
    store = store_of(retrier, max_attempts=1)
    [seq] = store.store([happened("x")])
    assert seq is not None
    store.failed(seq, "E")
    assert store.revived() == []
    Event.objects.update(state=Event.State.AGAIN, attempts=0)
    assert [stored.seq for stored in store.revived()] == [seq]
    assert store.revived() == []
    assert [stored.seq for stored in store.pending()] == [seq]
    Event.objects.update(state=Event.State.AGAIN)
    assert [stored.seq for stored in store_of(retrier).pending()] == [seq]  # or at the next start


def test_orders_are_known_by_all_of_their_events(retrier: DatabaseRetrier) -> None:
    store = store_of(retrier)
    store.store([submitted("x"), happened("x", "dag_started")])
    assert store.recall().open_orders == {"x"}
    order = Order.objects.get()
    assert (order.status, order.venue, order.side) == ("submitted", "kalshi", "buy")
    assert (order.price, order.size) == (Decimal("0.55"), Decimal(100))
    again = store_of(retrier)  # that has to read what it did not see
    again.store([happened("x", "filled")])
    again.store([happened("x", "dag_completed"), happened("x", "cancelled")])
    order = Order.objects.get()
    assert (order.status, order.is_terminal, order.price) == ("filled", True, Decimal("0.55"))
    assert again.recall().open_orders == set()
    assert [stored.event.sub_event for stored in again.events_of("x")] == [
        None, "dag_started", "filled", "dag_completed", "cancelled",
    ]  # fmt: skip
    assert again.events_of("x")
    assert not again.events_of("y")


def test_an_order_that_is_followed_is_open_until_its_end(retrier: DatabaseRetrier) -> None:
    store = store_of(retrier)
    store.remember(open_orders=["x", "y"])
    store.remember(open_orders=["x"])
    assert store.recall().open_orders == {"x", "y"}
    assert not store.events_of("x")
    store.store([happened("x", "failed")])
    assert store.recall().open_orders == {"y"}


@pytest.mark.parametrize("order_id", ["\0", "\ud800", "x" * 5000, "ü" * 150, ""])
def test_no_text_of_the_service_is_too_odd_for_a_column(retrier: DatabaseRetrier, order_id: str) -> None:
    store = store_of(retrier)
    message = {
        "type": "order_event",
        "event": f"dag_x{order_id}",
        "orderId": order_id,
        "timestamp": 5,
        "errorReason": order_id,
    }
    event = CODEC.decode(json.dumps(message), time.time_ns())
    assert isinstance(event, OrderEvent)
    [seq] = store.store([event])
    assert store.store([event]) == [None]
    assert [stored.seq for stored in store.events_of(event.order_id)] == [seq]
    assert store.pending()[0].event == event
    assert store.events_of(next(iter(store.recall().open_orders)))


def test_numbers_that_no_column_holds_cost_nothing_else(retrier: DatabaseRetrier) -> None:
    store = store_of(retrier)
    store.store([happened("x", timestamp=2**62), happened("y", timestamp=5)])
    assert store.recall().last_timestamp == 5  # the other one is no time
    assert {stored.event.timestamp for stored in store.pending()} == {2**62, 5}


def test_what_is_known_stays_where_it_is_while_something_is_missing(retrier: DatabaseRetrier) -> None:
    store = store_of(retrier)
    assert store.recall() == StoreMemory()
    store.belongs_to("usr_1")
    assert store.recall().last_received_ns is not None
    event, later = happened("x"), happened("x")
    store.store([event])
    store.store([later], complete=False)
    assert (store.recall().last_timestamp, store.recall().last_received_ns) == (event.timestamp, event.received_ns)


def test_an_account_is_one_users_and_a_user_has_one_account(retrier: DatabaseRetrier) -> None:
    store, other = store_of(retrier, "a"), store_of(retrier, "b")
    store.belongs_to("usr_1")
    store.belongs_to("usr_1")
    with pytest.raises(UserMismatch, match=r"usr_2.*usr_1"):
        store.belongs_to("usr_2")
    with pytest.raises(UserMismatch, match="account 'a'"):
        other.belongs_to("usr_1")
    other.belongs_to("usr_2")


def test_old_done_events_go_and_orders_after_them_but_what_is_open_stays(retrier: DatabaseRetrier) -> None:
    store = store_of(retrier, keep_for=10.0)
    seqs = store.store([happened("ended"), happened("ended", "filled"), happened("open"), happened("dead")])
    store.done([seq for seq in seqs[:3] if seq is not None])
    Order.objects.filter(order_id="dead").update(is_terminal=True)
    now = time.time_ns()
    assert store.retention(now) == 0
    later = now + 11 * 10**9
    assert store.retention(later) == 3  # two events, and then their order
    assert store.retention(later) == 0
    assert set(Order.objects.values_list("order_id", flat=True)) == {"open", "dead"}
    assert Event.objects.count() == 2


def test_how_far_rest_was_searched_is_known_to_the_next_process(retrier: DatabaseRetrier) -> None:
    store = store_of(retrier)
    store.remember(known_until=7)
    assert (store.recall().known_until, store.recall().is_searched) == (7, False)
    store.remember(known_until=5, is_searched=True)  # it never goes back
    store.close()
    memory = store_of(retrier, owner="next").recall()
    assert (memory.known_until, memory.is_searched) == (7, True)
    store = store_of(retrier, owner="third")  # the one before was killed
    store.remember(known_until=9)
    memory = store_of(retrier, owner="fourth").recall()
    assert (memory.known_until, memory.is_searched) == (9, True)
    other = store_of(retrier, account="b").recall()
    assert (other.known_until, other.is_searched) == (None, False)


def test_the_events_of_an_order_whose_last_word_nobody_knows_are_not_kept_for_ever(
    retrier: DatabaseRetrier,
) -> None:
    store = store_of(retrier, keep_for=10.0)
    words = {"unclear": ["open", "Routing", "dag_completed"], "open": ["Routing", "open"]}
    seqs = store.store([happened(order_id, word) for order_id, some in words.items() for word in some])
    store.done([seq for seq in seqs if seq is not None])
    unclear = dict(Order.objects.values_list("order_id", "is_unclear"))
    assert unclear == {"unclear": True, "open": False}
    assert Order.objects.filter(is_terminal=True).count() == 0
    assert store.recall().open_orders == {"open"}
    later = time.time_ns() + 11 * 10**9
    assert store.retention(later) == 4  # three events, and then their order
    assert store.retention(later) == 0
    assert [event.order.order_id for event in Event.objects.select_related("order")] == ["open", "open"]


@pytest.mark.parametrize(
    ("name", "is_terminal", "is_unclear", "status"),
    [("open", False, False, "open"), ("filled", True, False, "filled"), ("", False, True, "routing")],
)
def test_each_process_judges_the_words_by_its_own_status_names(
    retrier: DatabaseRetrier, name: str, is_terminal: bool, is_unclear: bool, status: str
) -> None:
    names = {"routing": name} if name else {}
    store_of(retrier, status_names={"routing": "open"}).store([submitted("x"), named(happened("x", "Routing"))])
    assert not Order.objects.get().is_unclear
    store = store_of(retrier, status_names=names)

    def judged() -> tuple[bool, bool, str]:
        order = Order.objects.get()
        return order.is_terminal, order.is_unclear, order.status

    assert judged() == (is_terminal, is_unclear, status)
    assert ("x" in store.recall().open_orders) is (name == "open")
    store.store([happened("x", "dag_completed")])
    assert judged() == (is_terminal, is_unclear, status)
    assert Order.objects.get().price == Decimal("0.55")


def named(event: OrderEvent) -> OrderEvent:
    """Name an event's status as the stream does with `status_names`."""
    return attrs.evolve(event, named_as="open")


def test_an_end_is_not_undone_by_what_comes_after_its_events_are_gone(retrier: DatabaseRetrier) -> None:
    store = store_of(retrier)
    store.store([happened("x", "filled")])
    Event.objects.all().delete()
    store.store([happened("x", "dag_started")])
    assert Order.objects.get().status == "filled"


def test_whoever_was_taken_over_writes_no_more(retrier: DatabaseRetrier) -> None:
    store = store_of(retrier)
    [seq] = store.store([happened("x")])
    assert seq is not None
    successor = store_of(retrier, owner="another")
    writes: list[Callable[[], object]] = [
        lambda: store.store([happened("y")]),
        lambda: store.done([seq]),
        lambda: store.failed(seq, "E"),
        lambda: store.failed(seq, "E", final=True),
        lambda: store.remember(open_orders=["z"]),
        lambda: store.belongs_to("usr_1"),
        lambda: store.retention(0),
        store.open,
    ]
    for write in writes:
        with pytest.raises(JournalInUse, match="taken"):
            write()
    assert [stored.seq for stored in successor.pending()] == [seq]
    store.close()
    assert Stream.objects.get().closed_ns is None


def test_the_next_owner_knows_when_the_last_one_ended_in_order(retrier: DatabaseRetrier) -> None:
    before = time.time_ns()
    store = store_of(retrier)
    store.close()
    store.close()
    successor = store_of(retrier)
    assert before <= (successor.recall().closed_ns or 0) <= time.time_ns()
    assert store_of(retrier).recall().closed_ns is None  # that one did not close


class Broken:
    """Makes statements fail as a database that goes away does."""

    def __init__(self, fails: Callable[[str], bool], times: int) -> None:
        self.fails = fails
        self.left = times

    def __call__(self, execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        if self.left and self.fails(sql):
            self.left -= 1
            raise OperationalError("server closed\nthe connection")
        return execute(sql, params, many, context)


def test_a_database_that_goes_away_is_waited_for_and_told_of(
    retrier: DatabaseRetrier, caplog: pytest.LogCaptureFixture
) -> None:
    store = store_of(retrier)
    with connection.execute_wrapper(Broken(lambda sql: sql.startswith("INSERT"), 2)):
        [seq] = store.store([happened("x")])
    assert seq is not None
    assert Event.objects.count() == 1
    told = [record for record in caplog.records if "cannot be used" in record.getMessage()]
    assert len(told) == 2
    assert "server closed the connection" in told[0].getMessage()


def test_what_was_stored_without_anybody_knowing_is_no_repeat(
    retrier: DatabaseRetrier, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = store_of(retrier)
    [before] = store.store([happened("x")])
    commit = connection.commit
    broken = [True]

    def commit_and_break() -> None:
        commit()
        if broken.pop() if broken else False:
            raise OperationalError("the connection broke while the answer was on its way")

    monkeypatch.setattr(connection, "commit", commit_and_break)
    event = happened("x", "filled")
    [seq] = store.store([event])
    assert not broken
    assert seq is not None
    assert before is not None
    assert seq > before
    assert Event.objects.count() == 2
    assert Order.objects.get().status == "filled"
    assert store.store([event]) == [None]


def test_who_ends_waits_for_no_database(retrier: DatabaseRetrier) -> None:
    store = store_of(retrier)
    ended: list[BaseException] = []

    def write() -> None:
        try:
            with connection.execute_wrapper(Broken(lambda sql: True, 10**6)):
                store.store([happened("x")])
        except JournalError as error:
            ended.append(error)
        finally:
            store.leave()

    thread = threading.Thread(target=write)
    thread.start()
    retrier.end()
    thread.join(DEADLINE)
    assert "the database 'default' cannot be used" in str(ended[0])
    store.close()
    assert Stream.objects.get().closed_ns is None  # something was not stored


def test_an_event_without_its_text_is_refused(retrier: DatabaseRetrier) -> None:
    store = store_of(retrier)
    with pytest.raises(ValueError, match="text"):
        store.store([attrs.evolve(happened("x"), text="")])


@pytest.mark.parametrize(
    "others", [("ord_A", "ord_a"), ("ord_x", "ord_x "), ("ord_u", "ord_ü"), ("\U0001f600", "\U0001f601")]
)
def test_ids_that_differ_in_anything_are_those_of_different_orders(
    retrier: DatabaseRetrier, others: tuple[str, str]
) -> None:
    store = store_of(retrier)
    one, other = (happened(order_id) for order_id in others)
    assert None not in store.store([one, other])
    assert [stored.event for stored in store.events_of(others[0])] == [one]
    assert Order.objects.count() == 2
    assert not store.events_of("ORD_a")
