"""A stream with a journal: at least once to the handlers, over failures, restarts and a journal that breaks."""

from __future__ import annotations

import itertools
import json
import pathlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from clients import BRISK, MakeClient
from other_server import Peer, ServeFunction
from service_messages import BALANCE_UPDATE, ORDER_SUBMITTED
from waiting import DEADLINE, Until

import aggstream
from aggstream import BalanceUpdate, Gap, JournalFailed, JournalOptions, OrderEvent, UserEvent
from aggstream._stream import event_log
from aggstream.journal import EventStore, Journal, JournalReader, replay, retry
from aggstream.simulator import Simulator

USER = "usr_1"
MakeStream = Callable[..., aggstream.Client]


@pytest.fixture
def agg() -> Iterator[Simulator]:
    with Simulator(seed=7) as simulator:
        yield simulator


@pytest.fixture
def path(tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path / "events.db"


@pytest.fixture
def stream(agg: Simulator, client_of: MakeClient, path: pathlib.Path) -> MakeStream:
    def make(user: str = USER, **options: Any) -> aggstream.Client:
        settings: dict[str, Any] = {
            "token": agg.sign_in(user).access_token,
            "rest_url": agg.rest_url,
            "journal": path,
            "reconnect": BRISK,
        }
        return client_of(agg.url, **{**settings, **options})

    return make


def states(path: pathlib.Path) -> dict[str, int]:
    with JournalReader(path) as journal:
        counts = journal.counts()
    return {"pending": counts.pending, "done": counts.done, "dead": counts.dead}


def impatient(path: pathlib.Path, **options: Any) -> JournalOptions:
    """Return options by which a failure is repeated at once."""
    return JournalOptions(**{"path": path, "retry_delay": 0.001, "retry_delay_maximum": 0.002, **options})


# --- stored first, done after ---------------------------------------------------------------------------


def test_an_event_is_on_disk_before_its_handlers_run_and_done_after_them(
    agg: Simulator, stream: MakeStream, path: pathlib.Path
) -> None:
    found: list[tuple[str, str]] = []
    client = stream()

    @client.on(UserEvent)
    def handle(event: UserEvent) -> None:
        with JournalReader(path) as journal:
            stored = journal.show(event.id)
            assert stored is not None
            found.append((stored.id, stored.state))
            assert stored.event == event

    with client:
        client.wait_until_caught_up(DEADLINE)
        agg.place_order(USER, scenario="partial")
        client.track(agg.place_order(USER, scenario="filled")).wait(DEADLINE)
    assert found
    assert {state for _, state in found} == {"pending"}
    assert len({id_ for id_, _ in found}) == agg.books(USER).emitted
    assert states(path) == {"pending": 0, "done": agg.books(USER).emitted, "dead": 0}


def test_events_without_a_handler_are_done_as_well(agg: Simulator, stream: MakeStream, path: pathlib.Path) -> None:
    with stream() as client:
        client.wait_until_caught_up(DEADLINE)
        client.track(agg.place_order(USER)).wait(DEADLINE)
    assert states(path)["pending"] == 0


def test_what_the_service_sends_twice_is_delivered_once(
    other_server: ServeFunction, client_of: MakeClient, path: pathlib.Path, until: Until
) -> None:
    def script(peer: Peer) -> None:
        peer.sign_in()
        peer.send(*[ORDER_SUBMITTED] * 3, BALANCE_UPDATE, BALANCE_UPDATE)
        peer.wait_closed()

    client = client_of(other_server(script).url, journal=path)
    seen: list[str] = []
    client.on(UserEvent)(lambda event: seen.append(event.type))
    client.start()
    until(lambda: client.health().counters.repeats == 3)
    client.stop()
    assert seen == ["order_submitted", "balance_update"]


def test_balances_that_newer_ones_replace_are_done(
    other_server: ServeFunction, client_of: MakeClient, path: pathlib.Path
) -> None:
    release = threading.Event()

    def script(peer: Peer) -> None:
        peer.sign_in()
        balance = json.loads(BALANCE_UPDATE)
        peer.send(*[balance | {"timestamp": at} for at in range(50)])
        release.set()
        peer.wait_closed()

    client = client_of(other_server(script).url, journal=path, coalesce_balances=True)
    client.once("authenticated")(lambda event: release.wait(DEADLINE))
    with client:
        client.wait_for(BalanceUpdate, timestamp=49, timeout=DEADLINE)
    assert client.health().coalesced
    assert states(path) == {"pending": 0, "done": 50, "dead": 0}


# --- handlers that fail ---------------------------------------------------------------------------------


def test_a_handler_that_fails_is_called_again_and_the_others_are_not(
    agg: Simulator, stream: MakeStream, path: pathlib.Path, until: Until
) -> None:
    client = stream(journal=impatient(path))
    calls: list[tuple[str, bool]] = []

    @client.on("order_event", "filled")
    def good(event: OrderEvent) -> None:
        calls.append(("good", event.redelivered))

    @client.on("order_event", "filled")
    def bad(event: OrderEvent) -> None:
        calls.append(("bad", event.redelivered))
        if len(calls) < 4:
            raise RuntimeError("not yet")

    with client:
        client.wait_until_caught_up(DEADLINE)
        agg.place_order(USER, scenario="filled")
        until(lambda: len(calls) == 4)
    assert calls == [("good", False), ("bad", False), ("bad", True), ("bad", True)]
    assert states(path)["pending"] == states(path)["dead"] == 0


@pytest.mark.parametrize("workers", [1, 3])
def test_a_failure_holds_up_its_own_order_and_nothing_else(
    agg: Simulator, stream: MakeStream, path: pathlib.Path, until: Until, workers: int
) -> None:
    # As often as it takes: the other order has all the time that it needs.
    client = stream(journal=impatient(path, max_attempts=1_000_000), workers=workers)
    order, other = agg.begin_order(USER, scenario="partial"), agg.begin_order(USER, scenario="filled")
    mended = threading.Event()
    seen: dict[str, list[str]] = {order.order_id: [], other.order_id: []}

    @client.on(OrderEvent)
    def handle(event: OrderEvent) -> None:
        if event.event == "dag_started" and event.order_id == order.order_id and not mended.is_set():
            raise RuntimeError("not yet")
        seen[event.order_id].append(event.id)

    sent: list[str] = []
    with client:
        client.wait_until_caught_up(DEADLINE)
        sent += [frame["event"] for frame in order.finish() if frame["type"] == "order_event"]
        count = sum(frame["type"] == "order_event" for frame in other.finish())
        until(lambda: len(seen[other.order_id]) == count)
        assert not seen[order.order_id]
        mended.set()
        until(lambda: len(seen[order.order_id]) == len(sent))
    with JournalReader(path) as journal:
        stored = [s.id for s in journal.find(order_id=order.order_id, of_type="order_event")]
    assert seen[order.order_id] == stored
    assert states(path)["pending"] == 0


def test_what_waits_to_be_tried_again_when_the_stream_stops_is_in_its_report(
    agg: Simulator, stream: MakeStream, path: pathlib.Path, until: Until
) -> None:
    client = stream(journal=JournalOptions(path=path, retry_delay=3600.0, retry_delay_maximum=3600.0))
    contexts: list[BaseException | None] = []

    @client.on("order_event", "filled")
    def bad(event: OrderEvent) -> None:
        raise RuntimeError("not yet")

    @client.on_error
    def failed(error: BaseException, event: aggstream.Event) -> None:
        contexts.append(error.__context__)

    client.start()
    client.wait_until_caught_up(DEADLINE)
    order = agg.begin_order(USER, scenario="filled")
    frames = order.finish()
    until(lambda: contexts)
    until(lambda: client.health().delivered >= len(frames))
    report = client.stop()
    assert report.undelivered == states(path)["pending"] > 0
    assert contexts == [None]


def test_what_fails_again_and_again_is_set_aside_and_what_follows_goes_on(
    agg: Simulator, stream: MakeStream, path: pathlib.Path, until: Until, caplog: pytest.LogCaptureFixture
) -> None:
    # It may fail three times, and is given up then, by this process or by the next.
    client = stream(journal=impatient(path, max_attempts=3))
    calls: list[OrderEvent] = []
    ends: list[OrderEvent] = []

    @client.on("order_event", "dag_started")
    def bad(event: OrderEvent) -> None:
        calls.append(event)
        raise RuntimeError("never\n")

    client.on("order_event", "filled")(ends.append)
    with client:
        client.wait_until_caught_up(DEADLINE)
        agg.place_order(USER, scenario="filled")
        until(lambda: ends)
    assert len(calls) == 3
    assert client.health().dead == 1
    assert "aggstream journal show" in caplog.text
    with JournalReader(path) as journal:
        [dead] = journal.find(state="dead")
    assert (dead.id, dead.attempts, dead.sub_event) == (calls[0].id, 3, "dag_started")
    assert dead.last_error is not None
    assert "RuntimeError: never" in dead.last_error
    assert retry(path) == 1
    again = stream()
    seen: list[OrderEvent] = []
    again.on("order_event", "dag_started")(seen.append)
    again.start()
    until(lambda: seen)
    again.stop()
    assert (seen[0].id, seen[0].redelivered) == (dead.id, True)
    assert states(path)["dead"] == states(path)["pending"] == 0


class Away(Exception):
    """The database of the handlers is not there."""


@pytest.mark.parametrize("also_broken", [False, True])
def test_a_handler_that_needs_what_is_away_is_called_until_it_is_back(
    agg: Simulator,
    stream: MakeStream,
    path: pathlib.Path,
    until: Until,
    caplog: pytest.LogCaptureFixture,
    also_broken: bool,
) -> None:
    client = stream(journal=impatient(path, max_attempts=1, outage_errors=(Away, ConnectionError)))
    is_back = threading.Event()
    calls: list[OrderEvent] = []
    done: list[OrderEvent] = []

    # Both handlers of an attempt see the same: else one alone may fail, which counts.
    was_back = [False]

    @client.on("order_event", "filled")
    def broken(event: OrderEvent) -> None:
        was_back[0] = is_back.is_set()
        if also_broken and not was_back[0]:
            raise RuntimeError("this alone would have set it aside")

    @client.on("order_event", "filled")
    def needs(event: OrderEvent) -> None:
        calls.append(event)
        if not (was_back[0] if also_broken else is_back.is_set()):
            raise Away
        done.append(event)

    with client:
        client.wait_until_caught_up(DEADLINE)
        agg.place_order(USER, scenario="filled")
        until(lambda: len(calls) > 20)
        assert states(path)["dead"] == 0
        is_back.set()
        until(lambda: done)
    assert {event.id for event in calls} == {event.id for event in done}
    assert "something that it needs is away: 'Away: '" in caplog.text
    assert "nothing is lost" in caplog.text
    assert ("Traceback" in caplog.text) == also_broken
    with JournalReader(path) as journal:
        [stored] = [s for s in journal.find(limit=1000) if s.sub_event == "filled"]
    assert (stored.state, stored.attempts) == ("done", 0)


def test_what_is_away_counts_no_failure_and_what_is_broken_counts_on(
    agg: Simulator, stream: MakeStream, path: pathlib.Path, until: Until
) -> None:
    client = stream(journal=impatient(path, max_attempts=3, outage_errors=(Away,)))
    errors = [RuntimeError(), Away(), Away(), Away(), RuntimeError(), Away(), RuntimeError()]
    left = iter(errors)

    @client.on("order_event", "filled")
    def fail(event: OrderEvent) -> None:
        raise next(left)

    with client:
        client.wait_until_caught_up(DEADLINE)
        agg.place_order(USER, scenario="filled")
        until(lambda: states(path)["dead"])
    assert next(left, None) is None
    with JournalReader(path) as journal:
        [dead] = journal.find(state="dead")
    assert dead.attempts == 3


def test_stopping_waits_for_nothing_that_is_away_and_the_next_stream_delivers_it(
    agg: Simulator, stream: MakeStream, path: pathlib.Path, until: Until
) -> None:
    patient = JournalOptions(path=path, retry_delay=3600.0, retry_delay_maximum=3600.0, outage_errors=(Away,))
    client = stream(journal=patient)
    calls: list[OrderEvent] = []

    @client.on("order_event", "filled")
    def needs(event: OrderEvent) -> None:
        calls.append(event)
        raise Away

    client.start()
    client.wait_until_caught_up(DEADLINE)
    agg.place_order(USER, scenario="filled")
    until(lambda: calls)
    report = client.stop(timeout=DEADLINE)
    assert not report.running
    assert report.undelivered == states(path)["pending"] > 0
    again = stream()
    done: list[OrderEvent] = []
    again.on("order_event", "filled")(done.append)
    with again:
        until(lambda: done)
    assert (done[0].id, done[0].redelivered) == (calls[0].id, True)
    assert states(path)["pending"] == 0


# --- another process ------------------------------------------------------------------------------------


def test_what_was_not_finished_is_delivered_again_in_order_and_marked(
    agg: Simulator, stream: MakeStream, path: pathlib.Path, until: Until
) -> None:
    client = stream()
    entered, release = threading.Event(), threading.Event()
    order = agg.begin_order(USER, scenario="partial")

    @client.on("order_event", "dag_started")
    def stuck(event: OrderEvent) -> None:
        entered.set()
        release.wait(DEADLINE)

    client.start()
    client.wait_until_caught_up(DEADLINE)
    sent = len(order.advance(8))
    assert entered.wait(DEADLINE)
    until(lambda: sum(states(path).values()) == sent)
    assert not client.stop(timeout=0.05)
    release.set()
    assert client.wait(DEADLINE)
    with JournalReader(path) as journal:
        unfinished = [stored.id for stored in journal.find(state="pending")]
    assert len(unfinished) >= sent - 2

    again = stream()
    seen: list[aggstream.Event] = []
    again.on("*")(seen.append)
    order.finish()  # while nobody was there
    with again:
        again.wait_until_caught_up(DEADLINE)
        until(lambda: "reconciled" in [event.type for event in seen])
    users = [event for event in seen if isinstance(event, UserEvent)]
    assert [event.id for event in users[: len(unfinished)]] == unfinished
    assert [event.redelivered for event in users] == [True] * len(unfinished) + [False] * (
        len(users) - len(unfinished)
    )
    # And what happened while no process was there is a gap like any other.
    assert any(isinstance(event, Gap) for event in seen)
    [end] = [event for event in users if isinstance(event, OrderEvent) and event.is_terminal]
    assert (end.event, end.source) == ("filled", "reconcile")


def test_what_is_done_is_not_delivered_again_by_stream_or_rest(
    agg: Simulator, stream: MakeStream, path: pathlib.Path, until: Until
) -> None:
    for _ in range(3):
        client = stream()
        seen: list[UserEvent] = []
        client.on(UserEvent)(seen.append)
        with client:
            client.wait_until_caught_up(DEADLINE)
            client.track(agg.place_order(USER, scenario="filled")).wait(DEADLINE)
        ends = [event for event in seen if isinstance(event, OrderEvent) and event.is_terminal]
        assert len(ends) == 1
        assert not ends[0].redelivered


def test_an_open_order_of_an_earlier_process_is_known(
    agg: Simulator, stream: MakeStream, path: pathlib.Path
) -> None:
    order = agg.begin_order(USER, scenario="filled")
    with stream(rest_url=None) as client:
        client.wait_until_live(DEADLINE)
        order.advance(3)
        client.track(agg.place_order(USER, scenario="failed")).wait(DEADLINE)
    with stream(rest_url=None) as client:
        client.wait_until_live(DEADLINE)
        assert client.orders[order.order_id].status == "submitted"
        order.finish()
        assert client.track(order.order_id).wait(DEADLINE).is_known
    ended = order.order_id
    with stream(rest_url=None) as client:
        # Long after it has ended, and with nobody to ask but the journal.
        assert client.track(ended).wait(DEADLINE).verdict is aggstream.Verdict.FILLED


def test_done_events_can_be_played_again(
    agg: Simulator, stream: MakeStream, path: pathlib.Path, until: Until
) -> None:
    with stream() as client:
        client.wait_until_caught_up(DEADLINE)
        order_id = agg.place_order(USER, scenario="filled")
        client.track(order_id).wait(DEADLINE)
    count = replay(path, order_id=order_id)
    assert count > 5
    again = stream()
    seen: list[UserEvent] = []
    again.on(UserEvent)(seen.append)
    with again:
        until(lambda: len(seen) >= count)
    assert all(event.redelivered for event in seen[:count])
    assert again.health().counters.redelivered == count


def test_more_unfinished_events_than_the_queue_holds_are_delivered_as_handlers_make_room(
    agg: Simulator, stream: MakeStream, path: pathlib.Path, until: Until
) -> None:
    with stream() as client:
        client.wait_until_caught_up(DEADLINE)
        for order_id in agg.place_orders(USER, 40):
            client.track(order_id).wait(DEADLINE)
    count = replay(path, first=0)
    again = stream(queue_size=10)
    seen: list[str] = []
    depths: list[int] = []

    @again.on(UserEvent)
    def handle(event: UserEvent) -> None:
        seen.append(event.id)
        depths.append(again.health().queue_depth)

    with again:
        until(lambda: len(seen) >= count)
    with JournalReader(path) as journal:
        assert seen[:count] == [stored.id for stored in journal.find(limit=count)]
    assert max(depths[: count // 2]) <= 11


# --- one owner, one user --------------------------------------------------------------------------------


def test_a_journal_has_one_owner_and_the_second_can_start_once_the_first_has_stopped(stream: MakeStream) -> None:
    first, second = stream(), stream()
    first.start()
    with pytest.raises(aggstream.JournalInUse):
        second.start()
    first.stop()
    second.start()
    second.wait_until_caught_up(DEADLINE)


def test_a_journal_belongs_to_one_user(agg: Simulator, stream: MakeStream) -> None:
    with stream() as client:
        client.wait_until_live(DEADLINE)
        with pytest.raises(aggstream.StateError, match="journal"):
            client.switch_user("another-token")
    other = stream("usr_2")
    other.start()
    with pytest.raises(aggstream.UserMismatch, match="journal"):
        other.wait(DEADLINE)


# --- a journal that breaks ------------------------------------------------------------------------------


def test_a_journal_that_is_none_refuses_the_start_or_is_left_out_loudly(
    agg: Simulator, stream: MakeStream, path: pathlib.Path, until: Until
) -> None:
    path.write_bytes(b"no database at all " * 1000)
    before = path.read_bytes()
    client = stream()
    with pytest.raises(aggstream.JournalCorrupt):
        client.start()
    without = stream(journal=JournalOptions(path=path, on_failure="continue"))
    seen: list[aggstream.Event] = []
    without.on("*")(seen.append)
    with without:
        without.wait_until_caught_up(DEADLINE)
        until(lambda: seen)
        assert isinstance(seen[0], JournalFailed)
        assert any("journal" in problem for problem in without.health().problems)
        assert without.track(agg.place_order(USER, scenario="filled")).wait(DEADLINE).is_known
    assert path.read_bytes() == before
    path.unlink()
    client.start()  # what was in the way is gone
    client.stop()


def fill_the_disk(client: aggstream.Client) -> None:
    """Let SQLite say that the disk is full, as it does when it is."""
    journal = client._lifetime.store
    assert isinstance(journal, Journal)
    with journal._file.lock:
        assert journal._file.connection is not None
        [pages] = journal._file.connection.execute("PRAGMA page_count").fetchone()
        journal._file.connection.execute(f"PRAGMA max_page_count = {pages}")


def test_a_full_disk_ends_the_stream_and_loses_nothing_that_is_stored(
    agg: Simulator, stream: MakeStream, path: pathlib.Path
) -> None:
    client = stream()
    seen: list[str] = []
    client.on(UserEvent)(lambda event: seen.append(event.id))
    client.start()
    client.wait_until_caught_up(DEADLINE)
    fill_the_disk(client)
    agg.place_orders(USER, 100)
    with pytest.raises(aggstream.JournalFull):
        client.wait(DEADLINE)
    with JournalReader(path) as journal:
        stored = [entry.id for entry in journal.export()]
    assert seen == stored[: len(seen)]  # nothing reached a handler that is not stored
    ends: list[str] = []
    again = stream()
    again.on("order_event", "filled", "failed", "cancelled", "expired")(lambda event: ends.append(event.order_id))
    with again:
        again.wait_until_caught_up(DEADLINE)
    known = {entry.order_id for entry in _terminal(path)}
    assert known == set(agg.terminal_orders(USER))


def _terminal(path: pathlib.Path) -> list[Any]:
    with JournalReader(path) as journal:
        return [entry for entry in journal.export() if entry.terminal]


def test_a_full_disk_can_be_told_and_left_behind(agg: Simulator, stream: MakeStream, path: pathlib.Path) -> None:
    client = stream(journal=JournalOptions(path=path, on_failure="continue"))
    failed: list[JournalFailed] = []
    client.on(JournalFailed)(failed.append)
    with client:
        client.wait_until_caught_up(DEADLINE)
        fill_the_disk(client)
        for order_id in agg.place_orders(USER, 100):
            assert client.track(order_id).wait(DEADLINE).is_known
    assert len(failed) == 1
    assert isinstance(failed[0].error, aggstream.JournalFull)
    assert client.health().delivered >= agg.books(USER).emitted


def test_a_wrong_journal_is_refused(client_of: MakeClient) -> None:
    for wrong in (7, b"bytes", ""):
        with pytest.raises(aggstream.ConfigurationError, match="journal"):
            client_of("ws://localhost:9/ws", journal=wrong)


def test_a_busy_stream_is_tidied_as_well(
    other_server: ServeFunction, client_of: MakeClient, until: Until, path: pathlib.Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(event_log, "_TIDY_EVERY", 0.01)
    is_over = threading.Event()

    def script(peer: Peer) -> None:
        peer.sign_in()
        for number in itertools.count(1):
            peer.send({**json.loads(BALANCE_UPDATE), "timestamp": number})
            if is_over.wait(0.0005):
                break

    journal = JournalOptions(path=path, keep_for=0.001, synchronous="normal")
    client = client_of(other_server(script).url, journal=journal, rest=None)
    client.start()
    try:
        until(lambda: client.health().counters.messages > 3000)
        with JournalReader(path) as reader:
            until(lambda: reader.counts().done < 1000)
    finally:
        is_over.set()


# --- a store of another make ----------------------------------------------------------------------------


class Cabinet:
    """Opens a store that is no `Journal`, and notes which threads have let go of it."""

    on_failure = "stop"

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path
        self.left: list[str] = []

    def open(self) -> EventStore:
        cabinet = self

        class Drawer(Journal):
            def leave(self) -> None:
                cabinet.left.append(threading.current_thread().name)

            def hint(self, seq: int) -> str:
                return f"look into drawer {seq}"

        return Drawer(impatient(self.path, max_attempts=1))


def test_a_store_of_another_make_is_used_and_each_thread_lets_go_of_it(
    agg: Simulator, stream: MakeStream, path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    cabinet = Cabinet(path)
    client = stream(journal=cabinet, workers=2)

    @client.on("order_event", "dag_started")
    def bad(event: OrderEvent) -> None:
        raise RuntimeError("never")

    with client:
        client.wait_until_caught_up(DEADLINE)
        client.track(agg.place_order(USER, scenario="filled")).wait(DEADLINE)
    assert sorted(cabinet.left) == ["aggstream-dispatch-1", "aggstream-dispatch-2", "aggstream-io"]
    assert states(path)["dead"] == 1
    assert "look into drawer" in caplog.text


@pytest.mark.parametrize("wrong", [5, object(), ""])
def test_what_opens_no_store_is_refused(stream: MakeStream, wrong: object) -> None:
    with pytest.raises(aggstream.ConfigurationError, match="journal"):
        stream(journal=wrong)
