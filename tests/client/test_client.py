"""The facade: starting, stopping, waiting, pulling, and telling how it is."""

from __future__ import annotations

import datetime as dt
import itertools
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from clients import MakeClient, Run
from other_server import OtherServer, Peer, ServeFunction
from raw_server import ServeBytes, drain, frame, upgrade
from service_messages import BALANCE_UPDATE, ORDER_EVENT, ORDER_SUBMITTED
from waiting import DEADLINE, Until

import aggstream
from aggstream.journal import JournalOptions


def quiet(peer: Peer) -> None:
    peer.sign_in()
    peer.wait_closed()


@pytest.fixture
def talking(other_server: ServeFunction) -> tuple[OtherServer, list[Peer]]:
    """A server whose connections the test itself makes talk."""
    peers: list[Peer] = []

    def script(peer: Peer) -> None:
        peer.sign_in()
        peers.append(peer)
        peer.wait_closed()

    return other_server(script), peers


# --- starting and stopping ------------------------------------------------------------------------------


def test_a_client_that_is_never_started_holds_nothing_and_can_be_stopped(client_of: MakeClient) -> None:
    client = client_of("ws://localhost:9/ws")
    assert client.stop()
    assert client.health().phase == "idle"
    assert not client.health().ok
    with pytest.raises(aggstream.StateError, match="start"):
        client.wait()
    with pytest.raises(aggstream.StateError, match="does not run"):
        client.wait_for("order_submitted", timeout=1)


def test_starting_twice_is_an_error(other_server: ServeFunction, client_of: MakeClient) -> None:
    client = client_of(other_server(quiet).url)
    client.start()
    with pytest.raises(aggstream.StateError, match="make another"):
        client.start()
    client.stop()
    with pytest.raises(aggstream.StateError, match="make another"):
        client.start()


def test_a_with_statement_starts_and_stops(
    other_server: ServeFunction, client_of: MakeClient, until: Until
) -> None:
    with client_of(other_server(quiet).url) as client:
        until(lambda: client.health().ok)
    assert client.health().phase == "stopped"


def test_what_the_program_raises_in_a_with_statement_is_not_masked(
    other_server: ServeFunction, client_of: MakeClient
) -> None:
    client = client_of(other_server(lambda peer: peer.ws.close(4401)).url)

    def program() -> None:
        with client:
            with pytest.raises(aggstream.AggStreamError):
                client.wait(DEADLINE)
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        program()


def test_what_ended_the_stream_is_raised_wherever_the_user_waits(
    other_server: ServeFunction, client_of: MakeClient
) -> None:
    client = client_of(other_server(lambda peer: peer.ws.close(4403, "unknown app")).url)
    events = client.events()
    client.start()
    with pytest.raises(aggstream.ServerError, match="app id") as caught:
        client.wait(DEADLINE)
    for call in (client.stop, client.wait, client.run, lambda: client.wait_for("*", timeout=1)):
        with pytest.raises(aggstream.ServerError) as again:
            call()
        assert again.value is caught.value
    with pytest.raises(aggstream.ServerError):
        list(events)
    assert client.health().phase == "stopped"


def test_waiting_has_a_timeout_and_ends_with_the_stream(
    other_server: ServeFunction, client_of: MakeClient
) -> None:
    client = client_of(other_server(quiet).url)
    client.start()
    assert not client.wait(timeout=0.01)
    client.stop()
    assert client.wait()


def test_a_handler_may_stop_the_client(
    talking: tuple[OtherServer, list[Peer]], client_of: MakeClient, until: Until
) -> None:
    server, peers = talking
    client = client_of(server.url)
    reports: list[aggstream.StopReport] = []
    last: list[str] = []

    @client.on("order_submitted")
    def stop(event: aggstream.OrderSubmitted) -> None:
        until(lambda: client.health().counters.user_events == 2)  # the server has said all that it has to say
        reports.append(client.stop())

    client.on("*")(lambda event: last.append(event.type))
    client.start()
    until(lambda: peers)
    peers[0].send(ORDER_SUBMITTED, BALANCE_UPDATE)
    assert client.wait(DEADLINE)
    assert reports[0].running
    assert "balance_update" in last  # what was received before the end is delivered
    assert last[-1] == "stopped"


