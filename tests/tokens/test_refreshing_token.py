"""A session kept alive with a refresh token, over real HTTP."""

from __future__ import annotations

import base64
import contextlib
import gzip
import http.server
import json
import linecache
import logging
import socket
import ssl
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import pytest
import trustme
from raw_server import ServeBytes
from waiting import DEADLINE

import aggstream
from aggstream import AuthenticationRejected, ConfigurationError, RefreshingToken, TokenPair, TokenUnavailable


def jwt(name: str, *, lifetime: float = 3600.0) -> str:
    claims = json.dumps({"sub": name, "exp": time.time() + lifetime}).encode()
    return f"header.{base64.urlsafe_b64encode(claims).decode().rstrip('=')}.{name}"


class Rest(http.server.ThreadingHTTPServer):
    """Answers refresh calls, rotating the refresh token, unless it is told otherwise."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.calls: list[tuple[str, dict[str, str], Any]] = []
        self.answers: list[tuple[int, dict[str, str], bytes]] = []
        self.current = "refresh-token-0"
        self.scheme = "http"
        self.hold = threading.Event()
        self.hold.set()

    @property
    def url(self) -> str:
        return f"{self.scheme}://localhost:{self.server_address[1]}"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Rest

    def do_POST(self) -> None:
        rest = self.server
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        rest.calls.append((self.path, dict(self.headers.items()), body))
        rest.hold.wait(DEADLINE)
        status, headers, data = rest.answers.pop(0) if rest.answers else self.rotate(body)
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(data)

    def rotate(self, body: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
        rest = self.server
        if body.get("refreshToken") != rest.current:
            return 401, {}, b"{}"
        number = len(rest.calls)
        rest.current = f"refresh-token-{number}"
        answer = {"accessToken": jwt(str(number)), "refreshToken": rest.current, "user": {"id": "usr_1"}}
        return 200, {"content-type": "application/json"}, json.dumps(answer).encode()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  (the library's name)
        """Keep quiet."""


@pytest.fixture
def rest() -> Iterator[Rest]:
    with Rest() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), name="rest")
        thread.start()
        yield server
        server.hold.set()
        server.shutdown()
        thread.join()


def provider_for(rest: Rest, **options: Any) -> RefreshingToken:
    return RefreshingToken(
        **{"refresh_token": "refresh-token-0", "app_id": "app_1", "rest_url": rest.url, **options}
    )


def test_the_first_token_is_bought_and_then_kept_while_it_is_good(rest: Rest) -> None:
    provider = provider_for(rest)
    first = provider.get_token()
    assert provider.get_token() == first
    assert len(rest.calls) == 1
    path, headers, body = rest.calls[0]
    assert path == "/auth/token/refresh"
    assert {name.lower(): value for name, value in headers.items()}["x-app-id"] == "app_1"
    assert body == {"refreshToken": "refresh-token-0"}


def test_a_stale_token_is_replaced_once_however_many_ask(rest: Rest) -> None:
    old = jwt("old")
    provider = provider_for(rest, access_token=old)
    assert provider.get_token() == old
    rest.hold.clear()
    got: list[str] = []
    threads = [threading.Thread(target=lambda: got.append(provider.get_token(stale=old))) for _ in range(8)]
    for thread in threads:
        thread.start()
    rest.hold.set()
    for thread in threads:
        thread.join(DEADLINE)
    assert len(rest.calls) == 1
    assert len(set(got)) == 1
    assert got[0] != old


def test_a_token_that_is_about_to_end_is_not_given_out(rest: Rest) -> None:
    provider = provider_for(rest, access_token=jwt("ending", lifetime=0.5))
    assert provider.get_token().endswith(".1")


def test_the_rotated_pair_is_saved_before_it_is_used(rest: Rest) -> None:
    saved: list[TokenPair] = []
    provider = provider_for(rest, save=saved.append)
    token = provider.get_token()
    assert saved == [TokenPair(token, "refresh-token-1")]
    provider.get_token(stale=token)
    assert saved[1].refresh_token == "refresh-token-2"
    assert rest.calls[1][2] == {"refreshToken": "refresh-token-1"}


def test_a_pair_that_could_not_be_saved_is_kept_and_not_used_before_it_is(rest: Rest) -> None:
    saved: list[TokenPair] = []
    full = [OSError("disk full")]

    def save(pair: TokenPair) -> None:
        if full:
            raise full.pop()
        saved.append(pair)

    provider = provider_for(rest, save=save)
    with pytest.raises(TokenUnavailable, match="OSError"):
        provider.get_token()
    token = provider.get_token()
    assert len(rest.calls) == 1
    assert saved == [TokenPair(token, "refresh-token-1")]


def test_another_process_that_has_refreshed_is_noticed_under_the_lock(rest: Rest) -> None:
    steps: list[str] = []

    @contextlib.contextmanager
    def lock() -> Iterator[None]:
        steps.append("locked")
        yield
        steps.append("released")

    class Lock:
        def __enter__(self) -> None:
            self.held = lock()
            self.held.__enter__()

        def __exit__(self, *error: object) -> None:
            self.held.__exit__(None, None, None)

    def load() -> TokenPair:
        steps.append("loaded")
        return theirs

    old, theirs = jwt("old"), TokenPair(jwt("theirs"), "refresh-token-theirs")
    provider = provider_for(rest, access_token=old, load=load, lock=Lock())
    assert provider.get_token(stale=old) == theirs.access_token
    assert steps == ["locked", "loaded", "released"]
    assert rest.calls == []


@pytest.mark.parametrize("status", [400, 401, 403])
def test_a_refused_refresh_is_final(status: int, rest: Rest) -> None:
    rest.answers = [(status, {}, b"{}")]
    with pytest.raises(AuthenticationRejected, match="sign in again") as caught:
        provider_for(rest).get_token()
    assert caught.value.final


@pytest.mark.parametrize("status", [302, 404, 405])
def test_a_wrong_endpoint_is_final_and_says_which_options_to_look_at(status: int, rest: Rest) -> None:
    rest.answers = [(status, {"Location": "http://127.0.0.1:9/"}, b"{}")]
    with pytest.raises(AuthenticationRejected, match="path, body and rest_url") as caught:
        provider_for(rest).get_token()
    assert caught.value.final
    assert len(rest.calls) == 1


def test_a_busy_service_may_be_asked_again_after_the_time_it_names(rest: Rest) -> None:
    rest.answers = [(503, {"Retry-After": "7"}, b"")]
    provider = provider_for(rest)
    with pytest.raises(TokenUnavailable, match="503") as caught:
        provider.get_token()
    assert caught.value.retry_after == 7.0
    assert len(rest.calls) == 1  # never repeated by itself
    assert provider.get_token()


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"nonsense", "not JSON"),
        (b"\xff", "UnicodeDecodeError"),
        (b'{"accessToken": 5}', "not understood"),
        (b'{"accessToken": "with space"}', "printable ASCII"),
        (b"[]", "not understood"),
        (b'"' + b"a" * 70_000 + b'"', "too large"),
    ],
)
def test_an_answer_that_is_not_understood_is_a_typed_error_without_values(
    body: bytes, words: str, rest: Rest
) -> None:
    rest.answers = [(200, {}, body)]
    with pytest.raises(TokenUnavailable, match=words):
        provider_for(rest).get_token()


def test_a_service_that_is_down_or_silent_is_a_typed_error(rest: Rest) -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        down = f"http://127.0.0.1:{sock.getsockname()[1]}"
    with pytest.raises(TokenUnavailable, match="Connection refused"):
        provider_for(rest, rest_url=down).get_token()
    rest.hold.clear()
    with pytest.raises(TokenUnavailable, match="ReadTimeoutError"):
        provider_for(rest, timeout=0.05).get_token()


def test_no_error_holds_a_token_and_neither_do_its_frames(rest: Rest) -> None:
    canary = "canary-refresh-token"
    answer = b'{"accessToken": "canary access", "refreshToken": "canary-next"}'
    rest.answers = [(503, {}, b""), (200, {}, answer), (401, {}, b"")]
    provider = provider_for(rest, refresh_token=canary)
    del canary
    assert "canary" not in repr(provider)
    for _ in range(3):
        with pytest.raises(aggstream.AuthenticationError) as caught:
            provider.get_token()
        trace = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
        ours = [frame for frame in trace.stack if "test_refreshing" not in frame.filename]
        assert ours
        assert "canary" not in str([frame.locals for frame in ours])
        assert caught.value.__context__ is None


def test_headers_that_repeat_the_request_are_neither_taken_nor_logged(
    raw_server: ServeBytes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    canary = "canary-refresh-token"

    def echo(sock: socket.socket) -> None:
        sock.sendall(b"HTTP/1.1 200 OK\r\n" + sock.recv(65536))

    url = raw_server(echo).url.replace("ws", "http", 1).removesuffix("/ws")
    with pytest.raises(TokenUnavailable) as caught:  # by its body, or because the echo ends before it
        RefreshingToken("refresh", app_id="a", rest_url=url, headers={"X-App-Api-Key": canary}).get_token()
    assert canary not in str(caught.value)
    assert canary not in caplog.text


def test_an_answer_that_drips_ends_with_the_timeout(raw_server: ServeBytes) -> None:
    def drip(sock: socket.socket) -> None:
        pause = threading.Event()
        sock.sendall(b"HTTP/1.1 200 OK\r\nX: ")
        while not pause.wait(0.01):
            sock.sendall(b"x")

    url = raw_server(drip).url.replace("ws", "http", 1).removesuffix("/ws")
    with pytest.raises(TokenUnavailable, match="ReadTimeoutError"):
        RefreshingToken("refresh", app_id="a", rest_url=url, timeout=0.3).get_token()


def test_path_body_and_headers_are_options(rest: Rest) -> None:
    provider = provider_for(
        rest,
        path="/v2/session",
        headers={"x-app-api-key": "k"},
        body=lambda token: {"grant": "refresh", "token": token, "version": 2},
    )
    tokens = [jwt("x"), jwt("y")]
    rest.answers = [(200, {}, json.dumps({"accessToken": token}).encode()) for token in tokens]
    assert provider.get_token() == tokens[0]
    path, headers, body = rest.calls[0]
    assert path == "/v2/session"
    assert {name.lower(): value for name, value in headers.items()}["x-app-api-key"] == "k"
    assert body == {"grant": "refresh", "token": "refresh-token-0", "version": 2}
    # An answer without a new refresh token leaves the old one in use.
    assert provider.get_token(stale=tokens[0]) == tokens[1]
    assert rest.calls[1][2]["token"] == "refresh-token-0"


def test_a_private_authority_is_trusted_by_a_context(
    rest: Rest, authority: trustme.CA, trusting: ssl.SSLContext
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    rest.socket = context.wrap_socket(rest.socket, server_side=True)
    rest.scheme = "https"
    assert provider_for(rest, ssl_context=trusting).get_token()
    with pytest.raises(TokenUnavailable, match="certificate is not valid"):
        provider_for(rest, refresh_token=rest.current).get_token()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"rest_url": "http://api.agg.market"}, "unencrypted"),
        ({"rest_url": "ftp://localhost"}, "https://"),
        ({"path": "auth"}, "path"),
        ({"timeout": 0}, "timeout"),
        ({"headers": {"Authorization": "Bearer x"}}, "Authorization"),
        ({"refresh_token": ""}, "token"),
        ({"refresh_token": 5}, "text"),
        ({"access_token": "a\nb"}, "printable"),
        ({"app_id": ""}, "app_id"),
    ],
)
def test_options_that_cannot_work_are_refused(options: dict[str, Any], words: str) -> None:
    settings = {"refresh_token": "r", "app_id": "a", **options}
    with pytest.raises(ConfigurationError, match=words):
        RefreshingToken(**settings)


def as_token_source(value: object) -> Callable[[], object]:
    return lambda: aggstream.Client(app_id="a", origin="https://app.example", token=value)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [5, b"bytes", "two words", "", "line\nbreak", "é"])
def test_what_is_no_token_source_is_refused(value: object) -> None:
    with pytest.raises(ConfigurationError, match="token"):
        as_token_source(value)()


def test_a_compressed_answer_is_not_unpacked(rest: Rest) -> None:
    bomb = gzip.compress(b" " * 50_000_000)
    rest.answers = [(200, {"content-encoding": "gzip"}, bomb[:60_000])]
    with pytest.raises(TokenUnavailable, match="not understood"):
        provider_for(rest).get_token()


def test_a_pair_is_used_only_after_it_was_saved_wherever_a_call_is_interrupted(rest: Rest) -> None:
    file = sys.modules[RefreshingToken.__module__].__file__
    line, lost, kept = 0, 0, 0
    while True:
        saved: list[TokenPair] = []
        provider = RefreshingToken(rest.current, app_id="a", rest_url=rest.url, save=saved.append)
        left = line

        def look(frame: FrameType, event: str, arg: object) -> Any:
            nonlocal left
            if frame.f_code.co_filename != file:
                return None
            # The interpreter runs no signal handler between the two halves of a `with`.
            text = linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip()
            if event == "line" and not text.startswith("with "):
                left -= 1
                if left == -1:
                    raise KeyboardInterrupt
            return look

        before = sys.gettrace()
        sys.settrace(look)
        try:
            provider.get_token()
        except KeyboardInterrupt:
            pass
        finally:
            sys.settrace(before)
        if left >= 0:
            break
        try:
            token = provider.get_token()
        except AuthenticationRejected:  # the new pair had not come so far
            lost += 1
        else:
            assert token in [pair.access_token for pair in saved], line
            kept += 1
        line += 1
    assert lost
    assert kept > 20
