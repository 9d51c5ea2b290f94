"""Orders and balances over real HTTP: from the simulator, and from servers that mean no good."""

from __future__ import annotations

import contextlib
import gc
import gzip
import http.server
import json
import logging
import os
import pathlib
import pickle
import re
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from decimal import Decimal
from types import MappingProxyType
from typing import Any, Protocol

import attrs
import pytest
from proxies import LOGIN, PASSWORD, SomeProxy
from raw_server import RawServer, ServeBytes, drain, read_request
from waiting import DEADLINE, Until

from aggstream import (
    AuthenticationError,
    AuthenticationRejected,
    ConfigurationError,
    Limits,
    RefreshingToken,
    RestClient,
    RestError,
    RestOptions,
    StateError,
    TokenUnavailable,
)
from aggstream._base.backoff import is_worth_retrying
from aggstream._base.secret import Secret
from aggstream.errors import AggStreamError, ProxyRejected
from aggstream.rest._calls import Calls, Unauthorized
from aggstream.simulator import Simulator

CANARY = "canary-in-the-coal-mine"
EMPTY_PAGE = b'{"data": [], "nextCursor": null, "hasMore": false}'
ONE_ATTEMPT = RestOptions(attempts=1, timeout=5)
TWO_ATTEMPTS = RestOptions(attempts=2, timeout=5)
both = pytest.mark.parametrize("tls", [False, True], ids=["tcp", "tls"])


# --- servers and clients --------------------------------------------------------------------------------

Reply = tuple[int, dict[str, str], bytes]


