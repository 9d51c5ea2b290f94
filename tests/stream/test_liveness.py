"""A peer that is gone and does not say so: each kind is found within its deadline, and told as a gap."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from clients import MakeClient
from other_server import Peer, ServeFunction
from raw_server import ServeBytes, drain, frame, upgrade
from service_messages import ORDER_SUBMITTED
from waiting import DEADLINE, Until

import aggstream

LIVE = frame(b'{"type":"connected","appId":"app_demo123"}') + frame(b'{"type":"authenticated","userId":"usr_1"}')
EVENT = frame(ORDER_SUBMITTED.encode())
PING = frame(b"", opcode=9)
both = pytest.mark.parametrize("tls", [False, True], ids=["tcp", "tls"])


def falls_silent(sock: socket.socket) -> None:
    """Open, and takes what is sent, and never answers: gone without a FIN, or a process that hangs."""
    upgrade(sock, also=LIVE)
    drain(sock)


def falls_silent_in_a_frame(sock: socket.socket) -> None:
    upgrade(sock, also=LIVE + EVENT[:-5])
    drain(sock)


def pings_only(sock: socket.socket) -> None:
    """Proves that it is there all the time, and serves nobody."""
    upgrade(sock, also=LIVE)
    pause = threading.Event()
    while not pause.wait(0.01):
        sock.sendall(PING)


def stops_its_heartbeats(sock: socket.socket) -> None:
    upgrade(sock, also=LIVE + frame(b'{"type":"heartbeat","ts":0}') * 3)
    pause = threading.Event()
    while not pause.wait(0.01):
        sock.sendall(PING)


@both
@pytest.mark.parametrize(
    ("script", "options", "words"),
    [
        (falls_silent, {"ping_interval": 0.1, "pong_timeout": 0.2}, "pong_timeout"),
        (falls_silent_in_a_frame, {"ping_interval": 0.1, "pong_timeout": 0.2}, "pong_timeout"),
        (pings_only, {"idle_timeout": 0.1, "auth_timeout": 0.2}, "auth_timeout"),
        (stops_its_heartbeats, {"idle_timeout": 0.1, "auth_timeout": 0.2}, "auth_timeout"),
    ],
)
def test_a_peer_that_only_looks_alive_is_found_and_left(
    script: Callable[[socket.socket], object],
    options: dict[str, Any],
    words: str,
    tls: bool,
    raw_server: ServeBytes,
    client_of: MakeClient,
    trusting: ssl.SSLContext,
    until: Until,
) -> None:
    client = client_of(raw_server(script, tls=tls).url, ssl_context=trusting, **options)
    events: list[aggstream.Event] = []
    client.on(aggstream.LifecycleEvent)(events.append)
    client.start()
    until(lambda: any(isinstance(event, aggstream.Resumed) for event in events))
    client.stop()
    kinds = [type(event) for event in events]
    assert kinds[:4] == [aggstream.Disconnected, aggstream.Reconnecting, aggstream.Gap, aggstream.Resumed]
    lost, gap = events[0], events[2]
    assert isinstance(lost, aggstream.Disconnected)
    assert isinstance(gap, aggstream.Gap)
    assert isinstance(lost.error, aggstream.HeartbeatTimeout)
    assert words in str(lost.error)
    assert gap.started_ns < lost.received_ns


@both
def test_a_quiet_account_is_no_fault_while_the_service_answers(
    tls: bool, other_server: ServeFunction, client_of: MakeClient, trusting: ssl.SSLContext, until: Until
) -> None:
    proofs: list[str] = []

    def script(peer: Peer) -> None:
        peer.sign_in()
        while True:
            proofs.append(peer.receive()["token"])
            peer.send({"type": "authenticated", "userId": "usr_xyz789"})

    server = other_server(script, tls=tls)
    client = client_of(server.url, ssl_context=trusting, idle_timeout=0.05, ping_interval=0.02)
    client.start()
    until(lambda: len(proofs) >= 5)
    assert client.health().counters.gaps == 0
    assert server.connections == 1


class SuspendedClock:
    """The module `time` of a machine whose wall clock goes on while it sleeps."""

    monotonic = staticmethod(time.monotonic)

    def __init__(self) -> None:
        self.slept = 0.0

    def time(self) -> float:
        return time.time() + self.slept


@both
def test_a_machine_that_was_suspended_asks_whether_the_server_is_there(
    tls: bool,
    other_server: ServeFunction,
    client_of: MakeClient,
    trusting: ssl.SSLContext,
    monkeypatch: pytest.MonkeyPatch,
    until: Until,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    clock = SuspendedClock()
    monkeypatch.setattr("aggstream._base.suspension.time", clock)
    answers: list[str] = []
    live = threading.Event()

    def script(peer: Peer) -> None:
        peer.sign_in()
        live.wait(DEADLINE)
        while not answers:  # what is read after the suspension was noticed is a proof, and this may be
            clock.slept += 3600.0
            peer.send({"type": "heartbeat", "ts": 0})  # the next thing that wakes the client
            with contextlib.suppress(TimeoutError):
                answers.append(json.loads(peer.ws.recv(timeout=0.5))["action"])
        peer.wait_closed()

    client = client_of(
        other_server(script, tls=tls).url, ssl_context=trusting, idle_timeout=600.0, auth_timeout=0.2
    )
    gaps: list[aggstream.Event] = []
    client.on(aggstream.Gap)(gaps.append)
    client.start()
    client.wait_until_live(DEADLINE)
    live.set()
    until(lambda: gaps)
    assert answers[0] == "authenticate"
    assert "the machine was suspended for" in caplog.text
