"""Starting and stopping: threads, ports, TLS, and that nothing is left behind."""

from __future__ import annotations

import asyncio
import gc
import importlib
import os
import socket
import ssl
import sys
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import trustme
import urllib3
from aiohttp import web
from certificates import TwoThreadSocket
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Origin

from aggstream.simulator import Simulator

DESCRIPTORS = Path("/proc/self/fd")


def dial(simulator: Simulator, ssl_context: ssl.SSLContext | None = None) -> ClientConnection:
    url = f"{simulator.url}?appId={simulator.app_id}&token={simulator.sign_in().access_token}"
    return connect(url, origin=Origin(simulator.origin), proxy=None, ping_interval=None, ssl=ssl_context)


def end_of(client: ClientConnection) -> ConnectionClosed:
    """Read to the end of a connection."""
    try:
        while client.recv(timeout=20):
            pass
    except ConnectionClosed as error:
        return error
    raise AssertionError("an empty frame")


@pytest.mark.skipif(not DESCRIPTORS.exists(), reason="counts the descriptors where the system lists them")
def test_stopping_leaves_nothing_behind() -> None:
    def descriptors() -> set[str]:
        gc.collect()
        return set(os.listdir(DESCRIPTORS))

    before = descriptors(), threading.active_count()
    with ExitStack() as stack, Simulator() as simulator:
        sockets = [stack.enter_context(dial(simulator)) for _ in range(3)]
        stack.enter_context(urllib3.PoolManager()).request("GET", f"{simulator.rest_url}/control/state")
        assert simulator.wait_for_connections(3)
        assert "aggstream-simulator" in {thread.name for thread in threading.enumerate()}
        playback = simulator.play(orders=None, rate=50)
        simulator.stop()
        assert playback.done
        playback.cancel()
        for connection in sockets:
            received = end_of(connection).rcvd
            assert received is not None
            assert received.code == 1001
    assert (descriptors(), threading.active_count()) == before


def test_stopping_does_not_wait_for_those_who_do_not_answer() -> None:
    with Simulator() as simulator, socket.create_connection(("127.0.0.1", _port(simulator))) as deaf:
        deaf.sendall(
            f"GET /ws?appId={simulator.app_id} HTTP/1.1\r\nHost: localhost:{simulator.port}\r\n"
            f"Origin: {simulator.origin}\r\n"
            "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
        )
        assert simulator.wait_for_connections(1, authenticated=False)
        simulator.stall()
        simulator.stop()
        deaf.settimeout(20)
        assert deaf.recv(65536).startswith(b"HTTP/1.1 101")
        with pytest.raises(ConnectionResetError):
            deaf.recv(65536)


def test_stopping_sets_free_who_waits() -> None:
    failure: list[BaseException] = []

    def wait() -> None:
        try:
            simulator.wait_for_connections(99, timeout=60)
        except RuntimeError as error:
            failure.append(error)

    with Simulator() as simulator, dial(simulator):
        waiter = threading.Thread(target=wait)
        waiter.start()
        while not simulator._service.connections._waiters:
            pass
    waiter.join(20)
    assert "stopped" in str(failure[0])


def test_it_can_be_started_again_where_it_was() -> None:
    simulator = Simulator()
    assert "stopped" in repr(simulator)
    with simulator:
        url, tokens = simulator.url, simulator.sign_in()
        simulator.place_order()
        with pytest.raises(RuntimeError, match="running already"):
            simulator.start()
    simulator.stop()
    emitted = simulator.books().emitted
    assert emitted > 0
    assert simulator.connections == 0
    with pytest.raises(RuntimeError, match="not running"):
        simulator.place_order()
    simulator.refuse_connections(1)
    with simulator:
        assert simulator.url == url
        assert simulator._service.user_of(tokens.access_token).books.emitted == emitted
        with pytest.raises(Exception, match="503"), dial(simulator):
            pass
        with dial(simulator):
            assert simulator.wait_for_connections(1)