def test_stop_returns_in_time_and_tells_what_a_stuck_handler_leaves_undone(
    talking: tuple[OtherServer, list[Peer]], client_of: MakeClient, until: Until
) -> None:
    server, peers = talking
    client = client_of(server.url)
    release, entered = threading.Event(), threading.Event()
    handled: list[aggstream.Event] = []

    @client.on("order_submitted")
    def stuck(event: aggstream.OrderSubmitted) -> None:
        handled.append(event)
        entered.set()
        release.wait(DEADLINE)

    client.start()
    until(lambda: peers)
    peers[0].send(ORDER_SUBMITTED, ORDER_SUBMITTED)
    assert entered.wait(DEADLINE)
    until(lambda: client.health().queue_depth == 2)
    assert "stuck" in next(iter(client.health().running))
    report = client.stop(timeout=0.1)
    assert not report
    assert report.undelivered >= 2
    assert "stuck" in report.running[0]
    release.set()
    assert client.wait(DEADLINE)
    assert len(handled) == 1  # what was given up is not delivered late


def test_waiting_on_a_thread_of_ours_is_refused_instead_of_hanging(
    other_server: ServeFunction, client_of: MakeClient
) -> None:
    client = client_of(other_server(quiet).url)
    refused: list[Exception] = []
    pulled = client.events()

    @client.on("authenticated")
    def wrong(event: aggstream.Authenticated) -> None:
        for call in (client.wait, client.run, lambda: client.wait_for("*"), lambda: next(pulled)):
            try:
                call()
            except aggstream.StateError as error:
                refused.append(error)
        done.set()

    done = threading.Event()
    with client:
        assert done.wait(DEADLINE)
    assert len(refused) == 4


def test_sys_exit_in_a_handler_ends_the_program_and_not_just_a_thread(
    other_server: ServeFunction, client_of: MakeClient
) -> None:
    client = client_of(other_server(quiet).url)
    client.on("authenticated")(lambda event: sys.exit(7))
    with pytest.raises(SystemExit) as caught:
        client.run()
    assert caught.value.code == 7


# --- events ---------------------------------------------------------------------------------------------


def test_events_can_be_pulled_and_nothing_is_lost_between_two_loops(
    talking: tuple[OtherServer, list[Peer]], client_of: MakeClient, until: Until
) -> None:
    server, peers = talking
    client = client_of(server.url)
    first = client.events(timeout=DEADLINE)
    with client:
        assert [next(first).type, next(first).type] == ["connected", "authenticated"]
        until(lambda: peers)
        peers[0].send(ORDER_SUBMITTED, BALANCE_UPDATE)
        assert next(first).type == "order_submitted"
        assert [event.type for event in client.events(timeout=0.2)] == ["balance_update"]
        peers[0].send(ORDER_EVENT)
        assert next(client.events(timeout=DEADLINE)).type == "order_event"
    assert [event.type for event in first] == ["disconnected", "stopped"]


def test_a_full_pull_buffer_holds_the_stream_up_and_loses_nothing(
    talking: tuple[OtherServer, list[Peer]], client_of: MakeClient, until: Until
) -> None:
    server, peers = talking
    client = client_of(server.url, queue_size=4)
    events = client.events(timeout=DEADLINE)
    with client:
        until(lambda: peers)
        count = 50
        peers[0].send(*[ORDER_SUBMITTED.replace("ord_abc123", str(number)) for number in range(count)])
        until(lambda: client.health().queue_depth >= 4)
        # Pauses are told in the same queue, as often as they come about.
        submitted = (event.order_id for event in events if isinstance(event, aggstream.OrderSubmitted))
        assert list(itertools.islice(submitted, count)) == [str(number) for number in range(count)]


def test_a_closed_iterator_holds_nothing_up(
    talking: tuple[OtherServer, list[Peer]], client_of: MakeClient, until: Until
) -> None:
    server, peers = talking
    client = client_of(server.url, queue_size=2)
    with client, client.events(timeout=DEADLINE):
        until(lambda: peers)
        peers[0].send(*[ORDER_SUBMITTED] * 20)
        until(lambda: client.health().queue_depth >= 2)
    assert client.health().delivered >= 22


