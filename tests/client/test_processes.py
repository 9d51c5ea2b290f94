"""Forks, the interpreter's end, and signals, each in a process of its own."""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from clients import MakeClient, Run
from other_server import Peer, ServeFunction
from raw_server import ServeBytes, drain, read_request
from service_messages import ORDER_SUBMITTED
from waiting import DEADLINE, Until
from websockets.exceptions import ConnectionClosed

both = pytest.mark.parametrize("tls", [False, True], ids=["tcp", "tls"])
forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


class Told:
    """A server that sends an order once it is told to, and sees how each connection ends."""

    def __init__(self) -> None:
        self.go_on = threading.Event()
        self.codes: list[int | None] = []

    def __call__(self, peer: Peer) -> None:
        peer.sign_in()
        peer.send(ORDER_SUBMITTED.replace("ord_abc123", "before"))
        assert self.go_on.wait(DEADLINE)
        peer.send(ORDER_SUBMITTED.replace("ord_abc123", "after"))
        self.codes.append(peer.wait_closed())


FORKED = """
calls = {
    "start": client.start, "stop": client.stop, "wait": client.wait, "run": client.run, "health": client.health,
    "events": lambda: next(iter(events)), "wait_for": lambda: client.wait_for("*", timeout=1),
    "wait_until_live": lambda: client.wait_until_live(1), "switch_user": lambda: client.switch_user("other"),
    "on_error": lambda: client.on_error(lambda error, event: None),
    "with": lambda: client.__exit__(None, None, None), "on": lambda: client.on("*"),
    "once": lambda: client.once("*"), "off": lambda: client.off(print), "new events": client.events,
    "close": lambda: events.close(),
}
def child():
    for name, call in calls.items():
        try:
            call()
        except aggstream.StateError as error:
            assert "child" in str(error), error
        else:
            say(name, "worked")
    assert "another process's" in repr(client)

events = client.events(aggstream.LifecycleEvent)
client.start()
client.wait_until_live(30)
time_to_go = threading.Event()
client.on("order_submitted")(lambda event: event.order_id == "after" and time_to_go.set())
"""
WITH_OS_FORK = """
pid = os.fork()
if pid == 0:
    child()
    sys.exit(7)  # with everything that an interpreter does at its end
say("child", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
WITH_MULTIPROCESSING = """
process = multiprocessing.get_context("fork").Process(target=child)
process.start()
process.join()
say("child", 7 + process.exitcode)
"""


@forks
@both
@pytest.mark.parametrize("fork", [WITH_OS_FORK, WITH_MULTIPROCESSING], ids=["os", "multiprocessing"])
def test_a_forked_childs_client_says_that_it_is_dead_and_the_parents_stream_goes_on(
    fork: str, tls: bool, other_server: ServeFunction, run: Run, until: Until
) -> None:
    told = Told()
    server = other_server(told, tls=tls)
    program = f"{FORKED}{fork}assert time_to_go.wait(30)\nclient.stop()\nsay(client.health().counters.connections)"
    with run(program, server.url) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(2)]
        told.go_on.set()
        out, err = process.communicate(timeout=DEADLINE)
    assert err == ""
    assert sorted(lines) == ["before\n", "child 7\n"]
    assert out == "after\n1\n"
    until(lambda: told.codes)
    assert told.codes == [1000]


@forks
@both
def test_the_connection_ends_for_the_server_although_a_child_outlives_its_parents_stream(
    tls: bool, other_server: ServeFunction, run: Run, until: Until
) -> None:
    ended: list[int | None] = []

    def script(peer: Peer) -> None:
        peer.sign_in()
        ended.append(peer.wait_closed())

    program = """
client.start()
client.wait_until_live(30)
if os.fork() == 0:
    sys.stdin.readline()
    os._exit(0)
client.stop()
say("stopped")
sys.stdin.readline()
"""
    server = other_server(script, tls=tls)
    with run(program, server.url) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "stopped\n"
        until(lambda: ended)
        process.kill()


@forks
@both
def test_a_child_may_make_a_client_of_its_own_or_start_one_that_its_parent_only_made(
    tls: bool, other_server: ServeFunction, run: Run
) -> None:
    program = """
def child(stream):
    stream.start()
    stream.wait_until_live(30)
    assert stream.stop(30)
    say("child", stream.health().counters.connections)

client.start()
client.wait_until_live(30)
waiting = make()
for stream in (waiting, None):
    pid = os.fork()
    if pid == 0:
        child(stream or make())
        sys.exit(0)
    assert os.waitpid(pid, 0)[1] == 0
