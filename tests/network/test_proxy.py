"""Proxies: HTTP CONNECT and SOCKS5, chosen by an option or by the environment, and trusted with nothing."""

from __future__ import annotations

import copy
import logging
import pickle
import socket
import ssl
import threading
import traceback
from collections.abc import Callable
from typing import Any

import pytest
from clients import MakeClient
from other_server import Peer, ServeFunction
from proxies import LOGIN, PASSWORD, SomeProxy
from raw_server import ServeBytes, drain, read_request
from service_messages import ORDER_SUBMITTED
from waiting import DEADLINE, Until

import aggstream
from aggstream._base.secret import Secret
from aggstream._network.proxy import Proxy, choose_proxy, is_exempt, parse_proxy
from aggstream.simulator import Simulator

both = pytest.mark.parametrize("tls", [False, True], ids=["tcp", "tls"])
ONCE = aggstream.ReconnectPolicy(max_attempts=1)


def order(peer: Peer) -> None:
    peer.sign_in()
    peer.send(ORDER_SUBMITTED)
    peer.wait_closed()


def ended_by(client: aggstream.Client) -> BaseException:
    client.start()
    with pytest.raises(aggstream.AggStreamError) as caught:
        client.wait(DEADLINE)
    error = caught.value
    return error.__cause__ if isinstance(error, aggstream.ReconnectGaveUp) and error.__cause__ else error


# --- the stream -----------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("login", [None, ("user", PASSWORD)], ids=["open", "with a login"])
@pytest.mark.parametrize(
    ("scheme", "sees"), [("http", "localhost"), ("socks5h", "localhost"), ("socks5", "127.0.0.1")]
)
def test_the_stream_goes_through_a_proxy(
    scheme: str,
    sees: str,
    login: tuple[str, str] | None,
    tls: bool,
    raw_server: ServeBytes,
    other_server: ServeFunction,
    client_of: MakeClient,
    trusting: ssl.SSLContext,
    monkeypatch: pytest.MonkeyPatch,
    until: Until,
) -> None:
    real = socket.getaddrinfo
    if scheme == "socks5":  # IPv4 is enough for the proxy of these tests
        monkeypatch.setattr(
            socket, "getaddrinfo", lambda h, p, *_, **__: real(h, p, socket.AF_INET, socket.SOCK_STREAM)
        )
    proxy = SomeProxy(raw_server, scheme, login=login)
    server = other_server(order, tls=tls)
    url = f"{scheme}://{LOGIN if login else ''}{proxy.host_and_port}"
    client = client_of(server.url, ssl_context=trusting, proxy=url, token="canary-t0ken")
    seen: list[aggstream.Event] = []
    client.on("order_submitted")(seen.append)
    client.start()
    until(lambda: seen)
    assert client.stop()
    until(lambda: proxy.seen)
    assert proxy.asked == [(sees, int(server.url.rpartition(":")[2].partition("/")[0]))]
    # What is for the service is not for the proxy, and the other way round.
    assert all(b"canary" not in request for request in proxy.requests)
    assert not tls or b"canary" not in proxy.seen[0]
    assert all("proxy" not in name.lower() for _, headers in server.requests for name in headers)


