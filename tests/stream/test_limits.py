"""What a server may ask of this side: past a limit a typed error ends the connection, or costs the message."""

from __future__ import annotations

import logging
import socket
import ssl
import threading
from collections.abc import Callable
from typing import Any

import attrs
import pytest
from clients import IMPATIENT, MakeClient
from other_server import Peer, ServeFunction
from raw_server import ServeBytes, drain, frame, read_request, upgrade
from service_messages import ORDER_SUBMITTED
from waiting import DEADLINE, Until

import aggstream
from aggstream import ConfigurationError, Limits

CONNECTED = b'{"type":"connected","appId":"app_demo123"}'
AUTHENTICATED = b'{"type":"authenticated","userId":"usr_xyz789"}'
LIVE = frame(CONNECTED) + frame(AUTHENTICATED)
EVENT = ORDER_SUBMITTED.encode()
both = pytest.mark.parametrize("tls", [False, True], ids=["tcp", "tls"])


def then_hang(data: bytes) -> Callable[[socket.socket], object]:
    def script(sock: socket.socket) -> None:
        upgrade(sock, also=LIVE + data)
        drain(sock)

    return script


def drip(first: bytes, then: Callable[[int], bytes]) -> Callable[[socket.socket], object]:
    """Send something, and then a little and a little, until the client goes."""

    def script(sock: socket.socket) -> None:
        upgrade(sock, also=LIVE + first)
        pause, number = threading.Event(), 0
        while not pause.wait(0.01):
            sock.sendall(then(number))
            number += 1

    return script


@both
@pytest.mark.parametrize(
    ("limits", "script", "name"),
    [
        ({"frame_size": 1000}, then_hang(frame(b"a" * 1001)), "frame_size"),
        ({"message_size": 1000}, then_hang(frame(b"a" * 1001)), "message_size"),
        (
            {"message_size": 1000},
            then_hang(frame(b"a" * 600, fin=False) + frame(b"a" * 600, opcode=0, fin=False)),
            "message_size",
        ),
        ({"fragments": 3}, then_hang(frame(b"", fin=False) + frame(b"", opcode=0, fin=False) * 3), "fragments"),
        ({"message_timeout": 0.2}, then_hang(frame(EVENT)[:-1]), "message_timeout"),
        ({"message_timeout": 0.2}, then_hang(b"\x81"), "message_timeout"),
        ({"message_timeout": 0.2}, then_hang(frame(b"{", fin=False)), "message_timeout"),
        ({"message_timeout": 0.2}, drip(b"\x81\x7e\xff\xff", lambda _: b" "), "message_timeout"),
        (
            {"message_timeout": 0.2},
            drip(frame(b"{", fin=False), lambda n: frame(b"", opcode=9 if n % 2 else 0, fin=bool(n % 2))),
            "message_timeout",
        ),
    ],
    ids=[
        "frame",
        "frame as a message",
        "fragments together",
        "number of fragments",
        "half a frame",
        "half a header",
        "half a message",
        "dripped bytes",
        "dripped fragments between pings",
    ],
)
def test_past_a_limit_the_connection_ends_with_a_typed_error_and_the_next_one_is_made(
    limits: dict[str, Any],
    script: Callable[[socket.socket], object],
    name: str,
    tls: bool,
    raw_server: ServeBytes,
    client_of: MakeClient,
    trusting: ssl.SSLContext,
    until: Until,
) -> None:
    turns = iter([script, then_hang(frame(EVENT))])

    def play(sock: socket.socket) -> None:
        next(turns)(sock)

    server = raw_server(play, tls=tls)
    client = client_of(server.url, ssl_context=trusting, limits=Limits(**limits))
    errors: list[aggstream.AggStreamError] = []
    seen: list[aggstream.Event] = []
    client.on(aggstream.Disconnected)(lambda event: errors.append(event.error))
    client.on(aggstream.OrderSubmitted)(seen.append)
    client.start()
    until(lambda: seen)
    [error] = errors
    assert isinstance(error, aggstream.LimitExceeded)
    assert error.limit == name
    assert f"limits.{name}" in str(error)


