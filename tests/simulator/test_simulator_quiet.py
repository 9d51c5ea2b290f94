"""Clients that vanish in any phase leave no word in the logs: there is nothing that anybody could mend."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import struct
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
import trustme

from aggstream.simulator import Simulator
from aggstream.simulator._connection import ServerConnection

if TYPE_CHECKING:
    from collections.abc import Iterator

PATIENCE = 20


class Phone:
    """Makes raw connections to the simulator, and lets them vanish."""

    def __init__(self, simulator: Simulator, context: ssl.SSLContext | None) -> None:
        self.simulator = simulator
        self.context = context

    def dial(self) -> socket.socket:
        port = int(self.simulator.rest_url.rpartition(":")[2])
        tcp = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
        return tcp if self.context is None else self.context.wrap_socket(tcp, server_hostname="127.0.0.1")

    def handshake(self, app_id: str | None = None) -> bytes:
        token = self.simulator.sign_in().access_token
        return (
            f"GET /ws?appId={app_id or self.simulator.app_id}&token={token} HTTP/1.1\r\n"
            f"Host: localhost:{self.simulator.port}\r\nOrigin: {self.simulator.origin}\r\n"
            "Upgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        ).encode()

    def call(self) -> bytes:
        token = self.simulator.sign_in().access_token
        return (
            f"GET /execution/orders HTTP/1.1\r\nHost: localhost:{self.simulator.port}\r\n"
            f"x-app-id: {self.simulator.app_id}\r\nAuthorization: Bearer {token}\r\n\r\n"
        ).encode()

    def connected(self) -> socket.socket:
        sock = self.dial()
        sock.sendall(self.handshake())
        assert sock.recv(65536).startswith(b"HTTP/1.1 101")
        assert self.simulator.wait_for_connections(1)
        return sock


def hang_up(sock: socket.socket, *, reset: bool = False) -> None:
    """End a connection as the system does for a process that was killed."""
    if reset:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


@pytest.fixture(params=["tcp", "tls"])
def phone(request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture) -> Iterator[Phone]:
    """Fail a test in which anything was logged."""
    serving, trusting = None, None
    if request.param == "tls":
        authority = trustme.CA()
        serving, trusting = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), ssl.create_default_context()
        authority.issue_cert("127.0.0.1").configure_cert(serving)
        authority.configure_trust(trusting)
    with Simulator(heartbeat_interval=3600, ssl_context=serving) as simulator:
        yield Phone(simulator, trusting)
        assert simulator.wait_for_connections(0, authenticated=False, timeout=PATIENCE)
    # Stopping is logged here, in the fixture's own phase.
    records = caplog.get_records("call") + caplog.records
    assert [record.getMessage() for record in records if record.levelno > logging.INFO] == []


def test_a_client_may_vanish_before_its_handshake_is_answered(phone: Phone) -> None:
    if phone.context is not None:
        # Its own loop must turn for TLS to begin, so here it is not certain who is first.
        for _ in range(20):
            sock = phone.dial()
            sock.sendall(phone.handshake())
            hang_up(sock)
        return
    request = phone.handshake()

    def vanish() -> None:
        # In the loop itself: it finds the request and its end at once.
        sock = phone.dial()
        sock.sendall(request)
        hang_up(sock)

    handshakes = phone.simulator.counts.handshakes
    phone.simulator._call(vanish)
    while phone.simulator.counts.handshakes == handshakes:
        pass


@pytest.mark.parametrize("reset", [False, True])
def test_a_client_may_vanish_with_much_still_to_be_sent(phone: Phone, reset: bool) -> None:
    sock = phone.connected()
    phone.simulator.stall()
    for _ in range(20):
        phone.simulator.push("large" * 20_000)
    hang_up(sock, reset=reset)
    phone.simulator.stall(False)
    assert phone.simulator.wait_for_connections(0, authenticated=False, timeout=PATIENCE)


def test_a_client_may_say_goodbye_while_nobody_reads(phone: Phone) -> None:
    sock = phone.connected()
    phone.simulator.stall()
    for _ in range(20):
        phone.simulator.push("large" * 20_000)
    socket.socket.shutdown(sock, socket.SHUT_WR)

    async def go_on() -> None:
        for _ in range(10):
            await asyncio.sleep(0)
        phone.simulator._service.stall(False)

    phone.simulator._run(go_on)
    assert phone.simulator.wait_for_connections(0, authenticated=False, timeout=PATIENCE)
    sock.close()


def test_a_client_may_vanish_just_before_much_is_sent(phone: Phone) -> None:
    sock = phone.connected()
    (connection,) = phone.simulator._service.connections.open_to()

    def vanish() -> None:
        # In the loop itself: it writes before it finds out.
        hang_up(sock, reset=True)
        for number in range(100):
            connection.send(str(number))

    phone.simulator._call(vanish)


def test_a_client_may_vanish_with_its_pings_unanswered(phone: Phone) -> None:
    sock = phone.connected()

    def vanish() -> None:
        sock.sendall(b"\x89\x80\0\0\0\0" * 50)
        hang_up(sock, reset=True)

    phone.simulator._call(vanish)


def test_a_connection_cannot_be_made_of_a_client_that_is_gone() -> None:
    gone = SimpleNamespace(transport=None)
    with pytest.raises(ConnectionResetError):
        ServerConnection(gone)  # type: ignore[arg-type]


@pytest.mark.parametrize("reset", [False, True])
def test_a_client_may_vanish_while_its_call_is_held_back(phone: Phone, reset: bool) -> None:
    phone.simulator.stall_rest()
    phone.simulator.drop_rest(1)
    for number in (1, 2):
        sock = phone.dial()
        sock.sendall(phone.call())
        while phone.simulator.counts.rest_calls < number:
            pass
        hang_up(sock, reset=reset)
    phone.simulator.stall_rest(False)


def test_connections_that_are_gone_can_be_stalled(phone: Phone) -> None:
    sock = phone.connected()
    service = phone.simulator._service

    async def stall_while_it_goes() -> None:
        service.drop(None, 1001, "", abort=True)
        while service.connections.all_present():
            service.stall(True)
            service.stall(False)
            await asyncio.sleep(0)

    phone.simulator._run(stall_while_it_goes)
    sock.close()


def test_what_follows_a_refused_handshake_is_not_taken_for_a_request(phone: Phone) -> None:
    sock = phone.dial()
    sock.sendall(phone.handshake(app_id="app_other") + b"\x81\x85\0\0\0\0hello")
    answer = b""
    while chunk := sock.recv(65536):
        answer += chunk
    sock.close()
    assert answer.count(b"HTTP/1.1") == answer.count(b" 403 ") == 1
