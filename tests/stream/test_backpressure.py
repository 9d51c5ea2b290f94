"""Handlers that are slower than the stream: reading pauses, nothing of an order is lost, and all of it is told."""

from __future__ import annotations

import logging
import os
import socket
import ssl
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from clients import MakeClient
from other_server import Peer, ServeFunction
from raw_server import ServeBytes, frame, upgrade
from service_messages import BALANCE_UPDATE, ORDER_SUBMITTED
from waiting import DEADLINE, Until

import aggstream
from aggstream._base.stacks import stack_of
from aggstream._protocol.options import SessionOptions
from aggstream._protocol.session import Session
from aggstream._stream.backpressure import BackPressure
from aggstream.health import Counters
from aggstream.tokens._token import Token

both = pytest.mark.parametrize("tls", [False, True], ids=["tcp", "tls"])


def order(number: int, padding: str = "") -> str:
    return ORDER_SUBMITTED.replace("ord_abc123", f"ord_{number}").replace('"kalshi"', f'"kalshi{padding}"')


def balance(venue: str, cents: int) -> str:
    return BALANCE_UPDATE.replace("kalshi", venue).replace("94500", str(cents))


def sends(*messages: str) -> Callable[[Peer], None]:
    def script(peer: Peer) -> None:
        peer.sign_in()
        peer.send(*messages)
        peer.wait_closed()

    return script


class SlowHandler:
    """Takes what it is given, one at a time, and only once it is let."""

    def __init__(self) -> None:
        self.may_go_on = threading.Event()
        self.has_begun = threading.Event()
        self.seen: list[Any] = []

    def __call__(self, event: aggstream.Event) -> None:
        self.has_begun.set()
        assert self.may_go_on.wait(DEADLINE)
        self.seen.append(event)


@pytest.fixture
def slow() -> SlowHandler:
    return SlowHandler()


@both
@pytest.mark.parametrize(
    ("options", "padding"),
    [({"queue_size": 50}, ""), ({"limits": aggstream.Limits(queued_size=100_000)}, "x" * 1000)],
    ids=["number", "size"],
)
def test_reading_pauses_while_the_handlers_are_behind_and_nothing_is_lost(
    options: dict[str, Any],
    padding: str,
    tls: bool,
    slow: SlowHandler,
    other_server: ServeFunction,
    client_of: MakeClient,
    trusting: ssl.SSLContext,
    until: Until,
) -> None:
    count = 3_000
    server = other_server(sends(*(order(number, padding) for number in range(count))), tls=tls)
    # Pings would be overdue many times while it pauses: it must not blame the server for what it does not read.
    client = client_of(server.url, ssl_context=trusting, ping_interval=0.02, pong_timeout=0.1, **options)
    told: list[aggstream.Event] = []
    client.on(aggstream.OrderSubmitted)(slow)
    client.on(aggstream.LifecycleEvent)(told.append)
    client.start()
    until(lambda: any("paused" in problem for problem in client.health().problems))
    until(lambda: (client.health().silent_for or 0.0) > 0.5)
    depth = client.health().queue_depth
    slow.may_go_on.set()
    until(lambda: len(slow.seen) == count)
    until(lambda: client.health().ok)
    client.stop()

    assert depth < 1000
    assert [event.order_id for event in slow.seen] == [f"ord_{number}" for number in range(count)]
    kinds = [type(event) for event in told[:-2]]
    assert set(kinds[::2]) == {aggstream.ReadingPaused}
    assert set(kinds[1::2]) == {aggstream.ReadingResumed}
    assert len(kinds) % 2 == 0
    assert client.health().counters.pauses == len(kinds) // 2
    assert isinstance(told[0], aggstream.ReadingPaused)
    # Not compared with `depth`: what was on its way to other handlers may have got there since.
    assert 0 < told[0].waiting < 1000
    assert isinstance(told[1], aggstream.ReadingResumed)
    assert told[1].paused_for > 0.0
    assert isinstance(told[-1], aggstream.Stopped)
    assert client.health().counters.gaps == 0