assert client.health().ok
client.stop()
"""

    def script(peer: Peer) -> None:
        peer.sign_in()
        peer.wait_closed()

    server = other_server(script, tls=tls)
    with run(program, server.url) as process:
        out, err = process.communicate(timeout=DEADLINE)
    assert (out, err) == ("child 1\nchild 1\n", "")
    assert server.connections == 3


@forks
@both
def test_a_child_does_not_keep_what_its_parent_was_connecting(
    tls: bool, raw_server: ServeBytes, run: Run, until: Until
) -> None:
    asked = threading.Event()
    ended: list[bool] = []

    def script(sock: socket.socket) -> None:
        read_request(sock)
        asked.set()
        with contextlib.suppress(ConnectionResetError):  # a ticket of TLS may not have been read
            drain(sock)
        ended.append(True)

    program = """
client.start()
sys.stdin.readline()
if os.fork() == 0:
    say("forked")
    sys.stdin.readline()
os._exit(0)
"""
    server = raw_server(script, tls=tls)
    with run(program, server.url.replace("127.0.0.1", "localhost")) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert asked.wait(DEADLINE)
        process.stdin.write("fork\n")
        process.stdin.flush()
        assert process.stdout.readline() == "forked\n"
        until(lambda: ended)
        process.stdin.close()


@forks
def test_one_client_that_cannot_be_let_go_does_not_keep_a_child_from_the_others(run: Run) -> None:
    program = """
from aggstream._base.fork_and_exit import call_in_child

class Odd:
    pass

def fail(odd):
    raise OSError("odd")

odd = Odd()
call_in_child(odd, fail)
other = make()
other._lock.acquire()
pid = os.fork()
if pid == 0:
    client.start()
    other.on_error(lambda error, event: None)
    os._exit(0)
say(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
    with run(program, "ws://localhost:9/ws") as process:
        out, err = process.communicate(timeout=DEADLINE)
    assert out == "0\n"
    assert "was not told of the fork" in err


@forks
def test_a_refresh_that_goes_on_at_the_fork_does_not_lock_the_childs_tokens(
    raw_server: ServeBytes, run: Run, until: Until
) -> None:
    requests: list[bytes] = []
    answer = b'{"accessToken": "new", "refreshToken": "rotated"}'

    def script(sock: socket.socket) -> None:
        requests.append(sock.recv(65536))
        if len(requests) == 1:
            drain(sock)  # the parent's, which hangs
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(answer), answer))

    program = """
tokens = aggstream.RefreshingToken(
    "refresh", app_id="a", rest_url=sys.argv[1].replace("ws", "http").removesuffix("/http"), timeout=30
)
threading.Thread(target=tokens.get_token, daemon=True).start()
sys.stdin.readline()  # now it is at it
if os.fork() == 0:
    say(tokens.get_token())
    os._exit(0)
os._exit(os.waitstatus_to_exitcode(os.wait()[1]))
"""
    server = raw_server(script)
    with run(program, server.url) as process:
        until(lambda: requests)
        out, err = process.communicate("\n", timeout=DEADLINE)
    assert (out, err) == ("new\n", "")


# --- the interpreter's end ------------------------------------------------------------------------------


def live(peer: Peer) -> None:
    peer.sign_in()
    for number in range(100):
        peer.send(ORDER_SUBMITTED.replace("ord_abc123", f"ord_{number}"))
    peer.wait_closed()


AT_ITS_END = {
    "live": "client.start(); client.wait_until_live(30)",
    "at once": "client.start()",
    "never started": "",
    "stopped": "client.start(); client.stop()",
    "a handler that speaks": "client.on('*')(lambda event: [say('.' * 50) for _ in range(100)]); client.start()",
    "several": "several = [make() for _ in range(5)]; [each.start() for each in several]",
    "the token hangs": "client = make(token=threading.Event().wait); client.start()",
    "between attempts": "client = make(url='ws://127.0.0.1:1/'); client.start(); client.wait_for('reconnecting')",
}


@both
@pytest.mark.parametrize("what", AT_ITS_END.values(), ids=AT_ITS_END)
def test_a_program_that_ends_without_stop_neither_hangs_nor_makes_noise(
    what: str, tls: bool, other_server: ServeFunction, run: Run
) -> None:
    quiet = "import logging; logging.getLogger('aggstream').setLevel(logging.ERROR)\n"
    with run(quiet + what, other_server(live, tls=tls).url) as process:
        _, err = process.communicate(timeout=DEADLINE)
    assert (process.returncode, err) == (0, "")


def test_what_was_received_is_handled_before_the_interpreter_ends(other_server: ServeFunction, run: Run) -> None:
    program = """
client.start()
while client.health().counters.user_events < 100:
    time.sleep(0.001)
"""
    with run(program, other_server(live).url) as process:
        out, err = process.communicate(timeout=DEADLINE)
    assert out.split() == [f"ord_{number}" for number in range(100)]
    assert err == ""


