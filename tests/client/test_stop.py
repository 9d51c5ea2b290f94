"""`stop()` returns in time, from wherever it is called and whatever goes on, and leaves no thread behind."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from clients import MakeClient
from other_server import Peer, ServeFunction
from raw_server import ServeBytes, drain, frame, read_request, upgrade
from service_messages import ORDER_SUBMITTED
from waiting import DEADLINE, Until

import aggstream

both = pytest.mark.parametrize("tls", [False, True], ids=["tcp", "tls"])
CONNECTED = frame(b'{"type":"connected","appId":"app_demo123"}')


def order(peer: Peer) -> None:
    peer.sign_in()
    peer.send(ORDER_SUBMITTED)
    peer.wait_closed()


def stops(client: aggstream.Client) -> None:
    """Stop a client that can stop at once; the limit is generous, and far from the timeouts of what goes on."""
    began = time.monotonic()
    assert client.stop(DEADLINE)
    assert time.monotonic() - began < DEADLINE / 2
    assert not any(client.health().threads.values())


# --- from where -----------------------------------------------------------------------------------------


@both
def test_from_on_error_it_asks_for_the_end(
    tls: bool, other_server: ServeFunction, client_of: MakeClient, trusting: ssl.SSLContext
) -> None:
    client = client_of(other_server(order, tls=tls).url, ssl_context=trusting)
    reports: list[aggstream.StopReport] = []

    @client.on("order_submitted")
    def fail(event: aggstream.Event) -> None:
        raise ValueError("on purpose")

    @client.on_error
    def stop(error: BaseException, event: aggstream.Event) -> None:
        reports.append(client.stop())

    client.start()
    assert client.wait(DEADLINE)
    assert len(reports) == 1


def test_from_a_token_function_it_asks_for_the_end(client_of: MakeClient) -> None:
    client: aggstream.Client

    def token() -> str:
        client.stop()
        return "t0ken"

    client = client_of("ws://127.0.0.1:9/ws", token=token)
    client.start()
    assert client.wait(DEADLINE)


@both
def test_from_a_signal_handler_while_the_main_thread_waits(
    tls: bool, other_server: ServeFunction, client_of: MakeClient, trusting: ssl.SSLContext
) -> None:
    client = client_of(other_server(order, tls=tls).url, ssl_context=trusting)
    before = signal.signal(signal.SIGUSR1, lambda number, frame: client.stop(DEADLINE) and None)
    try:
        main = threading.main_thread().ident
        assert main is not None
        client.once("order_submitted")(lambda event: signal.pthread_kill(main, signal.SIGUSR1))
        client.start()
        assert client.wait(DEADLINE)
    finally:
        signal.signal(signal.SIGUSR1, before)


@both
def test_from_many_threads_at_once_and_twice(
    tls: bool, other_server: ServeFunction, client_of: MakeClient, trusting: ssl.SSLContext
) -> None:
    client = client_of(other_server(order, tls=tls).url, ssl_context=trusting)
    client.start()
    client.wait_until_live(DEADLINE)
    together = threading.Barrier(8)
    reports: list[aggstream.StopReport] = []

    def stop() -> None:
        together.wait(DEADLINE)
        reports.append(client.stop(DEADLINE))

    threads = [threading.Thread(target=stop) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)
    assert reports == [aggstream.StopReport()] * 8
    assert client.stop() == aggstream.StopReport()


def test_before_the_start_it_does_nothing_and_the_client_can_still_be_started(
    other_server: ServeFunction, client_of: MakeClient
) -> None:
    client = client_of(other_server(order).url)
    assert client.stop()
    client.start()
    client.wait_until_live(DEADLINE)
    stops(client)


# --- during what ----------------------------------------------------------------------------------------


@contextlib.contextmanager
def slow_look_up(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Let looking up a name hang, as it does when the name server does not answer."""
    looking, done = threading.Event(), threading.Event()
    real = socket.getaddrinfo

    def hang(*args: object, **options: object) -> object:
        looking.set()
        assert done.wait(DEADLINE)
        return real(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    try:
        yield looking
    finally:
        done.set()


@both
def test_while_a_name_is_looked_up_it_returns_in_time_and_says_what_still_goes_on(
    tls: bool,
    other_server: ServeFunction,
    client_of: MakeClient,
    trusting: ssl.SSLContext,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    client = client_of(other_server(order, tls=tls).url, ssl_context=trusting)
    with slow_look_up(monkeypatch) as looking:
        client.start()
        assert looking.wait(DEADLINE)
        began = time.monotonic()
        report = client.stop(0.1)
        assert time.monotonic() - began < DEADLINE / 2
        assert report.running == ("opening a connection",)
    stops(client)


def hangs_in_the_handshake(sock: socket.socket) -> None:
    read_request(sock)
    drain(sock)


def never_says_connected(sock: socket.socket) -> None:
    upgrade(sock)
    drain(sock)


def never_says_authenticated(sock: socket.socket) -> None:
    upgrade(sock, also=CONNECTED)
    drain(sock)


def never_answers_the_close(sock: socket.socket) -> None:
    upgrade(sock, also=CONNECTED + frame(b'{"type":"authenticated","userId":"usr_1"}'))
    drain(sock)


@both
@pytest.mark.parametrize(
    "script", [hangs_in_the_handshake, never_says_connected, never_says_authenticated, never_answers_the_close]
)
def test_while_the_server_keeps_it_waiting(
    script: Callable[[socket.socket], object],
    tls: bool,
    raw_server: ServeBytes,
    client_of: MakeClient,
    trusting: ssl.SSLContext,
    until: Until,
) -> None:
    reached = threading.Event()

    def play(sock: socket.socket) -> None:
        reached.set()
        script(sock)

    client = client_of(raw_server(play, tls=tls).url, ssl_context=trusting, connect_timeout=3600.0)
    client.start()
    assert reached.wait(DEADLINE)
    if script is never_answers_the_close:
        client.wait_until_live(DEADLINE)
    elif script is not hangs_in_the_handshake:
        until(lambda: client.health().counters.connections)
    stops(client)


def test_while_tcp_connects(client_of: MakeClient, until: Until) -> None:
    # A listener whose queue is full swallows what comes.
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener, contextlib.ExitStack() as stack:
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        client = client_of(f"ws://127.0.0.1:{listener.getsockname()[1]}/ws", connect_timeout=3600.0)
        client.start()
        until(lambda: client.health().phase == "connecting")
        stops(client)


def test_between_two_attempts(client_of: MakeClient, until: Until) -> None:
    policy = aggstream.ReconnectPolicy(initial=3600.0, maximum=3600.0)
    client = client_of("ws://127.0.0.1:9/ws", reconnect=policy)
    client.start()
    until(lambda: client.health().phase == "waiting")
    stops(client)


@both
@pytest.mark.parametrize("live", [False, True], ids=["for the first token", "for another token"])
def test_while_a_token_is_asked_for(
    live: bool, tls: bool, other_server: ServeFunction, client_of: MakeClient, trusting: ssl.SSLContext
) -> None:
    asked, done = threading.Event(), threading.Event()
    tokens = ["t0ken"] if live else []

    def token() -> str:
        if tokens:
            return tokens.pop()
        asked.set()
        assert done.wait(DEADLINE)
        return "late"

    server = other_server(order, tls=tls)
    client = client_of(server.url, ssl_context=trusting, token=token, token_timeout=3600.0)
    client.start()
    if live:
        client.wait_until_live(DEADLINE)
        client.switch_user(token)
    assert asked.wait(DEADLINE)
    report = client.stop(0.1)
    done.set()
    assert report.running == ("waiting for the token provider",)
    stops(client)


@both
def test_while_reading_is_paused(
    tls: bool, other_server: ServeFunction, client_of: MakeClient, trusting: ssl.SSLContext, until: Until
) -> None:
    def script(peer: Peer) -> None:
        peer.sign_in()
        peer.send(*[ORDER_SUBMITTED] * 5000)
        peer.wait_closed()

    client = client_of(other_server(script, tls=tls).url, ssl_context=trusting, queue_size=10)
    may_go_on = threading.Event()
    seen: list[aggstream.Event] = []

    @client.on("order_submitted")
    def slow(event: aggstream.Event) -> None:
        assert may_go_on.wait(DEADLINE)
        seen.append(event)

    client.start()
    until(lambda: client.health().counters.pauses)
    report = client.stop(0.2)
    assert any("slow" in name for name in report.running)
    assert report.undelivered > 0
    delivered = len(seen)
    may_go_on.set()
    client.stop()
    assert len(seen) <= delivered + 1


INTERRUPTED = """
import signal, threading, aggstream
from aggstream.simulator import Simulator

hold, begun = threading.Event(), threading.Event()
with Simulator() as agg:
    client = aggstream.Client(app_id=agg.app_id, origin=agg.origin, url=agg.url, rest_url=agg.rest_url,
        token=agg.sign_in("u").access_token)

    @client.on("order_event", "dag_started")
    def slow(event):
        begun.set()
        hold.wait()

    client.start()
    agg.wait_for_connections(1)
    agg.place_order("u", scenario="filled")
    begun.wait()
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    try:
        client.stop(3600)
    except KeyboardInterrupt:
        report = client.stop(0.1)
    print(report.running, report.undelivered > 0, client.health().threads["aggstream-dispatch"])
    hold.set()
"""


def test_a_stop_that_was_interrupted_does_not_take_what_still_runs_for_ended() -> None:
    # What measures coverage has a lock of its own, which a KeyboardInterrupt in it leaves locked for ever.
    unmeasured = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    run = subprocess.run(
        [sys.executable, "-c", INTERRUPTED],
        env=unmeasured,
        check=True,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )
    assert run.stdout == "('slow',) True True\n", run.stderr


def test_a_second_stop_reports_what_the_first_one_left_undone(
    other_server: ServeFunction, client_of: MakeClient, until: Until
) -> None:
    def orders(peer: Peer) -> None:
        peer.sign_in()
        for _ in range(3):
            peer.send(ORDER_SUBMITTED)
        peer.wait_closed()

    client = client_of(other_server(orders).url)
    goes_on = threading.Event()
    client.on("order_submitted")(lambda event: goes_on.wait(DEADLINE))
    client.start()
    until(lambda: client.health().running)
    until(lambda: client.health().queue_depth >= 2)
    first = client.stop(0.05)
    goes_on.set()
    until(lambda: not any(client.health().threads.values()))
    second = client.stop()
    assert (second.undelivered, second.running) == (first.undelivered, ())
    assert first.undelivered >= 2
    assert not second