def test_wait_for_returns_the_event_that_matches_all_fields(
    talking: tuple[OtherServer, list[Peer]], client_of: MakeClient, until: Until
) -> None:
    server, peers = talking
    client = client_of(server.url)
    with client:
        until(lambda: peers)

        def talk() -> None:
            until(lambda: client._parts.waiting._expectations)
            peers[0].send(ORDER_SUBMITTED, ORDER_EVENT, ORDER_EVENT.replace("dag_started", "order_filled"))

        talker = threading.Thread(target=talk)
        talker.start()
        event = client.wait_for("order_event", event="filled", order_id="ord_abc123", timeout=DEADLINE)
        talker.join()
    assert event.event == "order_filled"
    assert event.is_terminal


def test_wait_for_says_when_nothing_came_in_time(other_server: ServeFunction, client_of: MakeClient) -> None:
    with client_of(other_server(quiet).url) as client:
        client.wait_until_live(DEADLINE)
        with pytest.raises(aggstream.WaitTimeout) as caught:
            client.wait_for(aggstream.OrderSubmitted, timeout=0.01, order_id="ord_1", side="buy")
        assert str(caught.value) == "no order_submitted with this order_id and side within 0.01 s"
        with pytest.raises(TimeoutError, match=r"^no never_heard_of with this orderId within 0\.01 s$"):
            client.wait_for("never_heard_of", timeout=0.01, orderId="ord_1")
        with pytest.raises(TimeoutError, match=r"^no order_event 'filled' within 0\.01 s$"):
            client.wait_for("order_event", event="order_filled", timeout=0.01)
        with pytest.raises(TimeoutError, match=r"^no UserEvent within 0\.01 s$"):
            client.wait_for(aggstream.UserEvent, timeout=0.01)


def test_wait_for_says_if_nothing_could_come(client_of: MakeClient, until: Until) -> None:
    never = aggstream.ReconnectPolicy(initial=3600, maximum=3600)
    with client_of("ws://127.0.0.1:9/ws", reconnect=never) as client:
        until(lambda: client.health().phase == "waiting")
        with pytest.raises(aggstream.WaitTimeout) as caught:
            client.wait_for("order_submitted", timeout=0.01)
    assert str(caught.value).startswith(
        "no order_submitted within 0.01 s, and the stream is not live: no TCP connection to 127.0.0.1:9: "
    )


def test_wait_for_ends_with_the_stream(other_server: ServeFunction, client_of: MakeClient, until: Until) -> None:
    client = client_of(other_server(quiet).url)
    client.start()

    def stop() -> None:
        until(lambda: client._parts.waiting._expectations)
        client.stop()

    stopper = threading.Thread(target=stop)
    stopper.start()
    with pytest.raises(aggstream.StateError, match="does not run"):
        client.wait_for("order_submitted", timeout=DEADLINE)
    stopper.join()


def test_wait_for_refuses_a_field_that_can_never_match(client_of: MakeClient) -> None:
    client = client_of("ws://localhost:9/ws")
    with pytest.raises(aggstream.ConfigurationError, match="orderId"):
        client.wait_for("order_submitted", timeout=1, orderId="ord_1")


# --- health ---------------------------------------------------------------------------------------------


def test_health_is_good_only_while_the_stream_is_live(
    other_server: ServeFunction, client_of: MakeClient, until: Until
) -> None:
    client = client_of(other_server(quiet).url, name="alice")
    assert not client.health().ok
    assert client.health().threads == {"alice-dispatch": False, "alice-io": False}
    client.start()
    until(lambda: client.health().ok)
    health = client.health()
    assert health.phase == "live"
    assert health.user_id == "usr_xyz789"
    assert health.threads == {"alice-dispatch": True, "alice-io": True}
    assert health.live_for is not None
    assert health.silent_for is not None
    client.stop()
    assert client.health().problems == ("not live, but stopped",)