def test_a_handler_that_is_stuck_at_the_end_is_told_and_holds_nothing_up(
    other_server: ServeFunction, run: Run
) -> None:
    program = """
stuck = threading.Event()
@client.on("order_submitted")
def wait_for_ever(event):
    stuck.set()
    threading.Event().wait()
client.start()
stuck.wait()
"""
    with run(program, other_server(live).url) as process:
        _, err = process.communicate(timeout=DEADLINE)
    assert process.returncode == 0
    assert "still running: wait_for_ever" in err
    assert "in wait_for_ever" in err
    assert "Fatal" not in err


def test_all_clients_are_asked_to_stop_before_one_is_waited_for(other_server: ServeFunction, run: Run) -> None:
    program = """
clients = [make(), client, make()]
stuck = [threading.Event() for _ in clients]
for one, event in zip(clients, stuck):
    def wait(_, event=event):
        event.set()
        # Each waits for all the others to be asked as well.
        while any(other.health().phase != "stopped" for other in clients):
            time.sleep(0.001)
    one.on("authenticated")(wait)
    one.start()
for event in stuck:
    event.wait()
"""
    with run(program, other_server(live).url) as process:
        _, err = process.communicate(timeout=DEADLINE)
    assert process.returncode == 0
    assert err == ""


# --- signals --------------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_a_signal_under_run_lets_the_handlers_finish_what_was_received(
    name: str, code: int, tls: bool, other_server: ServeFunction, run: Run, until: Until
) -> None:
    codes: list[int | None] = []

    def script(peer: Peer) -> None:
        peer.sign_in()
        with contextlib.suppress(ConnectionClosed):  # the client may go before all is sent
            for number in range(100):
                peer.send(ORDER_SUBMITTED.replace("ord_abc123", f"ord_{number}"))
        codes.append(peer.wait_closed())

    program = """
first = threading.Event()
@client.on("order_submitted")
def wait(event):
    if not first.is_set():
        say("first")
        while client.health().phase == "live":
            time.sleep(0.001)
        first.set()
code = client.run()
health = client.health()
say(health.queue_depth, health.delivered >= health.counters.user_events)
sys.exit(code)
"""
    with run(program, other_server(script, tls=tls).url) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(2)]
        process.send_signal(getattr(signal, name))
        out, err = process.communicate(timeout=DEADLINE)
    assert err == ""
    assert lines == ["ord_0\n", "first\n"]
    *orders, last = out.splitlines()
    assert orders == [f"ord_{number}" for number in range(1, len(orders) + 1)]
    assert last == "0 True"
    assert process.returncode == code
    until(lambda: codes)
    assert codes == [1000]


def test_a_client_is_not_pickled(client_of: MakeClient) -> None:
    client = client_of("ws://localhost:9/ws")
    with pytest.raises(TypeError, match="make one in the process that uses it"):
        pickle.dumps(client)


POOL = """
import os, sys, {pool} as multiprocessing
import aggstream

def work(url):
    global client
    client = aggstream.Client(url=url, app_id="a", origin="http://localhost", token="t")
    client.start()
    if "stop" in sys.argv:
        client.stop()

if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    if "pool" in sys.argv:
        with context.Pool(1) as pool:
            pool.map(work, ["ws://localhost:9/ws"])
            pool.close()
            pool.join()
    else:
        process = context.Process(target=work, args=("ws://localhost:9/ws",))
        process.start()
        process.join()
"""


def begin_in_worker(tmp_path: Path, module: str, *words: str) -> str:
    """Start a client in a worker of a pool, or in a child process; return what both processes write to stderr."""
    program = tmp_path / "program.py"
    program.write_text(POOL.replace("{pool}", module))
    done = subprocess.run(
        [sys.executable, str(program), *words], capture_output=True, text=True, timeout=DEADLINE, check=True
    )
    return done.stderr


@forks
@pytest.mark.parametrize("how", ["fork", "spawn", "forkserver"])
@pytest.mark.parametrize("kind", ["pool", "process"])
def test_a_client_that_is_left_in_a_worker_process_is_stopped_and_told_of(
    tmp_path: Path, how: str, kind: str
) -> None:
    assert begin_in_worker(tmp_path, "multiprocessing", how, kind).count("but stop() was not called") == 1
    assert "stop() was not called" not in begin_in_worker(tmp_path, "multiprocessing", how, kind, "stop")


@forks
@pytest.mark.parametrize("kind", ["pool", "process"])
def test_a_client_in_a_worker_of_celerys_pool_says_that_it_may_end_unasked(tmp_path: Path, kind: str) -> None:
    pytest.importorskip("billiard")
    assert begin_in_worker(tmp_path, "billiard", "fork", kind, "stop").count("worker_process_shutdown") == 1
