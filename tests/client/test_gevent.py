"""Programs under gevent, each in a process of its own: what works there, and what is refused."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from certificates import serving
from clients import Run
from other_server import Peer, ServeFunction
from raw_server import ServeBytes, drain, frame, upgrade
from service_messages import ORDER_SUBMITTED
from waiting import DEADLINE, Until

import aggstream
from aggstream.simulator import Simulator

both = pytest.mark.parametrize("tls", [False, True], ids=["tcp", "tls"])

PATCHED = """
from gevent import monkey
monkey.patch_all()
import gevent, logging, os, signal, sys

def ask():  # where reading from a pipe would keep the loop waiting
    return gevent.get_hub().threadpool.apply(sys.stdin.readline).strip()
"""


def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        pytest.fail(process.communicate()[1])
    return line.rstrip("\n")


def tell(process: subprocess.Popen[str], *words: str) -> None:
    assert process.stdin is not None
    process.stdin.write(" ".join(words) + "\n")
    process.stdin.flush()


@pytest.fixture
def agg(
    request: pytest.FixtureRequest, authority: trustme.CA, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Simulator]:
    """The service, in another process than the program, which finds a session of `usr_1` in its environment."""
    is_tls = "tls" in request.fixturenames and request.getfixturevalue("tls")
    context = serving(authority) if is_tls else None
    with Simulator(seed=1, app_id="a", origins=["https://app.example"], ssl_context=context) as simulator:
        user = simulator.sign_in("usr_1", lifetime=3.0 if "token" in request.node.name else 3600.0)
        monkeypatch.setenv("TOKEN", user.access_token)
        monkeypatch.setenv("REFRESH", user.refresh_token)
        monkeypatch.setenv("AGGSTREAM_REST_URL", simulator.rest_url)
        monkeypatch.setenv("AGGSTREAM_APP_ID", "a")
        yield simulator


# --- what works -----------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("workers", [1, 3])
def test_while_a_greenlet_waits_for_an_order_the_stream_and_the_others_go_on(
    tls: bool, workers: int, agg: Simulator, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = """
client = make(token=os.environ["TOKEN"], workers=int(os.environ["WORKERS"]), journal=os.environ["JOURNAL"],
              reconnect=aggstream.ReconnectPolicy(initial=0.05, maximum=0.2, healthy_after=0.05))
seen = []
client.on("order_event")(lambda event: seen.append(event.id))
client.start()
client.wait_until_caught_up(30)
say("caught up")
orders = [client.track(order_id) for order_id in ask().split()]
gevent.spawn(say, "waiting")
say(*[outcome.verdict.name for outcome in aggstream.wait_all(orders, 30)])
missed = client.track(ask())
gevent.spawn(say, "waiting")
say(missed.wait(30).verdict.name)
client.wait_until_caught_up(30)
health = client.health()
say(health.ok, health.counters.reconnects, bool(client.stop(30)), len(seen) == len(set(seen)) > 3)
"""
    monkeypatch.setenv("WORKERS", str(workers))
    monkeypatch.setenv("JOURNAL", str(tmp_path / "journal.db"))
    with run(program, agg.url, first=PATCHED) as process:
        assert line_of(process) == "caught up"
        orders = [agg.begin_order("usr_1", scenario="filled") for _ in range(3)]
        tell(process, *(order.order_id for order in orders))
        assert line_of(process) == "waiting"
        for order in orders:
            order.finish()
        assert line_of(process) == "FILLED FILLED FILLED"
        missed = agg.begin_order("usr_1", scenario="filled")
        tell(process, missed.order_id)
        assert line_of(process) == "waiting"
        agg.drop(abort=True)
        missed.finish()
        assert line_of(process) == "FILLED"
        out, _ = process.communicate(timeout=DEADLINE)
    assert out == "True 1 True True\n"


def test_an_idle_stream_pings_while_the_program_does_something_else(
    raw_server: ServeBytes, run: Run, until: Until
) -> None:
    pinged = threading.Event()

    def script(sock: socket.socket) -> None:
        upgrade(sock, also=frame(b'{"type": "connected", "appId": "a"}'))
        sock.recv(65536)
        sock.sendall(frame(b'{"type": "authenticated", "userId": "u"}'))
        if sock.recv(65536)[0] == 0x89:
            pinged.set()
        drain(sock)

    program = "client = make(ping_interval=0.05)\nclient.start()\nask()\nclient.stop()"
    with run(program, raw_server(script).url, first=PATCHED) as process:
        until(pinged.is_set)
        _, err = process.communicate("\n", timeout=DEADLINE)
    assert err == ""


def test_a_token_is_refreshed_while_others_go_on(agg: Simulator, run: Run) -> None:
    program = """
