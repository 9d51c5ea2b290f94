"""The proxy of the test kit does to bytes what it says, and nothing else."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from raw_server import ServeBytes, drain
from waiting import DEADLINE, Until

from aggstream.testing import ChaosProxy, Faults

DATA = bytes(range(256)) * 64


def echo(sock: socket.socket) -> None:
    while data := sock.recv(65536):
        sock.sendall(data)


class Through:
    """A server behind a proxy, and connections to it."""

    def __init__(self, proxy: ChaosProxy, stack: contextlib.ExitStack) -> None:
        self.proxy = proxy
        self._stack = stack

    def connect(self) -> socket.socket:
        return self._stack.enter_context(socket.create_connection(("127.0.0.1", self.proxy.port), DEADLINE))


Make = Callable[[Callable[[socket.socket], object]], Through]


@pytest.fixture
def through(raw_server: ServeBytes) -> Iterator[Make]:
    with contextlib.ExitStack() as stack:

        def make(script: Callable[[socket.socket], object]) -> Through:
            return Through(stack.enter_context(ChaosProxy.for_url(raw_server(script).url)), stack)

        yield make


def receive(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size and (piece := sock.recv(size - len(data))):
        data += piece
    return data


def send_and_receive(sock: socket.socket) -> bytes:
    sock.sendall(DATA)
    return receive(sock, len(DATA))


def test_without_faults_bytes_and_ends_pass_in_both_directions(through: Make) -> None:
    sock = through(echo).connect()
    sock.sendall(DATA)
    assert receive(sock, len(DATA)) == DATA
    sock.shutdown(socket.SHUT_WR)
    assert sock.recv(1) == b""


def test_slices_arrive_whole_and_in_small_pieces(through: Make) -> None:
    there = through(echo)
    there.proxy.downstream.slice_size = 7
    sock = there.connect()
    sock.sendall(DATA)
    assert receive(sock, len(DATA)) == DATA


def test_latency_delays_and_loses_nothing(through: Make) -> None:
    there = through(echo)
    there.proxy.upstream.latency = 0.1
    there.proxy.downstream.latency = 0.1
    sock = there.connect()
    began = time.monotonic()
    sock.sendall(DATA)
    assert receive(sock, len(DATA)) == DATA
    assert time.monotonic() - began >= 0.2


def test_a_rate_holds(through: Make) -> None:
    there = through(echo)
    there.proxy.downstream.rate = 10_000.0
    sock = there.connect()
    began = time.monotonic()
    sock.sendall(DATA[:3000])
    assert receive(sock, 3000) == DATA[:3000]
    assert time.monotonic() - began >= 0.25


def test_a_stall_holds_everything_back_until_it_ends(through: Make) -> None:
    there = through(echo)
    sock = there.connect()
    there.proxy.downstream.stalled = True
    sock.sendall(b"a")
    sock.settimeout(0.1)
    with pytest.raises(TimeoutError):
        sock.recv(1)
    there.proxy.downstream.stalled = False
    sock.settimeout(DEADLINE)
    assert sock.recv(1) == b"a"


def test_what_falls_into_a_black_hole_never_comes_back_and_new_connections_are_well_after_it(
    through: Make, until: Until
) -> None:
    got: list[bytes] = []
    there = through(lambda sock: got.append(drain(sock)))
    sock = there.connect()
    sock.sendall(b"before")
    there.proxy.sync()
    there.proxy.upstream.blackhole = True
    sock.sendall(b"in it")
    sock.close()
    there.proxy.sync()
    assert there.proxy.open_connections == 1
    there.proxy.heal()
    until(lambda: there.proxy.open_connections == 0)  # the server was told by a reset, and not before
    other = there.connect()
    other.sendall(b"after")
    other.shutdown(socket.SHUT_WR)
    assert other.recv(1) == b""
    until(lambda: got)
    assert b"after" in got
    assert b"in it" not in b"".join(got)


def test_a_peer_in_a_black_hole_looks_open(through: Make) -> None:
    there = through(echo)
    sock = there.connect()
    sock.sendall(b"a")
    assert sock.recv(1) == b"a"
    there.proxy.downstream.blackhole = True
    sock.sendall(b"b")
    sock.settimeout(0.1)
    with pytest.raises(TimeoutError):
        sock.recv(1)


def test_corruption_changes_bits_and_not_lengths(through: Make) -> None:
    there = through(echo)
    there.proxy.downstream.corrupt = 0.05
    sock = there.connect()
    sock.sendall(DATA)
    received = receive(sock, len(DATA))
    wrong = [a ^ b for a, b in zip(received, DATA, strict=True) if a != b]
    assert len(DATA) * 0.02 < len(wrong) < len(DATA) * 0.1
    assert all(bits.bit_count() == 1 for bits in wrong)


def test_a_reset_now_ends_every_connection(through: Make) -> None:
    there = through(echo)
    socks = [there.connect() for _ in range(3)]
    for sock in socks:
        sock.sendall(b"a")
        assert sock.recv(1) == b"a"
    there.proxy.reset()
    assert there.proxy.open_connections == 0
    for sock in socks:
        with pytest.raises(ConnectionResetError):
            sock.recv(1)


def test_a_reset_comes_after_so_many_bytes(through: Make) -> None:
    there = through(echo)
    there.proxy.upstream.reset_after = 100
    sock = there.connect()
    with pytest.raises(ConnectionResetError):
        send_and_receive(sock)
    assert send_and_receive(there.connect()) == DATA


def test_one_direction_ends_in_form_after_so_many_bytes_and_the_other_goes_on(through: Make, until: Until) -> None:
    got: list[bytes] = []

    def script(sock: socket.socket) -> None:
        sock.sendall(DATA)
        got.append(drain(sock))

    there = through(script)
    there.proxy.downstream.half_close_after = 100
    sock = there.connect()
    assert receive(sock, len(DATA)) == DATA[:100]
    sock.sendall(b"still heard")
    sock.shutdown(socket.SHUT_WR)
    until(lambda: got)
    assert got == [b"still heard"]


def test_connections_are_refused_while_that_is_wanted(through: Make) -> None:
    there = through(echo)
    there.proxy.refusing = True
    with pytest.raises(ConnectionResetError):
        there.connect().recv(1)
    there.proxy.heal()
    sock = there.connect()
    sock.sendall(b"a")
    assert sock.recv(1) == b"a"
    assert there.proxy.accepted == 2


def test_a_server_that_is_down_is_a_reset() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with ChaosProxy("127.0.0.1", port) as proxy, socket.create_connection(("127.0.0.1", proxy.port)) as sock:
        sock.settimeout(DEADLINE)
        with pytest.raises(ConnectionResetError):
            sock.recv(1)


def test_a_url_is_led_through_the_proxy() -> None:
    with ChaosProxy("127.0.0.1", 9) as proxy:
        assert proxy.url_for("wss://localhost:9/ws?a=b") == f"wss://localhost:{proxy.port}/ws?a=b"


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("ws://127.0.0.1:8123/ws", ("127.0.0.1", 8123)),
        ("wss://agg.example/ws", ("agg.example", 443)),
        ("http://[::1]", ("::1", 80)),
    ],
)
def test_a_proxy_is_made_for_a_servers_url(url: str, target: tuple[str, int]) -> None:
    proxy = ChaosProxy.for_url(url)
    proxy.close()
    assert proxy._target == target


@pytest.mark.parametrize("url", ["", "localhost:8123", "ftp://host/", "ws:///ws"])
def test_a_url_without_a_host_or_a_port_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="url must name a host"):
        ChaosProxy.for_url(url)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("slice_size", 0),
        ("slice_size", 2.5),
        ("slice_size", True),
        ("latency", -0.1),
        ("latency", None),
        ("latency", float("inf")),
        ("latency", float("nan")),
        ("rate", 0),
        ("rate", -1.0),
        ("rate", "fast"),
        ("corrupt", 7),
        ("corrupt", -0.1),
        ("corrupt", None),
        ("reset_after", 0),
        ("half_close_after", -1),
        ("stalled", 1),
        ("blackhole", "yes"),
    ],
)
def test_a_fault_that_cannot_be_is_refused_where_it_is_set(name: str, value: Any) -> None:
    faults = Faults()
    before = getattr(faults, name)
    with pytest.raises(ValueError, match=rf"^{name} must be .*, got "):
        setattr(faults, name, value)
    with pytest.raises(ValueError, match=name):
        Faults(**{name: value})
    assert getattr(faults, name) == before


def test_a_proxy_that_is_idle_sleeps(through: Make) -> None:
    there = through(echo)
    sock = there.connect()
    sock.sendall(b"a")
    assert sock.recv(1) == b"a"
    before = time.process_time()
    threading.Event().wait(0.3)
    assert time.process_time() - before < 0.2


def test_a_proxy_that_was_never_entered_can_be_closed() -> None:
    ChaosProxy("127.0.0.1", 9).close()
