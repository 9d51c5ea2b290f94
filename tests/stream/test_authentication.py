"""Signing in, being refused, refreshing on the open socket, and switching users, over real sockets."""

from __future__ import annotations

import base64
import contextlib
import json
import logging
import threading
import time

import pytest
from clients import IMPATIENT, MakeClient
from other_server import Peer, ServeFunction
from service_messages import BALANCE_UPDATE, ORDER_SUBMITTED
from waiting import DEADLINE, Until
from websockets.exceptions import ConnectionClosed

import aggstream


def jwt(name: str, *, lifetime: float) -> str:
    """A token that says when it ends; nobody checks its signature here."""
    claims = json.dumps({"sub": name, "exp": time.time() + lifetime}).encode()
    return f"header.{base64.urlsafe_b64encode(claims).decode().rstrip('=')}.{name}"


class Tokens:
    """A provider that counts what it is asked."""

    def __init__(self, *tokens: str | Exception) -> None:
        self.tokens = list(tokens)
        self.asked: list[str | None] = []

    def get_token(self, *, stale: str | None = None) -> str:
        self.asked.append(stale)
        token = self.tokens.pop(0) if len(self.tokens) > 1 else self.tokens[0]
        if isinstance(token, Exception):
            raise token
        return token


def refuse(peer: Peer) -> None:
    peer.greet()
    peer.receive()
    peer.send({"type": "error", "message": "invalid token", "code": "invalid_token"})
    peer.ws.close(4401, "invalid token")


def test_a_fixed_token_that_is_refused_is_sent_once(other_server: ServeFunction, client_of: MakeClient) -> None:
    server = other_server(refuse)
    client = client_of(server.url)
    client.start()
    with pytest.raises(aggstream.AuthenticationRejected, match="sign in again") as caught:
        client.wait(DEADLINE)
    assert caught.value.final
    assert server.connections == 1


def test_a_server_that_refuses_every_token_is_asked_twice(
    other_server: ServeFunction, client_of: MakeClient
) -> None:
    server = other_server(refuse)
    tokens = Tokens("first-token", "second-token", "third-token")
    client = client_of(server.url, token=tokens)
    client.start()
    with pytest.raises(aggstream.AuthenticationRejected, match="a refreshed token did not help"):
        client.wait(DEADLINE)
    assert server.connections == 2
    assert tokens.asked == [None, "first-token"]


def test_a_refused_token_is_replaced_by_one_forced_refresh(
    other_server: ServeFunction, client_of: MakeClient, until: Until
) -> None:
    def script(peer: Peer) -> None:
        if peer.number == 1:
            refuse(peer)
        else:
            assert peer.sign_in() == "second-token"
            peer.wait_closed()

    client = client_of(other_server(script).url, token=Tokens("first-token", "second-token"))
    client.start()
    until(lambda: client.health().ok)


@pytest.mark.parametrize("auth", ["message", "query"])
def test_a_status_of_401_is_fatal_unless_the_token_was_in_the_query(
    auth: str, other_server: ServeFunction, client_of: MakeClient
) -> None:
    from http import HTTPStatus

    from websockets.http11 import Request, Response
    from websockets.sync.server import ServerConnection, serve

    asked: list[str] = []

    def unauthorized(ws: ServerConnection, request: Request) -> Response:
        asked.append(request.path)
        return ws.respond(HTTPStatus.UNAUTHORIZED, "no")

    with serve(lambda ws: None, "127.0.0.1", 0, process_request=unauthorized) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        url = f"ws://127.0.0.1:{server.socket.getsockname()[1]}/ws"
        client = client_of(url, auth=auth, token=Tokens("first-token", "second-token"))
        client.start()
        expected = aggstream.HandshakeRejected if auth == "message" else aggstream.AuthenticationRejected
        with pytest.raises(expected) as caught:
            client.wait(DEADLINE)
        server.shutdown()
        thread.join()
    assert "401" in str(caught.value)
    assert "-token" not in str(caught.value)
    assert len(asked) == (1 if auth == "message" else 2)


