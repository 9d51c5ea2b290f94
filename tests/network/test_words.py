"""Errors say what to do: TLS on a plain port and the other way round, certificates, a refused app or origin."""

from __future__ import annotations

import datetime as dt
import queue
import socket
import ssl
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import trustme
from clients import MakeClient
from raw_server import RawServer, ServeBytes, read_request
from waiting import DEADLINE

import aggstream


def failure_of(client: aggstream.Client) -> str:
    """Return the first error of a stream, fatal or not."""
    errors: queue.SimpleQueue[str] = queue.SimpleQueue()
    for name in ("reconnecting", "stopped"):
        client.on(name)(lambda event: errors.put(str(event.error)))
    client.start()
    return errors.get(timeout=DEADLINE)


def rest_failure(url: str, **options: Any) -> str:
    with (
        aggstream.RestClient(
            app_id="a", token="t", rest_url=url, options=aggstream.RestOptions(attempts=1), **options
        ) as rest,
        pytest.raises(aggstream.RestError) as caught,
    ):
        rest.balances()
    return str(caught.value)


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"SSH-2.0-x\r\n", b""])
def test_tls_on_a_plain_port_asks_whether_it_is_plain(
    answer: bytes, raw_server: ServeBytes, client_of: MakeClient
) -> None:
    def greet(sock: socket.socket) -> None:
        sock.recv(65536)
        sock.sendall(answer)

    address = raw_server(greet).url.partition("://")[2].partition("/")[0]
    for said in (failure_of(client_of(f"wss://{address}/ws")), rest_failure(f"https://{address}")):
        assert "speak TLS at this port" in said
        assert "ws:// or http://" in said


def test_plain_on_a_port_of_tls_asks_whether_it_is_tls(raw_server: ServeBytes, client_of: MakeClient) -> None:
    def alert(sock: socket.socket) -> None:
        read_request(sock)
        sock.sendall(b"\x15\x03\x01\x00\x02\x02\x46")

    server = raw_server(alert)
    assert "is it wss:// or https://?" in failure_of(client_of(server.url))


def test_a_gateway_that_answers_400_to_plain_http_asks_as_well(
    raw_server: ServeBytes, client_of: MakeClient
) -> None:
    def refuse(sock: socket.socket) -> None:
        read_request(sock)
        sock.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")

    assert "it is wss://" in failure_of(client_of(raw_server(refuse).url))


@pytest.mark.parametrize("status", [400, 401, 403])
def test_a_refusal_that_may_be_the_apps_shows_what_was_sent(
    status: int, raw_server: ServeBytes, client_of: MakeClient
) -> None:
    def refuse(sock: socket.socket) -> None:
        read_request(sock)
        sock.sendall(b"HTTP/1.1 %d No\r\nContent-Length: 0\r\n\r\n" % status)

    said = failure_of(client_of(raw_server(refuse).url, app_id="app_mine", origin="https://mine.example"))
    assert "sent were app_id 'app_mine' and origin 'https://mine.example'" in said
    assert "token-of-xyz789" not in said


@pytest.fixture
def private() -> trustme.CA:
    """An authority that this machine does not know."""
    return trustme.CA()


@pytest.fixture
def serve_tls(private: trustme.CA) -> Iterator[Callable[..., int]]:
    servers: list[RawServer] = []

    def start(name: str, **options: Any) -> int:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        private.issue_cert(name, **options).configure_cert(context)
        servers.append(RawServer(lambda sock: sock.recv(1), context))
        return int(servers[-1].url.rpartition(":")[2].partition("/")[0])

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def trusting(private: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    private.configure_trust(context)
    return context


def test_an_authority_that_is_not_known_names_what_to_give(
    serve_tls: Callable[..., int], client_of: MakeClient
) -> None:
    port = serve_tls("localhost")
    for said in (failure_of(client_of(f"wss://localhost:{port}/ws")), rest_failure(f"https://localhost:{port}")):
        assert "certificate is not valid" in said
        assert "ssl_context=" in said
        assert "--ca-file" in said


def test_another_host_and_an_old_certificate_say_so(
    serve_tls: Callable[..., int], client_of: MakeClient, trusting: ssl.SSLContext
) -> None:
    port = serve_tls("other.example")
    said = failure_of(client_of(f"wss://localhost:{port}/ws", ssl_context=trusting))
    assert "look at the host name in the URL" in said
    assert "look at the host name" in rest_failure(f"https://localhost:{port}", ssl_context=trusting)
    yesterday = dt.datetime.now(dt.timezone.utc) - dt.timedelta(days=1)
    port = serve_tls("localhost", not_after=yesterday)
    said = failure_of(client_of(f"wss://localhost:{port}/ws", ssl_context=trusting))
    assert "expired" in said
    assert "clock of this machine" in said