@pytest.mark.parametrize("what", ["the stream", "a refresh"])
def test_each_address_of_the_service_is_tried_by_a_proxy_that_wants_an_address(
    what: str,
    raw_server: ServeBytes,
    other_server: ServeFunction,
    client_of: MakeClient,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def answer(sock: socket.socket) -> None:
        read_request(sock)
        sock.sendall(b'HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{"accessToken": "fresh-token"}')

    real = socket.getaddrinfo
    proxy = SomeProxy(raw_server, "socks5", refuses={"127.0.0.3"})

    def look_up(host: str, port: int, *_: object, **__: object) -> list[Any]:
        addresses = ("127.0.0.3", "127.0.0.4") if host == "service.example" else ("127.0.0.1",)
        return [row for at in addresses for row in real(at, port, socket.AF_INET, socket.SOCK_STREAM)]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    url = f"socks5://{proxy.host_and_port}"
    if what == "the stream":
        service = other_server(order).url.replace("localhost", "service.example")
        client = client_of(service, proxy=url, allow_insecure=True)
        client.start()
        client.wait_until_live(DEADLINE)
        assert client.health().counters.connections == 1
        client.stop()
    else:
        service = raw_server(answer).url.replace("127.0.0.1", "service.example").replace("ws:", "http:")
        provider = aggstream.RefreshingToken(
            "refresh", app_id="a", rest_url=service, proxy=url, allow_insecure=True
        )
        assert provider.get_token() == "fresh-token"
    assert [host for host, _ in proxy.asked] == ["127.0.0.3", "127.0.0.4"]


def test_only_the_proxy_looks_the_service_up_if_it_can(
    raw_server: ServeBytes, other_server: ServeFunction, client_of: MakeClient, until: Until
) -> None:
    proxy = SomeProxy(raw_server, "http")
    url = other_server(order).url.replace("localhost", "agg.nowhere.invalid")
    client = client_of(url, proxy=f"http://{proxy.host_and_port}", allow_insecure=True)
    client.start()
    client.wait_until_live(DEADLINE)
    assert proxy.asked[0][0] == "agg.nowhere.invalid"


@pytest.mark.parametrize("scheme", ["http", "socks5h"])
@pytest.mark.parametrize("given", ["", "user:wrong-canary@"], ids=["no login", "a wrong one"])
def test_a_proxy_that_does_not_let_us_through_is_fatal_and_says_what_to_look_at(
    given: str, scheme: str, raw_server: ServeBytes, client_of: MakeClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    proxy = SomeProxy(raw_server, scheme, login=("user", PASSWORD))
    client = client_of("ws://localhost:9/ws", proxy=f"{scheme}://{given}{proxy.host_and_port}")
    error = ended_by(client)
    assert isinstance(error, aggstream.ProxyRejected)
    assert error.final
    assert error.status == (407 if scheme == "http" else None)
    assert "look at the user and the password in proxy" in str(error)
    look_for_the_canary(client, error, caplog.text)


def look_for_the_canary(client: aggstream.Client, error: BaseException, log: str) -> None:
    places = [log, repr(client), repr(client.health()), repr(vars(client)), repr(client._options)]
    chain: BaseException | None = error
    while chain is not None:
        rendered = traceback.TracebackException.from_exception(chain, capture_locals=True)
        places += [repr(chain), str(vars(chain)), *map(str, (frame.locals for frame in rendered.stack))]
        assert b"canary" not in pickle.dumps(chain)
        chain = chain.__cause__ or chain.__context__
    assert not [place for place in places if "canary" in place]


def says(data: bytes) -> Callable[[socket.socket], None]:
    def script(sock: socket.socket) -> None:
        sock.recv(65536)
        sock.sendall(data)
        drain(sock)

    return script


def goes(sock: socket.socket) -> None:
    sock.recv(65536)


def drips(sock: socket.socket) -> None:
    if sock.recv(65536).startswith(b"CONNECT"):
        sock.sendall(b"HTTP/1.1 200 OK\r\n")
    pause = threading.Event()
    while not pause.wait(0.01):
        sock.sendall(b"\x05")


def names_no_text(sock: socket.socket) -> None:
    """Speak SOCKS5, and connect from an address whose name is no text."""
    sock.recv(65536)
    sock.sendall(b"\x05\x02")
    sock.recv(65536)
    sock.sendall(b"\x01\x00")
    sock.recv(65536)
    sock.sendall(b"\x05\x00\x00\x03\x02\xff\xfe\x00\x50")
    drain(sock)


@pytest.mark.parametrize(
    ("scheme", "script", "words"),
    [
        ("http", says(b"HTTP/1.1 502 Bad\r\n\r\n"), "HTTP status 502"),
        ("http", says(b"SMTP ready\r\n\r\n"), "does not answer in HTTP"),
        ("http", says(b"HTTP/1.1 two hundred\r\n\r\n"), "does not answer in HTTP"),
        ("http", says(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 20_000), "limits.handshake_size"),
        ("http", says(b"HTTP/1.1 100 Continue\r\n\r\n" * 4000), "limits.handshake_size"),
        ("http", says(b"HTTP/2 200\r\n\r\n"), "does not answer in HTTP"),
        ("http", says(b"\x00\x00\x12\x04\x00\x00\x00\x00\x00"), "does not answer in HTTP"),
        ("http", says(b"<html>"), "does not answer in HTTP"),
        ("http", says(b"\x05\xff"), "does not answer in HTTP"),
        ("http", goes, "closed the connection while it was asked"),
        ("http", drips, "connect_timeout"),
        ("http", drain, "connect_timeout"),
        ("socks5h", says(b"HTTP/1.1 400 Bad\r\n\r\n"), "did not connect"),
        ("socks5h", goes, "did not connect"),
        ("socks5h", names_no_text, "its answer is not valid"),
        ("socks5h", says(b"\x05\x00"), "connect_timeout"),
        ("socks5h", drain, "connect_timeout"),
    ],
)
def test_a_proxy_that_makes_no_sense_is_a_typed_error(
    scheme: str,
    script: Callable[[socket.socket], object],
    words: str,
    raw_server: ServeBytes,
    client_of: MakeClient,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    proxy = raw_server(script).url.removeprefix("ws://").removesuffix("/ws")
    client = client_of(
        "ws://localhost:9/ws", proxy=f"{scheme}://u:canary@{proxy}", connect_timeout=0.3, reconnect=ONCE
    )
    error = ended_by(client)
    assert isinstance(error, aggstream.ConnectFailed)
    assert words in str(error)
    look_for_the_canary(client, error, caplog.text)


OK = b"HTTP/1.1 200 Connection established\r\n"
CONNECTED = {
    "bytes that are not UTF-8": OK + b"Via: caf\xe9\r\nX-\xff: y\r\n\r\n",
    "folded": OK + b"Via: a,\r\n\tb\r\n c\r\n\r\n",
    "a line that is no header": OK + b"hello\r\n\r\n",
    "informational answers": b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nX: \xff\r\n\r\n" + OK + b"\r\n",
    "line ends without CR": b"HTTP/1.1 200 OK\nVia: a\n\n",
    "HTTP/1.0": b"HTTP/1.0 200 OK\r\n\r\n",
    "no reason": b"HTTP/1.1 204\r\n\r\n",
    "a length": OK + b"Content-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n",
}


@both
@pytest.mark.parametrize("name", CONNECTED)
def test_a_proxy_may_connect_in_odd_words(
    name: str,
    tls: bool,
    raw_server: ServeBytes,
    other_server: ServeFunction,
    client_of: MakeClient,
    trusting: ssl.SSLContext,
) -> None:
    proxy = SomeProxy(raw_server, "http", says=CONNECTED[name])
    client = client_of(
        other_server(order, tls=tls).url, ssl_context=trusting, proxy=f"http://{proxy.host_and_port}"
    )
    client.start()
    client.wait_until_live(DEADLINE)


REFUSED: dict[str, tuple[bytes, int, float | None]] = {
    "in form": (b"HTTP/1.1 503 No\r\nRetry-After: 7\r\n\r\n", 503, 7.0),
    "without a pause": (b"HTTP/1.1 502 No\r\n\r\n", 502, None),
    "bytes that are not UTF-8": (b"HTTP/1.1 429 \xff\r\nX-\xe9: \xff\r\nretry-after:7\r\n\r\n", 429, 7.0),
    "folded": (b"HTTP/1.1 503 No\r\nRetry-After:\r\n 7\r\n\r\n", 503, 7.0),
    "after an informational answer": (
        b"HTTP/1.1 100 Continue\r\nRetry-After: 1\r\n\r\nHTTP/1.1 503 No\r\nRetry-After: 7\r\n\r\n",
        503,
        7.0,
    ),
    "line ends without CR": (b"HTTP/1.1 503 No\nRetry-After: 7\n\n", 503, 7.0),
    "HTTP/1.0 and a body": (b"HTTP/1.0 504 No\r\nRetry-After: 7\r\nContent-Length: 9\r\n\r\n<html>", 504, 7.0),
    "a redirect": (b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:9/\r\n\r\n", 302, None),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_refusal_of_a_proxy_is_told_with_its_status_and_its_pause(
    name: str, raw_server: ServeBytes, client_of: MakeClient
) -> None:
    answer, status, pause = REFUSED[name]
    proxy = f"http://{raw_server(says(answer)).url.removeprefix('ws://').removesuffix('/ws')}"
    error = ended_by(client_of("ws://localhost:9/ws", proxy=proxy, reconnect=ONCE))
    assert isinstance(error, aggstream.ProxyRejected)
    assert (error.status, error.retry_after, error.final) == (status, pause, False)
    assert copy.copy(error).retry_after == pause  # by the way of pickle
    rest = aggstream.RestClient(
        rest_url="http://localhost:9",
        app_id="a",
        token="token-1234",
        proxy=proxy,
        options=aggstream.RestOptions(attempts=1),
    )
    with rest, pytest.raises(aggstream.RestError, match=f"HTTP status {status}") as refused:
        rest.balances()
    assert refused.value.retry_after == pause
    tokens = aggstream.RefreshingToken("refresh", app_id="a", rest_url="http://localhost:9", proxy=proxy)
    with pytest.raises(aggstream.TokenUnavailable, match=f"HTTP status {status}") as unavailable:
        tokens.get_token()
    assert unavailable.value.retry_after == pause


def test_the_stream_waits_for_as_long_as_the_proxy_asks(
    raw_server: ServeBytes, client_of: MakeClient, until: Until
) -> None:
    proxy = raw_server(says(REFUSED["in form"][0])).url.removeprefix("ws://").removesuffix("/ws")
    policy = aggstream.ReconnectPolicy(initial=0.001, maximum=60.0)
    client = client_of("ws://localhost:9/ws", proxy=f"http://{proxy}", reconnect=policy)
    pauses: list[float] = []
    client.on(aggstream.Reconnecting)(lambda event: pauses.append(event.delay))
    client.start()
    until(lambda: pauses)
    client.stop()
    assert pauses == [7.0]


def test_a_proxy_that_is_down_is_named(client_of: MakeClient) -> None:
    error = ended_by(client_of("ws://localhost:9/ws", proxy="http://127.0.0.1:9", reconnect=ONCE))
    assert isinstance(error, aggstream.ConnectFailed)
    assert "no TCP connection to the proxy 127.0.0.1:9: " in str(error)


def test_a_proxy_whose_name_has_no_address_is_not_taken_for_the_service(client_of: MakeClient) -> None:
    error = ended_by(client_of("ws://localhost:9/ws", proxy="http://proxy.nowhere.invalid:3128", reconnect=ONCE))
    assert isinstance(error, aggstream.ConnectFailed)
    assert "the proxy's host name proxy.nowhere.invalid cannot be looked up" in str(error)


@pytest.mark.parametrize("scheme", ["http", "socks5h"])
def test_stop_interrupts_a_proxy_that_hangs(scheme: str, raw_server: ServeBytes, client_of: MakeClient) -> None:
    reached = threading.Event()

    def hang(sock: socket.socket) -> None:
        sock.recv(1)
        reached.set()
        drain(sock)

    proxy = raw_server(hang).url.removeprefix("ws://").removesuffix("/ws")
    client = client_of("ws://localhost:9/ws", proxy=f"{scheme}://{proxy}", connect_timeout=3600.0)
    client.start()
    assert reached.wait(DEADLINE)
    assert client.stop(DEADLINE)


# --- refreshing -----------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("scheme", ["http", "socks5h", "socks5"])
def test_a_refresh_goes_through_the_proxy_as_well(
    scheme: str, tls: bool, raw_server: ServeBytes, authority: Any, trusting: ssl.SSLContext
) -> None:
    serving = None
    if tls:
        serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("localhost", "127.0.0.1").configure_cert(serving)
    proxy = SomeProxy(raw_server, scheme, login=("user", PASSWORD))
    with Simulator(ssl_context=serving) as agg:
        session = agg.sign_in("usr_1")
        tokens = aggstream.RefreshingToken(
            session.refresh_token,
            app_id=agg.app_id,
            rest_url=agg.rest_url,
            ssl_context=trusting,
            proxy=f"{scheme}://{LOGIN}{proxy.host_and_port}",
        )
        assert tokens.get_token()
        assert agg.counts.refreshes == 1
    assert len(proxy.asked) == 1
    assert PASSWORD not in repr(vars(tokens))


@pytest.mark.parametrize("scheme", ["http", "socks5h"])
def test_a_refresh_that_the_proxy_refuses_can_be_tried_again(scheme: str, raw_server: ServeBytes) -> None:
    proxy = SomeProxy(raw_server, scheme, login=("user", PASSWORD))
    tokens = aggstream.RefreshingToken(
        "refresh",
        app_id="a",
        rest_url="http://localhost:9",
        proxy=f"{scheme}://user:canary@{proxy.host_and_port}",
    )
    with pytest.raises(aggstream.TokenUnavailable, match="look at the user and the password in proxy") as caught:
        tokens.get_token()
    rendered = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    assert "canary" not in "".join(str(frame.locals) for frame in rendered.stack)


def test_a_proxy_that_drips_does_not_hold_a_refresh_up(raw_server: ServeBytes) -> None:
    proxy = raw_server(drips).url.removeprefix("ws://").removesuffix("/ws")
    tokens = aggstream.RefreshingToken(
        "refresh", app_id="a", rest_url="http://localhost:9", proxy=f"http://{proxy}", timeout=0.3
    )
    with pytest.raises(aggstream.TokenUnavailable):
        tokens.get_token()


# --- which proxy ----------------------------------------------------------------------------------------

VARIABLES = ("wss_proxy", "ws_proxy", "https_proxy", "http_proxy", "all_proxy", "no_proxy", "request_method")


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.mark.parametrize(
    ("text", "proxy"),
    [
        ("http://proxy.example:3128", Proxy("http", "proxy.example", 3128)),
        ("proxy.example:3128", Proxy("http", "proxy.example", 3128)),
        ("http://proxy.example", Proxy("http", "proxy.example", 80)),
        ("HTTP://Proxy.Example/", Proxy("http", "proxy.example", 80)),
        ("socks5://[::1]", Proxy("socks5", "::1", 1080)),
        ("socks5h://u@p:9", Proxy("socks5h", "p", 9, Secret("u"), Secret(""))),
        ("http://u%40x:p%3Aw@p", Proxy("http", "p", 80, Secret("u@x"), Secret("p:w"))),
    ],
)
def test_a_proxy_is_named_by_a_url(text: str, proxy: Proxy) -> None:
    assert parse_proxy(text, "proxy") == proxy


@pytest.mark.parametrize(
    "text",
    [
        "https://user:canary@proxy.example",
        "socks4://user:canary@proxy.example",
        "ftp://user:canary@proxy.example",
        "http://user:canary@",
        "http://user:canary@proxy.example:99999",
        "http://user:canary%0d%0aX:y@proxy.example",
        "http://user:canary@[::1",
        "http://canary\r\n@proxy",
        7,
        True,
    ],
)
def test_what_is_no_proxys_url_is_refused_without_showing_it(text: Any, client_of: MakeClient) -> None:
    with pytest.raises(aggstream.ConfigurationError, match="proxy") as caught:
        client_of("ws://localhost:9/ws", proxy=text)
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("text", ["proxy.example:3128", "user:canary@proxy.example:3128", "foo", "", "localhost"])
def test_a_proxy_that_is_given_as_an_option_has_a_scheme(text: str, client_of: MakeClient) -> None:
    with pytest.raises(aggstream.ConfigurationError, match=r'http://host:3128, "environment" or None') as caught:
        client_of("ws://localhost:9/ws", proxy=text)
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("text", ["enviroment", "Environment", "environ", " environment"])
def test_a_mistyped_environment_is_no_host(text: str, client_of: MakeClient) -> None:
    with pytest.raises(aggstream.ConfigurationError, match='did you mean "environment"'):
        client_of("ws://localhost:9/ws", proxy=text)


def test_a_socks_proxy_without_its_extra_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(aggstream.ConfigurationError, match=r"pip install 'aggstream\[socks\]'"):
        parse_proxy("socks5://proxy.example", "proxy")


@pytest.mark.parametrize(
    ("url", "environment", "host"),
    [
        ("wss://a.example/ws", {}, None),
        ("wss://a.example/ws", {"https_proxy": "http://p1"}, "p1"),
        ("wss://a.example/ws", {"HTTPS_PROXY": "http://p1"}, "p1"),
        ("wss://a.example/ws", {"https_proxy": "http://p1", "HTTPS_PROXY": "http://p2"}, "p1"),
        ("wss://a.example/ws", {"wss_proxy": "http://p1", "https_proxy": "http://p2"}, "p1"),
        ("wss://a.example/ws", {"all_proxy": "socks5h://p1", "http_proxy": "http://p2"}, "p1"),
        ("wss://a.example/ws", {"https_proxy": "", "ALL_PROXY": "p1:1"}, "p1"),
        ("ws://a.example/ws", {"http_proxy": "http://p1", "https_proxy": "http://p2"}, "p1"),
        ("ws://a.example/ws", {"ws_proxy": "http://p1", "http_proxy": "http://p2"}, "p1"),
        ("ws://a.example/ws", {"HTTP_PROXY": "http://p1"}, "p1"),
        ("ws://a.example/ws", {"HTTP_PROXY": "http://p1", "REQUEST_METHOD": "GET"}, None),
        ("ws://a.example/ws", {"http_proxy": "http://p1", "REQUEST_METHOD": "GET"}, "p1"),
        ("https://a.example/x", {"https_proxy": "http://p1", "wss_proxy": "http://p2"}, "p1"),
        ("http://a.example/x", {"http_proxy": "http://p1"}, "p1"),
        ("wss://a.example/ws", {"https_proxy": "http://p1", "no_proxy": "a.example"}, None),
        ("wss://a.example/ws", {"https_proxy": "http://p1", "NO_PROXY": "*"}, None),
        ("wss://a.example/ws", {"https_proxy": "http://p1", "no_proxy": "a.example:8443"}, "p1"),
        ("wss://a.example:8443/ws", {"https_proxy": "http://p1", "no_proxy": "a.example:8443"}, None),
        ("ws://localhost:1/ws", {"http_proxy": "http://p1"}, None),
        ("wss://127.0.0.1:1/ws", {"all_proxy": "http://p1"}, None),
        ("wss://[::1]:1/ws", {"all_proxy": "http://p1"}, None),
    ],
)
def test_the_environment_names_a_proxy(
    url: str, environment: dict[str, str], host: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    proxy = choose_proxy("environment", url)
    assert (proxy and proxy.host) == host
    assert choose_proxy(None, url) is None


def test_a_mistake_in_the_environment_names_the_variable_and_not_the_password(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "ftp://user:canary@proxy.example")
    with pytest.raises(aggstream.ConfigurationError, match="HTTPS_PROXY") as caught:
        choose_proxy("environment", "wss://a.example/ws")
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize(
    ("host", "no_proxy", "exempt"),
    [
        ("a.example", "a.example:\N{SUPERSCRIPT TWO}", False),
        ("a.example", "a.example:\N{ARABIC-INDIC DIGIT FOUR}\N{ARABIC-INDIC DIGIT FOUR}3", False),
        ("example.com", "example.com", True),
        ("example.com", ".example.com", True),
        ("ws.example.com", "example.com", True),
        ("ws.example.com", ".example.com", True),
        ("ws.example.com", "*.example.com", True),
        ("evilexample.com", "example.com", False),
        ("evilexample.com", ".example.com", False),
        ("example.com.evil", "example.com", False),
        ("EXAMPLE.com.", "Example.COM", True),
        ("example.com", "example.com.", True),
        ("example.com", "other, example.com ,another", True),
        ("example.com", "", False),
        ("example.com", " , ,", False),
        ("example.com", ".", False),
        ("example.com", "*", True),
        ("example.com", "example.com:443", True),
        ("example.com", "example.com:80", False),
        ("10.1.2.3", "10.0.0.0/8", True),
        ("11.1.2.3", "10.0.0.0/8", False),
        ("10.1.2.3", "10.1.2.3", True),
        ("10.1.2.3", "10.1.2.3:443", True),
        ("10.1.2.3", "2.3", False),
        ("fd00::1", "fd00::/8", True),
        ("fd00::1", "fd00::1", True),
        ("fd00::1", "[fd00::1]:443", True),
        ("fd00::1", "[fd00::1]:80", False),
        ("fd00::1", "fd00::2", False),
        ("10.1.2.3", "fd00::/8", False),
    ],
)
def test_no_proxy_means_what_it_says(host: str, no_proxy: str, exempt: bool) -> None:
    assert is_exempt(host, 443, no_proxy) is exempt