def test_a_token_is_refreshed_on_the_open_socket_before_it_ends(
    other_server: ServeFunction, client_of: MakeClient, until: Until
) -> None:
    old, new = jwt("old", lifetime=1.0), jwt("new", lifetime=3600.0)
    sent: list[str] = []

    def script(peer: Peer) -> None:
        sent.append(peer.sign_in())
        sent.append(peer.receive()["token"])
        peer.send(ORDER_SUBMITTED, {"type": "authenticated", "userId": "usr_xyz789"}, BALANCE_UPDATE)
        peer.wait_closed()

    tokens = Tokens(old, new)
    client = client_of(other_server(script).url, token=tokens)
    seen: list[aggstream.Event] = []
    client.on("*")(seen.append)
    client.start()
    until(lambda: any(isinstance(event, aggstream.BalanceUpdate) for event in seen))
    assert sent == [old, new]
    assert tokens.asked == [None, old]
    types = ["connected", "authenticated", "order_submitted", "authenticated", "token_refreshed", "balance_update"]
    assert [event.type for event in seen] == types
    refreshed = seen[4]
    assert isinstance(refreshed, aggstream.TokenRefreshed)
    assert refreshed.expires_at is not None
    assert abs(refreshed.expires_at.timestamp() - time.time() - 3600) < 60
    assert client.health().counters.refreshes == 1
    assert client.health().counters.connections == 1


def test_a_refresh_that_the_open_socket_refuses_falls_back_to_a_reconnect(
    other_server: ServeFunction, client_of: MakeClient, until: Until
) -> None:
    def script(peer: Peer) -> None:
        token = peer.sign_in()
        if peer.number == 1:
            peer.receive()
            peer.send({"type": "error", "message": "not on this socket"})
        else:
            assert token.endswith(".third")
        peer.wait_closed()

    tokens = Tokens(jwt("first", lifetime=1.0), jwt("second", lifetime=3600), jwt("third", lifetime=3600))
    client = client_of(other_server(script).url, token=tokens)
    client.start()
    until(lambda: client.health().counters.connections == 2 and client.health().ok)
    assert client.health().counters.gaps == 1


def test_a_refresh_that_is_not_acknowledged_falls_back_to_a_reconnect(
    other_server: ServeFunction, client_of: MakeClient, until: Until
) -> None:
    def script(peer: Peer) -> None:
        peer.sign_in()
        peer.wait_closed()

    tokens = Tokens(jwt("first", lifetime=1.0), jwt("second", lifetime=3600))
    client = client_of(other_server(script).url, token=tokens, auth_timeout=0.2)
    lost: list[aggstream.Disconnected] = []
    client.on("disconnected")(lost.append)
    client.start()
    until(lambda: client.health().counters.gaps == 1 and client.health().ok)
    assert isinstance(lost[0].error, aggstream.HeartbeatTimeout)
    assert "auth_timeout" in str(lost[0].error)


def test_a_provider_that_fails_for_a_while_is_asked_again_and_the_stream_lives_on(
    other_server: ServeFunction, client_of: MakeClient, until: Until
) -> None:
    def script(peer: Peer) -> None:
        peer.sign_in()
        peer.wait_closed()

    problem = aggstream.TokenUnavailable("the vault is closed")
    tokens = Tokens(problem, KeyError("a defect of the function"), TimeoutError("its own"), "good-token")
    client = client_of(other_server(script).url, token=tokens)
    pauses: list[aggstream.Reconnecting] = []
    client.on("reconnecting")(pauses.append)
    client.start()
    until(lambda: client.health().ok)
    assert [str(pause.error).partition(" at ")[0] for pause in pauses] == [
        "the vault is closed",
        "the token provider failed with KeyError",
        "the token provider failed with TimeoutError",
    ]


def test_an_exception_in_a_token_function_can_be_found_and_its_words_are_shown_to_nobody(
    other_server: ServeFunction, client_of: MakeClient, until: Until, caplog: pytest.LogCaptureFixture
) -> None:
    def script(peer: Peer) -> None:
        peer.sign_in()
        peer.wait_closed()

    caplog.set_level(logging.DEBUG)
    left = ["good-token"]

    def parse(answer: str) -> str:
        json.loads(answer)  # it fails below the user's own code
        return left.pop()

    answers = ["eyJ-canary", '"good"']
    client = client_of(other_server(script).url, token=lambda: parse(answers.pop(0)))
    pauses: list[aggstream.Reconnecting] = []
    client.on("reconnecting")(pauses.append)
    client.start()
    until(lambda: client.health().ok)
    line = parse.__code__.co_firstlineno + 1
    where = f"JSONDecodeError at {__file__}:{line} in parse (the exception itself is error.__cause__)"
    told = [record for record in caplog.records if where in record.getMessage()]
    assert [record.levelname for record in told] == ["WARNING"]
    [way] = [text for record in caplog.records if "in these calls" in (text := record.getMessage())]
    assert "decoder.py" in way
    assert "canary" not in caplog.text
    assert isinstance(pauses[0].error.__cause__, json.JSONDecodeError)


