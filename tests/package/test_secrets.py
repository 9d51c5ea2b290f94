"""A canary for a token goes through everything that can go wrong, and is seen nowhere but on the wire."""

from __future__ import annotations

import copy
import logging
import pathlib
import pickle
import socket
import ssl
import struct
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import attrs
import pytest
from clients import IMPATIENT, MakeClient
from other_server import Peer, ServeFunction
from raw_server import ServeBytes, drain, frame, read_request, upgrade
from waiting import DEADLINE, Until

import aggstream
from aggstream._base.secret import Secret
from aggstream.tokens._token import Token

CANARY = "canary-in-the-coal-mine"
ONCE = aggstream.ReconnectPolicy(max_attempts=1)


def echo_and_refuse(peer: Peer) -> None:
    peer.greet()
    token = peer.receive()["token"]
    peer.send({"type": "error", "message": f"bad token {token}", "detail": {"token": token}})
    peer.wait_closed()


def refuse_by_close(peer: Peer) -> None:
    peer.greet()
    peer.ws.close(4401, f"bad {peer.receive()['token']}")


def echo_nonsense(peer: Peer) -> None:
    token = peer.sign_in()
    peer.send(f"nonsense {token}", {"type": "error", "message": token, "code": token})
    peer.ws.close(1011, token)


def other_user(peer: Peer) -> None:
    peer.sign_in(f"usr_{peer.number}")
    peer.ws.close(1001)


def silent(peer: Peer) -> None:
    peer.greet()
    peer.wait_closed()


