"""The answers of gateways to a handshake, byte by byte: each is a connection, or an error that says why not."""

from __future__ import annotations

import copy
import http.cookies
import socket
import ssl
import threading
from collections.abc import Callable, Iterator

import pytest
import websocket
from clients import MakeClient
from raw_server import ServeBytes, accept_of, drain, frame, read_request, upgrade
from service_messages import ORDER_SUBMITTED
from waiting import DEADLINE, Until
from websocket._handshake import CookieJar

import aggstream

ONCE = aggstream.ReconnectPolicy(max_attempts=1)
LIVE = frame(b'{"type":"connected","appId":"app_demo123"}') + frame(
    b'{"type":"authenticated","userId":"usr_xyz789"}'
)
both = pytest.mark.parametrize("tls", [False, True], ids=["tcp", "tls"])

FIRST = b"HTTP/1.1 101 Switching Protocols\r\n"
REST = b"Upgrade: websocket\r\nConnection: Upgrade\r\n"
ACCEPT = b"Sec-WebSocket-Accept: KEY\r\n"
YES = FIRST + REST + ACCEPT
"""An answer in form, without the empty line at its end. KEY is replaced by what belongs to the request."""


def answers(head: bytes, then: bytes = b"", *, ends: bool = False) -> Callable[[socket.socket], None]:
    """Return a script that gives one answer, and then stays or ends."""

    def script(sock: socket.socket) -> None:
        accept = accept_of(read_request(sock))
        sock.sendall(head.replace(b"SWAPPED", accept.swapcase()).replace(b"KEY", accept) + then)
        if not ends:
            drain(sock)

    return script


def what_ends(client: aggstream.Client) -> BaseException:
    """Start a client that gives up at once, and return what was wrong."""
    client.start()
    with pytest.raises(aggstream.AggStreamError) as caught:
        client.wait(DEADLINE)
    error = caught.value
    return error.__cause__ if isinstance(error, aggstream.ReconnectGaveUp) and error.__cause__ else error


TAKEN = {
    "in form": YES,
    "a value that is not UTF-8": YES + b"X-Served-By: caf\xe9 \xff\xfe\r\n",
    "a name that is not UTF-8": YES + b"X-\xd0\xff: y\r\n",
    "a line that is no header": YES + b"no colon here\r\n going on\r\n: no name\r\n",
    "control characters": YES + b"X: a\x00b\x0bc\rd\x85\r\n",
    "two Connection lines": FIRST
    + b"Connection: keep-alive\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    + ACCEPT,
    "two in the other order": FIRST
    + b"Connection: Upgrade\r\nUpgrade: websocket\r\nConnection: keep-alive\r\n"
    + ACCEPT,
    "a Connection list": FIRST + b"Upgrade: websocket\r\nConnection: keep-alive,Upgrade\r\n" + ACCEPT,
    "two Upgrade lines": FIRST + b"Upgrade: h2c\r\nUpgrade: websocket\r\nConnection: upgrade\r\n" + ACCEPT,
    "other cases and spaces": FIRST
    + b"uPGRADE:\tWebSocket \t\r\nCONNECTION:UPGRADE\r\nsec-websocket-ACCEPT:    KEY  \r\n",
    "spaces before the colon": FIRST + b"Upgrade : websocket\r\nConnection\t: Upgrade\r\n" + ACCEPT,
    "folded": FIRST
    + b"Upgrade:\r\n websocket\r\nConnection: keep-alive,\r\n\tUpgrade\r\nX: a\r\n  b\r\n\t c\r\n"
    + ACCEPT,
    "folded before the first header": FIRST + b" by nobody\r\n" + REST + ACCEPT,
    "line ends without CR": YES.replace(b"\r\n", b"\n"),
    "line ends of both kinds": FIRST.replace(b"\r\n", b"\n") + REST + ACCEPT.replace(b"\r\n", b"\n"),
    "100 before": b"HTTP/1.1 100 Continue\r\n\r\n" + YES,
    "102 before": b"HTTP/1.1 102 Processing\r\n\r\n" + YES,
    "103 before": b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\nUpgrade: none\r\n\r\n" + YES,
    "many before": b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102\r\n\r\n" * 50 + YES,
    "an empty line before": b"\r\n\n" + YES,
    "no reason": YES.replace(b" Switching Protocols", b""),
    "a reason that is not UTF-8": YES.replace(b"Switching", b"\xe9\xff"),
    "HTTP/1.0": YES.replace(b"HTTP/1.1", b"HTTP/1.0"),
    "a cookie that makes no sense": YES + b"Set-Cookie: \xff=;;[\r\nSet-Cookie: a=b; domain\r\n",
    "a length and an encoding": YES + b"Content-Length: x\r\nTransfer-Encoding: chunked\r\n",
    "many headers": YES + b"".join(b"X-%d: y\r\n" % number for number in range(1000)),
    "nothing chosen": YES + b"Sec-WebSocket-Protocol:\r\nSec-WebSocket-Extensions: \r\n",
}