def test_a_provider_that_says_the_session_is_over_ends_the_stream(
    other_server: ServeFunction, client_of: MakeClient
) -> None:
    server = other_server(lambda peer: None)
    over = aggstream.AuthenticationRejected("signed out", final=True)
    client = client_of(server.url, token=Tokens(over))
    client.start()
    with pytest.raises(aggstream.AuthenticationRejected, match="signed out"):
        client.wait(DEADLINE)
    assert server.connections == 0


def test_a_refresh_that_is_refused_while_live_ends_the_stream_at_once(
    other_server: ServeFunction, client_of: MakeClient
) -> None:
    def script(peer: Peer) -> None:
        peer.sign_in()
        peer.wait_closed()

    over = aggstream.AuthenticationRejected("signed out", final=True)
    client = client_of(
        other_server(script).url, token=Tokens(jwt("first", lifetime=1.0), over), reconnect=IMPATIENT
    )
    client.start()
    with pytest.raises(aggstream.AuthenticationRejected, match="signed out"):
        client.wait(DEADLINE)


def test_a_token_function_that_hangs_costs_its_timeout_and_not_the_stop(client_of: MakeClient) -> None:
    release = threading.Event()

    def hanging() -> str:
        release.wait(DEADLINE)
        return "late-token"

    client = client_of("ws://localhost:9/ws", token=hanging, token_timeout=0.05)
    pauses: list[aggstream.Reconnecting] = []
    with client:
        error = client.wait_for(aggstream.Reconnecting, timeout=DEADLINE).error
        assert isinstance(error, aggstream.TokenUnavailable)
        assert "token_timeout" in str(error)
        report = client.stop(timeout=0.2)
        assert not report
        assert report.running == ("waiting for the token provider",)
        release.set()
    assert not pauses


def test_switching_the_user_delivers_nothing_of_the_old_one_afterwards(
    other_server: ServeFunction, client_of: MakeClient, until: Until
) -> None:
    tokens: list[str] = []

    def script(peer: Peer) -> None:
        if peer.number == 1:
            tokens.append(peer.sign_in("usr_old"))
            peer.send(ORDER_SUBMITTED, ORDER_SUBMITTED, ORDER_SUBMITTED)
            with contextlib.suppress(ConnectionClosed):
                while True:  # the old user's go on until the connection is gone, and nobody may hear of them
                    peer.send(ORDER_SUBMITTED)
        else:
            tokens.append(peer.sign_in("usr_new"))
            peer.send(BALANCE_UPDATE)
            peer.wait_closed()

    client = client_of(other_server(script).url, queue_size=100)
    seen: list[aggstream.Event] = []
    in_handler, go_on = threading.Event(), threading.Event()

    @client.on(aggstream.UserEvent)
    def keep(event: aggstream.UserEvent) -> None:
        seen.append(event)
        in_handler.set()
        assert go_on.wait(DEADLINE)

    client.start()
    assert in_handler.wait(DEADLINE)
    until(lambda: client.health().queue_depth >= 3)
    client.switch_user("token-of-new")
    go_on.set()
    until(lambda: client.health().user_id == "usr_new" and isinstance(seen[-1], aggstream.BalanceUpdate))
    assert [event.type for event in seen] == ["order_submitted", "balance_update"]
    assert tokens == ["token-of-xyz789", "token-of-new"]
    assert client.health().counters.connections == 2
    client.stop()
    assert client.health().counters.gaps == 0


def test_switching_the_user_between_connections_signs_in_the_new_one(
    other_server: ServeFunction, client_of: MakeClient, until: Until
) -> None:
    def script(peer: Peer) -> None:
        token = peer.sign_in("usr_" + ("new" if peer.number > 1 else "old"))
        if peer.number == 1:
            assert token == "token-of-xyz789"
            peer.ws.close(1001)
        else:
            assert token == "token-of-new"
        peer.wait_closed()

    slow = aggstream.ReconnectPolicy(initial=0.3, maximum=0.3, healthy_after=0.0)
    client = client_of(other_server(script).url, reconnect=slow)

    @client.once("disconnected")
    def switch(event: aggstream.Disconnected) -> None:
        client.switch_user("token-of-new")

    client.start()
    until(lambda: client.health().user_id == "usr_new" and client.health().ok)