def test_health_is_bad_while_the_io_thread_is_stuck_past_the_servers_deadline(
    other_server: ServeFunction, client_of: MakeClient, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = client_of(other_server(quiet).url)
    client.start()
    until(lambda: client.health().ok)
    # The clock of health() alone runs ahead, as if the I/O thread had been stuck meanwhile.
    real = time.monotonic
    monkeypatch.setattr("aggstream._stream.health_check.time.monotonic", lambda: real() + 38.0)
    problems = client.health().problems
    monkeypatch.undo()
    assert problems == ("the server has been silent for 38 s",)


def test_a_defect_on_a_dispatch_thread_ends_the_stream_loudly(
    other_server: ServeFunction, client_of: MakeClient, caplog: pytest.LogCaptureFixture
) -> None:
    client = client_of(other_server(quiet).url)

    def broken(event: aggstream.Event, epoch: int, size: int) -> None:
        raise MemoryError

    client._dispatcher.calls.taps = (broken,)
    client.start()
    with pytest.raises(MemoryError):
        client.wait(DEADLINE)
    assert not client.health().ok
    assert "a defect while events were handled" in caplog.text
    assert not any(client.health().threads.values())


def test_a_defect_on_the_io_thread_ends_the_stream_loudly(
    other_server: ServeFunction, client_of: MakeClient
) -> None:
    def defective(error: aggstream.AggStreamError) -> bool:
        raise ZeroDivisionError

    server = other_server(lambda peer: peer.ws.close(1001))
    client = client_of(server.url, reconnect=aggstream.ReconnectPolicy(decide=defective))
    client.start()
    with pytest.raises(ZeroDivisionError):
        client.wait(DEADLINE)
    assert not client.health().ok


# --- run ------------------------------------------------------------------------------------------------

PROGRAM = """
import sys, aggstream
client = aggstream.Client(app_id="a", origin="https://app.example", token="t0ken", url=sys.argv[1])
client.on("authenticated")(lambda event: print("live", flush=True))
client.on("stopped")(lambda event: print("stopped", flush=True))
code = client.run()
print("after", flush=True)
sys.exit(code)
"""


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_a_signal_ends_run_cleanly_with_its_exit_code(name: str, code: int, other_server: ServeFunction) -> None:
    import signal

    codes: list[int | None] = []

    def script(peer: Peer) -> None:
        peer.sign_in()
        codes.append(peer.wait_closed())

    server = other_server(script)
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, server.url], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "live\n"
        process.send_signal(getattr(signal, name))
        out, err = process.communicate(timeout=DEADLINE)
    assert (out, err) == ("stopped\nafter\n", "")
    assert process.returncode == code
    assert codes == [1000]


def test_a_second_signal_ends_a_run_whose_handler_is_stuck(other_server: ServeFunction) -> None:
    import signal

    program = PROGRAM.replace(
        'client.on("stopped")',
        'client.on("authenticated")(lambda event: __import__("threading").Event().wait())\nclient.on("stopped")',
    ).replace("client.run()", "client.run(stop_timeout=3600)")
    # What measures coverage has a lock of its own, which a KeyboardInterrupt inside of it leaves locked for ever.
    unmeasured = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    with subprocess.Popen(
        [sys.executable, "-c", program, other_server(quiet).url],
        env=unmeasured,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "live\n"
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        assert process.stderr.readline() == (
            "aggstream: stopping; the handler <lambda> still runs; once more to leave at once\n"
        )
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=DEADLINE)
    assert out == ""
    assert "KeyboardInterrupt" in err


def test_run_returns_zero_when_a_handler_stops_it_and_puts_the_signal_handlers_back(
    other_server: ServeFunction, client_of: MakeClient
) -> None:
    import signal

    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    client = client_of(other_server(quiet).url)
    client.on("authenticated")(lambda event: client.stop())
    assert client.run() == 0
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_run_works_outside_the_main_thread(other_server: ServeFunction, client_of: MakeClient) -> None:
    client = client_of(other_server(quiet).url)
    client.on("authenticated")(lambda event: client.stop())
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(client.run()))
    thread.start()
    thread.join(DEADLINE)
    assert codes == [0]


# --- configuration --------------------------------------------------------------------------------------