@pytest.mark.parametrize("name", TAKEN)
def test_what_gateways_add_to_an_answer_does_no_harm(
    name: str, raw_server: ServeBytes, client_of: MakeClient, until: Until
) -> None:
    end = b"\n" if name == "line ends without CR" else b"\r\n"
    script = answers(TAKEN[name] + end, LIVE + frame(ORDER_SUBMITTED.encode()))
    client = client_of(raw_server(script).url)
    seen: list[aggstream.Event] = []
    client.on("order_submitted")(seen.append)
    client.start()
    until(lambda: seen)


@both
def test_an_answer_may_come_in_pieces(
    tls: bool, raw_server: ServeBytes, client_of: MakeClient, trusting: ssl.SSLContext
) -> None:
    def script(sock: socket.socket) -> None:
        answer = (
            b"HTTP/1.1 103 Early\r\nX: \xff\r\n\r\n" + YES.replace(b"KEY", accept_of(read_request(sock))) + b"\r\n"
        )
        for byte in answer:
            sock.sendall(bytes([byte]))
        sock.sendall(LIVE)
        drain(sock)

    client = client_of(raw_server(script, tls=tls).url, ssl_context=trusting)
    client.start()
    client.wait_until_live(DEADLINE)


BODY = b"<html>" + b"x" * 200_000
REFUSED: dict[str, tuple[bytes, int, float | None]] = {
    "200": (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", 200, None),
    "an answer in form but for its status": (YES.replace(b"101", b"200") + b"\r\n", 200, None),
    "204": (b"HTTP/1.1 204\r\n\r\n", 204, None),
    "301": (b"HTTP/1.1 301 Moved\r\nLocation: ws://127.0.0.1:9/\r\n\r\n", 301, None),
    "302 without a place": (b"HTTP/1.1 302 Found\r\n\r\n", 302, None),
    "307 that upgrades": (YES.replace(b"101", b"307") + b"Location: /ws\r\n\r\n", 307, None),
    "308": (b"HTTP/1.1 308 Moved\r\nLocation: \xff\r\nRetry-After: 3\r\n\r\n", 308, 3.0),
    "403": (b"HTTP/1.1 403 Forbidden\r\nX: \xff\r\n\r\n", 403, None),
    "421": (b"HTTP/1.1 421 Misdirected Request\r\n\r\n", 421, None),
    "426": (b"HTTP/1.1 426 Upgrade Required\r\nUpgrade: h2c\r\n\r\n", 426, None),
    "429": (b"HTTP/1.1 429 Slow\r\nretry-after:7\r\n\r\n", 429, 7.0),
    "not UTF-8": (b"HTTP/1.1 503 \xff\r\nServer: caf\xe9\r\nX-\xff: y\r\nRetry-After: 7\r\n\r\n", 503, 7.0),
    "folded": (b"HTTP/1.1 503 No\r\nRetry-After:\r\n\t7\r\n\r\n", 503, 7.0),
    "line ends without CR": (b"HTTP/1.1 503 No\nRetry-After: 7\n\n", 503, 7.0),
    "Retry-After twice": (b"HTTP/1.1 503 No\r\nRetry-After: 7\r\nRetry-After: 9\r\n\r\n", 503, 7.0),
    "a Retry-After of no sense": (b"HTTP/1.1 503 No\r\nRetry-After: \xff soon\r\n\r\n", 503, None),
    "spaces before the colon": (b"HTTP/1.1 503 No\r\nRetry-After : 7\r\n\r\n", 503, 7.0),
    "no header": (b"HTTP/1.1 503 No\r\nsorry\r\nRetry-After: 7\r\n\r\n", 503, 7.0),
    "after informational answers": (
        b"HTTP/1.1 103 Early\r\nRetry-After: 1\r\n\r\nHTTP/1.1 503 No\r\nRetry-After: 7\r\n\r\n",
        503,
        7.0,
    ),
    "HTTP/1.0": (b"HTTP/1.0 502 Bad Gateway\r\nRetry-After: 7\r\n\r\n", 502, 7.0),
    "a status that nobody knows": (b"HTTP/1.1 999 Denied\r\n\r\n", 999, None),
    "a body": (b"HTTP/1.1 503 No\r\nContent-Length: 200006\r\n\r\n" + BODY, 503, None),
    "a body that is cut": (b"HTTP/1.1 503 No\r\nContent-Length: 900000\r\n\r\n" + BODY, 503, None),
    "a body of no length": (b"HTTP/1.1 401 No\r\nContent-Length: x\r\n\r\n" + BODY, 401, None),
    "a body in chunks": (b"HTTP/1.1 503 No\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", 503, None),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_refusal_is_told_with_its_status_and_its_pause(
    name: str, raw_server: ServeBytes, client_of: MakeClient
) -> None:
    answer, status, pause = REFUSED[name]
    server = raw_server(answers(answer))
    error = what_ends(client_of(server.url, reconnect=ONCE))
    assert isinstance(error, aggstream.HandshakeRejected)
    assert (error.status, error.retry_after) == (status, pause)
    assert f"HTTP status {status}" in str(error)
    assert str(error).isprintable()
    assert server.connections == 1


def test_a_body_without_an_end_is_not_waited_for(raw_server: ServeBytes, client_of: MakeClient) -> None:
    def flood(sock: socket.socket) -> None:
        read_request(sock)
        sock.sendall(b"HTTP/1.1 401 No\r\nContent-Length: 100000000\r\n\r\n")
        while True:
            sock.sendall(b"a" * 65536)

    error = what_ends(client_of(raw_server(flood).url, reconnect=ONCE))
    assert isinstance(error, aggstream.HandshakeRejected)
    assert error.status == 401


NO_ANSWERS = {
    "an Accept of another key": (FIRST + REST + b"Sec-WebSocket-Accept: AAAA\r\n\r\n", "missing or wrong"),
    "an Accept in other letters": (FIRST + REST + b"Sec-WebSocket-Accept: SWAPPED\r\n\r\n", "missing or wrong"),
    "an Accept twice": (YES + b"Sec-WebSocket-Accept: AAAA\r\n\r\n", "missing or wrong"),
    "no Accept": (FIRST + REST + b"\r\n", "missing or wrong"),
    "no Upgrade": (FIRST + b"Connection: Upgrade\r\n" + ACCEPT + b"\r\n", "missing or wrong"),
    "another Upgrade": (FIRST + b"Upgrade: h2c\r\nConnection: Upgrade\r\n" + ACCEPT + b"\r\n", "missing or wrong"),
    "no Connection": (FIRST + b"Upgrade: websocket\r\n" + ACCEPT + b"\r\n", "missing or wrong"),
    "another Connection": (
        FIRST + b"Upgrade: websocket\r\nConnection: close\r\n" + ACCEPT + b"\r\n",
        "missing or wrong",
    ),
    "an extension": (YES + b"Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n", "an extension"),
    "a subprotocol": (YES + b"Sec-WebSocket-Protocol: \xffchat\r\n\r\n", "a subprotocol"),
    "HTTP/0.9": (b"<html><body>token-of-xyz789</body></html>\r\n", "not HTTP/1"),
    "HTTP/2": (b"HTTP/2 101\r\n\r\n", "no HTTP/1 status"),
    "the preface of HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "not HTTP/1"),
    "a settings frame of HTTP/2": (b"\x00\x00\x12\x04\x00\x00\x00\x00\x00\x00\x03", "not HTTP/1"),
    "TLS": (b"\x15\x03\x01\x00\x02\x02\x50", "is it wss://"),
    "SMTP": (b"220 mail.example ESMTP\r\n", "not HTTP/1"),
    "a status of letters": (b"HTTP/1.1 1O1 OK\r\n\r\n", "no HTTP/1 status"),
    "a status that is too low": (b"HTTP/1.1 099 OK\r\n\r\n", "no HTTP/1 status"),
    "a status that is too long": (b"HTTP/1.1 1010 OK\r\n\r\n", "no HTTP/1 status"),
    "no status": (b"HTTP/1.1\r\n\r\n", "no HTTP/1 status"),
    "a huge header": (FIRST + b"X: " + b"x" * 70_000, "limits.handshake_size (65536)"),
    "a huge reason": (b"HTTP/1.1 101 " + b"x" * 70_000, "limits.handshake_size (65536)"),
    "headers without an end": (FIRST + b"X: y\r\n" * 20_000, "limits.handshake_size (65536)"),
    "a fold without an end": (FIRST + b"X: y\r\n" + b" z\r\n" * 20_000, "limits.handshake_size (65536)"),
    "empty lines without an end": (b"\r\n" * 40_000, "limits.handshake_size (65536)"),
    "informational answers without an end": (b"HTTP/1.1 100 Continue\r\n\r\n" * 4000, "limits.handshake_size"),
}


@pytest.mark.parametrize("name", NO_ANSWERS)
def test_what_is_no_answer_says_why_although_the_server_stays(
    name: str, raw_server: ServeBytes, client_of: MakeClient
) -> None:
    answer, words = NO_ANSWERS[name]
    server = raw_server(answers(answer))
    error = what_ends(client_of(server.url, reconnect=ONCE))
    assert type(error) is aggstream.ConnectFailed
    assert "the WebSocket handshake failed: " in str(error)
    assert words in str(error)
    assert str(error).isprintable()
    assert "xyz789" not in str(error)
    assert aggstream.is_retryable(error)


@pytest.mark.parametrize(
    "part",
    [
        b"",
        b"\r\n",
        b"HTT",
        b"HTTP/1.1 101",
        FIRST,
        FIRST + b"Upgrade: webs",
        YES,
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 503 No\r\nRetry-After: 7\r\n",
    ],
)
def test_an_answer_that_is_cut_says_so(part: bytes, raw_server: ServeBytes, client_of: MakeClient) -> None:
    server = raw_server(answers(part, ends=True))
    error = what_ends(client_of(server.url, reconnect=ONCE))
    assert type(error) is aggstream.ConnectFailed
    assert "the server closed it during the handshake" in str(error)


@pytest.mark.parametrize("url", ["ws://127.0.0.1:{}/ws", "ws://localhost:{}/ws?a=b%20c", "ws://[::1]:{}"])
def test_the_request_names_the_host_and_the_path_of_the_url(
    url: str, raw_server: ServeBytes, client_of: MakeClient, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests: list[bytes] = []

    def script(sock: socket.socket) -> None:
        requests.append(upgrade(sock, also=LIVE))
        drain(sock)

    server = raw_server(script)
    port = int(server.url.rpartition(":")[2].partition("/")[0])
    real = socket.getaddrinfo
    # The server listens on one address; what matters is the name that is sent.
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, port, **options: real("127.0.0.1", port, **options))
    client = client_of(url.format(port), app_id="app_1")
    client.start()
    until(lambda: requests)
    host, _, path = url.format(port).removeprefix("ws://").partition("/")
    path, _, query = f"/{path}".partition("?")
    query = "&".join(filter(None, [query, "appId=app_1"]))
    line, *headers = requests[0].decode().split("\r\n")
    assert line.startswith(f"GET {path}?")
    assert line.endswith(" HTTP/1.1")
    assert [header for header in headers if header.lower().startswith("host:")] == [f"Host: {host}"]


# --- cookies --------------------------------------------------------------------------------------------


@pytest.fixture
def jar() -> Iterator[dict[str, http.cookies.SimpleCookie]]:
    """The cookies that all users of the library share."""
    before = copy.deepcopy(CookieJar.jar)
    CookieJar.jar.clear()
    yield CookieJar.jar
    CookieJar.jar.clear()
    CookieJar.jar.update(before)


def cookies_in(request: bytes) -> list[bytes]:
    return [line for line in request.split(b"\r\n") if line.lower().startswith(b"cookie:")]


@pytest.mark.parametrize(
    "answer",
    [FIRST + REST + ACCEPT, b"HTTP/1.1 503 No\r\n", b"HTTP/1.1 307 Moved\r\nLocation: /\r\n", b"SMTP\r\n"],
    ids=["101", "503", "307", "no answer"],
)
def test_the_cookies_of_other_connections_are_neither_sent_nor_changed(
    answer: bytes,
    raw_server: ServeBytes,
    client_of: MakeClient,
    jar: dict[str, http.cookies.SimpleCookie],
    until: Until,
) -> None:
    requests: list[bytes] = []

    def script(sock: socket.socket) -> None:
        request = read_request(sock)
        requests.append(request)
        cookie = b"Set-Cookie: session=ours; domain=127.0.0.1\r\n\r\n"
        sock.sendall(answer.replace(b"KEY", accept_of(request)) + cookie)

    for domain in (".127.0.0.1", ".elsewhere.example"):
        jar[domain] = http.cookies.SimpleCookie(f"session=somebodys; domain={domain}")
    before = copy.deepcopy(jar)
    policy = aggstream.ReconnectPolicy(initial=0.01, maximum=0.01, decide=lambda error: True)
    client = client_of(raw_server(script).url, reconnect=policy)
    client.start()
    until(lambda: len(requests) >= 2)
    client.stop()
    assert not any(cookies_in(request) for request in requests)
    assert jar == before


def test_another_user_of_the_library_keeps_its_cookies_while_clients_connect(
    raw_server: ServeBytes, client_of: MakeClient, jar: dict[str, http.cookies.SimpleCookie], until: Until
) -> None:
    ours: list[bytes] = []
    theirs: list[bytes] = []

    def script(sock: socket.socket) -> None:
        request = read_request(sock)
        mine, name = (theirs, b"theirs") if request.startswith(b"GET /other ") else (ours, b"ours")
        mine.append(request)
        cookies = b"".join(b"Set-Cookie: %s=%d; domain=127.0.0.1\r\n" % (name, number) for number in range(3))
        sock.sendall(YES.replace(b"KEY", accept_of(request)) + cookies + b"\r\n")

    server = raw_server(script)
    problems: list[BaseException] = []

    def other_user() -> None:
        try:
            # At least so many, and for as long as the client connects as well.
            while len(theirs) < 30 or len(ours) < 30:
                theirs_now = websocket.create_connection(server.url.replace("/ws", "/other"), timeout=DEADLINE)
                theirs_now.shutdown()  # type: ignore[no-untyped-call]  # the library has no annotations here
        except BaseException as error:
            problems.append(error)

    policy = aggstream.ReconnectPolicy(initial=0.001, maximum=0.001, healthy_after=0.0)
    client = client_of(server.url, reconnect=policy)
    thread = threading.Thread(target=other_user, name="other-user")
    client.start()
    thread.start()
    thread.join(DEADLINE)
    client.stop()
    assert not problems
    assert len(ours) >= 30
    assert not any(cookies_in(request) for request in ours)
    assert cookies_in(theirs[0]) == []
    assert all(cookies_in(request) == [b"Cookie: theirs=2"] for request in theirs[1:])
    assert [sorted(cookies) for cookies in jar.values()] == [["theirs"]]