def test_a_connection_that_is_given_up_for_another_user_or_to_stop_was_asked_for(
    other_server: ServeFunction, client_of: MakeClient, until: Until
) -> None:
    greeted = threading.Event()

    def script(peer: Peer) -> None:
        peer.greet()
        peer.receive()
        greeted.set()
        if peer.number > 1:
            peer.send({"type": "authenticated", "userId": "usr_new"})
        if peer.number == 2:
            peer.ws.close(1001)
        peer.wait_closed()

    client = client_of(other_server(script).url)
    lost: list[aggstream.Disconnected] = []
    client.on("disconnected")(lost.append)
    client.start()
    assert greeted.wait(DEADLINE)
    client.switch_user("token-of-new")
    until(lambda: client.health().counters.connections == 3 and client.health().ok)
    client.stop()
    assert [end.requested for end in lost] == [True, False, True]


def test_a_switch_whose_first_connection_is_not_answered_is_made_by_the_next(
    other_server: ServeFunction, client_of: MakeClient, until: Until
) -> None:
    def script(peer: Peer) -> None:
        if peer.number == 2:
            peer.greet()
            peer.receive()
            peer.send(ORDER_SUBMITTED)  # nobody has said whose it is
        else:
            peer.sign_in("usr_old" if peer.number == 1 else "usr_new")
        if peer.number == 3:
            peer.send(BALANCE_UPDATE)
        peer.wait_closed()

    client = client_of(other_server(script).url, auth_timeout=0.2)
    seen: list[aggstream.Event] = []
    client.on(aggstream.UserEvent)(seen.append)
    client.start()
    until(lambda: client.health().ok)
    client.switch_user("token-of-new")
    until(lambda: seen)
    assert [event.type for event in seen] == ["balance_update"]
    assert client.health().user_id == "usr_new"


def test_a_token_of_another_user_without_a_switch_is_fatal_and_delivers_nothing(
    other_server: ServeFunction, client_of: MakeClient
) -> None:
    def script(peer: Peer) -> None:
        peer.sign_in(f"usr_{peer.number}")
        peer.send(ORDER_SUBMITTED)
        if peer.number == 1:
            peer.ws.close(1001)
        peer.wait_closed()

    client = client_of(other_server(script).url, reconnect=IMPATIENT)
    seen: list[aggstream.Event] = []
    client.on("order_submitted")(seen.append)
    client.start()
    with pytest.raises(aggstream.UserMismatch, match="switch_user"):
        client.wait(DEADLINE)
    assert len(seen) == 1


def test_switching_the_user_while_connecting_never_signs_in_the_old_one(
    other_server: ServeFunction, client_of: MakeClient, until: Until
) -> None:
    sent: list[str] = []

    def script(peer: Peer) -> None:
        sent.append(peer.sign_in("usr_new"))
        peer.wait_closed()

    asked, release = threading.Event(), threading.Event()

    def token_of_old() -> str:
        asked.set()
        release.wait(DEADLINE)
        return "token-of-old"

    client = client_of(other_server(script).url, token=token_of_old)
    client.start()
    assert asked.wait(DEADLINE)
    client.switch_user("token-of-new")
    release.set()
    until(lambda: client.health().ok and sent)  # the server notes the token after it has answered
    assert sent == ["token-of-new"]


def test_a_token_with_quotes_arrives_as_it_is(
    other_server: ServeFunction, client_of: MakeClient, until: Until
) -> None:
    sent: list[str] = []

    def script(peer: Peer) -> None:
        sent.append(peer.sign_in())
        peer.wait_closed()

    client = client_of(other_server(script).url, token='a"b\\c')
    client.start()
    until(lambda: sent)
    assert sent == ['a"b\\c']


def test_health_is_not_ok_while_the_other_user_is_not_signed_in_yet(
    other_server: ServeFunction, client_of: MakeClient, until: Until
) -> None:
    asked, release = threading.Event(), threading.Event()

    def script(peer: Peer) -> None:
        peer.sign_in("usr_old" if peer.number == 1 else "usr_new")
        if peer.number > 1:
            peer.send(ORDER_SUBMITTED)
        peer.wait_closed()

    def slow() -> str:
        asked.set()
        release.wait(DEADLINE)
        return "token-of-new"

    client = client_of(other_server(script).url)
    seen: list[aggstream.Event] = []
    client.on(aggstream.UserEvent)(seen.append)
    client.start()
    until(lambda: client.health().ok)
    client.switch_user(slow)
    assert not client.health().ok
    assert asked.wait(DEADLINE)
    assert not client.health().ok
    assert client.health().user_id is None
    release.set()
    until(lambda: seen)
    assert client.health().user_id == "usr_new"
    assert client.health().ok


