"""What is fatal at once, what is tried again and for how long, and what is said of it meanwhile."""

from __future__ import annotations

import itertools
import logging
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any

import attrs
import jwt
import pytest
import trustme
from certificates import serving
from clients import BRISK, IMPATIENT, MakeClient
from other_server import Peer, ServeFunction
from waiting import DEADLINE, Until
from websockets.http11 import Request, Response
from websockets.sync.server import ServerConnection, serve

import aggstream
from aggstream._base.backoff import is_refusal
from aggstream._stream.outage import Outage
from aggstream._stream.patience import Patience

CERTIFICATE = aggstream.ConnectFailed("no TLS connection: the server's certificate is not valid")
CERTIFICATE.__cause__ = ssl.SSLCertVerificationError()
REFUSALS = [
    aggstream.HandshakeRejected("302", status=302),
    aggstream.HandshakeRejected("403", status=403),
    aggstream.HandshakeRejected("404", status=404),
    aggstream.AuthenticationRejected("signed out", final=True),
    aggstream.UserMismatch("another user"),
    aggstream.ServerError("no such app", code="x"),
    CERTIFICATE,
]
PASSING = [
    aggstream.HandshakeRejected("503", status=503),
    aggstream.HandshakeRejected("429", status=429),
    aggstream.ConnectFailed("refused"),
    aggstream.ConnectionLost("gone"),
    aggstream.TokenUnavailable("later"),
    aggstream.HeartbeatTimeout("silent"),
]


# --- the rule, with a moved clock -----------------------------------------------------------------------


@pytest.mark.parametrize("error", REFUSALS, ids=str)
def test_a_refusal_is_fatal_at_once_before_the_first_sign_in(error: aggstream.AggStreamError) -> None:
    assert is_refusal(error)
    assert not aggstream.is_retryable(error)
    assert not Patience(300.0).has_for(error, 0.0)


@pytest.mark.parametrize("error", REFUSALS, ids=str)
def test_after_the_first_sign_in_a_refusal_is_fatal_when_it_has_lasted(error: aggstream.AggStreamError) -> None:
    patience = Patience(300.0)
    patience.has_signed_in = True
    assert [patience.has_for(error, now) for now in (1000.0, 1299.0, 1300.0)] == [True, True, False]
    assert "which ends the stream in 0 s" in (patience.problem(1400.0) or "")


@pytest.mark.parametrize("error", PASSING, ids=str)
def test_errors_of_the_network_are_no_refusals_and_begin_the_time_anew(error: aggstream.AggStreamError) -> None:
    assert not is_refusal(error)
    assert aggstream.is_retryable(error)
    patience = Patience(300.0)
    patience.has_signed_in = True
    assert patience.has_for(REFUSALS[0], 0.0)
    assert not patience.has_for(error, 299.0)
    assert patience.problem(299.0) is None
    assert patience.has_for(REFUSALS[0], 500.0)


def test_a_success_and_another_user_begin_anew() -> None:
    patience = Patience(300.0)
    patience.has_signed_in = True
    assert patience.has_for(REFUSALS[0], 0.0)
    patience.succeeded()
    assert patience.has_for(REFUSALS[0], 299.0)
    assert patience.has_for(REFUSALS[0], 598.0)
    patience.forget()
    assert patience.has_for(REFUSALS[0], 599.0)
    assert patience.has_for(REFUSALS[0], 898.0)
    assert not patience.has_for(REFUSALS[0], 899.0)


def test_a_refusal_of_another_users_token_is_fatal_at_once() -> None:
    patience = Patience(300.0)
    patience.has_signed_in = True
    refused = aggstream.AuthenticationRejected("no", final=True)
    assert patience.has_for(refused, 0.0)
    patience.forget()
    assert not patience.has_for(refused, 1.0)


def test_a_program_that_decides_by_itself_is_not_overruled() -> None:
    asked: list[aggstream.AggStreamError] = []

    def decide(error: aggstream.AggStreamError) -> bool:
        asked.append(error)
        return False

    policy = aggstream.ReconnectPolicy(decide=decide)
    attempts = policy.outage(attempts=lambda: 1, may_pass=lambda error: True)
    with pytest.raises(aggstream.HandshakeRejected):
        attempts.failed(REFUSALS[0])
    assert asked == [REFUSALS[0]]


# --- what is said ---------------------------------------------------------------------------------------


