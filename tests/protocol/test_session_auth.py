"""Signing in and refreshing the token on one connection, without one."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

import attrs
import pytest

from aggstream import (
    AggStreamError,
    Authenticated,
    AuthenticationRejected,
    BalanceUpdate,
    Connected,
    ConnectionLost,
    DecodeFailed,
    ErrorMessage,
    Event,
    HeartbeatTimeout,
    RemoteProtocolError,
    ServerError,
    TokenRefreshed,
    TokenUnavailable,
    UserMismatch,
)
from aggstream._base.secret import Secret
from aggstream._protocol.commands import Authenticate, CloseFrame
from aggstream._protocol.options import SessionOptions
from aggstream._protocol.session import Session
from aggstream._protocol.states import State
from aggstream.tokens._token import Token

FIRST = "first-token-0001"
SECOND = "second-token-0002"
CONNECTED = '{"type": "connected", "appId": "app_demo123"}'
REFUSAL = '{"type": "error", "message": "invalid token"}'
BALANCE = (
    '{"type": "balance_update", "venue": "v", "tradingBalanceCents": 1, "walletBalanceCents": 2, "timestamp": 3}'
)


def authenticated(user_id: str | None = "usr_1") -> str:
    return json.dumps({"type": "authenticated", "userId": user_id})


def order_event(user_id: str | None = None) -> str:
    return json.dumps(
        {"type": "order_event", "event": "filled", "orderId": "o", "userId": user_id, "timestamp": 1}
    )


def say(session: Session, text: str, now: float = 0.0) -> list[Event]:
    session.receive_text(text, now, 7)
    return session.events_received()


def connecting(
    *, expected_user: str | None = None, in_query: bool = False, options: SessionOptions | None = None
) -> Session:
    options = options or SessionOptions(token_in_query=in_query, idle_timeout=None)
    session = Session(options, Token.of(FIRST), expected_user=expected_user)
    session.connection_made(0.0)
    return session


def authenticating(expected_user: str | None = None) -> Session:
    session = connecting(expected_user=expected_user)
    say(session, CONNECTED)
    session.data_to_send()
    return session


def live(options: SessionOptions | None = None) -> Session:
    session = connecting(options=options)
    say(session, CONNECTED)
    say(session, authenticated())
    session.data_to_send()
    assert session.state is State.LIVE
    return session


def sent_tokens(session: Session) -> list[str]:
    return [command.token.reveal() for command in session.data_to_send() if isinstance(command, Authenticate)]


# --- at first -------------------------------------------------------------------------------------------


def test_an_error_message_refuses_the_token_while_its_answer_is_open() -> None:
    session = authenticating()
    [event] = say(session, REFUSAL)
    assert isinstance(event, ErrorMessage)
    assert isinstance(session.error, AuthenticationRejected)
    assert not session.error.final
    assert "invalid token" in str(session.error)
    assert session.state is State.CLOSING


def test_an_error_of_a_channel_refuses_no_token() -> None:
    session = authenticating()
    say(session, '{"type": "error", "message": "too many", "channel": "orderbook"}')
    assert session.state is State.AUTHENTICATING
    assert session.error is None


def test_an_error_while_nothing_is_asked_is_only_an_event() -> None:
    session = live()
    [event] = say(session, '{"type": "error", "message": "slow down", "code": 429}')
    assert event == ErrorMessage(message="slow down", code=429)
    assert session.state is State.LIVE


def test_a_refused_session_closes_in_form() -> None:
    session = authenticating()
    say(session, REFUSAL)
    assert session.data_to_send() == [CloseFrame(1000)]
    session.receive_close(4001, "bye", 0.1)
    assert isinstance(session.error, AuthenticationRejected)


@pytest.mark.parametrize("code", sorted(SessionOptions().auth_close_codes))
@pytest.mark.parametrize("make", [authenticating, live])
def test_a_close_code_can_refuse_the_token(make: object, code: int) -> None:
    assert callable(make)
    session = make()
    session.receive_close(code, "expired", 1.0)
    assert isinstance(session.error, AuthenticationRejected)
    assert str(code) in str(session.error)
    assert session.close_expected()


def test_such_a_close_code_before_the_token_was_sent_blames_the_app() -> None:
    session = connecting()
    session.receive_close(4003, "", 1.0)
    assert isinstance(session.error, ServerError)
    assert "origin" in str(session.error)
    assert session.error.code == "4003"


def test_such_a_close_code_blames_the_token_if_it_was_in_the_query() -> None:
    session = connecting(in_query=True)
    session.receive_close(4003, "", 1.0)
    assert isinstance(session.error, AuthenticationRejected)


def test_which_close_codes_refuse_is_an_option() -> None:
    options = SessionOptions(auth_close_codes=frozenset({4999}))
    session = live(options)
    session.receive_close(4001, "", 1.0)
    assert isinstance(session.error, ConnectionLost)
    session = live(options)
    session.receive_close(4999, "", 1.0)
    assert isinstance(session.error, AuthenticationRejected)


def test_an_expected_user_is_accepted() -> None:
    session = authenticating("usr_1")
    assert say(session, authenticated("usr_1")) == [Authenticated(user_id="usr_1")]


def test_an_acknowledgement_without_a_user_keeps_the_expected_one() -> None:
    session = authenticating("usr_1")
    say(session, authenticated(None))
    assert session.state is State.LIVE
    assert session.user_id == "usr_1"


def test_an_unexpected_user_ends_the_session_and_none_of_their_events_are_delivered() -> None:
    session = authenticating("usr_1")
    say(session, BALANCE)
    events = say(session, authenticated("usr_2")) + say(session, BALANCE) + say(session, order_event("usr_2"))
    session.receive_close(1000, "", 0.1)
    assert events + session.events_received() == []
    assert isinstance(session.error, UserMismatch)
    assert "switch_user" in str(session.error)
    assert session.user_id == "usr_1"


# --- with the token in the query ------------------------------------------------------------------------


def test_a_token_in_the_query_needs_no_authenticate() -> None:
    session = connecting(in_query=True)
    events = say(session, '{"type": "connected", "appId": "app_demo123", "userId": "usr_1"}')
    assert events == [Connected(app_id="app_demo123", user_id="usr_1"), Authenticated(user_id="usr_1")]
    assert session.data_to_send() == []
    assert session.state is State.LIVE


def test_an_error_before_connected_refuses_the_token_in_the_query() -> None:
    session = connecting(in_query=True)
    say(session, REFUSAL)
    assert isinstance(session.error, AuthenticationRejected)
    assert session.state is State.CLOSING


def test_events_before_connected_are_released_after_it() -> None:
    session = connecting(in_query=True)
    assert say(session, BALANCE) == []
    events = say(session, '{"type": "connected", "userId": "usr_1"}')
    assert [type(event) for event in events] == [Connected, Authenticated, BalanceUpdate]


def test_a_greeting_without_a_user_says_that_the_query_token_was_not_taken() -> None:
    session = connecting(in_query=True)
    say(session, CONNECTED)
    assert isinstance(session.error, AuthenticationRejected)


def test_another_user_in_the_greeting_ends_the_session() -> None:
    session = connecting(in_query=True, expected_user="usr_1")
    events = say(session, '{"type": "connected", "userId": "usr_2"}') + say(session, BALANCE)
    assert [type(event) for event in events] == [Connected]
    assert isinstance(session.error, UserMismatch)


# --- another token of the same user ---------------------------------------------------------------------


def test_a_new_token_is_asked_for_once_when_it_is_due() -> None:
    session = live()
    session.schedule_refresh(0.0, 15.0)
    assert session.next_deadline() == 15.0
    session.handle_deadline(14.9)
    assert not session.token_request()
    session.handle_deadline(15.0)
    assert session.token_request()
    assert not session.token_request()


def test_no_refresh_is_scheduled_for_a_token_that_never_ends() -> None:
    session = live()
    session.schedule_refresh(0.0, 5.0)
    session.token_received(Token.of(FIRST), 1.0, None)
    session.handle_deadline(5.0)
    assert not session.token_request()


def test_a_new_token_is_sent_on_the_live_session_and_its_acknowledgement_is_told() -> None:
    session = live()
    token = Token(Secret(SECOND), 1_710_000_000.0)
    session.token_received(token, 5.0, 100.0)
    assert sent_tokens(session) == [SECOND]
    assert session.token.secret == Secret(FIRST)
    first, second = say(session, authenticated(), 5.1)
    assert first == Authenticated(user_id="usr_1")
    assert second == TokenRefreshed(
        user_id="usr_1", expires_at=dt.datetime.fromtimestamp(1_710_000_000, dt.timezone.utc)
    )
    assert session.token is token
    assert session.state is State.LIVE


def test_events_flow_while_a_refresh_waits_for_its_answer() -> None:
    session = live()
    session.token_received(Token.of(SECOND), 5.0, None)
    assert len(say(session, BALANCE)) == 1


def test_the_token_in_use_is_not_sent_again() -> None:
    session = live()
    session.token_received(Token.of(FIRST), 5.0, 7.0)
    assert session.data_to_send() == []
    assert session.next_deadline() == 12.0


def test_a_refused_new_token_ends_the_session() -> None:
    session = live()
    session.token_received(Token.of(SECOND), 5.0, None)
    say(session, REFUSAL, 5.1)
    assert isinstance(session.error, AuthenticationRejected)
    assert session.token.secret == Secret(FIRST)
    assert session.state is State.CLOSING


def test_late_events_of_a_session_that_was_live_are_delivered_after_a_refused_refresh() -> None:
    session = live()
    session.token_received(Token.of(SECOND), 5.0, None)
    say(session, REFUSAL, 5.1)
    assert len(say(session, BALANCE, 5.2)) == 1


def test_a_new_token_that_is_not_acknowledged_ends_the_session_at_its_deadline() -> None:
    session = live()
    session.token_received(Token.of(SECOND), 5.0, None)
    session.handle_deadline(14.9)
    assert session.data_to_send()[1:] == []
    session.handle_deadline(15.0)
    assert isinstance(session.error, HeartbeatTimeout)
    assert "auth_timeout" in str(session.error)


def test_a_new_token_of_another_user_ends_the_session_and_none_of_their_events_are_delivered() -> None:
    session = live()
    session.token_received(Token.of(SECOND), 5.0, None)
    assert say(session, authenticated("usr_2"), 5.1) == []
    assert isinstance(session.error, UserMismatch)
    assert say(session, BALANCE) == []
    assert say(session, order_event("usr_2")) == []


def test_an_acknowledgement_that_nobody_asked_for_is_an_event_if_the_user_is_the_same() -> None:
    session = live()
    assert say(session, authenticated()) == [Authenticated(user_id="usr_1")]


def test_an_acknowledgement_of_another_user_that_nobody_asked_for_ends_the_session() -> None:
    session = live()
    assert say(session, authenticated("usr_2")) == []
    assert isinstance(session.error, UserMismatch)


def test_a_failed_refresh_is_tried_again_later() -> None:
    session = live()
    session.token_failed(TokenUnavailable("busy"), 5.0, 10.0)
    session.handle_deadline(14.9)
    assert not session.token_request()
    session.handle_deadline(15.0)
    assert session.token_request()
    assert session.error is None


def test_a_refresh_that_is_useless_ends_the_session() -> None:
    session = live()
    error: AggStreamError = AuthenticationRejected("signed out", final=True)
    session.token_failed(error, 5.0, None)
    assert session.error is error
    assert session.state is State.CLOSING


def test_a_token_that_is_too_late_is_ignored() -> None:
    session = live()
    session.close(5.0)
    session.data_to_send()
    session.token_received(Token.of(SECOND), 5.1, 5.0)
    session.token_failed(TokenUnavailable("busy"), 5.1, None)
    assert session.data_to_send() == []
    assert session.error is None


def test_a_token_that_comes_while_a_proof_of_life_waits_is_not_lost() -> None:
    """It is sent after the acknowledgement, or another one is asked for: else the stream ends with the old."""
    session = live(SessionOptions(idle_timeout=5.0))
    session.handle_deadline(5.0)
    assert sent_tokens(session) == [FIRST]
    session.token_received(Token.of(SECOND), 5.1, 60.0)
    say(session, authenticated(), 5.2)
    asked, now = False, 5.2
    tokens = sent_tokens(session)
    while now < 100.0 and not asked and SECOND not in tokens:
        now += 1.0
        say(session, '{"type": "heartbeat"}', now)
        session.handle_deadline(now)
        asked = session.token_request()
        tokens += sent_tokens(session)
    assert asked or SECOND in tokens


# --- refusals -------------------------------------------------------------------------------------------


def test_the_refused_token_is_the_one_that_was_sent() -> None:
    session = live()
    session.token_received(Token.of(SECOND), 5.0, None)
    say(session, '{"type": "error", "message": "no"}')
    assert session.refused.secret.reveal() == SECOND


def test_a_refused_refresh_ends_the_session_without_further_events() -> None:
    session = live()
    session.token_received(Token.of(SECOND), 5.0, None)
    say(session, REFUSAL)
    assert isinstance(session.error, AuthenticationRejected)


def test_a_token_that_comes_while_another_waits_for_its_answer_has_its_turn_after_it() -> None:
    session = live()
    session.token_received(Token.of(SECOND), 5.0, None)
    session.token_received(Token.of("third-token-0003"), 5.1, None)
    assert sent_tokens(session) == [SECOND]
    say(session, authenticated(), 5.2)
    assert sent_tokens(session) == ["third-token-0003"]
    say(session, authenticated(), 5.3)
    assert session.token.secret.reveal() == "third-token-0003"


def test_a_token_is_masked_however_json_writes_it() -> None:
    token = "abcd/efgh+ijkl"
    session = Session(SessionOptions(), Token.of(token))
    session.connection_made(0.0)
    data = '[{"abcd\\/efgh+ijkl": "abcd/efgh+ijkl"}]'
    [event] = say(session, f'{{"type": "error", "message": "bad abcd\\/efgh\\u002bijkl", "data": {data}}}')
    assert isinstance(event, ErrorMessage)
    assert event.message == "bad ***"
    assert event.raw["data"] == [{"***": "***"}]


def test_events_without_an_authenticated_are_held_up_to_a_limit() -> None:
    session = Session(SessionOptions(), Token.of(FIRST))
    session.connection_made(0.0)
    for _ in range(10_001):
        session.receive_text(order_event("usr_1"), 1.0, 7)
    assert isinstance(session.error, RemoteProtocolError)


# --- tokens in the service's words ----------------------------------------------------------------------


def test_the_token_is_masked_in_an_error_message() -> None:
    session = authenticating()
    [event] = say(session, json.dumps({"type": "error", "message": f"bad token {FIRST}!"}))
    assert isinstance(event, ErrorMessage)
    assert event.message == "bad token ***!"
    assert FIRST not in repr(event)
    assert FIRST not in f"{session.error} {session.error!r}"


@pytest.mark.parametrize(
    "message",
    [
        {"type": "error", "message": "m", "channel": FIRST},
        {"type": "error", "message": "m", "channel": "c", "code": f"no {FIRST}"},
        {"type": "error", "message": "m", "channel": "c", "detail": [{"token": FIRST}]},
        {"type": "subscribed", "channel": FIRST, "outcomeIds": ["a", FIRST]},
        {"type": "token_status", "token": FIRST, "nested": {"list": [[FIRST]]}},
        {"type": f"refused_{FIRST}"},
    ],
)
def test_the_token_is_masked_in_every_field_of_every_message(message: dict[str, Any]) -> None:
    [event] = say(live(), json.dumps(message))
    assert not isinstance(event, DecodeFailed)
    shown = [getattr(event, field.name) for field in attrs.fields(type(event))]
    assert FIRST not in repr([event, event.type, dict(event.raw), *shown])
    assert "***" in repr([event.type, dict(event.raw)])


def test_the_token_is_masked_in_a_close_reason() -> None:
    session = live()
    session.receive_close(1011, f"token={FIRST}", 1.0)
    assert isinstance(session.error, ConnectionLost)
    assert session.error.reason == "token=***"
    assert FIRST not in str(session.error)


def test_the_token_is_masked_in_a_text_that_is_not_understood() -> None:
    session = live()
    [event] = say(session, f"what is {FIRST}?")
    assert isinstance(event, DecodeFailed)
    assert event.text == "what is ***?"
    assert FIRST not in repr(event)


@pytest.mark.parametrize("token", [FIRST, SECOND])
def test_both_tokens_are_masked_while_a_new_one_waits_for_its_answer(token: str) -> None:
    session = live()
    session.token_received(Token.of(SECOND), 5.0, None)
    [event] = say(session, json.dumps({"type": "error", "message": f"bad {token}"}))
    assert isinstance(event, ErrorMessage)
    assert event.message == "bad ***"
    assert token not in str(session.error)


def test_the_token_before_a_refresh_is_masked_after_it_too() -> None:
    """It may still be good, and the service may well complain about it late."""
    session = live()
    session.token_received(Token.of(SECOND), 5.0, None)
    say(session, authenticated())
    session.receive_close(1011, f"{FIRST} has expired", 6.0)
    assert FIRST not in str(session.error)