def test_a_token_function_that_hangs_in_a_switch_is_given_up_and_another_one_helps(
    other_server: ServeFunction, client_of: MakeClient, until: Until
) -> None:
    release = threading.Event()

    def script(peer: Peer) -> None:
        peer.sign_in("usr_old" if peer.number == 1 else "usr_new")
        peer.wait_closed()

    def hanging() -> str:
        release.wait(DEADLINE)
        return "late-token"

    client = client_of(other_server(script).url, token_timeout=0.2)
    pauses: list[aggstream.Reconnecting] = []
    client.on("reconnecting")(pauses.append)
    client.start()
    until(lambda: client.health().ok)
    client.switch_user(hanging)
    until(lambda: pauses)
    assert isinstance(pauses[0].error, aggstream.TokenUnavailable)
    assert "token_timeout" in str(pauses[0].error)
    client.switch_user("token-of-new")
    until(lambda: client.health().user_id == "usr_new" and client.health().ok)
    release.set()


@pytest.mark.parametrize("hangs", [1, 2, 8])
@pytest.mark.parametrize("is_signed_in", [True, False])
def test_a_switch_never_waits_for_functions_that_hang(
    other_server: ServeFunction, client_of: MakeClient, until: Until, hangs: int, is_signed_in: bool
) -> None:
    release, hung = threading.Event(), []
    may_hang = not is_signed_in

    def script(peer: Peer) -> None:
        peer.sign_in("usr_old" if is_signed_in and peer.number == 1 else "usr_new")
        peer.wait_closed()

    def hanging() -> str:
        if not may_hang:
            return "token-of-old"
        hung.append(True)
        release.wait(DEADLINE)
        return "late-token"

    # The first is interrupted while it is waited for; those after it are given up one by one.
    client = client_of(other_server(script).url, token=hanging, token_timeout=DEADLINE if hangs == 1 else 0.2)
    client.start()
    if is_signed_in:
        until(lambda: client.health().ok)
        may_hang = True
        client.switch_user(hanging)
    # No more than five threads hang at a time.
    until(lambda: len(hung) >= min(hangs, 5))
    client.switch_user("token-of-new")
    until(lambda: client.health().user_id == "usr_new" and client.health().ok)
    release.set()


def test_a_handler_that_switches_the_user_is_the_last_to_see_the_old_ones_event(
    other_server: ServeFunction, client_of: MakeClient, until: Until
) -> None:
    def script(peer: Peer) -> None:
        if peer.number == 1:
            peer.sign_in("usr_old")
            peer.send(ORDER_SUBMITTED)
        else:
            peer.sign_in("usr_new")
            peer.send(BALANCE_UPDATE)
        peer.wait_closed()

    client = client_of(other_server(script).url)
    seen: list[str] = []
    client.once("order_submitted")(lambda event: client.switch_user("token-of-new"))
    client.on(aggstream.UserEvent)(lambda event: seen.append(event.type))
    client.start()
    until(lambda: seen)
    assert seen == ["balance_update"]


def test_switching_users_is_no_failure_that_a_policy_counts(
    other_server: ServeFunction, client_of: MakeClient, until: Until
) -> None:
    def script(peer: Peer) -> None:
        if peer.number == 1:
            peer.greet()
        else:
            peer.sign_in("usr_new")
        peer.wait_closed()

    server = other_server(script)
    policy = aggstream.ReconnectPolicy(initial=3600.0, maximum=3600.0, max_attempts=1)
    client = client_of(server.url, reconnect=policy)
    client.start()
    until(lambda: client.health().counters.messages == 1)
    client.switch_user("token-of-new")
    until(lambda: client.health().ok)
    assert server.connections == 2


def test_events_that_wait_to_be_pulled_are_forgotten_at_a_switch(
    other_server: ServeFunction, client_of: MakeClient, until: Until
) -> None:
    def script(peer: Peer) -> None:
        if peer.number == 1:
            peer.sign_in("usr_old")
            peer.send(ORDER_SUBMITTED)
        else:
            peer.sign_in("usr_new")
            peer.send(BALANCE_UPDATE)
        peer.wait_closed()

    client = client_of(other_server(script).url)
    events = client.events(aggstream.UserEvent, timeout=DEADLINE)
    with client:
        until(lambda: client.health().delivered == 3)
        client.switch_user("token-of-new")
        assert next(events).type == "balance_update"