tokens = aggstream.RefreshingToken(os.environ["REFRESH"])
client = make(token=tokens)
client.start()
gevent.spawn(say, "waiting")
client.wait_for("token_refreshed", timeout=30)
client.stop()
say("refreshed")
"""
    with run(program, agg.url, first=PATCHED) as process:
        out, err = process.communicate(timeout=DEADLINE)
    assert (out, err) == ("waiting\nrefreshed\n", "")


def test_a_token_that_was_made_before_the_patching_is_refreshed_once_for_two_who_ask(
    raw_server: ServeBytes, run: Run
) -> None:
    second_asks = threading.Event()
    requests: list[bytes] = []
    answer = b'{"accessToken": "new", "refreshToken": "rotated"}'

    def script(sock: socket.socket) -> None:
        requests.append(sock.recv(65536))
        assert second_asks.wait(DEADLINE)
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(answer), answer))
        drain(sock)

    program = """
from gevent import monkey
url = sys.argv[1].replace("ws", "http").removesuffix("/http")
tokens = aggstream.RefreshingToken("refresh", app_id="a", rest_url=url, timeout=30)
monkey.patch_all()
import gevent
first = gevent.spawn(tokens.get_token)
gevent.sleep(0)
second = gevent.spawn(tokens.get_token)
gevent.spawn(say, "both ask")
say(first.get(), second.get())
"""
    with run(program, raw_server(script).url) as process:
        assert line_of(process) == "both ask"
        second_asks.set()
        out, _ = process.communicate(timeout=DEADLINE)
    assert out == "new new\n"
    assert len(requests) == 1


@pytest.mark.parametrize("tls", [True], ids=["tls"])
def test_what_was_imported_before_the_patching_is_no_obstacle(
    tls: bool, agg: Simulator, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = """
import urllib3, gevent
from gevent import monkey
monkey.patch_all()
with aggstream.RestClient(app_id="a", token=os.environ["TOKEN"]) as rest:
    gevent.spawn(say, "reading")
    rest.balances()
client = aggstream.Client(app_id="a", origin="https://app.example", token=os.environ["TOKEN"], url=sys.argv[1])
client.start()
gevent.spawn(say, "waiting")
client.wait_until_caught_up(30)
say(client.continuity.name, bool(client.stop(30)))
"""
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))  # the system's authorities, as far as it knows
    with run(program, agg.url) as process:
        out, _ = process.communicate(timeout=DEADLINE)
    assert out == "reading\nwaiting\nLIVE True\n"


def test_handlers_that_compute_let_other_greenlets_run_in_between(other_server: ServeFunction, run: Run) -> None:
    def script(peer: Peer) -> None:
        peer.sign_in()
        peer.send(*(ORDER_SUBMITTED.replace("ord_abc123", f"ord_{number}") for number in range(60)))
        peer.wait_closed()

    program = """
client = make()
handled, seen = [], set()

@client.on("order_submitted")
def compute(event):
    until = time.monotonic() + 0.01
    while time.monotonic() < until:
        pass
    handled.append(event)

def look():
    while len(handled) < 60:
        seen.add(len(handled))
        gevent.sleep(0.001)

client.start()
gevent.spawn(look).join()
say(len(seen) >= 50, bool(client.stop(30)))
"""
    with run(program, other_server(script).url, first=PATCHED) as process:
        out, err = process.communicate(timeout=DEADLINE)
    assert (out, err) == ("True True\n", "")


def one_order(peer: Peer) -> None:
    peer.sign_in()
    peer.send(ORDER_SUBMITTED, ORDER_SUBMITTED.replace("ord_abc123", "the next"))
    peer.wait_closed()


def test_a_handler_that_takes_too_long_is_logged_with_the_place_where_it_is(
    other_server: ServeFunction, run: Run
) -> None:
    program = """
client = make(slow_handler_duration=0.05)
told = gevent.event.Event()

class Tell(logging.Handler):
    def emit(self, record):
        told.set()
        say(record.getMessage())

logging.getLogger("aggstream").addHandler(Tell())

@client.on("order_submitted")
def wait_for_the_log(event):
    told.wait()

client.start()
told.wait()
client.stop()
"""
    with run(program, other_server(one_order).url, first=PATCHED + "import gevent.event\n") as process:
        out, err = process.communicate(timeout=DEADLINE)
    assert "the handler wait_for_the_log has been at one order_submitted" in out
    assert "in wait_for_the_log\n" in out
    assert f"{Path(aggstream.__file__).parent}{os.sep}" not in out
    assert err == ""


@pytest.mark.parametrize("journal", [False, True], ids=["", "journal"])
@pytest.mark.parametrize("how", ["os._exit(0)", "sys.exit()"])
def test_in_a_forked_child_the_greenlets_of_the_parents_stream_deliver_nothing(
    how: str, journal: bool, other_server: ServeFunction, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = """
client = make(journal=os.environ["JOURNAL"] or None, ping_interval=0.05)
parent = os.getpid()
runs, go_on, done = (gevent.event.Event() for _ in range(3))

def mine():
    return "parent" if os.getpid() == parent else "child"

@client.on("order_submitted")
def wait(event):
    if event.order_id == "second":
        runs.set()
        go_on.wait()
    say(mine(), "ends", event.order_id)

@client.on("order_submitted")
def after_it(event):
    say(mine(), "after", event.order_id)
    if event.order_id == "third":
        done.set()

client.start()
runs.wait()
if os.fork() == 0:
    go_on.set()
    gevent.sleep(0.15)  # pings were due in it
    try:
        client.health()
    except aggstream.StateError as error:
        say("child", "dead")
    HOW
os.wait()
go_on.set()
done.wait()
say(client.health().ok, bool(client.stop(30)))
""".replace("HOW", how)
    monkeypatch.setenv("JOURNAL", str(tmp_path / "journal.db") if journal else "")

    def script(peer: Peer) -> None:
        peer.sign_in()
        peer.send(*(ORDER_SUBMITTED.replace("ord_abc123", name) for name in ("first", "second", "third")))
        peer.wait_closed()

    with run(program, other_server(script).url, first=PATCHED + "import gevent.event\n") as process:
        out, err = process.communicate(timeout=DEADLINE)
    lines = out.splitlines()
    # What waits in a handler goes on in both, as every greenlet does.
    assert [line for line in lines if line.startswith("child")] == ["child ends second", "child dead"]
    assert [line for line in lines if line.startswith("parent")] == [
        f"parent {what} {order}" for order in ("first", "second", "third") for what in ("ends", "after")
    ]
    assert lines[-1] == "True True"
    assert err == ""


# --- signals, and the end -------------------------------------------------------------------------------


@both
@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_a_signal_ends_run_and_the_handlers_finish(
    tls: bool, name: str, code: int, other_server: ServeFunction, run: Run
) -> None:
    program = """
@client.on("order_submitted")
def wait(event):
    while client.health().counters.user_events < 2:
        gevent.sleep(0.001)
    if event.order_id == "ord_abc123":
        say("received")
    while client.health().phase == "live":
        gevent.sleep(0.001)

code = client.run()
health = client.health()
say(health.queue_depth, health.delivered >= health.counters.user_events == 2)
sys.exit(code)
"""
    server = other_server(one_order, tls=tls)
    with run(program, server.url, first=PATCHED) as process:
        assert line_of(process) == "ord_abc123"
        assert line_of(process) == "received"
        process.send_signal(getattr(signal, name))
        out, err = process.communicate(timeout=DEADLINE)
    assert (out, err) == ("the next\n0 True\n", "")
    assert process.returncode == code


def test_stop_in_a_signal_handler_that_interrupts_gevents_loop_asks_for_the_end(
    other_server: ServeFunction, run: Run
) -> None:
    program = """
def on_signal(number, frame):
    say(gevent.getcurrent() is gevent.get_hub(), client.stop(30).running)

signal.signal(signal.SIGTERM, on_signal)
client.start()
client.wait_until_live(30)

def kill():
    os.kill(os.getpid(), signal.SIGTERM)
    for _ in range(1000):  # the interpreter calls the handler before the next turns of a loop of Python's
        pass

gevent.get_hub().loop.run_callback(kill)
say(client.wait(30), bool(client.stop(30)))
"""

    def script(peer: Peer) -> None:
        peer.sign_in()
        peer.wait_closed()

    with run(program, other_server(script).url, first=PATCHED) as process:
        out, err = process.communicate(timeout=DEADLINE)
    assert (out, err) == ("True ('closing the connection',)\nTrue True\n", "")


@both
def test_a_program_that_ends_without_stop_handles_what_it_has_received(
    tls: bool, other_server: ServeFunction, run: Run
) -> None:
    program = """
client.start()
while client.health().counters.user_events < 2:
    gevent.sleep(0.001)
"""
    with run(program, other_server(one_order, tls=tls).url, first=PATCHED) as process:
        out, err = process.communicate(timeout=DEADLINE)
    assert (process.returncode, out, err) == (0, "ord_abc123\nthe next\n", "")


# --- what is refused ------------------------------------------------------------------------------------


REFUSED = """
for start in (client.start, client.run):
    try:
        start()
    except aggstream.StateError as error:
        say(error)