class Api(http.server.ThreadingHTTPServer):
    """Answers in form, with what it is told to, and then with empty pages."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.answers: list[Reply] = []
        self.answer: Callable[[str, dict[str, str]], Reply] = lambda path, headers: (
            self.answers.pop(0) if self.answers else (200, {}, EMPTY_PAGE)
        )
        self.connections = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Api

    def setup(self) -> None:
        super().setup()
        self.server.connections += 1

    def do_GET(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.requests.append((self.path, headers))
        status, extra, data = self.server.answer(self.path, headers)
        self.send_response(status)
        for name, value in {"content-length": str(len(data)), **extra}.items():
            self.send_header(name, value)
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  (the library's name)
        """Keep quiet."""


@pytest.fixture
def api() -> Iterator[Api]:
    with Api() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), name="api")
        thread.start()
        yield server
        server.shutdown()
        thread.join()


class MakeRest(Protocol):
    def __call__(self, rest_url: str, /, **options: Any) -> RestClient: ...


@pytest.fixture
def rest_of() -> Iterator[MakeRest]:
    """Make clients that are closed when the test ends."""
    clients: list[RestClient] = []

    def make(rest_url: str, /, **options: Any) -> RestClient:
        client = RestClient(**{"app_id": "app_1", "token": "token-1234", "rest_url": rest_url, **options})
        clients.append(client)
        return client

    yield make
    for client in clients:
        client.close()


def http_url(server: RawServer) -> str:
    return server.url.replace("ws", "http", 1).removesuffix("/ws")


def answered(sock: socket.socket, answer: bytes) -> None:
    read_request(sock)
    sock.sendall(answer)


def page(*ids: str, cursor: str | None = None) -> Reply:
    orders = [{"id": name, "status": "open"} for name in ids]
    body = {"data": orders, "nextCursor": cursor, "hasMore": cursor is not None}
    return 200, {}, json.dumps(body).encode()


def tokens(*texts: str) -> Callable[[], str]:
    """A function that returns one token after the other."""
    return iter(texts).__next__


# --- the simulator --------------------------------------------------------------------------------------


@both
def test_all_orders_come_newest_first_over_several_pages(
    tls: bool, rest_of: MakeRest, authority: Any, trusting: ssl.SSLContext
) -> None:
    context = None
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(context)
    with Simulator(ssl_context=context) as agg:
        placed = [agg.place_order() for _ in range(205)]
        rest = rest_of(agg.rest_url, app_id=agg.app_id, token=agg.sign_in().access_token, ssl_context=trusting)
        orders = list(rest.orders())
        assert [order.id for order in orders] == placed[::-1]
        assert [order.id for order in rest.orders(max_pages=2)] == placed[:4:-1]
        first = rest.orders_page(limit=3)
        second = rest.orders_page(limit=3, cursor=first.next_cursor)
        assert [order.id for order in first.orders + second.orders] == placed[:-7:-1]
        rest.close()


def test_a_simulator_that_stops_leaves_nothing_of_a_connection_that_was_kept(
    rest_of: MakeRest, authority: Any, trusting: ssl.SSLContext
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with Simulator(ssl_context=context) as agg:
        rest = rest_of(agg.rest_url, app_id=agg.app_id, token=agg.sign_in().access_token, ssl_context=trusting)
        assert rest.balances().cash
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        gc.collect()
    assert [str(warning.message) for warning in caught] == []


def test_money_is_exact_and_what_is_paid_is_gone_from_the_balance(rest_of: MakeRest) -> None:
    with Simulator() as agg:
        rest = rest_of(agg.rest_url, app_id=agg.app_id, token=agg.sign_in().access_token)
        [before] = rest.balances().cash
        agg.place_order(scenario="filled", venue="kalshi", side="buy", price="0.5501", size="1000.01")
        [order] = rest.orders()
        [after] = rest.balances().cash
        assert (order.venue, order.side, order.status) == ("kalshi", "buy", "filled")
        assert (order.amount_raw, order.filled_amount_raw) == (1_000_010_000, 1_000_010_000)
        assert order.execution_price == Decimal("0.5501")
        assert order.created_at is not None
        assert order.updated_at is not None
        assert order.created_at <= order.updated_at
        assert before.total is not None
        assert after.total is not None
        assert before.total - after.total == Decimal("550.11")  # in whole cents
        assert [balance.venue for balance in rest.balances().positions]
        rest.close()


def test_orders_can_be_asked_for_by_their_status(rest_of: MakeRest) -> None:
    with Simulator() as agg:
        filled, failed = agg.place_order(scenario="filled"), agg.place_order(scenario="failed")
        rest = rest_of(agg.rest_url, app_id=agg.app_id, token=agg.sign_in().access_token)
        assert [order.id for order in rest.orders(status="filled")] == [filled]
        [order] = rest.orders(status="failed")
        assert (order.id, bool(order.error_message)) == (failed, True)
        assert list(rest.orders(status="no such status")) == []
        rest.close()


def test_an_expired_token_is_replaced_once_however_many_calls_meet_it(rest_of: MakeRest) -> None:
    with Simulator() as agg:
        session = agg.sign_in()
        provider = RefreshingToken(
            session.refresh_token,
            access_token=session.access_token,
            app_id=agg.app_id,
            rest_url=agg.rest_url,
        )
        rest = rest_of(agg.rest_url, app_id=agg.app_id, token=provider)
        rest.balances()
        agg.expire_tokens()
        got: list[object] = []
        threads = [threading.Thread(target=lambda: got.append(rest.balances())) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(DEADLINE)
        assert len(got) == 6
        assert agg.counts.refreshes == 1
        rest.close()


def test_a_fixed_token_that_expires_says_to_sign_in_again(rest_of: MakeRest) -> None:
    with Simulator() as agg:
        rest = rest_of(agg.rest_url, app_id=agg.app_id, token=agg.sign_in().access_token)
        agg.expire_tokens()
        with pytest.raises(AuthenticationRejected, match="no other token: sign in again") as caught:
            rest.balances()
        assert caught.value.final
        rest.close()


def test_an_app_that_is_refused_says_what_to_look_at(rest_of: MakeRest) -> None:
    with Simulator() as agg:
        rest = rest_of(agg.rest_url, app_id="another", token=agg.sign_in().access_token)
        with pytest.raises(RestError, match=r"403.*app_id and api_key") as caught:
            rest.balances()
        assert caught.value.status == 403
        rest.close()


def test_settings_come_from_the_environment_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    with Simulator() as agg:
        monkeypatch.setenv("AGGSTREAM_APP_ID", agg.app_id)
        monkeypatch.setenv("AGGSTREAM_TOKEN", agg.sign_in().access_token)
        monkeypatch.setenv("AGGSTREAM_REST_URL", agg.rest_url)
        with RestClient() as rest:
            assert rest.balances().cash
        monkeypatch.setenv("AGGSTREAM_REST_URL", "https://elsewhere.invalid")
        with RestClient(options=RestOptions(url=agg.rest_url)) as rest:
            assert rest.balances().cash
        with RestClient(rest_url=agg.rest_url, options=RestOptions(url="https://elsewhere.invalid")) as rest:
            assert rest.balances().cash


# --- what is sent ---------------------------------------------------------------------------------------


def test_a_request_carries_what_the_service_asks_for_and_nothing_else(
    api: Api, rest_of: MakeRest, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    netrc = tmp_path / ".netrc"
    netrc.write_text("default login someone password canary-netrc\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(netrc))
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://someone:canary-proxy@localhost:9")
    api.answers = [(200, {"set-cookie": "a=b"}, EMPTY_PAGE)]
    rest = rest_of(api.url + "/", options=RestOptions(headers={"X-App-Api-Key": "key"}))
    for _ in range(2):
        rest.orders_page(status="a&b=c d", cursor="é/=", limit=7)
    (path, headers), (_, again) = api.requests
    assert path == "/execution/orders?limit=7&status=a%26b%3Dc+d&cursor=%C3%A9%2F%3D"
    headers.pop("user-agent")
    assert headers.pop("host") in api.url
    assert headers == {
        "x-app-id": "app_1",
        "authorization": "Bearer token-1234",
        "accept": "application/json",
        "accept-encoding": "identity",
        "x-app-api-key": "key",
    }
    assert "cookie" not in again


def test_paths_and_the_size_of_pages_are_options(api: Api, rest_of: MakeRest) -> None:
    options = RestOptions(orders_path="/v2/orders?all=1", balances_path="/v2/funds", page_size=9)
    rest = rest_of(api.url, options=options)
    api.answers = [(200, {}, EMPTY_PAGE), (200, {}, b'{"cash": []}')]
    rest.orders_page()
    rest.balances()
    assert [path for path, _ in api.requests] == ["/v2/orders?all=1&limit=9", "/v2/funds"]


def test_pages_are_asked_for_as_they_are_taken_and_over_one_connection(api: Api, rest_of: MakeRest) -> None:
    api.answers = [page("a", "b", cursor="1"), page("c", cursor="2"), page(cursor="3"), page("d")]
    orders = rest_of(api.url).orders(status="open")
    assert api.requests == []
    assert [next(orders).id, next(orders).id] == ["a", "b"]
    assert len(api.requests) == 1
    assert next(orders).id == "c"
    assert [order.id for order in orders] == ["d"]
    assert [path.partition("?")[2] for path, _ in api.requests] == [
        "limit=100&status=open",
        *(f"limit=100&status=open&cursor={number}" for number in (1, 2, 3)),
    ]
    assert api.connections == 1


def test_pages_that_go_round_in_a_circle_are_an_error(api: Api, rest_of: MakeRest) -> None:
    api.answers = [page("a", cursor="1"), page("b", cursor="2"), page("c", cursor="1")]
    orders = rest_of(api.url).orders()
    assert [next(orders).id for _ in range(3)] == ["a", "b", "c"]
    with pytest.raises(RestError, match="circle"):
        next(orders)
    assert len(api.requests) == 3


def test_an_order_that_is_not_understood_is_logged_and_left_out(
    api: Api, rest_of: MakeRest, caplog: pytest.LogCaptureFixture
) -> None:
    broken = (
        b'{"data": [{"id": "a", "status": "open"}, {"id": 5, "status": "canary"}, {"id": "c", "status": "x"}]}'
    )
    api.answers = [(200, {}, broken)]
    assert [order.id for order in rest_of(api.url).orders()] == ["a", "c"]
    assert "$.data[1].id: expected a string, got a number" in caplog.text
    assert "canary" not in caplog.text


@pytest.mark.parametrize("scheme", ["http", "socks5h"])
def test_a_proxy_carries_the_calls_and_sees_no_token(
    scheme: str, raw_server: ServeBytes, rest_of: MakeRest, authority: Any, trusting: ssl.SSLContext
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    proxy = SomeProxy(raw_server, scheme, login=("user", PASSWORD))
    with Simulator(ssl_context=context) as agg:
        token = agg.sign_in().access_token
        rest = rest_of(
            agg.rest_url.replace("127.0.0.1", "localhost"),
            app_id=agg.app_id,
            token=token,
            ssl_context=trusting,
            proxy=f"{scheme}://{LOGIN}{proxy.host_and_port}",
        )
        assert rest.balances().cash
        rest.close()
        assert token.encode() not in b"".join(proxy.seen + proxy.requests)
    assert [host for host, _ in proxy.asked] == ["localhost"]


# --- what is tried again --------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503])
def test_a_service_that_is_busy_is_asked_again(status: int, api: Api, rest_of: MakeRest) -> None:
    api.answers = [(status, {}, b"busy")]
    assert rest_of(api.url, options=TWO_ATTEMPTS).orders_page().orders == ()
    assert len(api.requests) == 2


@pytest.mark.parametrize("name", ["reset", "half a body", "silence"])
def test_a_connection_that_fails_is_made_again(name: str, raw_server: ServeBytes, rest_of: MakeRest) -> None:
    scripts = iter([NO_ANSWERS[name], cut(HEAD + b"\r\n" + EMPTY_PAGE)])

    def script(sock: socket.socket) -> None:
        next(scripts)(sock)

    rest = rest_of(http_url(raw_server(script)), options=RestOptions(attempts=2, timeout=1))
    assert rest.orders_page().orders == ()


def test_a_service_that_stays_busy_is_asked_so_often_and_no_more(api: Api, rest_of: MakeRest) -> None:
    api.answer = lambda path, headers: (503, {"retry-after": "0"}, b"busy")
    with pytest.raises(RestError, match=re.escape(f"GET {api.url}/execution/orders was answered with")) as caught:
        rest_of(api.url, options=RestOptions(attempts=3)).orders_page()
    assert (caught.value.status, caught.value.retry_after) == (503, 0.0)
    assert len(api.requests) == 3


@pytest.mark.parametrize("status", [204, 302, 307, 400, 403, 404, 405, 410, 422])
def test_what_will_not_get_better_is_asked_once(status: int, api: Api, rest_of: MakeRest) -> None:
    api.answers = [(status, {"location": "http://127.0.0.1:9/"}, b"")]
    with pytest.raises(RestError, match=str(status)) as caught:
        rest_of(api.url).balances()
    assert caught.value.status == status
    assert len(api.requests) == 1


def test_a_redirect_is_not_followed(api: Api, raw_server: ServeBytes, rest_of: MakeRest) -> None:
    elsewhere = raw_server(drain)
    api.answers = [(307, {"location": http_url(elsewhere)}, b"")]
    with pytest.raises(RestError, match="redirects are not followed: look at rest_url"):
        rest_of(api.url).balances()
    assert elsewhere.connections == 0


def test_the_time_that_the_service_asks_for_is_waited(api: Api, rest_of: MakeRest) -> None:
    api.answers = [(429, {"retry-after": "1"}, b"")]
    began = time.monotonic()
    rest_of(api.url).orders_page()
    assert time.monotonic() - began >= 1.0


def test_no_service_can_ask_for_more_than_half_a_minute_and_closing_ends_the_pause(
    api: Api, rest_of: MakeRest, caplog: pytest.LogCaptureFixture, until: Until
) -> None:
    caplog.set_level(logging.INFO, "aggstream")
    api.answers = [(503, {"retry-after": "86400"}, b"")]
    rest = rest_of(api.url)
    raised: list[BaseException] = []

    def call() -> None:
        try:
            rest.balances()
        except StateError as error:
            raised.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    until(lambda: "trying again in 30.0 s" in caplog.text)
    rest.close()
    thread.join(DEADLINE)
    assert len(raised) == 1
    assert len(api.requests) == 1


def test_a_token_that_is_refused_is_replaced_and_asked_with_once_more(api: Api, rest_of: MakeRest) -> None:
    api.answers = [(401, {}, b"")]
    rest = rest_of(api.url, token=tokens("first", "second"))
    rest.orders_page()
    rest.orders_page()
    sent = [headers["authorization"] for _, headers in api.requests]
    assert sent == ["Bearer first", "Bearer second", "Bearer second"]


def test_a_function_is_asked_once_for_all_calls_that_are_refused_together(api: Api, rest_of: MakeRest) -> None:
    together = threading.Barrier(6)

    def refuse_the_first(path: str, headers: dict[str, str]) -> Reply:
        if headers["authorization"] != "Bearer first":
            return 200, {}, EMPTY_PAGE
        together.wait(DEADLINE)
        return 401, {}, b""

    api.answer = refuse_the_first
    rest = rest_of(api.url, token=tokens("first", "second"))  # and no third
    got: list[object] = []
    threads = [threading.Thread(target=lambda: got.append(rest.orders_page())) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)
    assert len(got) == 6


def test_a_service_that_refuses_the_new_token_as_well_has_the_last_word(api: Api, rest_of: MakeRest) -> None:
    api.answer = lambda path, headers: (401, {}, b"")
    rest = rest_of(api.url, token=tokens("first", "second", "third"))
    with pytest.raises(AuthenticationRejected, match="did not help: sign in again") as caught:
        rest.balances()
    assert caught.value.final
    assert len(api.requests) == 2


def test_a_token_that_is_refused_is_not_sent_twice(api: Api, rest_of: MakeRest) -> None:
    api.answer = lambda path, headers: (401, {}, b"")
    with pytest.raises(AuthenticationRejected, match="no other token"):
        rest_of(api.url).balances()
    assert len(api.requests) == 1


def test_a_provider_that_fails_is_a_typed_error(api: Api, rest_of: MakeRest) -> None:
    def broken() -> str:
        raise OSError("no vault")

    with pytest.raises(TokenUnavailable, match="OSError") as caught:
        rest_of(api.url, token=broken).balances()
    assert isinstance(caught.value.__cause__, OSError)
    with pytest.raises(TokenUnavailable, match="printable ASCII") as caught:
        rest_of(api.url, token=lambda: f"{CANARY}\né").balances()
    assert not [place for place in shown_by(caught.value) if CANARY in place]
    assert api.requests == []


# --- servers that mean no good --------------------------------------------------------------------------


def reset(sock: socket.socket) -> None:
    read_request(sock)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def cut(answer: bytes) -> Callable[[socket.socket], None]:
    return lambda sock: answered(sock, answer)


def drip(head: bytes, piece: bytes) -> Callable[[socket.socket], None]:
    """Send a piece again and again, for as long as somebody listens."""

    def script(sock: socket.socket) -> None:
        answered(sock, head)
        pause = threading.Event()
        while not pause.wait(0.01):
            sock.sendall(piece)

    return script


def silent(sock: socket.socket) -> None:
    drain(sock)


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
NO_ANSWERS = {
    "reset": reset,
    "closed": cut(b""),
    "half a head": cut(HEAD),
    "half a body": cut(HEAD + b"Content-Length: 100\r\n\r\n" + b'{"data": ['),
    "half a chunk": cut(HEAD + b"Transfer-Encoding: chunked\r\n\r\n40\r\n" + b'{"data": []}'),
    "chunks of no size": cut(HEAD + b"Transfer-Encoding: chunked\r\n\r\nsize\r\n" + EMPTY_PAGE),
    "no HTTP": cut(b"\x00\xff" * 100 + b"\r\n\r\n"),
    "a line without an end": cut(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000),
    "headers without an end": drip(HEAD, b"X: " + b"x" * 1000 + b"\r\n"),
    "silence": silent,
    "head by drops": drip(b"HTTP/1.1 200 OK\r\nX: ", b"x"),
    "interim answers": drip(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "body by drops": drip(HEAD + b"Content-Length: 1000000\r\n\r\n", b" "),
    "body by chunks": drip(HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
    "size of a chunk by drops": drip(HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"0"),
}


@both
@pytest.mark.parametrize("name", NO_ANSWERS)
def test_no_whole_answer_in_time_is_an_error_that_is_worth_retrying(
    name: str, tls: bool, raw_server: ServeBytes, rest_of: MakeRest, trusting: ssl.SSLContext
) -> None:
    server = raw_server(NO_ANSWERS[name], tls=tls)
    options = RestOptions(timeout=0.3, attempts=1)
    with pytest.raises(RestError, match=r"GET .* failed: ") as caught:
        rest_of(http_url(server), options=options, ssl_context=trusting).orders_page()
    assert caught.value.status is None
    assert is_worth_retrying(caught.value)
    assert server.connections == 1


LENGTH = b"Content-Length: %d\r\n" % len(EMPTY_PAGE)
ODD_HEADS = {
    "100": b"HTTP/1.1 100 Continue\r\n\r\n" + HEAD + LENGTH + b"\r\n",
    "102 and 103": b"HTTP/1.1 102 P\r\n\r\nHTTP/1.1 103 Early\r\nLink: <\xff>\r\n\r\n" + HEAD + LENGTH + b"\r\n",
    "many interim answers": b"HTTP/1.1 103 Early\r\nLink: </a.css>\r\n\r\n" * 50 + HEAD + LENGTH + b"\r\n",
    "a value that is not UTF-8": HEAD + b"X: caf\xe9 \xff\xfe\r\n" + LENGTH + b"\r\n",
    "a name that is not UTF-8": HEAD + b"X-\xff\xfe: y\r\n" + LENGTH + b"\r\n",
    "a line that is no header": HEAD + b"no colon here\r\n going on\r\n" + LENGTH + b"\r\n",
    "control characters": HEAD + b"X: a\x00b\x0bc\rd\x85\x1c\r\n" + LENGTH + b"\r\n",
    "spaces before the colon": HEAD + LENGTH.replace(b":", b" :") + b"\r\n",
    "folded": HEAD + b"X: a\r\n b\r\n" + LENGTH.replace(b": ", b":\r\n\t") + b"\r\n",
    "line ends without CR": (HEAD + LENGTH + b"\r\n").replace(b"\r\n", b"\n"),
    "an empty line before": b"\r\n" + HEAD + LENGTH + b"\r\n",
    "HTTP/1.0": HEAD.replace(b"1.1", b"1.0") + LENGTH + b"\r\n",
    "no reason": HEAD.replace(b" OK", b"") + LENGTH + b"\r\n",
}


@both
@pytest.mark.parametrize("name", ODD_HEADS)
def test_what_gateways_add_to_an_answer_does_no_harm(
    name: str, tls: bool, raw_server: ServeBytes, rest_of: MakeRest, trusting: ssl.SSLContext
) -> None:
    def script(sock: socket.socket) -> None:
        while True:
            answered(sock, ODD_HEADS[name] + EMPTY_PAGE)

    server = raw_server(script, tls=tls)
    rest = rest_of(http_url(server), ssl_context=trusting)
    for _ in range(2):
        assert rest.orders_page().orders == ()
    # A connection is used again: what came before the answer is not taken for the next one.
    assert server.connections == (2 if name == "HTTP/1.0" else 1)


REFRESH = "refresh-1234"


def says(answer: bytes, *, ends: bool = False) -> Callable[[socket.socket], None]:
    """Answer a request of either kind, GET or a refresh, and keep the connection open unless it ends."""

    def script(sock: socket.socket) -> None:
        request = b""
        # A refresh ends with its token, and a GET with an empty line.
        while REFRESH.encode() not in request and not (request[:3] == b"GET" and request[-4:] == b"\r\n\r\n"):
            chunk = sock.recv(65536)
            if not chunk:
                return
            request += chunk
        sock.sendall(answer)
        if not ends:
            drain(sock)

    return script


@pytest.mark.parametrize(
    ("head", "status", "pause"),
    [
        (b"HTTP/1.1 101 Switching Protocols\r\nRetry-After: 7\r\n\r\n", 101, 7.0),
        (b"HTTP/1.1 103 Early\r\nRetry-After: 1\r\n\r\nHTTP/1.1 503 No\r\nRetry-After: 7\r\n\r\n", 503, 7.0),
        (b"HTTP/1.1 503 \xff\r\nX-\xff: y\r\nRetry-After: 7\r\n\r\n", 503, 7.0),
        (b"HTTP/1.1 503 No\r\nRetry-After:\r\n 7\r\n\r\n", 503, 7.0),
        (b"HTTP/1.1 429 No\nRetry-After: 7\nRetry-After: 9\n\n", 429, 7.0),
        (b"HTTP/1.0 502 No\r\nRetry-After: \xff\r\n\r\n", 502, None),
    ],
)
def test_a_refusal_is_told_with_its_status_and_its_pause(
    head: bytes, status: int, pause: float | None, raw_server: ServeBytes, rest_of: MakeRest
) -> None:
    url = http_url(raw_server(says(head, ends=True)))
    with pytest.raises(RestError, match=f"HTTP status {status}") as caught:
        rest_of(url, options=RestOptions(attempts=1)).orders_page()
    assert (caught.value.status, caught.value.retry_after) == (status, pause)
    tokens = RefreshingToken(REFRESH, app_id="a", rest_url=url)
    with pytest.raises(AuthenticationError, match=f"HTTP status {status}"):
        tokens.get_token()


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (says(b"<html>"), "the answer is not HTTP/1"),
        (says(b"\x00\x00\x12\x04\x00\x00\x00\x00\x00"), "the answer is not HTTP/1"),
        (says(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), "the answer is not HTTP/1"),
        (says(b"HTTP/2 200\r\n\r\n"), "no HTTP/1 status"),
        (says(b"HTTP/1.1 2OO OK\r\n\r\n"), "no HTTP/1 status"),
        (says(HEAD + b"X: " + b"x" * 70_000), "larger than 65536 bytes"),
        (says(HEAD + b"X: y\r\n" * 20_000), "larger than 65536 bytes"),
        (says(HEAD + b"X: y\r\n" * 200 + b"\r\n"), "too many headers"),
        (says(b"HTTP/1.1 103 Early\r\n\r\n" * 4000), "larger than 65536 bytes"),
        (says(HEAD, ends=True), "closed before the answer was whole"),
        (says(b"HTTP/1.1 100 Continue\r\n\r\n", ends=True), "closed before the answer was whole"),
    ],
)
def test_what_is_no_answer_says_why_although_the_server_stays(
    script: Callable[[socket.socket], None], words: str, raw_server: ServeBytes, rest_of: MakeRest
) -> None:
    url = http_url(raw_server(script))
    with pytest.raises(RestError, match=words) as caught:
        rest_of(url, options=RestOptions(attempts=1)).orders_page()
    assert is_worth_retrying(caught.value)
    with pytest.raises(TokenUnavailable, match=words):
        RefreshingToken(REFRESH, app_id="a", rest_url=url).get_token()


USELESS = {
    "no JSON": (cut(HEAD + b"\r\n<html>"), "not JSON"),
    "no text": (cut(HEAD + b'\r\n{"data": "\xff"}'), "UTF-8"),
    "cut without a length": (cut(HEAD + b'\r\n{"data": ['), "not JSON"),
    "another shape": (cut(HEAD + b'\r\n{"orders": []}'), r"\$\.data: missing"),
    "too deep": (cut(HEAD + b"\r\n" + b"[" * 5000), "json_depth"),
    "too many digits": (cut(HEAD + b'\r\n{"data": [' + b"9" * 5000 + b"]}"), "number_digits"),
    "no cursor": (cut(HEAD + b'\r\n{"data": [], "hasMore": true}'), r"\$\.nextCursor"),
    "too large": (cut(HEAD + b"Content-Length: 5000000\r\n\r\n" + b" " * 5_000_000), "answer_size"),
    "without an end": (drip(HEAD + b"\r\n", b" " * 50_000), "answer_size"),
    "a bomb": (
        cut(HEAD + b"Content-Encoding: gzip\r\n\r\n" + gzip.compress(b" " * 50_000_000)),
        "compressed",
    ),
}


@pytest.mark.parametrize("name", USELESS)
def test_an_answer_of_no_use_says_why_and_is_asked_for_once(
    name: str, raw_server: ServeBytes, rest_of: MakeRest
) -> None:
    script, words = USELESS[name]
    server = raw_server(script)
    with pytest.raises(RestError, match=words) as caught:
        rest_of(http_url(server), options=RestOptions(answer_size=200_000)).orders_page()
    assert caught.value.status == 200
    assert not is_worth_retrying(caught.value)
    assert server.connections == 1


def test_a_client_goes_on_after_answers_of_no_use(raw_server: ServeBytes, rest_of: MakeRest) -> None:
    scripts = iter([script for script, _ in USELESS.values()] + [cut(HEAD + b"\r\n" + EMPTY_PAGE)])

    def script(sock: socket.socket) -> None:
        next(scripts)(sock)

    server = raw_server(script)
    rest = rest_of(http_url(server), options=RestOptions(answer_size=200_000))
    for _ in USELESS:
        with pytest.raises(RestError):
            rest.orders_page()
    assert rest.orders_page().orders == ()


def test_a_certificate_that_does_not_verify_is_not_worth_retrying(
    raw_server: ServeBytes, rest_of: MakeRest
) -> None:
    server = raw_server(drain, tls=True)
    with pytest.raises(RestError, match="ssl_context=") as caught:
        rest_of(http_url(server)).balances()
    assert not is_worth_retrying(caught.value)
    assert server.connections == 1


def test_a_proxy_that_lets_nobody_through_is_not_worth_retrying(raw_server: ServeBytes, rest_of: MakeRest) -> None:
    proxy = SomeProxy(raw_server, "http", login=("user", PASSWORD))
    rest = rest_of("http://localhost:9", proxy=f"http://user:{CANARY}@{proxy.host_and_port}")
    with pytest.raises(RestError, match="look at the user and the password in proxy") as caught:
        rest.balances()
    assert not is_worth_retrying(caught.value)
    assert len(proxy.requests) == 1
    assert not [place for place in shown_by(caught.value) if CANARY in place]


def rejected_by(cause: BaseException) -> RestError:
    error = RestError("m")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "answer"),
    [
        (RestError("m"), True),
        *((RestError("m", status=status), True) for status in (408, 425, 429, 500, 503, 599)),
        *((RestError("m", status=status), False) for status in (200, 204, 301, 400, 403, 404, 422)),
        (Unauthorized("m", status=401), False),
        (rejected_by(ssl.SSLCertVerificationError()), False),
        (rejected_by(ProxyRejected("m", status=407, final=True)), False),
        (rejected_by(ProxyRejected("m", status=503, final=False)), True),
        (TokenUnavailable("m"), False),
        (AuthenticationRejected("m"), False),
        (ValueError("m"), False),
    ],
)
def test_what_is_worth_retrying(error: BaseException, answer: bool) -> None:
    assert is_worth_retrying(error) is answer


# --- secrets --------------------------------------------------------------------------------------------


def shown_by(error: BaseException) -> Iterator[str]:
    """Return what a crash reporter shows of an error and of those that led to it."""
    chain: BaseException | None = error
    while chain is not None:
        yield f"{chain} {chain!r} {chain.args} {vars(chain)}"
        rendered = traceback.TracebackException.from_exception(chain, capture_locals=True)
        # The tests' own frames hold what they send.
        yield from (str(place.locals) for place in rendered.stack if "/test_" not in place.filename)
        chain = chain.__cause__ or chain.__context__


def echo(status: bytes) -> Callable[[socket.socket], None]:
    """Repeat the request in headers and body, as some servers do."""

    def script(sock: socket.socket) -> None:
        request = read_request(sock)
        words = request.replace(b"\r\n", b" ")
        sock.sendall(b"HTTP/1.1 %b No\r\nX-Echo: %b\r\nLocation: /%b\r\n\r\n%b" % (status, words, words, request))

    return script


LEAKS = {
    **{status: echo(status.encode()) for status in ("200", "302", "400", "401", "403", "500", "999", "no status")},
    "echo": lambda sock: sock.sendall(read_request(sock)),
    "echo in a header": lambda sock: sock.sendall(b"HTTP/1.1 200 OK\r\n" + read_request(sock)),
    "echo after a header": lambda sock: sock.sendall(b"HTTP/1.1 200 OK\r\nX: a\r\r\n" + read_request(sock)),
    **{name: NO_ANSWERS[name] for name in ("reset", "closed", "half a body", "silence", "body by drops")},
}


@both
@pytest.mark.parametrize("name", LEAKS)
def test_no_error_log_or_repr_shows_a_token_or_a_key(
    name: str,
    tls: bool,
    raw_server: ServeBytes,
    rest_of: MakeRest,
    trusting: ssl.SSLContext,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    attempts = 2 if name in ("500", "reset") else 1
    options = RestOptions(timeout=0.3, attempts=attempts, headers={"X-App-Api-Key": "canary-of-a-key"})
    rest = rest_of(
        http_url(raw_server(LEAKS[name], tls=tls)),
        token=tokens(CANARY, CANARY + "-2"),
        options=options,
        ssl_context=trusting,
    )
    with pytest.raises(AggStreamError) as caught:
        rest.orders_page()
    places = [caplog.text, repr(rest), repr(vars(rest)), repr(vars(rest._calls)), repr(options)]
    places += [*shown_by(caught.value), repr(pickle.dumps(caught.value))]
    assert not [place for place in places if "canary" in place]
    assert len(places) > 8


def test_a_connection_that_cannot_be_made_shows_no_token(
    rest_of: MakeRest, raw_server: ServeBytes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    untrusted = http_url(raw_server(drain, tls=True))
    for url in ("http://localhost:9", "https://localhost:9", "http://no-such-host.invalid", untrusted):
        rest = rest_of(url, token=lambda: CANARY, options=TWO_ATTEMPTS, allow_insecure=True)
        with pytest.raises(RestError) as caught:
            rest.balances()
        assert not [place for place in shown_by(caught.value) if CANARY in place]
    assert CANARY not in caplog.text


def test_a_client_cannot_be_pickled_and_says_what_it_is(rest_of: MakeRest) -> None:
    rest = rest_of("https://api.example/", token=CANARY)
    assert repr(rest) == "<aggstream.RestClient of app 'app_1' at https://api.example>"
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(rest)
    rest.close()
    rest.close()
    assert "closed" in repr(rest)
    for call in (rest.balances, rest.orders_page, lambda: list(rest.orders()), rest.__enter__):
        with pytest.raises(StateError, match="closed"):
            call()


# --- forks ----------------------------------------------------------------------------------------------

forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
PRELUDE = """
import os, sys, threading
import aggstream