def test_settings_come_from_the_environment(
    other_server: ServeFunction, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = other_server(quiet)
    for name, value in {
        "APP_ID": "app_env",
        "ORIGIN": "https://env.example",
        "TOKEN": "token-of-env",
        "URL": server.url,
    }.items():
        monkeypatch.setenv(f"AGGSTREAM_{name}", value)
    with aggstream.Client() as client:
        until(lambda: client.health().ok)
    assert server.requests[0][0] == "/ws?appId=app_env"
    assert server.requests[0][1]["Origin"] == "https://env.example"


@pytest.mark.parametrize("missing", ["app_id", "origin", "token"])
def test_a_missing_setting_says_which_and_how_to_give_it(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"app_id": "app_1", "origin": "https://app.example", "token": "t0ken"}
    del settings[missing]
    monkeypatch.delenv(f"AGGSTREAM_{missing.upper()}", raising=False)
    with pytest.raises(aggstream.ConfigurationError, match=rf"{missing}=… or set AGGSTREAM_{missing.upper()}"):
        aggstream.Client(**settings)  # type: ignore[arg-type]


def test_no_repr_shows_the_token(client_of: MakeClient) -> None:
    client = client_of("ws://localhost:9/ws", token="a-secret-token")
    pair = aggstream.TokenPair("a-secret-token", "a-secret-token")
    assert "a-secret-token" not in f"{client!r} {client._options!r} {client.health()!r} {pair!r}"


def test_stop_races_with_start_without_harm(other_server: ServeFunction, client_of: MakeClient) -> None:
    url = other_server(quiet).url
    for _ in range(30):
        client = client_of(url)
        stopper = threading.Thread(target=client.stop)
        starter = threading.Thread(target=client.start)
        starter.start()
        stopper.start()
        starter.join()
        stopper.join()
        client.stop()
        assert client.health().phase == "stopped"


def test_timeouts_may_be_endless_and_must_be_numbers(other_server: ServeFunction, client_of: MakeClient) -> None:
    client = client_of(other_server(quiet).url)
    client.on("authenticated")(lambda event: client.stop())
    client.start()
    assert client.wait(float("inf"))
    assert client.stop(timeout=1e300)
    with pytest.raises(aggstream.ConfigurationError, match="timeout"):
        client.wait(float("nan"))


def test_a_property_that_has_no_value_does_not_match(
    talking: tuple[OtherServer, list[Peer]], client_of: MakeClient, until: Until
) -> None:
    server, peers = talking
    with client_of(server.url) as client:
        until(lambda: peers)

        def talk() -> None:
            until(lambda: client._parts.waiting._expectations)
            peers[0].send(BALANCE_UPDATE.replace("1710000000000", str(10**18)), BALANCE_UPDATE)

        talker = threading.Thread(target=talk)
        talker.start()
        at = dt.datetime(2024, 3, 9, 16, tzinfo=dt.timezone.utc)
        assert client.wait_for("balance_update", occurred_at=at, timeout=DEADLINE).timestamp == 1710000000000
        talker.join()


def test_a_stop_without_time_says_what_still_goes_on(
    raw_server: ServeBytes, client_of: MakeClient, until: Until
) -> None:
    def script(sock: socket.socket) -> None:
        upgrade(sock, also=frame(b'{"type":"connected"}') + frame(b'{"type":"authenticated"}'))
        drain(sock)

    client = client_of(raw_server(script).url, close_timeout=1.0)
    client.start()
    until(lambda: client.health().ok)
    report = client.stop(timeout=0.01)
    assert not report
    assert "closing the connection" in report.running
    assert client.stop(timeout=DEADLINE)


def test_waiting_until_live_returns_at_once_if_it_is(
    other_server: ServeFunction, client_of: MakeClient, until: Until
) -> None:
    client = client_of(other_server(quiet).url)
    client.start()
    client.wait_until_live(timeout=DEADLINE)
    client.wait_until_live(timeout=0)
    client.stop()
    with pytest.raises(aggstream.StateError):
        client.wait_until_live(timeout=0)


@pytest.mark.parametrize("key", ["connected", "*"])
def test_waiting_until_live_waits_for_no_handler(
    key: str, other_server: ServeFunction, client_of: MakeClient
) -> None:
    client = client_of(other_server(quiet).url)
    release, ended = threading.Event(), []
    client.on(key)(lambda event: ended.append(release.wait(DEADLINE)))
    client.start()
    client.wait_until_live(timeout=2 * DEADLINE)
    assert not ended
    release.set()


def test_waiting_until_live_ends_with_the_stream_and_not_with_its_handlers(
    other_server: ServeFunction, client_of: MakeClient
) -> None:
    def script(peer: Peer) -> None:
        peer.greet()
        peer.ws.close(4403, "unknown app")

    client = client_of(other_server(script).url, token=lambda: "the-only-token-of-xyz789")
    release, ended = threading.Event(), []
    client.on("connected")(lambda event: ended.append(release.wait(DEADLINE)))
    client.start()
    with pytest.raises(aggstream.AuthenticationRejected):
        client.wait_until_live(timeout=2 * DEADLINE)
    assert not ended
    release.set()


def test_waiting_until_live_has_a_timeout_that_says_why(client_of: MakeClient) -> None:
    client = client_of("ws://127.0.0.1:9/ws", reconnect=aggstream.ReconnectPolicy(initial=60, maximum=60))
    client.start()
    with pytest.raises(aggstream.WaitTimeout):
        client.wait_until_live(timeout=0.05)


def test_events_of_a_key_skip_the_others_and_the_quiet_is_theirs(
    talking: tuple[OtherServer, list[Peer]], client_of: MakeClient, until: Until
) -> None:
    server, peers = talking
    client = client_of(server.url)
    events = client.events(aggstream.UserEvent, timeout=0.3)
    with client:
        until(lambda: peers)
        peers[0].send({"type": "heartbeat"}, ORDER_SUBMITTED, {"type": "heartbeat"}, BALANCE_UPDATE)
        assert [event.type for event in events] == ["order_submitted", "balance_update"]


def test_what_ends_the_stream_is_raised_without_the_frames_of_its_making(
    other_server: ServeFunction, client_of: MakeClient
) -> None:
    client = client_of(other_server(lambda peer: peer.ws.close(4403)).url)
    client.start()
    with pytest.raises(aggstream.ServerError) as caught:
        client.wait(DEADLINE)
    assert not [frame for frame in caught.traceback if "_runner" in str(frame.path)]


def test_a_signal_that_comes_twice_at_once_is_one_wish(other_server: ServeFunction) -> None:
    import signal

    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, other_server(quiet).url],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "live\n"
        for _ in range(3):
            process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=DEADLINE)
    assert (out, err, process.returncode) == ("stopped\nafter\n", "", 143)


