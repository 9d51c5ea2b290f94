"""The session's life from the handshake to its end, with a clock that the test moves."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aggstream import (
    Authenticated,
    BalanceUpdate,
    Connected,
    ConnectFailed,
    ConnectionLost,
    DecodeError,
    DecodeFailed,
    ErrorMessage,
    Event,
    Heartbeat,
    LocalProtocolError,
    OrderEvent,
    ServerError,
    UnknownEvent,
)
from aggstream._protocol.commands import Authenticate, CloseFrame
from aggstream._protocol.options import SessionOptions
from aggstream._protocol.session import Session
from aggstream._protocol.states import TRANSITIONS, Signal, State
from aggstream.tokens._token import Token

TOKEN = "first-token-0001"
OTHER_TOKEN = "other-token-0002"
CONNECTED = '{"type": "connected", "appId": "app_demo123"}'
AUTHENTICATED = '{"type": "authenticated", "userId": "usr_1"}'
BALANCE = (
    '{"type": "balance_update", "venue": "v", "tradingBalanceCents": 1, "walletBalanceCents": 2, "timestamp": 3}'
)


def new(options: SessionOptions | None = None, expected_user: str | None = None) -> Session:
    return Session(options or SessionOptions(), Token.of(TOKEN), expected_user=expected_user)


def say(session: Session, text: str, now: float = 0.0) -> list[Event]:
    session.receive_text(text, now, 7)
    return session.events_received()


def order_event(user_id: str | None = "usr_1", event: str = "filled", order_id: str = "ord_1") -> str:
    payload = {"type": "order_event", "event": event, "orderId": order_id, "userId": user_id, "timestamp": 1}
    return json.dumps(payload)


def at(state: State) -> Session:
    """Return a drained session in a state, at time 0."""
    session = new()
    if state is State.IDLE:
        return session
    session.connection_made(0.0)
    if state in (State.AUTHENTICATING, State.LIVE, State.CLOSING):
        say(session, CONNECTED)
    if state in (State.LIVE, State.CLOSING):
        say(session, AUTHENTICATED)
    if state is State.CLOSING:
        session.close(0.0)
    if state is State.CLOSED:
        session.connection_lost(ConnectionLost("gone"))
    session.events_received()
    session.data_to_send()
    assert session.state is state
    return session


# --- the table ------------------------------------------------------------------------------------------


def test_every_state_has_a_row() -> None:
    assert set(TRANSITIONS) == set(State)


def test_closed_is_reached_from_everywhere_and_left_for_nowhere() -> None:
    assert all(row[Signal.ENDED] is State.CLOSED for row in TRANSITIONS.values())
    assert set(TRANSITIONS[State.CLOSED].values()) == {State.CLOSED}


def test_live_is_reached_only_by_the_services_word() -> None:
    ways = {signal for state, row in TRANSITIONS.items() for signal, to in row.items() if to is State.LIVE}
    from_outside = {
        signal
        for state, row in TRANSITIONS.items()
        for signal, to in row.items()
        if to is State.LIVE and state is not State.LIVE
    }
    assert from_outside == {Signal.AUTHENTICATED}
    assert ways == {Signal.AUTHENTICATED, Signal.GREETED}


def send_signal(session: Session, signal: Signal) -> None:
    if signal is Signal.OPENED:
        session.connection_made(1.0)
    elif signal is Signal.GREETED:
        session.receive_text(CONNECTED, 1.0, 7)
    elif signal is Signal.AUTHENTICATED:
        session.receive_text(AUTHENTICATED, 1.0, 7)
    elif signal is Signal.CLOSE_SENT:
        session.close(1.0)
    else:
        session.connection_lost(ConnectionLost("gone"))


# close() may be called at any time, and an `authenticated` that comes while closing is too late to matter.
UNHEARD = {
    (State.IDLE, Signal.CLOSE_SENT): State.CLOSED,
    (State.CLOSING, Signal.CLOSE_SENT): State.CLOSING,
    (State.CLOSED, Signal.CLOSE_SENT): State.CLOSED,
    (State.CLOSING, Signal.AUTHENTICATED): State.CLOSING,
}


@pytest.mark.parametrize("signal", Signal)
@pytest.mark.parametrize("state", State)
def test_each_signal_moves_as_the_table_says_or_is_a_local_protocol_error(state: State, signal: Signal) -> None:
    session = at(state)
    expected = TRANSITIONS[state].get(signal) or UNHEARD.get((state, signal))
    if state is State.CLOSED and signal in (Signal.GREETED, Signal.AUTHENTICATED):
        with contextlib.suppress(LocalProtocolError):  # it may as well be deaf
            send_signal(session, signal)
        assert session.state is State.CLOSED
    elif expected is None:
        with pytest.raises(LocalProtocolError):
            send_signal(session, signal)
        assert session.state is state
    else:
        send_signal(session, signal)
        assert session.state is expected


# --- from the handshake to live -------------------------------------------------------------------------


def test_the_token_is_sent_only_after_connected() -> None:
    session = new()
    session.connection_made(0.0)
    assert session.data_to_send() == []
    assert say(session, CONNECTED) == [Connected(app_id="app_demo123")]
    assert session.data_to_send() == [Authenticate(Token.of(TOKEN).secret)]


def test_the_session_is_live_once_the_service_says_authenticated() -> None:
    session = at(State.AUTHENTICATING)
    assert say(session, AUTHENTICATED) == [Authenticated(user_id="usr_1")]
    assert session.state is State.LIVE
    assert session.user_id == "usr_1"


def test_user_events_before_authenticated_are_held_and_follow_it_in_order() -> None:
    session = new()
    session.connection_made(0.0)
    assert say(session, order_event(order_id="ord_1")) == []
    say(session, CONNECTED)
    assert say(session, BALANCE) == []
    assert say(session, order_event(order_id="ord_2")) == []
    first, *rest = say(session, AUTHENTICATED)
    assert isinstance(first, Authenticated)
    assert [type(event) for event in rest] == [OrderEvent, BalanceUpdate, OrderEvent]
    assert [event.order_id for event in rest if isinstance(event, OrderEvent)] == ["ord_1", "ord_2"]


def test_each_event_goes_with_the_size_of_its_message_also_after_it_was_held() -> None:
    held, direct = at(State.AUTHENTICATING), at(State.LIVE)
    for text in (BALANCE, BALANCE.replace('"v"', f'"{"v" * 5000}"'), BALANCE):
        held.receive_text(text, 0.0, 7)
        direct.receive_text(text, 0.0, 7)
    assert held.sized_events_received() == []
    held.receive_text(AUTHENTICATED, 0.0, 7)
    [_, *rest] = held.sized_events_received()
    assert rest == direct.sized_events_received()
    assert [size > 5000 for _, size in rest] == [False, True, False]


def test_held_events_are_never_delivered_if_authentication_fails() -> None:
    session = at(State.AUTHENTICATING)
    say(session, BALANCE)
    events = say(session, '{"type": "error", "message": "bad token"}')
    session.connection_lost(ConnectionLost("gone"))
    assert [type(event) for event in events + session.events_received()] == [ErrorMessage]


def test_events_carry_the_time_they_were_received_at() -> None:
    session = at(State.LIVE)
    session.receive_text(BALANCE, 5.0, 123)
    [event] = session.events_received()
    assert event.received_ns == 123


def test_draining_empties() -> None:
    session = at(State.CONNECTING)
    session.receive_text(CONNECTED, 0.0, 7)
    assert session.events_received()
    assert session.data_to_send()
    assert session.events_received() == []
    assert session.data_to_send() == []


def test_what_the_service_repeats_changes_nothing() -> None:
    session = at(State.LIVE)
    say(session, CONNECTED)
    say(session, AUTHENTICATED)
    assert session.state is State.LIVE
    assert session.data_to_send() == []
    assert len(say(session, BALANCE)) == 1


def test_messages_of_other_kinds_pass_in_any_open_state() -> None:
    for state in (State.CONNECTING, State.AUTHENTICATING, State.LIVE):
        session = at(state)
        [unknown] = say(session, '{"type": "market_resolved"}')
        [heartbeat] = say(session, '{"type": "heartbeat", "ts": 1}')
        assert isinstance(unknown, UnknownEvent)
        assert isinstance(heartbeat, Heartbeat)


@pytest.mark.parametrize(
    "text", ["nope", "{}", '{"type": "order_event"}', "[1]", '{"type": "connected", "appId": 5}']
)
@pytest.mark.parametrize("state", [State.CONNECTING, State.AUTHENTICATING, State.LIVE])
def test_a_bad_message_costs_only_itself(state: State, text: str) -> None:
    session = at(state)
    [event] = say(session, text)
    assert isinstance(event, DecodeFailed)
    assert event.text == text
    assert session.state is state
    assert session.error is None


def test_a_binary_message_costs_only_itself() -> None:
    session = at(State.LIVE)
    session.receive_undecodable("\\x00\\xff", DecodeError("a binary message"), 3.0, 9)
    [event] = session.events_received()
    assert isinstance(event, DecodeFailed)
    assert (event.error.path, event.received_ns) == ("$", 9)
    assert session.state is State.LIVE
    assert session.last_heard == 3.0


def test_an_error_before_connected_ends_the_session_as_the_services_error() -> None:
    """Connecting again would not help: it is the app id or the origin that is refused."""
    session = at(State.CONNECTING)
    [event] = say(session, '{"type": "error", "message": "unknown app", "code": "APP"}')
    assert isinstance(event, ErrorMessage)
    assert isinstance(session.error, ServerError)
    assert session.state is State.CLOSING


# --- the end --------------------------------------------------------------------------------------------


def test_closing_sends_a_close_frame_once_and_waits_for_the_peers() -> None:
    session = at(State.LIVE)
    session.close(10.0, 1001, "going away")
    session.close(11.0)
    assert session.data_to_send() == [CloseFrame(1001, "going away")]
    assert session.next_deadline() == 10.5
    assert not session.close_expected()
    session.receive_close(1000, "", 10.1)
    assert session.close_expected()
    assert session.error is None
    assert session.ended_by == "client"
    assert session.close_code == 1000
    assert session.next_deadline() is None


def test_a_close_that_is_not_answered_ends_at_its_deadline_without_an_error() -> None:
    session = at(State.LIVE)
    session.close(10.0)
    session.handle_deadline(10.4)
    assert not session.close_expected()
    session.handle_deadline(10.5)
    assert session.close_expected()
    assert session.error is None


def test_closing_before_connecting_ends_at_once() -> None:
    session = new()
    session.close(0.0)
    assert session.close_expected()
    assert session.data_to_send() == []


def test_late_events_while_closing_are_delivered_when_it_was_live() -> None:
    session = at(State.CLOSING)
    [event] = say(session, BALANCE)
    assert isinstance(event, BalanceUpdate)
    assert session.dropped == 0


@pytest.mark.parametrize("state", [State.CONNECTING, State.AUTHENTICATING])
def test_user_events_while_closing_are_not_delivered_when_it_never_was_live(state: State) -> None:
    session = at(state)
    say(session, BALANCE)
    session.close(1.0)
    assert say(session, BALANCE, 1.1) == []
    session.receive_close(1000, "", 1.2)
    assert session.events_received() == []


def test_an_error_message_while_closing_on_request_is_not_why_it_ended() -> None:
    session = new(SessionOptions(idle_timeout=5.0))
    session.connection_made(0.0)
    say(session, CONNECTED)
    say(session, AUTHENTICATED)
    session.handle_deadline(5.0)  # a proof of life is asked for, and its answer is open
    session.close(6.0)
    say(session, '{"type": "error", "message": "shutting down"}', 6.1)
    session.receive_close(1000, "", 6.2)
    assert session.error is None


def test_a_close_by_the_server_says_code_and_reason() -> None:
    session = at(State.LIVE)
    session.receive_close(1012, "restart", 5.0)
    error = session.error
    assert isinstance(error, ConnectionLost)
    assert (error.code, error.reason, error.initiated_by) == (1012, "restart", "server")
    assert (session.ended_by, session.close_code) == ("server", 1012)
    assert session.close_expected()


def test_a_servers_reason_is_one_short_printable_line_in_the_text() -> None:
    session = at(State.LIVE)
    session.receive_close(1012, "a\nb\x1b[31m" + "x" * 1000, 5.0)
    text = str(session.error)
    assert text.isprintable()
    assert text.isascii()
    assert len(text) < 400


def test_a_lost_connection_is_why_it_ended() -> None:
    session = at(State.LIVE)
    error = ConnectionLost("reset by peer")
    session.connection_lost(error)
    assert session.error is error
    assert session.ended_by == "network"
    assert session.next_deadline() is None


def test_what_the_network_says_after_the_reason_is_not_news() -> None:
    session = at(State.CONNECTING)
    session.handle_deadline(1e6)
    error = session.error
    assert isinstance(error, ConnectFailed)
    session.connection_lost(ConnectionLost("reset by peer"))
    assert session.error is error
    assert session.ended_by == "client"


def test_nothing_that_comes_after_the_end_is_delivered() -> None:
    for text in (BALANCE, CONNECTED, AUTHENTICATED, "nope", '{"type": "x"}', '{"type": "error", "message": "m"}'):
        session = at(State.CLOSED)
        error = session.error
        with contextlib.suppress(LocalProtocolError):
            session.receive_text(text, 1.0, 7)
        assert session.events_received() == []
        assert session.error is error


@pytest.mark.parametrize("text", [BALANCE, "nope", '{"type": "x"}', '{"type": "error", "message": "m"}'])
def test_nothing_is_delivered_before_the_connection_is_made(text: str) -> None:
    session = new()
    with contextlib.suppress(LocalProtocolError):
        session.receive_text(text, 0.0, 7)
    assert session.events_received() == []


def test_a_binary_message_after_the_end_is_not_told() -> None:
    session = at(State.CLOSED)
    session.receive_undecodable("\\x00", DecodeError("a binary message"), 3.0, 9)
    assert session.events_received() == []


def test_nothing_is_asked_for_after_the_end() -> None:
    session = at(State.CLOSED)
    session.schedule_refresh(0.0, 5.0)
    assert session.next_deadline() is None
    session.handle_deadline(10.0)
    assert not session.token_request()


# --- whatever comes -------------------------------------------------------------------------------------


TEXTS = [
    CONNECTED,
    '{"type": "connected", "userId": "usr_1"}',
    AUTHENTICATED,
    '{"type": "authenticated", "userId": "usr_2"}',
    '{"type": "authenticated"}',
    '{"type": "error", "message": "no"}',
    '{"type": "error", "message": "no", "channel": "arb"}',
    '{"type": "heartbeat"}',
    '{"type": "x"}',
    "nope",
    BALANCE,
    order_event("usr_1"),
    order_event("usr_2"),
]
STEPS = st.one_of(
    st.tuples(st.just("text"), st.sampled_from(TEXTS)),
    st.tuples(
        st.sampled_from(
            [
                *("made", "control", "lost", "close", "deadline", "pause", "resume"),
                *("token", "new_token", "failed", "failed_for_good", "refresh", "no_refresh"),
            ]
        ),
        st.none(),
    ),
    st.tuples(st.just("peer_close"), st.sampled_from([1000, 1006, 1008, 4001])),
)


def act(session: Session, what: str, argument: Any, now: float) -> None:
    calls = {
        "text": lambda: session.receive_text(argument, now, 7),
        "made": lambda: session.connection_made(now),
        "control": lambda: session.receive_control_frame(now),
        "lost": lambda: session.connection_lost(ConnectionLost("gone")),
        "close": lambda: session.close(now),
        "deadline": lambda: session.handle_deadline(now),
        "pause": lambda: session.pause(now),
        "resume": lambda: session.resume(now),
        "token": lambda: session.token_received(Token.of(TOKEN), now, 30.0),
        "new_token": lambda: session.token_received(Token.of(OTHER_TOKEN), now, None),
        "failed": lambda: session.token_failed(ServerError("m"), now, 5.0),
        "failed_for_good": lambda: session.token_failed(ServerError("m"), now, None),
        "refresh": lambda: session.schedule_refresh(now, 30.0),
        "no_refresh": lambda: session.schedule_refresh(now, None),
        "peer_close": lambda: session.receive_close(argument, "reason", now),
    }
    calls[what]()


@settings(deadline=None, max_examples=400, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.booleans(),
    st.lists(st.tuples(STEPS, st.floats(0, 50)), max_size=30),
    st.booleans(),
)
def test_any_sequence_of_inputs_keeps_the_promises(
    in_query: bool, steps: list[tuple[tuple[str, Any], float]], begin_live: bool
) -> None:
    session = new(SessionOptions(token_in_query=in_query))
    now = 0.0
    if begin_live:
        steps = [(("made", None), 0.0), (("text", TEXTS[1]), 0.0), (("text", AUTHENTICATED), 0.0), *steps]
    for (what, argument), passed in steps:
        now += passed
        was_closed = session.state is State.CLOSED
        before = session.state, session.error
        try:
            act(session, what, argument, now)
        except LocalProtocolError:
            assert session.state is before[0]
        events, commands = session.events_received(), session.data_to_send()
        if was_closed:
            assert session.state is State.CLOSED
            assert session.error is before[1]
            assert not events
            assert not commands
        if session.state is State.CLOSED:
            assert session.close_expected()
            assert session.next_deadline() is None
        if what == "deadline":
            # A call that comes late may find that the next deadline has come as well; then it is soon quiet.
            for _ in range(3):
                session.handle_deadline(now)
            assert (session.next_deadline() or now + 1) > now
        assert all(TOKEN not in repr(item) and OTHER_TOKEN not in repr(item) for item in [*events, *commands])


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.sampled_from([BALANCE, "nope", '{"type": "x"}', order_event("usr_1")]), max_size=20))
def test_a_live_session_delivers_every_message_once_and_in_order(texts: list[str]) -> None:
    session = at(State.LIVE)
    for text in texts:
        session.receive_text(text, 1.0, 7)
    events = session.events_received()
    assert [event.text if isinstance(event, DecodeFailed) else event.raw for event in events] == [
        text if text == "nope" else json.loads(text) for text in texts
    ]
