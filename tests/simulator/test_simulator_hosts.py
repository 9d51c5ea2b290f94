"""Whose requests the simulator answers: those for its own host, and for the names that it is given."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Iterator
from typing import Any

import pytest
import trustme
from waiting import DEADLINE

import aggstream
from aggstream.simulator import Simulator
from aggstream.testing import ChaosProxy

UPGRADE = (
    "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nOrigin: https://app.example\r\n"
)
WEBSOCKET = ("GET", "/ws?appId=app_demo123", UPGRADE, 101)
REQUESTS = {
    "the WebSocket": WEBSOCKET,
    "orders": ("GET", "/execution/orders", "x-app-id: app_demo123\r\n", 401),
    "balances": ("GET", "/execution/balances", "x-app-id: app_demo123\r\n", 401),
    "a refresh": ("POST", "/auth/token/refresh", "x-app-id: app_demo123\r\nContent-Length: 2\r\n", 400),
    "control": ("GET", "/control/state", "", 200),
    "a sign-in": ("POST", "/control/sign-in", "Content-Type: application/json\r\nContent-Length: 2\r\n", 200),
    "no such path": ("GET", "/", "", 404),
    "no such method": ("DELETE", "/control/state", "", 405),
    "the options of all": ("OPTIONS", "*", "", 404),
}
every_kind = pytest.mark.parametrize("kind", REQUESTS)


@pytest.fixture
def agg() -> Iterator[Simulator]:
    with Simulator(heartbeat_interval=3600) as simulator:
        yield simulator


def ask(
    simulator: Simulator,
    hosts: list[str],
    kind: tuple[str, str, str, int] = WEBSOCKET,
    *,
    version: str = "1.1",
    target: str | None = None,
    address: str = "127.0.0.1",
    context: ssl.SSLContext | None = None,
) -> tuple[int, bytes]:
    """Send one request with the given Host headers; return the status and the answer."""
    method, path, headers, _ = kind
    if headers != UPGRADE:
        headers += "Connection: close\r\n"
    lines = "".join(f"Host: {host.format(port=simulator.port)}\r\n" for host in hosts)
    request = f"{method} {(target or path).format(port=simulator.port)} HTTP/{version}\r\n{lines}{headers}\r\n"
    body = b"{}" if method == "POST" else b""
    with contextlib.ExitStack() as stack:
        sock = stack.enter_context(socket.create_connection((address, simulator.port), DEADLINE))
        if context is not None:
            sock = stack.enter_context(context.wrap_socket(sock, server_hostname=address))
        sock.sendall(request.encode() + body)
        answer = sock.recv(65536)
        status = int(answer.split()[1])
        if status != 101:
            with contextlib.suppress(OSError):
                while chunk := sock.recv(65536):
                    answer += chunk
    return status, answer


OWN = ["127.0.0.1:{port}", "localhost:{port}", "[::1]:{port}", "LOCALHOST:{port}", "localhost.:{port}"]
OTHERS = [
    "evil.example:{port}",
    "evil.example",
    "127.0.0.1.evil.example:{port}",
    "localhost.evil.example:{port}",
    "evil-localhost:{port}",
    "127.0.0.1",
    "localhost:1",
    "192.0.2.1:{port}",
    "[::2]:{port}",
    "sim:{port}",
    "127.0.0.1:{port}@evil.example",
    "evil.example@127.0.0.1:{port}",
    "127.0.0.1:{port}, evil.example",
    "127.0.0.1:{port}/",
    "127.0.0.1:{port}0",
    "127.0.0.1:x",
    "[::1:{port}",
    "",
]


@every_kind
@pytest.mark.parametrize("host", OWN)
def test_what_is_for_its_own_host_is_answered(host: str, kind: str, agg: Simulator) -> None:
    assert ask(agg, [host], REQUESTS[kind])[0] == REQUESTS[kind][3]


@every_kind
@pytest.mark.parametrize("host", OTHERS)
def test_what_is_for_another_host_is_refused_and_does_nothing(host: str, kind: str, agg: Simulator) -> None:
    status, answer = ask(agg, [host], REQUESTS[kind])
    # aiohttp refuses some of them by itself, as no host at all.
    assert status == 421 or (status == 400 and host in OTHERS[-8:])
    assert b"text/plain" in answer
    assert status == 400 or b"allowed_hosts" in answer
    assert agg.counts == aggstream.simulator.Counts()
    assert agg.connections == 0


@every_kind
@pytest.mark.parametrize(
    ("hosts", "version"),
    [
        ([], "1.1"),
        ([], "1.0"),
        (["127.0.0.1:{port}"] * 2, "1.1"),
        (["127.0.0.1:{port}", "evil.example"], "1.1"),
        (["evil.example", "127.0.0.1:{port}"], "1.0"),
    ],
)
def test_a_request_has_one_host(hosts: list[str], version: str, kind: str, agg: Simulator) -> None:
    status, answer = ask(agg, hosts, REQUESTS[kind], version=version)
    assert status == 400
    assert b"text/plain" in answer
    assert agg.counts == aggstream.simulator.Counts()


@pytest.mark.parametrize(
    ("target", "host", "status"),
    [
        ("http://127.0.0.1:{port}/control/state", "127.0.0.1:{port}", 200),
        ("http://evil.example:{port}/control/state", "127.0.0.1:{port}", 421),
        ("http://127.0.0.1:{port}/control/state", "evil.example:{port}", 421),
        ("http://a@127.0.0.1:{port}/control/state", "127.0.0.1:{port}", 421),
    ],
)
def test_a_host_in_the_target_counts_as_well(target: str, host: str, status: int, agg: Simulator) -> None:
    assert ask(agg, [host], REQUESTS["control"], target=target)[0] == status


@pytest.mark.parametrize(
    ("allowed", "host", "status"),
    [
        (["sim"], "sim", 101),
        (["sim"], "sim:{port}", 101),
        (["sim"], "SIM.:9000", 101),
        (["sim"], "other", 421),
        (["sim:9000"], "sim:9000", 101),
        (["sim:9000"], "sim:{port}", 421),
        (["sim:9000", "localhost:9001"], "localhost:9001", 101),
        (["127.0.0.1"], "127.0.0.1:9", 101),
        (["::2"], "[0::2]:7", 101),
        (["[::2]:7"], "[::2]:8", 421),
        (iter(["a.example", "b.example"]), "b.example", 101),
    ],
)
def test_further_names_are_an_option(allowed: Any, host: str, status: int) -> None:
    with Simulator(allowed_hosts=allowed) as simulator:
        for _ in range(2):
            assert ask(simulator, [host])[0] == status
        assert ask(simulator, ["localhost:{port}"])[0] == 101


@pytest.mark.parametrize(
    "allowed", ["sim", ["http://sim"], ["sim/ws"], [""], ["*"], ["a b"], ["sim:x"], [None], [7], [b"a:b:c"]]
)
def test_what_is_no_name_of_a_host_is_refused(allowed: Any) -> None:
    with pytest.raises(ValueError, match="allowed_hosts"):
        Simulator(allowed_hosts=allowed)


def test_a_simulator_that_listens_on_several_addresses_is_addressed_by_the_one_that_was_connected_to() -> None:
    with Simulator(host="0.0.0.0", allow_remote=True) as simulator:  # noqa: S104
        assert ask(simulator, ["127.0.0.2:{port}"], address="127.0.0.2")[0] == 101
        assert ask(simulator, ["127.0.0.2:{port}"], address="127.0.0.3")[0] == 421
        assert ask(simulator, ["evil.example:{port}"], address="127.0.0.2")[0] == 421


def test_it_is_so_over_tls(authority: trustme.CA, trusting: ssl.SSLContext) -> None:
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(serving)
    with Simulator(ssl_context=serving) as simulator:
        assert ask(simulator, ["127.0.0.1:{port}"], context=trusting)[0] == 101
        assert ask(simulator, ["evil.example:{port}"], context=trusting)[0] == 421
        assert ask(simulator, ["127.0.0.1"], context=trusting)[0] == 421


def test_a_client_behind_another_port_says_what_is_wrong() -> None:
    with Simulator() as simulator, ChaosProxy.for_url(simulator.url) as proxy:
        client = aggstream.Client(
            url=proxy.url_for(simulator.url),
            app_id=simulator.app_id,
            origin=simulator.origin,
            token=simulator.sign_in().access_token,
            reconnect=aggstream.ReconnectPolicy(max_attempts=1),
        )
        client.start()
        with pytest.raises(
            aggstream.ReconnectGaveUp, match="HTTP status 421: the server does not answer for the host"
        ):
            client.wait(DEADLINE)