def test_an_outage_is_logged_less_and_less_often(caplog: pytest.LogCaptureFixture) -> None:
    outage = Outage("alice")
    logged: list[int] = []
    with caplog.at_level(logging.WARNING, "aggstream"):
        for now in range(0, 86_400, 10):
            before = len(caplog.records)
            outage.failed(aggstream.ConnectFailed("no TCP connection: Connection refused"), 1.0, float(now))
            if len(caplog.records) > before:
                logged.append(now)
    assert logged[:3] == [0, 10, 20]
    gaps = [later - earlier for earlier, later in itertools.pairwise(logged[2:])]
    assert gaps == sorted(gaps)
    assert 30 < gaps[0] < 120
    assert gaps[-1] == 3600
    assert len(logged) < 40
    last = caplog.records[-1].getMessage()
    assert "alice: not connected for" in last
    assert "failures" in last
    assert "Connection refused; look at url" in last


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (aggstream.TokenUnavailable("the token is empty"), "look at the token function"),
        (aggstream.ConnectFailed("no TCP connection"), "look at url, at the network, and at proxies"),
        (aggstream.ConnectionLost("gone"), "look at the network"),
        (aggstream.RemoteProtocolError("nonsense"), "look at what the error names"),
    ],
)
def test_health_names_what_lasts_and_the_remedy(
    error: aggstream.AggStreamError, remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr("aggstream._stream.outage.time.monotonic", lambda: now[0])
    outage = Outage("alice")
    outage.failed(error, 1.0, 1000.0)
    assert outage.problem(error) is None
    now[0] = 1100.0
    problem = outage.problem(error)
    assert problem is not None
    assert problem.startswith(f"not connected for 100 s, after 1 failures: {error}")
    assert remedy in problem
    outage.ended()
    assert outage.problem(error) is None


def test_a_server_that_accepts_and_drops_is_one_outage(caplog: pytest.LogCaptureFixture) -> None:
    outage = Outage("agg", healthy_after=1000.0)
    error = aggstream.ConnectionLost("gone")
    for minute in range(100):
        outage.ended()
        assert outage.problem(error) is None  # at this moment it is live
        outage.failed(error, 60.0, minute * 60.0 - 1e6)
    lines = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(lines) < 12
    assert "after 5 failures" in lines[3] or "after 4 failures" in lines[3]
    problem = outage.problem(error)
    assert problem is not None
    assert "after 100 failures" in problem


# --- on the real path -----------------------------------------------------------------------------------


class Gateway:
    """A server that answers some handshakes as a gateway in maintenance does."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self.answers: list[int] = []
        self.refused = 0
        self.is_live = threading.Semaphore(0)
        self._drop = threading.Event()
        self._server = serve(
            self._script, "localhost", 0, process_request=self._answer, compression=None, ssl=context
        )
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()
        scheme = "ws" if context is None else "wss"
        self.url = f"{scheme}://localhost:{self._server.socket.getsockname()[1]}/ws"

    def _answer(self, ws: ServerConnection, request: Request) -> Response | None:
        if not self.answers:
            return None
        self.refused += 1
        status = self.answers.pop(0)
        response = ws.respond(HTTPStatus(status), "maintenance")
        if status == HTTPStatus.FOUND:
            response.headers["Location"] = "/sorry"
        return response

    def _script(self, ws: ServerConnection) -> None:
        peer = Peer(ws, 1)
        peer.sign_in()
        self.is_live.release()
        self._drop.wait(DEADLINE)
        self._drop.clear()

    def drop(self) -> None:
        self._drop.set()

    def close(self) -> None:
        self._drop.set()
        self._server.shutdown()
        self._thread.join()


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    server = Gateway()
    yield server
    server.close()


@pytest.mark.parametrize("status", [302, 401, 403, 404, 410])
def test_a_page_of_maintenance_costs_attempts_only(
    status: int, gateway: Gateway, client_of: MakeClient, until: Until
) -> None:
    client = client_of(gateway.url)
    with client:
        assert gateway.is_live.acquire(timeout=DEADLINE)
        gateway.answers = [status] * 4
        gateway.drop()
        assert gateway.is_live.acquire(timeout=DEADLINE)
        assert gateway.refused == 4
        until(lambda: client.health().phase == "live")


@pytest.mark.parametrize("status", [302, 403, 404])
def test_a_page_of_maintenance_while_the_user_is_switched_costs_attempts_only(
    status: int, gateway: Gateway, client_of: MakeClient, until: Until
) -> None:
    client = client_of(gateway.url)
    with client:
        assert gateway.is_live.acquire(timeout=DEADLINE)
        gateway.answers = [status] * 4
        client.switch_user("token-of-another-user")
        until(lambda: gateway.refused == 4)
        gateway.drop()
        assert gateway.is_live.acquire(timeout=DEADLINE)
        until(lambda: client.health().phase == "live")


@pytest.mark.parametrize("status", [302, 403, 404])
def test_before_the_first_sign_in_it_is_fatal_at_once(
    status: int, gateway: Gateway, client_of: MakeClient
) -> None:
    gateway.answers = [status] * 4
    client = client_of(gateway.url)
    client.start()
    with pytest.raises(aggstream.HandshakeRejected, match=str(status)):
        client.wait(DEADLINE)
    assert gateway.refused == 1


def test_a_refusal_that_does_not_pass_ends_the_stream_after_all(
    gateway: Gateway, client_of: MakeClient, until: Until
) -> None:
    client = client_of(gateway.url, reconnect=attrs.evolve(BRISK, fatal_after=0.5))
    client.start()
    assert gateway.is_live.acquire(timeout=DEADLINE)
    gateway.answers = [403] * 10_000
    gateway.drop()
    until(lambda: any("refused for" in problem for problem in client.health().problems))
    with pytest.raises(aggstream.HandshakeRejected, match="403"):
        client.wait(DEADLINE)
    assert gateway.refused > 2
    assert not any("refused" in problem for problem in client.health().problems)


def test_one_wrong_certificate_among_good_ones_passes(
    authority: trustme.CA, trusting: ssl.SSLContext, client_of: MakeClient, until: Until
) -> None:
    context = serving(authority)
    other = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("localhost").configure_cert(other)
    is_wrong: list[bool] = []

    def choose(sock: ssl.SSLObject, name: str, initial: ssl.SSLContext) -> None:
        if is_wrong:
            is_wrong.pop()
            sock.context = other

    context.sni_callback = choose
    server = Gateway(context)
    try:
        client = client_of(server.url, ssl_context=trusting)
        with client:
            assert server.is_live.acquire(timeout=DEADLINE)
            is_wrong += [True] * 3
            server.drop()
            assert server.is_live.acquire(timeout=DEADLINE)
        assert not is_wrong
        is_wrong += [True]
        first = client_of(server.url, ssl_context=trusting)
        first.start()
        with pytest.raises(aggstream.ConnectFailed, match="certificate"):
            first.wait(DEADLINE)
    finally:
        server.close()


def refusing(times: int, refused: list[str], how: Callable[[Peer], None]) -> Callable[[Peer], None]:
    """Return a script that accepts the first token, ends the connection, and then refuses some."""

    def script(peer: Peer) -> None:
        if peer.number == 1:
            peer.sign_in()
            peer.ws.close(1001)
        elif len(refused) < times:
            peer.greet()
            refused.append(str(peer.receive()["token"]))
            how(peer)
        else:
            peer.sign_in()
        peer.wait_closed()

    return script


def say_invalid(peer: Peer) -> None:
    peer.send({"type": "error", "message": "invalid token"})


def close_1008(peer: Peer) -> None:
    peer.ws.close(1008, "policy")


@pytest.mark.parametrize("how", [say_invalid, close_1008])
@pytest.mark.parametrize("kind", ["fixed", "function"])
def test_a_refused_token_is_tried_again_although_there_is_no_other(
    other_server: ServeFunction, client_of: MakeClient, until: Until, how: Callable[[Peer], None], kind: str
) -> None:
    refused: list[str] = []
    server = other_server(refusing(4, refused, how))
    token: Any = "the-only-token" if kind == "fixed" else (lambda: "the-only-token")
    with client_of(server.url, token=token, reconnect=BRISK) as client:
        until(lambda: len(refused) == 4 and client.health().phase == "live")
    assert refused == ["the-only-token"] * 4


def test_a_token_that_is_refused_at_the_first_sign_in_is_fatal(
    other_server: ServeFunction, client_of: MakeClient
) -> None:
    def script(peer: Peer) -> None:
        peer.greet()
        peer.receive()
        say_invalid(peer)
        peer.wait_closed()

    server = other_server(script)
    client = client_of(server.url, token="the-only-token", reconnect=BRISK)
    client.start()
    with pytest.raises(aggstream.AuthenticationRejected, match="there is no other token"):
        client.wait(DEADLINE)
    assert server.connections == 1


def test_a_token_file_that_is_renewed_late_costs_attempts_only(
    other_server: ServeFunction, client_of: MakeClient, until: Until, tmp_path: Path
) -> None:
    path = tmp_path / "token"
    path.write_text("old-token\n")
    refused: list[str] = []

    def script(peer: Peer) -> None:
        if peer.number == 1:
            peer.sign_in()
            peer.ws.close(4001)
        else:
            peer.greet()
            token = str(peer.receive()["token"])
            if token == "old-token":
                refused.append(token)
                say_invalid(peer)
            else:
                peer.send({"type": "authenticated", "userId": "usr_xyz789"})
        peer.wait_closed()

    with client_of(other_server(script).url, token=aggstream.FileToken(path), reconnect=BRISK) as client:
        until(lambda: len(refused) >= 3)
        path.unlink()
        until(lambda: "cannot be read" in str(client.health().last_error))
        path.write_text("")
        until(lambda: "is empty" in str(client.health().last_error))
        path.write_text("new-token")
        until(lambda: client.health().phase == "live")


def test_one_token_of_another_user_passes_and_nothing_of_theirs_is_delivered(
    other_server: ServeFunction, client_of: MakeClient, until: Until
) -> None:
    def script(peer: Peer) -> None:
        peer.sign_in("usr_2" if peer.number in (2, 3) else "usr_1")
        peer.send({"type": "balance_update", "userId": f"usr_{1 + (peer.number in (2, 3))}", "venue": "kalshi"})
        if peer.number == 1:
            peer.ws.close(1001)
        peer.wait_closed()

    seen: list[aggstream.Event] = []
    client = client_of(other_server(script).url, reconnect=BRISK)
    client.on(aggstream.UserEvent)(seen.append)
    with client:
        until(lambda: client.health().counters.connections == 4 and client.health().phase == "live")
    assert {getattr(event, "user_id", None) for event in seen} <= {"usr_1"}


def test_a_provider_that_says_that_the_session_is_over_is_asked_again_while_the_connection_lives(
    other_server: ServeFunction, client_of: MakeClient, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aggstream.tokens._credentials._FIRST_PAUSE", 0.01)
    answers: list[str] = []

    def script(peer: Peer) -> None:
        peer.sign_in()
        answers.append(str(peer.receive()["token"]))
        peer.send({"type": "authenticated", "userId": "usr_xyz789"})
        peer.wait_closed()

    class Provider:
        def __init__(self) -> None:
            self.asked = 0

        def get_token(self, *, stale: str | None = None) -> str:
            self.asked += 1
            if self.asked == 1:
                return _jwt(1.0)
            if self.asked < 4:
                raise aggstream.AuthenticationRejected("signed out", final=True)
            return _jwt(1e6)

    provider = Provider()
    with client_of(other_server(script).url, token=provider, reconnect=BRISK) as client:
        until(lambda: answers)
        until(lambda: client.health().counters.refreshes == 1)
        assert client.health().counters.connections == 1
    assert provider.asked == 4


def _jwt(lifetime: float) -> str:
    return jwt.encode({"exp": time.time() + lifetime, "iat": time.time()}, "k" * 32, algorithm="HS256")


def test_with_no_patience_it_is_fatal_as_before_the_first_sign_in(gateway: Gateway, client_of: MakeClient) -> None:
    client = client_of(gateway.url, reconnect=IMPATIENT)
    client.start()
    assert gateway.is_live.acquire(timeout=DEADLINE)
    gateway.answers = [403]
    gateway.drop()
    with pytest.raises(aggstream.HandshakeRejected):
        client.wait(DEADLINE)


def test_a_refusal_is_no_problem_once_a_connection_went_live_after_it() -> None:
    patience = Patience(300.0)
    patience.has_signed_in = True
    assert patience.has_for(REFUSALS[0], 10.0)
    assert patience.problem(20.0) is not None
    assert patience.problem(20.0, live_since=15.0) is None
    assert patience.problem(20.0, live_since=5.0) is not None  # a new token is refused on a live connection