assert client.stop()
"""


def refusals(process: subprocess.Popen[str]) -> list[str]:
    out, err = process.communicate(timeout=DEADLINE)
    assert process.returncode == 0, err
    lines = out.splitlines()
    assert len(lines) == 2, lines
    for line in lines:
        assert "or run the stream in a process of its own, such as `manage.py aggstream`" in line
    return lines


def test_a_client_that_was_made_before_the_patching_is_refused(run: Run) -> None:
    program = f"from gevent import monkey\nmonkey.patch_all()\n{REFUSED}"
    with run(program, "ws://localhost:9/ws") as process:
        for line in refusals(process):
            assert line.startswith("this client was made before gevent.monkey.patch_all() was called")
            assert "call that first of all, before aggstream is imported" in line


@pytest.mark.parametrize("what", ["socket", "ssl", "select", "thread", "queue"])
def test_half_of_the_patches_are_refused(what: str, run: Run) -> None:
    first = f"from gevent import monkey\nmonkey.patch_all({what}=False)\n"
    with run(REFUSED, "ws://localhost:9/ws", first=first) as process:
        for line in refusals(process):
            assert f"({what} not patched): call gevent.monkey.patch_all() without leaving anything out" in line


# Each is what PySocks, truststore, a tracer or a test's guard do: something of their own in the place of a class.
IN_PLACE = {
    "PySocks": "import socket, socks\nsocket.socket = socks.socksocket",
    "subclasses": """
import queue, socket
socket.socket = type("Traced", (socket.socket,), {"__slots__": ()})
queue.SimpleQueue = type("Counted", (queue.SimpleQueue,), {})
""",
    "functions": """
import functools, queue, threading
threading.Lock = functools.partial(threading.Lock)
SimpleQueue = queue.SimpleQueue
queue.SimpleQueue = lambda: SimpleQueue()
queue.SimpleQueue.__module__ = None
""",
}


@pytest.mark.parametrize("patching", ["", "from gevent import monkey\nmonkey.patch_all()\n"])
@pytest.mark.parametrize("what", IN_PLACE)
def test_what_somebody_else_has_put_in_the_place_of_a_class_is_not_taken_for_half_a_patching(
    what: str, patching: str, other_server: ServeFunction, run: Run
) -> None:
    program = """
client.start()
client.wait_until_live(30)
say(bool(client.stop(30)))
"""
    with run(program, other_server(one_order).url, first=patching + IN_PLACE[what]) as process:
        out, err = process.communicate(timeout=DEADLINE)
    assert out.splitlines()[-1:] == ["True"], err


def test_eventlet_is_refused(run: Run) -> None:
    pytest.importorskip("eventlet")
    with run(REFUSED, "ws://localhost:9/ws", first="import eventlet\neventlet.monkey_patch()\n") as process:
        for line in refusals(process):
            assert line.startswith("this client cannot work under eventlet: use gevent or threads")


def test_a_rest_client_that_was_made_before_the_patching_is_refused(run: Run) -> None:
    program = """
from gevent import monkey
rest = aggstream.RestClient(app_id="a", token="t0ken", rest_url="http://localhost:9")
monkey.patch_all()
try:
    rest.balances()
except aggstream.StateError as error:
    say(error)
"""
    with run(program, "ws://localhost:9/ws") as process:
        out, _ = process.communicate(timeout=DEADLINE)
    assert out.startswith("this RestClient was made before gevent.monkey.patch_all() was called")


def test_a_context_that_was_made_before_the_patching_is_refused(run: Run) -> None:
    program = """
from gevent import monkey
context = ssl.create_default_context()
monkey.patch_all()
try:
    aggstream.Client(app_id="a", origin="https://app.example", token="t0ken", ssl_context=context)
except aggstream.ConfigurationError as error:
    say(error)
"""
    with run(program, "ws://localhost:9/ws") as process:
        out, _ = process.communicate(timeout=DEADLINE)
    assert "(under gevent: made after monkey.patch_all())" in out


# --- without it -----------------------------------------------------------------------------------------


def test_nobody_else_pays_for_it(other_server: ServeFunction, run: Run) -> None:
    program = """
client.start()
client.wait_until_live(30)
client.stop()
say({"gevent", "greenlet", "eventlet"} & set(sys.modules))
"""
    with run(program, other_server(one_order).url) as process:
        out, err = process.communicate(timeout=DEADLINE)
    assert out.splitlines()[-1] == "set()"
    assert err == ""


def test_threads_are_used_where_gevent_is_imported_and_patches_nothing(
    other_server: ServeFunction, run: Run
) -> None:
    program = """
import gevent
native = {threading.get_native_id()}
client.on("*")(lambda event: native.add(threading.get_native_id()))
client.start()
client.wait_until_live(30)
say(bool(client.stop(30)), len(native))
"""
    with run(program, other_server(one_order).url) as process:
        out, err = process.communicate(timeout=DEADLINE)
    assert out.splitlines()[-1] == "True 2"
    assert err == ""