def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())

def in_child(call):
    pid = os.fork()
    if pid == 0:
        say("child", len(call().orders))
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
"""


def run(program: str, url: str) -> str:
    done = subprocess.run(
        # Python 3.12 warns of a fork beside threads, which is what these tests are about.
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", PRELUDE + program, url],
        check=False,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )
    assert done.stderr == ""
    return done.stdout


@forks
def test_a_forked_child_makes_a_connection_of_its_own_and_leaves_the_parents_alone(api: Api) -> None:
    program = """
rest = aggstream.RestClient(app_id="a", token="t", rest_url=sys.argv[1])
rest.orders_page()
in_child(rest.orders_page)
say("parent", len(rest.orders_page().orders))
"""
    assert run(program, api.url) == "child 0\nparent 0\n"
    assert len(api.requests) == 3
    assert api.connections == 2


@forks
def test_a_provider_that_hangs_at_the_fork_does_not_lock_the_childs_client(api: Api) -> None:
    program = """
is_asked = threading.Event()

def token():
    if threading.current_thread() is not threading.main_thread():
        is_asked.set()
        threading.Event().wait()
    return "t"

rest = aggstream.RestClient(app_id="a", token=token, rest_url=sys.argv[1])
threading.Thread(target=rest.balances, daemon=True).start()
assert is_asked.wait(30)
in_child(rest.orders_page)
say("parent")
os._exit(0)
"""
    assert run(program, api.url) == "child 0\nparent\n"


@forks
def test_a_client_that_was_closed_is_closed_in_a_forked_child_as_well(api: Api) -> None:
    program = """