def test_a_port_that_is_taken_is_told_to_the_caller() -> None:
    with Simulator() as first, pytest.raises(OSError, match="in use"):
        Simulator(port=_port(first)).start()


def test_what_fails_in_the_thread_is_told_to_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(site: web.SockSite) -> None:
        raise LookupError("no luck")

    simulator = Simulator()
    threads = threading.active_count()
    with monkeypatch.context() as patch:
        patch.setattr(web.SockSite, "start", fail)
        with pytest.raises(LookupError, match="no luck"):
            simulator.start()
    assert threading.active_count() == threads
    with simulator:
        assert simulator.connections == 0


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.com", ""])  # noqa: S104
def test_other_machines_are_kept_out_unless_allowed(host: str) -> None:
    with pytest.raises(ValueError, match="allow_remote"):
        Simulator(host=host)
    Simulator(host=host, allow_remote=True)


@pytest.mark.parametrize("options", [{"origins": ()}, {"token_lifetime": 0}, {"heartbeat_interval": -1}])
def test_options_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        Simulator(**options)


def test_it_listens_where_it_says() -> None:
    with Simulator(host="localhost") as simulator, dial(simulator):
        assert simulator.url.startswith("ws://localhost:")
    simulator = Simulator(host="::1")
    try:
        simulator.start()
    except OSError:
        pytest.skip("no IPv6 here")
    with dial(simulator) as client:
        assert simulator.rest_url.startswith("http://[::1]:")
        client.recv(timeout=20)
    simulator.stop()


def test_it_speaks_tls() -> None:
    authority = trustme.CA()
    server, client = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), ssl.create_default_context()
    authority.issue_cert("127.0.0.1").configure_cert(server)
    authority.configure_trust(client)
    client.sslsocket_class = TwoThreadSocket
    with Simulator(ssl_context=server) as simulator, urllib3.PoolManager(ssl_context=client) as pool:
        assert (simulator.url[:6], simulator.rest_url[:8]) == ("wss://", "https://")
        assert pool.request("GET", f"{simulator.rest_url}/control/state").status == 200
        with dial(simulator, client) as kept, dial(simulator, client) as reset:
            simulator.place_order()
            for connection in (kept, reset):
                assert "connected" in str(connection.recv(timeout=20))
                assert "order_submitted" in str(connection.recv(timeout=20))
            simulator.stall()
            simulator.stall(False)
            simulator.drop(abort=True)
            for connection in (kept, reset):
                assert end_of(connection).rcvd is None


def test_a_failure_in_a_connection_is_not_swallowed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with Simulator() as simulator, dial(simulator) as client:
        client.recv(timeout=20)

        def fail(*_: object) -> None:
            raise LookupError("a bug")

        monkeypatch.setattr(simulator._service, "_receive_token", fail)
        client.send('{"action": "authenticate"}')
        with pytest.raises(ConnectionClosed):
            client.recv(timeout=20)
        assert simulator.wait_for_connections(0, authenticated=False)
    assert "a bug" in caplog.text


@pytest.mark.parametrize("missing", ["aiohttp", "jwt"])
def test_a_missing_dependency_is_said_with_what_to_install(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    for name in [name for name in sys.modules if name.startswith("aggstream.simulator")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ImportError, match=r"aggstream\[simulator\]"):
        importlib.import_module("aggstream.simulator")


def test_no_task_outlives_a_failed_handshake() -> None:
    with Simulator() as simulator:
        with socket.create_connection(("127.0.0.1", _port(simulator))) as raw:
            raw.sendall(b"nonsense\r\n\r\n")
            assert b"400" in raw.recv(65536)
        running = simulator._thread._running
        assert running is not None

        async def tasks() -> int:
            return len(asyncio.all_tasks())

        # The server itself and the one that counts; connections that ended have left none.
        while asyncio.run_coroutine_threadsafe(tasks(), running.loop).result(20) > 2:
            pass


def _port(simulator: Simulator) -> int:
    assert simulator.url == f"ws://127.0.0.1:{simulator.port}/ws"
    return simulator.port