@pytest.mark.parametrize("refused", ["-dispatch-1", "-dispatch-2", "-io"])
@pytest.mark.parametrize("error", [RuntimeError("can't start new thread"), MemoryError(), KeyboardInterrupt()])
@pytest.mark.parametrize("journal", [False, True])
def test_a_start_that_fails_is_as_if_it_had_never_been_called(
    refused: str,
    error: BaseException,
    journal: bool,
    client_of: MakeClient,
    other_server: ServeFunction,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    start = threading.Thread.start

    def start_most(thread: threading.Thread) -> None:
        if thread.name.endswith(refused):
            raise error
        start(thread)

    def script(peer: Peer) -> None:
        peer.sign_in()
        peer.wait_closed()

    path = tmp_path / "events.db" if journal else None
    client = client_of(other_server(script).url, workers=2, journal=path)
    seen: list[aggstream.Event] = []
    client.on("*")(seen.append)
    before = set(threading.enumerate())
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", start_most)
        with pytest.raises(type(error)):
            client.start()
    assert set(threading.enumerate()) == before
    assert (client.health().phase, seen) == ("idle", [])
    assert client.stop()
    with pytest.raises(aggstream.StateError, match="not started"):
        client.wait()
    if path is not None:  # nobody owns it
        JournalOptions(path=path).open().close()
    with client:
        client.wait_until_live(DEADLINE)


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="this system does not list descriptors")
@pytest.mark.parametrize("journal", [False, True])
def test_a_start_with_too_few_descriptors_is_as_if_it_had_never_been_called(
    journal: bool, run: Run, other_server: ServeFunction
) -> None:
    def script(peer: Peer) -> None:
        peer.sign_in()
        peer.wait_closed()

    program = f"""
import resource, tempfile
if {journal}:
    folder = tempfile.TemporaryDirectory()
    client = make(journal=folder.name + "/events.db", workers=3)
used, errors = len(os.listdir("/proc/self/fd")) - 1, set()
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
for free in range(20):
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + free, hard))
    try:
        client.start()
    except (OSError, aggstream.JournalError) as error:
        errors.add(type(error).__name__)
    else:
        break
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    assert len(os.listdir("/proc/self/fd")) - 1 == used, os.listdir("/proc/self/fd")
    assert threading.active_count() == 1, threading.enumerate()
    assert client.health().phase == "idle"
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
client.wait_until_live(30)
say(len(errors) > 0, bool(client.stop()))
"""
    with run(program, other_server(script).url) as process:
        out, err = process.communicate(timeout=DEADLINE)
    assert out == "True True\n", err