rest = aggstream.RestClient(app_id="a", token="t", rest_url=sys.argv[1])
rest.close()
pid = os.fork()
if pid == 0:
    try:
        rest.balances()
    except aggstream.StateError:
        say("closed")
    os._exit(0)
os.waitpid(pid, 0)
"""
    assert run(program, api.url) == "closed\n"
    assert api.requests == []


def test_a_call_that_is_under_way_when_the_client_is_closed_leaves_no_connection(
    api: Api, rest_of: MakeRest
) -> None:
    rest = rest_of(api.url, token=tokens("first", "second"))

    def close_and_refuse(path: str, headers: dict[str, str]) -> Reply:
        if headers["authorization"].endswith("second"):
            return 200, {}, EMPTY_PAGE
        rest.close()
        return 401, {}, b""

    api.answer = close_and_refuse
    assert rest.orders_page().orders == ()
    assert len(rest._calls._http.pool().pools) == 0


# --- single calls ---------------------------------------------------------------------------------------


def test_a_single_call_is_made_once_with_the_token_that_it_is_given(api: Api) -> None:
    calls = Calls(
        app_id="app_1",
        rest_url=api.url,
        options=RestOptions(),
        ssl_context=None,
        proxy=None,
        limits=Limits(),
    )
    api.answers = [(503, {"retry-after": "7"}, b""), (401, {}, b""), page("a"), (200, {}, b'{"cash": []}')]
    with pytest.raises(RestError, match="503") as caught:
        calls.orders_page(Secret("one"))
    assert caught.value.retry_after == 7.0
    with pytest.raises(Unauthorized) as caught:
        calls.balances(Secret("two"))
    assert caught.value.status == 401
    assert calls.orders_page(Secret("three"), limit=1).orders[0].id == "a"
    calls.close()
    assert calls.balances(Secret("four")).cash == ()
    calls.close()
    sent = [headers["authorization"] for _, headers in api.requests]
    assert sent == ["Bearer one", "Bearer two", "Bearer three", "Bearer four"]


def test_statuses_have_the_normal_form_and_the_name_that_the_stream_gives_them(
    api: Api, rest_of: MakeRest
) -> None:
    words = {
        "FILLED": ("filled", True),
        "PartiallyFilledOpen": ("partially_filled", False),
        "Re-Routing": ("re_routing", False),
        "Settled": ("filled", True),
    }
    orders = [{"id": word, "status": word, "filledAmountRaw": "4e2", "namedAs": "open"} for word in words]
    page = json.dumps({"data": orders, "nextCursor": None, "hasMore": False}).encode()
    api.answers = [(200, {}, page), (200, {}, page)]
    rest = rest_of(api.url, options=RestOptions(status_names={"SETTLED": "Filled"}))
    found = list(rest.orders())
    assert {order.status: (order.normal_status, order.is_terminal) for order in found} == words
    assert [order.filled_amount_raw for order in found] == [400] * len(words)
    plain = rest_of(api.url).orders_page().orders[-1]
    assert (plain.status, plain.normal_status, plain.is_terminal) == ("Settled", "settled", False)


# --- options --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"url": "ftp://localhost"}, "url"),
        ({"url": 5}, "url"),
        ({"url": "https://user:pw@localhost"}, "credentials"),
        ({"orders_path": "execution"}, "orders_path"),
        ({"orders_path": "/a b"}, "orders_path"),
        ({"balances_path": "/a#b"}, "balances_path"),
        ({"balances_path": "/é"}, "balances_path"),
        ({"balances_path": None}, "balances_path"),
        ({"headers": {"Authorization": "Bearer x"}}, "Authorization"),
        ({"headers": {"X-App-Id": "x"}}, "app_id="),
        ({"headers": {"Accept-Encoding": "gzip"}}, "Accept-Encoding"),
        ({"headers": {"X": "a\r\nY: b"}}, "printable"),
        ({"headers": "X: a"}, "mapping"),
        ({"timeout": 0}, "timeout"),
        ({"page_size": 0}, "page_size"),
        ({"page_size": 101}, "from 1 to 100"),
        ({"page_size": True}, "page_size"),
        ({"max_pages": 0}, "max_pages"),
        ({"attempts": 0}, "attempts"),
        ({"answer_size": 1.5}, "answer_size"),
        ({"status_names": {"done": 5}}, "status_names"),
        ({"status_names": {"": "filled"}}, "status_names"),
        ({"status_names": ["done"]}, "status_names"),
    ],
)
def test_options_that_cannot_work_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        RestOptions(**options)


def test_options_cannot_be_changed_but_can_be_derived() -> None:
    names = {"DONE": "filled"}
    options = RestOptions(headers={"X-App-Api-Key": CANARY}, status_names=names)
    names["open"] = "later"
    assert options.status_names == {"done": "filled"}
    assert isinstance(options.status_names, MappingProxyType)
    derived = attrs.evolve(options, timeout=3)
    assert derived.timeout == 3
    assert derived.headers == options.headers == {"X-App-Api-Key": Secret(CANARY)}
    assert derived.status_names == options.status_names
    assert CANARY not in f"{options!r} {options} {derived!r} {attrs.asdict(derived)}"
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        options.timeout = 5.0  # type: ignore[misc]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"rest_url": "http://api.agg.market"}, "unencrypted"),
        ({"options": RestOptions(url="http://api.agg.market")}, "unencrypted"),
        ({"rest_url": "ftp://localhost"}, "https://"),
        ({"options": {}}, "RestOptions"),
        ({"app_id": ""}, "app_id"),
        ({"token": ""}, "token"),
        ({"token": 5}, "token"),
        ({"ssl_context": ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)}, "ssl_context"),
        ({"proxy": "ftp://localhost"}, "proxy"),
        ({"limits": 5}, "limits"),
    ],
)
def test_a_client_that_cannot_work_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        RestClient(**{"app_id": "a", "token": "t", **options})


def test_arguments_that_cannot_work_are_refused_before_anything_is_sent(api: Api, rest_of: MakeRest) -> None:
    rest = rest_of(api.url)
    bad: list[dict[str, Any]] = [
        {"limit": 0},
        {"limit": 101},
        {"limit": "5"},
        {"status": ""},
        {"status": 5},
        {"cursor": ""},
        {"cursor": b"c"},
    ]
    for arguments in bad:
        with pytest.raises(ConfigurationError, match=next(iter(arguments))):
            rest.orders_page(**arguments)
    with pytest.raises(ConfigurationError, match="max_pages"):
        rest.orders(max_pages=0)
    assert api.requests == []


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ({"filled": "failed"}, "knows 'filled' already"),
        ({"Order-Canceled": "failed"}, "knows 'Order-Canceled' already"),
        ({"dag_started": "filled"}, "already"),
        ({"settled": "fillled"}, "'fillled' is no status"),
        ({"settled": "dag_started"}, "'dag_started' is no status"),
    ],
)
def test_only_unknown_statuses_can_be_named_and_only_as_known_ones(names: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        RestOptions(status_names=names)
    assert RestOptions(status_names={"settled": "FILLED"}).status_names == {"settled": "filled"}


def test_what_remains_is_told_only_if_the_amounts_have_one_unit(api: Api, rest_of: MakeRest) -> None:
    order = {"id": "o", "status": "open", "amountRaw": "100", "filledAmountRaw": "40"}
    page = json.dumps({"data": [order], "nextCursor": None, "hasMore": False}).encode()
    api.answers = [(200, {}, page), (200, {}, page)]
    [record] = rest_of(api.url).orders()
    assert record.remaining_text is None
    [record] = rest_of(api.url, options=RestOptions(amounts_in_one_unit=True)).orders()
    assert record.remaining_text == "60"


def test_a_server_that_closes_without_an_answer_may_speak_tls(raw_server: ServeBytes, rest_of: MakeRest) -> None:
    url = http_url(raw_server(lambda sock: sock.close()))
    with pytest.raises(RestError, match="speaks TLS at this port, is it https://"):
        rest_of(url, options=ONE_ATTEMPT).balances()