@pytest.mark.parametrize("script", [echo_and_refuse, refuse_by_close, echo_nonsense, other_user, silent])
def test_the_token_is_in_no_log_event_error_or_frame(
    script: Callable[[Peer], None],
    other_server: ServeFunction,
    client_of: MakeClient,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    logging.getLogger("websockets").setLevel(logging.WARNING)  # the server's own, in the same process
    policy = aggstream.ReconnectPolicy(initial=0.01, maximum=0.01, max_attempts=2)
    token = ["canary", "in-the-coal-mine"]
    client = client_of(other_server(script).url, token=lambda: "-".join(token), reconnect=policy, auth_timeout=0.1)
    events: list[aggstream.Event] = []
    client.on("*")(events.append)
    client.start()
    with pytest.raises(aggstream.AggStreamError) as caught:
        client.wait(DEADLINE)
    look_for_the_canary(client, caught.value, caplog.text)
    assert events
    for event in events:
        assert CANARY not in repr(event)
        assert CANARY.encode() not in pickle.dumps(event)


def test_a_token_that_is_echoed_with_escapes_is_masked(
    other_server: ServeFunction, client_of: MakeClient, until: Until
) -> None:
    token = "can+ary/in=the-coal-mine"

    def script(peer: Peer) -> None:
        peer.sign_in()
        echoed = token.replace("+", "\\u002B").replace("=", "\\u003d")
        peer.send(f'{{"type": "error", "message": "{echoed}", "channel": "{echoed}"}}')
        peer.send(
            f'{{"type": "news", "text": "{echoed}"}}', f'{{"type": "order_submitted", "orderId": ["{echoed}"]}}'
        )
        peer.wait_closed()

    events: list[aggstream.Event] = []
    client = client_of(other_server(script).url, token=token, rest=None)
    client.on("*")(events.append)
    with client:
        until(lambda: any(isinstance(event, aggstream.DecodeFailed) for event in events))
    assert {event.type for event in events} >= {"error", "news"}
    for event in events:
        assert "the-coal-mine" not in repr(event)
        assert token.encode() not in pickle.dumps(event)


def test_the_errors_that_events_and_health_hand_out_have_no_frames(
    raw_server: ServeBytes, client_of: MakeClient
) -> None:
    def echo(sock: socket.socket) -> None:
        sock.sendall(read_request(sock))

    policy = aggstream.ReconnectPolicy(initial=0.01, maximum=0.01, max_attempts=3)
    client = client_of(raw_server(echo).url, headers={"x-key": CANARY}, reconnect=policy)
    errors: list[BaseException] = []
    client.on("reconnecting")(lambda event: errors.append(event.error))
    client.start()
    with pytest.raises(aggstream.ReconnectGaveUp):
        client.wait(DEADLINE)
    last = client.health().last_error
    assert last is not None
    assert len(errors) == 2
    for error in (last, *errors):
        assert error.__traceback__ is None
        assert error.__context__ is None


def test_the_token_is_in_no_frame_when_sending_it_fails(
    raw_server: ServeBytes, client_of: MakeClient, caplog: pytest.LogCaptureFixture
) -> None:
    def reset(sock: socket.socket) -> None:
        upgrade(sock, also=frame(b'{"type":"connected","appId":"a"}'))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    caplog.set_level(logging.DEBUG)
    token = ["canary", "in-the-coal-mine"]
    client = client_of(raw_server(reset).url, token=lambda: "-".join(token), reconnect=ONCE)
    client.start()
    with pytest.raises(aggstream.ReconnectGaveUp) as caught:
        client.wait(DEADLINE)
    look_for_the_canary(client, caught.value, caplog.text)


def test_the_token_is_masked_in_every_name_that_goes_into_a_log(
    other_server: ServeFunction, client_of: MakeClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "aggstream")

    def script(peer: Peer) -> None:
        token = peer.sign_in(f"usr_{CANARY}")
        peer.send({"type": f"hello_{token}"}, {"type": "authenticated", "userId": f"other_{token[:15]}"})
        peer.wait_closed()

    client = client_of(other_server(script).url, token=CANARY, reconnect=IMPATIENT)
    events: list[aggstream.Event] = []

    @client.on("*")
    def fails(event: aggstream.Event) -> None:
        events.append(event)
        raise ArithmeticError

    client.start()
    with pytest.raises(aggstream.UserMismatch) as caught:
        client.wait(DEADLINE)
    assert str(caught.value).startswith("the token signs in 'other_***', but the stream belongs to 'usr_***'")
    assert [event.name for event in events if isinstance(event, aggstream.UnknownEvent)] == ["hello_***"]
    assert "live as 'usr_***'" in caplog.text
    assert "failed on hello_***" in caplog.text
    assert CANARY[:12] not in caplog.text


def test_a_token_function_that_raises_leaves_no_refused_token_in_a_frame_of_ours(
    other_server: ServeFunction, client_of: MakeClient, caplog: pytest.LogCaptureFixture
) -> None:
    tokens = iter([CANARY])

    def token() -> str:
        try:
            return next(tokens)
        except StopIteration:
            raise OSError("the vault is down") from None

    policy = aggstream.ReconnectPolicy(initial=0.01, maximum=0.01, max_attempts=2)
    client = client_of(other_server(echo_and_refuse).url, token=token, reconnect=policy)
    client.start()
    with pytest.raises(aggstream.ReconnectGaveUp) as caught:
        client.wait(DEADLINE)
    cause = caught.value.__cause__
    assert cause is not None
    assert isinstance(cause.__cause__, OSError)
    look_for_the_canary(client, caught.value, caplog.text)


def test_the_token_is_in_no_url_and_no_handshake(raw_server: ServeBytes, client_of: MakeClient) -> None:
    received: list[bytes] = []

    def script(sock: socket.socket) -> None:
        received.append(sock.recv(65536))
        sock.sendall(b"HTTP/1.1 403 No\r\n\r\n")
        received.append(drain(sock))

    server = raw_server(script)
    client = client_of(server.url, token=CANARY)
    client.start()
    with pytest.raises(aggstream.HandshakeRejected):
        client.wait(DEADLINE)
    server.join()
    assert received
    assert CANARY.encode() not in b"".join(received)


# --- a whole life ---------------------------------------------------------------------------------------


def token() -> str:
    return CANARY[:6] + CANARY[6:]


def bad_handshake(status: int) -> Callable[[socket.socket], None]:
    """Answer with a status, and repeat the request in headers and body, as some servers do."""

    def script(sock: socket.socket) -> None:
        request = read_request(sock)
        echo = request.replace(b"\r\n", b" ")
        sock.sendall(
            b"HTTP/1.1 %d No\r\nX-Echo: %b\r\nSet-Cookie: token=%b\r\nLocation: ws://localhost:9/?%b\r\n\r\n%b"
            % (status, echo, echo[4:60], echo[4:60], request)
        )
        drain(sock)

    return script


def no_handshake(sock: socket.socket) -> None:
    sock.sendall(read_request(sock))
    drain(sock)


def cut_in_the_handshake(sock: socket.socket) -> None:
    read_request(sock)


def broken_frame(sock: socket.socket) -> None:
    upgrade(sock, also=frame(b'{"type":"connected","appId":"a"}'))
    sock.recv(65536)
    sock.sendall(b"\xff\xff" + token().encode())
    drain(sock)


def lie_about_the_user(sock: socket.socket) -> None:
    upgrade(sock, also=frame(b'{"type":"connected","appId":"a","userId":"u"}'))
    sock.sendall(frame(b'{"type":"authenticated","userId":"u"}') + frame(b'{"type":"authenticated","userId":"v"}'))
    drain(sock)


def not_in_form(sock: socket.socket) -> None:
    upgrade(sock, also=frame(b'{"type":"connected","appId":"a","userId":"u"}'))
    sock.sendall(frame(token().encode()) + frame(b"\x10\x00" + token().encode(), opcode=8))
    drain(sock)


@pytest.mark.parametrize("auth", ["message", "query"])
@pytest.mark.parametrize("tls", [False, True], ids=["tcp", "tls"])
@pytest.mark.parametrize(
    "script",
    [
        bad_handshake(401),
        bad_handshake(307),
        bad_handshake(503),
        no_handshake,
        cut_in_the_handshake,
        drain,
        broken_frame,
        lie_about_the_user,
        not_in_form,
    ],
    ids=["401", "307", "503", "no handshake", "cut", "silence", "broken frame", "another user", "not in form"],
)
def test_a_failure_at_any_step_shows_no_token_and_no_key(
    script: Callable[[socket.socket], object],
    tls: bool,
    auth: str,
    raw_server: ServeBytes,
    client_of: MakeClient,
    trusting: ssl.SSLContext,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    client = client_of(
        raw_server(script, tls=tls).url,
        token=token,
        auth=auth,
        headers={"X-Gateway-Key": "canary-of-an-api-key"},
        ssl_context=trusting,
        connect_timeout=0.3,
        auth_timeout=0.3,
        reconnect=aggstream.ReconnectPolicy(initial=0.01, maximum=0.01, max_attempts=2),
    )
    look_everywhere(client, caplog)


@pytest.mark.parametrize("auth", ["message", "query"])
@pytest.mark.parametrize(
    ("url", "context"),
    [
        ("ws://localhost:9/ws", None),
        ("wss://localhost:9/ws", None),
        ("ws://no-such-host.invalid/ws", None),
        ("", ssl.create_default_context()),
    ],
    ids=["refused", "refused tls", "no such host", "untrusted"],
)
def test_a_connection_that_cannot_be_made_shows_no_token(
    url: str,
    context: ssl.SSLContext | None,
    auth: str,
    raw_server: ServeBytes,
    client_of: MakeClient,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    url = url or raw_server(drain, tls=True).url
    client = client_of(url, token=token, auth=auth, ssl_context=context, allow_insecure=True, reconnect=ONCE)
    look_everywhere(client, caplog)


def test_a_life_with_a_refresh_a_switch_and_failing_handlers_shows_no_token(
    client_of: MakeClient, until: Until, caplog: pytest.LogCaptureFixture
) -> None:
    from aggstream.simulator import Simulator

    caplog.set_level(logging.DEBUG)
    with Simulator(heartbeat_interval=0.1) as agg:
        session = agg.sign_in("usr_1")
        saved: list[aggstream.TokenPair] = []

        def save(pair: aggstream.TokenPair) -> None:
            saved.append(pair)
            if len(saved) == 1:
                raise OSError("the disk is full")

        tokens = aggstream.RefreshingToken(
            session.refresh_token,
            access_token=session.access_token,
            app_id=agg.app_id,
            rest_url=agg.rest_url,
            save=save,
        )
        client = client_of(agg.url, app_id=agg.app_id, origin=agg.origin, token=tokens)
        events: list[aggstream.Event] = []
        client.on("*")(events.append)
        client.on("order_submitted")(lambda event: 1 / 0)
        client.start()
        client.wait_until_live(DEADLINE)
        agg.place_order("usr_1")
        agg.refuse_refreshes(1)
        agg.expire_tokens()
        until(lambda: any(isinstance(event, aggstream.Resumed) for event in events))
        client.switch_user(agg.sign_in("usr_2").access_token)
        until(lambda: client.health().user_id == "usr_2")
        client.stop()
        canaries = [session.access_token, session.refresh_token]
        canaries += [text for pair in saved for text in (pair.access_token, pair.refresh_token)]
    assert saved
    errors = [error for event in events if (error := getattr(event, "error", None)) is not None]
    logged = [record.exc_info[1] for record in caplog.records if record.exc_info and record.exc_info[1]]
    places = [
        caplog.text,
        repr(client),
        repr(client.health()),
        repr(vars(client)),
        repr(vars(tokens)),
        repr(events),
    ]
    places += [place for error in [*errors, *logged] for place in shown_by(error)]
    for canary in canaries:
        assert not [place for place in places if canary in place]


def test_a_token_shows_itself_nowhere() -> None:
    secret = Secret(CANARY)
    pair = aggstream.TokenPair(CANARY, CANARY)
    shown = [
        repr(secret),
        str(secret),
        f"{secret}",
        f"{secret:>30}",
        f"{secret} {secret!r}",
        repr(pair),
        str(pair),
    ]
    shown += [repr(attrs.asdict(Token.of(CANARY))), repr(Token.of(CANARY))]
    assert not [text for text in shown if CANARY in text]
    for thing in (secret, Token.of(CANARY)):
        with pytest.raises(TypeError, match="secret"):
            pickle.dumps(thing)
        with pytest.raises(TypeError, match="secret"):
            copy.deepcopy(thing)


# --- other hosts ----------------------------------------------------------------------------------------


def test_netrc_and_proxy_variables_carry_no_credential_to_the_service(
    raw_server: ServeBytes,
    client_of: MakeClient,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: pathlib.Path,
) -> None:
    requests: list[bytes] = []

    def script(sock: socket.socket) -> None:
        requests.append(sock.recv(65536))
        sock.sendall(b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n")

    netrc = tmp_path / ".netrc"
    netrc.write_text("default login someone password canary-netrc\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(netrc))
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://someone:canary-proxy@localhost:9")
    url = raw_server(script).url
    client = client_of(url, reconnect=ONCE)
    client.start()
    with pytest.raises(aggstream.HandshakeRejected):
        client.wait(DEADLINE)
    tokens = aggstream.RefreshingToken("refresh", app_id="a", rest_url=url.replace("ws", "http", 1)[:-3])
    with pytest.raises(aggstream.AuthenticationRejected):
        tokens.get_token()
    assert len(requests) == 2
    for request in requests:
        assert b"canary" not in request
        assert b"authorization" not in request.lower()


def test_a_redirect_of_the_refresh_call_is_not_followed(raw_server: ServeBytes) -> None:
    elsewhere = raw_server(drain)

    def script(sock: socket.socket) -> None:
        sock.recv(65536)
        there = elsewhere.url.replace("ws", "http", 1).encode()
        sock.sendall(b"HTTP/1.1 307 There\r\nLocation: " + there + b"\r\nContent-Length: 0\r\n\r\n")

    url = raw_server(script).url.replace("ws", "http", 1)[:-3]
    with pytest.raises(aggstream.AuthenticationRejected, match="307"):
        aggstream.RefreshingToken("refresh", app_id="a", rest_url=url).get_token()
    assert elsewhere.connections == 0


# --- options that are refused, and what users give to a refresh ------------------------------------------

SERVICE = "wss://service.example/ws"


def make(**options: Any) -> object:
    return aggstream.Client(**{"app_id": "a", "origin": "https://app.example", "token": "token-0001", **options})


def refreshing(**options: Any) -> aggstream.RefreshingToken:
    return aggstream.RefreshingToken(
        **{"refresh_token": CANARY, "app_id": "a", "rest_url": "http://localhost:9", "proxy": None, **options}
    )


@pytest.mark.parametrize(
    "refused",
    [
        lambda: make(token=CANARY, headers={"X-Key": CANARY}, proxy=f"http://u:{CANARY}@p:1", workers=0),
        lambda: make(token=CANARY, ping_interval=-1),
        lambda: make(token=f"{CANARY}\n"),
        lambda: make(auth=CANARY),
        lambda: make(origin=CANARY),
        lambda: make(url=f"wss://user:[{CANARY}]@host/ws"),
        lambda: make(url=f"wss://host:{CANARY}/ws"),
        lambda: make(url=f"wss://user:{CANARY}@host/ws"),
        lambda: make(url=f"wss://host/ws?token={CANARY}"),
        lambda: make(headers={"X-Key": f"{CANARY}\n"}),
        lambda: make(headers={"X-Key": CANARY, "Cookie": "a"}),
        lambda: make(headers={f"{CANARY} ": "a"}),
        lambda: make(url=SERVICE, proxy=f"https://u:{CANARY}@p:1"),
        lambda: make(url=SERVICE, proxy=f"http://u:{CANARY}@p:x"),
        lambda: make(url=SERVICE, proxy=f"http://u:{CANARY}%0a@p:1"),
        lambda: refreshing(refresh_token=f"{CANARY}\n"),
        lambda: refreshing(access_token=f"{CANARY} "),
        lambda: refreshing(timeout=-1),
        lambda: refreshing(headers={"X-Key": CANARY, "Cookie": "a"}),
        lambda: refreshing(proxy=f"ftp://u:{CANARY}@p:1"),
        lambda: refreshing(app_id="app_\N{SNOWMAN}"),
        lambda: aggstream.RestOptions(headers={"X-Key": CANARY, "Cookie": "a"}),
        lambda: aggstream.RestClient(app_id="a", token=f"{CANARY}\n"),
        lambda: aggstream.RestClient(app_id="a", token=CANARY, proxy=f"ftp://u:{CANARY}@p:1"),
        lambda: aggstream.Limits(message_size=-1),
        lambda: aggstream.ReconnectPolicy(initial=-1),
    ],
)
def test_an_option_that_is_refused_shows_no_secret(refused: Callable[[], object]) -> None:
    with pytest.raises(aggstream.ConfigurationError) as caught:
        refused()
    for place in shown_by(caught.value):
        assert "canary" not in place


def test_a_user_to_switch_to_that_is_refused_is_shown_by_no_frame(client_of: MakeClient) -> None:
    with pytest.raises(aggstream.ConfigurationError) as caught:
        client_of("ws://localhost:9/ws").switch_user(f"{CANARY}\n")
    for place in shown_by(caught.value):
        assert "canary" not in place


def test_a_misspelt_option_shows_no_secret_in_a_frame_of_ours() -> None:
    with pytest.raises(TypeError) as caught:
        make(tokn=CANARY, token=CANARY)
    for place in shown_by(caught.value):
        assert "canary" not in place


def raises(*_: object) -> Any:
    raise OSError(CANARY)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"body": raises}, "body.. gave no JSON: OSError"),
        ({"body": lambda token: {"refreshToken": token, "at": object()}}, "body.. gave no JSON: TypeError"),
        ({"body": lambda token: {"refreshToken": token, "at": float("nan")}}, "body.. gave no JSON: ValueError"),
        ({"load": lambda: {"access_token": CANARY}}, "a TokenPair or None, got dict"),
        ({"load": lambda: (CANARY, CANARY)}, "a TokenPair or None, got tuple"),
        ({"load": lambda: aggstream.TokenPair(CANARY, f"{CANARY}\n")}, "cannot be used"),
        ({"proxy": "http://proxy..example:3128"}, "no connection to the proxy"),
        ({"rest_url": "https://service..example"}, "failed"),
        ({"rest_url": "https://service..example", "proxy": "socks5://localhost:9"}, "no connection to the proxy"),
    ],
)
def test_a_refresh_that_fails_on_this_side_is_a_typed_error_and_shows_no_token(
    options: dict[str, Any], words: str
) -> None:
    provider = refreshing(**options)
    with pytest.raises(aggstream.TokenUnavailable, match=words) as caught:
        provider.get_token()
    for place in shown_by(caught.value):
        assert "canary" not in place


# --- looking --------------------------------------------------------------------------------------------


def look_everywhere(client: aggstream.Client, caplog: pytest.LogCaptureFixture) -> None:
    """Run a client to its end, and look at everything that it has given out."""
    events: list[aggstream.Event] = []
    client.on("*")(events.append)
    client.start()
    with pytest.raises(aggstream.AggStreamError) as caught:
        client.wait(DEADLINE)
    look_for_the_canary(client, caught.value, caplog.text)
    errors = [error for event in events if (error := getattr(event, "error", None)) is not None]
    assert errors
    for error in errors:
        for place in shown_by(error):
            assert "canary" not in place
    for event in events:
        assert "canary" not in repr(event)
        assert b"canary" not in pickle.dumps(event)


def shown_by(error: BaseException) -> Iterator[str]:
    """Return what a crash reporter shows of an error and of those that led to it."""
    chain: BaseException | None = error
    while chain is not None:
        yield f"{chain} {chain!r} {chain.args} {vars(chain)}"
        rendered = traceback.TracebackException.from_exception(chain, capture_locals=True)
        # The tests' own frames hold what they send.
        yield from (str(place.locals) for place in rendered.stack if "aggstream" in place.filename)
        chain = chain.__cause__ or chain.__context__


def look_for_the_canary(client: aggstream.Client, error: BaseException, log: str) -> None:
    assert CANARY not in log
    assert CANARY not in f"{client!r} {client.health()!r} {vars(client)!r}"
    chain: BaseException | None = error
    while chain is not None:
        assert CANARY not in f"{chain} {chain!r} {chain.args} {vars(chain)}"
        assert CANARY.encode() not in pickle.dumps(chain)
        shown = traceback.TracebackException.from_exception(chain, capture_locals=True)
        for place in shown.stack:
            assert CANARY not in str(place.locals), place
        chain = chain.__cause__ or chain.__context__