def is_paused(client: aggstream.Client) -> bool:
    return any("paused" in problem for problem in client.health().problems)


def test_binary_messages_count_as_well(
    slow: SlowHandler, other_server: ServeFunction, client_of: MakeClient, until: Until
) -> None:
    def script(peer: Peer) -> None:
        peer.sign_in()
        for _ in range(100):
            peer.ws.send(b"\xff" * 10_000)
        peer.wait_closed()

    client = client_of(other_server(script).url, limits=aggstream.Limits(queued_size=1_000_000))
    client.on(aggstream.DecodeFailed)(slow)
    client.start()
    until(lambda: is_paused(client))
    # Each is shown as a text of four times its length.
    assert client.health().queue_depth < 75
    slow.may_go_on.set()
    until(lambda: len(slow.seen) == 100)
    assert {event.text for event in slow.seen} == {"\\xff" * 10_000}


def test_what_was_held_until_the_user_was_signed_in_counts_as_well(
    slow: SlowHandler, other_server: ServeFunction, client_of: MakeClient, until: Until
) -> None:
    size = 1_000_000
    messages = [order(number, "x" * (size // 100)) for number in range(60)]

    def script(peer: Peer) -> None:
        peer.greet()
        peer.receive()
        peer.send(*messages[:30])
        peer.send({"type": "authenticated", "userId": "usr_xyz789"})
        # By themselves these are not too large.
        peer.send(*messages[30:])
        peer.wait_closed()

    client = client_of(other_server(script).url, limits=aggstream.Limits(queued_size=size))
    client.on(aggstream.OrderSubmitted)(slow)
    client.start()
    until(lambda: is_paused(client))
    slow.may_go_on.set()
    until(lambda: len(slow.seen) == 60)
    assert [event.order_id for event in slow.seen] == [f"ord_{number}" for number in range(60)]


def test_a_session_that_must_end_while_reading_is_paused_ends_and_the_end_of_the_pause_is_told(
    slow: SlowHandler, other_server: ServeFunction, client_of: MakeClient, until: Until
) -> None:
    is_over = threading.Event()

    def token() -> str:
        if is_over.is_set():
            raise aggstream.AuthenticationRejected("the session is over", final=True)
        return "token-of-xyz789"

    client = client_of(other_server(sends(*map(order, range(3_000)))).url, token=token, queue_size=50)
    told: list[type[aggstream.Event]] = []
    client.on(aggstream.OrderSubmitted)(slow)
    client.on(aggstream.LifecycleEvent)(lambda event: told.append(type(event)))
    client.start()
    until(lambda: slow.has_begun.is_set() and is_paused(client))
    is_over.set()
    client.switch_user(token)
    until(lambda: client.health().phase == "stopped")
    slow.may_go_on.set()
    with pytest.raises(aggstream.AuthenticationRejected, match="the session is over"):
        client.wait(DEADLINE)
    assert told == [
        aggstream.ReadingPaused,
        aggstream.ReadingResumed,
        aggstream.Disconnected,
        aggstream.Stopped,
    ]


def test_a_server_that_goes_on_sending_while_the_stream_stops_does_not_fill_the_memory(
    slow: SlowHandler, raw_server: ServeBytes, client_of: MakeClient, until: Until
) -> None:
    def flood(sock: socket.socket) -> None:
        upgrade(sock, also=frame(b'{"type": "connected", "appId": "app_demo123"}'))
        sock.recv(65536)
        sock.sendall(frame(b'{"type": "authenticated", "userId": "usr_xyz789"}'))
        while True:
            sock.sendall(frame(order(1).encode()) * 50)

    client = client_of(raw_server(flood).url, queue_size=50, close_timeout=1.0)
    client.on(aggstream.OrderSubmitted)(slow)
    client.start()
    until(lambda: is_paused(client))
    received = client.health().counters.messages
    asks = threading.Thread(target=lambda: client.stop(0.01))
    asks.start()
    until(lambda: client.health().phase == "stopped")
    asks.join()
    assert client.health().counters.messages == received
    slow.may_go_on.set()


@both
def test_only_the_newest_balance_of_each_venue_is_delivered_if_that_is_asked_for(
    tls: bool,
    slow: SlowHandler,
    other_server: ServeFunction,
    client_of: MakeClient,
    trusting: ssl.SSLContext,
    until: Until,
) -> None:
    count = 500
    messages = [
        text for n in range(count) for text in (order(n), balance("kalshi", n), balance("polymarket", 1000 + n))
    ]

    def script(peer: Peer) -> None:
        peer.sign_in()
        peer.send(messages[0])
        assert slow.has_begun.wait(DEADLINE)
        peer.send(*messages[1:])
        peer.wait_closed()

    # The balances do not count, because they find their places taken.
    client = client_of(
        other_server(script, tls=tls).url, ssl_context=trusting, coalesce_balances=True, queue_size=2 * count
    )
    for kind in (aggstream.UserEvent, aggstream.BalancesCoalesced):
        client.on(kind)(slow)
    client.start()
    until(lambda: client.health().counters.user_events == len(messages))
    # They are counted before they are queued. At last all orders wait, and a balance of each venue.
    until(lambda: client.health().queue_depth == count + 2)
    slow.may_go_on.set()
    client.stop(DEADLINE)

    orders = [event.order_id for event in slow.seen if isinstance(event, aggstream.OrderSubmitted)]
    assert orders == [f"ord_{n}" for n in range(count)]
    rest = [event for event in slow.seen if not isinstance(event, aggstream.OrderSubmitted)]
    assert [type(event) for event in rest] == [aggstream.BalancesCoalesced, aggstream.BalanceUpdate] * 2
    assert [(event.venue, event.count) for event in rest[::2]] == [("kalshi", 499), ("polymarket", 499)]
    assert [(event.venue, event.trading_balance_cents) for event in rest[1::2]] == [
        ("kalshi", 499),
        ("polymarket", 1499),
    ]
    assert client.health().coalesced == 998
    assert client.health().counters.pauses == 0


def test_without_being_asked_every_balance_is_delivered(
    slow: SlowHandler, other_server: ServeFunction, client_of: MakeClient, until: Until
) -> None:
    client = client_of(other_server(sends(*(balance("kalshi", n) for n in range(100)))).url)
    client.on(aggstream.BalanceUpdate)(slow)
    client.start()
    until(lambda: client.health().counters.user_events == 100)
    slow.may_go_on.set()
    client.stop(DEADLINE)
    assert [event.trading_balance_cents for event in slow.seen] == list(range(100))
    assert client.health().coalesced == 0


@both
def test_a_handler_that_does_not_return_is_told_with_its_name_and_the_place_where_it_is(
    tls: bool,
    slow: SlowHandler,
    other_server: ServeFunction,
    client_of: MakeClient,
    trusting: ssl.SSLContext,
    until: Until,
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = other_server(sends(order(1)), tls=tls)
    client = client_of(server.url, ssl_context=trusting, slow_handler_duration=0.05)

    @client.on(aggstream.OrderSubmitted)
    def settle_the_books(event: aggstream.Event) -> None:
        slow(event)

    client.start()

    def told() -> list[str]:
        return [record.getMessage() for record in caplog.records if "settle_the_books" in record.getMessage()]

    until(lambda: len(told()) >= 3)  # each time it has taken twice as long
    assert any("settle_the_books has run for" in problem for problem in client.health().problems)
    slow.may_go_on.set()
    client.stop()
    assert "at one order_submitted" in told()[0]
    assert "may_go_on.wait(DEADLINE)" in told()[0]
    assert "aggstream-dispatch" in told()[0]
    assert len(told()) < 20
    # What stands above the handler is no news of it.
    assert f"{Path(aggstream.__file__).parent}{os.sep}" not in told()[0]
    assert "threading.py" not in told()[0].partition("slow(event)")[0]


def test_the_place_of_a_handler_that_is_stuck_is_told_once(
    slow: SlowHandler,
    other_server: ServeFunction,
    client_of: MakeClient,
    until: Until,
    caplog: pytest.LogCaptureFixture,
) -> None:
    client = client_of(other_server(sends(order(1))).url, slow_handler_duration=0.5, name="alice")
    client.on(aggstream.OrderSubmitted)(slow)
    client.start()
    until(lambda: "may_go_on.wait(DEADLINE)" in caplog.text)
    caplog.clear()
    for _ in range(2):
        assert not client.stop(timeout=0.01)
    slow.may_go_on.set()
    assert "alice: stopped; 1 events undelivered, still running: " in caplog.text
    assert "may_go_on.wait" not in caplog.text


def test_the_place_of_a_handler_that_was_not_told_is_told_when_it_is_given_up(
    slow: SlowHandler,
    other_server: ServeFunction,
    client_of: MakeClient,
    until: Until,
    caplog: pytest.LogCaptureFixture,
) -> None:
    client = client_of(other_server(sends(order(1))).url, slow_handler_duration=None, name="alice")
    client.on(aggstream.OrderSubmitted)(slow)
    client.start()
    until(lambda: any("may_go_on" in stack_of(stuck.thread) for stuck in client._dispatcher.running()))
    for _ in range(2):
        assert not client.stop(timeout=0.01)
    slow.may_go_on.set()
    places = [text for record in caplog.records if "is at\n" in (text := record.getMessage())]
    assert len(places) == 1
    assert places[0].startswith("alice: the handler <")
    assert "may_go_on.wait(DEADLINE)" in places[0]


def test_a_handler_that_is_stuck_after_the_stream_has_ended_is_told_as_well(
    slow: SlowHandler,
    other_server: ServeFunction,
    client_of: MakeClient,
    until: Until,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def script(peer: Peer) -> None:
        peer.sign_in()
        peer.send(order(1))
        assert slow.has_begun.wait(DEADLINE)
        peer.ws.close(4401, "no more")

    policy = aggstream.ReconnectPolicy(decide=lambda error: False)
    client = client_of(other_server(script).url, slow_handler_duration=0.05, reconnect=policy)
    client.on(aggstream.OrderSubmitted)(slow)
    client.start()
    ended: list[BaseException] = []

    def wait() -> None:
        try:
            client.wait()
        except aggstream.AggStreamError as error:
            ended.append(error)

    waiting = threading.Thread(target=wait)
    waiting.start()
    until(lambda: client.health().phase == "stopped")
    caplog.clear()
    until(lambda: "SlowHandler" in caplog.text)
    slow.may_go_on.set()
    waiting.join(DEADLINE)
    assert [type(error) for error in ended] == [aggstream.AuthenticationRejected]


def test_a_quick_handler_is_never_told(
    other_server: ServeFunction, client_of: MakeClient, until: Until, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    client = client_of(other_server(sends(*map(order, range(200)))).url, slow_handler_duration=30.0)
    seen: list[aggstream.Event] = []
    client.on(aggstream.OrderSubmitted)(seen.append)
    client.start()
    until(lambda: len(seen) == 200)
    client.stop()
    assert caplog.records == []


class Calls:
    """Stands for the queue and for the pipeline: says who is behind, and writes down what follows."""

    depth = 5

    def __init__(self) -> None:
        self.handlers_are_behind = False
        self.followed: list[str] = []

    def should_pause(self) -> bool:
        return self.handlers_are_behind

    def put(self, event: aggstream.Event) -> None:
        self.followed.append(event.type)

    def overflowed(self, now: float, since: float) -> None:
        self.followed.append(f"look at REST from {since} to {now}")


def test_a_pause_is_followed_by_a_look_at_rest_that_begins_where_it_began() -> None:
    calls: Any = Calls()
    pressure = BackPressure(calls, calls, Counters(), "test")
    session = Session(SessionOptions(), Token.of("t"))
    calls.handlers_are_behind = True
    pressure.update(session, 1.0)
    assert pressure.paused
    pressure.update(session, 2.0)
    calls.handlers_are_behind = False
    pressure.update(session, 4.0)
    assert calls.followed == ["reading_paused", "reading_resumed", "look at REST from 1.0 to 4.0"]