@both
def test_the_handshake_has_a_size_and_a_time(
    tls: bool, raw_server: ServeBytes, client_of: MakeClient, trusting: ssl.SSLContext
) -> None:
    def endless(sock: socket.socket) -> None:
        read_request(sock)
        sock.sendall(b"HTTP/1.1 101 Switching Protocols\r\n" + b"X-More: yes\r\n" * 100)
        drain(sock)

    def slow(sock: socket.socket) -> None:
        pause = threading.Event()
        read_request(sock)
        sock.sendall(b"HTTP/1.1 101 Switching")
        while not pause.wait(0.01):
            sock.sendall(b" slowly")

    for script, options, words in (
        (endless, {"limits": Limits(handshake_size=1000)}, r"limits.handshake_size \(1000\)"),
        (slow, {"connect_timeout": 0.2}, "connect_timeout"),
    ):
        client = client_of(
            raw_server(script, tls=tls).url,
            ssl_context=trusting,
            reconnect=aggstream.ReconnectPolicy(max_attempts=1),
            **options,
        )
        client.start()
        with pytest.raises(aggstream.ReconnectGaveUp, match=words) as caught:
            client.wait(DEADLINE)
        assert isinstance(caught.value.__cause__, aggstream.ConnectFailed)


@both
def test_a_message_past_a_limit_of_json_costs_that_message_only(
    tls: bool, other_server: ServeFunction, client_of: MakeClient, trusting: ssl.SSLContext, until: Until
) -> None:
    def script(peer: Peer) -> None:
        peer.sign_in()
        for value in ["[" * 9 + "]" * 9, "1e9", "-1e-9", "123456789012345678", "0." + "1" * 20, "0." + "0" * 20]:
            peer.send('{"type": "new", "value": ' + value + "}")
        peer.send(ORDER_SUBMITTED)
        peer.wait_closed()

    server = other_server(script, tls=tls)
    limits = Limits(json_depth=8, number_digits=13, number_exponent=8)
    client = client_of(server.url, ssl_context=trusting, limits=limits)
    failed: list[aggstream.DecodeFailed] = []
    seen: list[aggstream.Event] = []
    client.on(aggstream.DecodeFailed)(failed.append)
    client.on(aggstream.UserEvent)(seen.append)
    client.start()
    until(lambda: seen or len(failed) > 5)
    assert [str(event.error).partition("limits.")[2].split()[0] for event in failed] == [
        "json_depth",
        "number_exponent",
        "number_exponent",
        "number_digits",
        "number_digits",
    ]
    assert server.connections == 1


@both
def test_a_log_line_and_an_error_repeat_so_much_of_the_servers_words_and_no_more(
    tls: bool,
    other_server: ServeFunction,
    client_of: MakeClient,
    trusting: ssl.SSLContext,
    until: Until,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def script(peer: Peer) -> None:
        peer.sign_in()
        peer.ws.close(1011, "reason\n" * 10)

    client = client_of(other_server(script, tls=tls).url, ssl_context=trusting, limits=Limits(logged_text=10))
    errors: list[aggstream.AggStreamError] = []
    client.on(aggstream.Disconnected)(lambda event: errors.append(event.error))
    client.start()
    until(lambda: errors)
    client.stop()
    assert "'reason\\nrea" in str(errors[0])
    assert "reason\nreason" not in caplog.text
    assert "reason\\nreason" not in caplog.text
    assert isinstance(errors[0], aggstream.ConnectionLost)
    assert errors[0].reason == "reason\n" * 10


def test_names_and_codes_of_the_servers_are_cut_short_as_well_and_forge_no_line(
    other_server: ServeFunction, client_of: MakeClient, until: Until, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    go_on = threading.Event()
    long = "x\n2026-01-01 ERROR aggstream: forged " + "y" * 50_000

    def script(peer: Peer) -> None:
        if peer.number == 1:
            peer.sign_in(long)
            peer.send({"type": long})
            assert go_on.wait(DEADLINE)
            peer.ws.close(1001)
        else:
            peer.send({"type": "error", "message": "no", "code": long})
            peer.wait_closed()

    client = client_of(
        other_server(script).url, limits=Limits(logged_text=30), slow_handler_duration=0.01, reconnect=IMPATIENT
    )

    @client.on(aggstream.UnknownEvent)
    def fails(event: aggstream.UnknownEvent) -> None:
        until(lambda: "has been at one x" in caplog.text)
        raise ArithmeticError

    client.start()
    until(lambda: "failed on x" in caplog.text)
    go_on.set()
    with pytest.raises(aggstream.ServerError) as caught:
        client.wait(DEADLINE)
    said = [record.getMessage() for record in caplog.records if record.name.startswith("aggstream.")]
    assert any("live as" in line for line in said)
    # The stack of the handler has many lines.
    assert not any("yyyy" in line or "\n2026" in line for line in said)
    assert caught.value.code == "x\\n2026-01-01 ERROR aggstream: \\u2026 (50037 characters)"
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", [field.name for field in attrs.fields(Limits)])
@pytest.mark.parametrize("value", [0, -1, "5", None, True])
def test_a_limit_must_be_above_zero(name: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=name):
        Limits(**{name: value})
