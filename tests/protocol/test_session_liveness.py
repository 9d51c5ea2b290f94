"""Deadlines, proofs of life, pauses, and a day of protocol in a moment."""

from __future__ import annotations

import time

import pytest

from aggstream import (
    BalanceUpdate,
    ConnectFailed,
    Event,
    HeartbeatTimeout,
    LimitExceeded,
    Limits,
    TokenRefreshed,
)
from aggstream._base.secret import Secret
from aggstream._protocol.commands import Authenticate, CloseFrame, Command, Ping
from aggstream._protocol.options import SessionOptions
from aggstream._protocol.session import Session
from aggstream._protocol.states import State
from aggstream.tokens._token import Token

TOKEN = "first-token-0001"
CONNECTED = '{"type": "connected", "appId": "app_demo123"}'
AUTHENTICATED = '{"type": "authenticated", "userId": "usr_1"}'
HEARTBEAT = '{"type": "heartbeat", "ts": 0}'
BALANCE = (
    '{"type": "balance_update", "venue": "v", "tradingBalanceCents": 1, "walletBalanceCents": 2, "timestamp": 3}'
)
PINGS_ONLY = SessionOptions(ping_interval=20.0, pong_timeout=10.0, idle_timeout=None)
PROOFS_ONLY = SessionOptions(ping_interval=1e6, idle_timeout=120.0, auth_timeout=10.0)


def say(session: Session, text: str, now: float) -> list[Event]:
    session.receive_text(text, now, 7)
    return session.events_received()


def connected(options: SessionOptions, now: float = 0.0) -> Session:
    session = Session(options, Token.of(TOKEN))
    session.connection_made(now)
    return session


def live(options: SessionOptions, now: float = 0.0) -> Session:
    session = connected(options, now)
    say(session, CONNECTED, now)
    say(session, AUTHENTICATED, now)
    session.data_to_send()
    return session


def due(session: Session) -> list[Command]:
    """Move the clock to the next deadline; return what is sent then."""
    now = session.next_deadline()
    assert now is not None
    session.handle_deadline(now)
    return session.data_to_send()


def is_well(session: Session) -> bool:
    return session.error is None


# --- a message that does not end ------------------------------------------------------------------------


def test_a_message_that_began_must_end_in_time_and_pings_do_not_help() -> None:
    session = live(SessionOptions(limits=Limits(message_timeout=30.0)))
    session.receive_partial(7, 100.0)
    for now in range(101, 130):
        session.receive_control_frame(now)
        session.receive_partial(7, now)
        session.handle_deadline(now)
    assert is_well(session)
    session.handle_deadline(130.0)
    assert isinstance(session.error, LimitExceeded)
    assert session.error.limit == "message_timeout"


def test_each_message_has_the_time_for_itself() -> None:
    session = live(SessionOptions(ping_interval=1e6, idle_timeout=None, limits=Limits(message_timeout=30.0)))
    for number in range(100):
        session.receive_partial(number, number * 20.0)
        session.handle_deadline(number * 20.0 + 19.0)
    session.receive_partial(None, 2000.0)
    session.handle_deadline(3000.0)
    assert is_well(session)


def test_the_time_of_a_message_stands_still_while_this_side_does_not_read() -> None:
    session = live(SessionOptions(ping_interval=1e6, idle_timeout=None, limits=Limits(message_timeout=30.0)))
    session.receive_partial(1, 0.0)
    session.pause(10.0)
    session.handle_deadline(1000.0)
    session.resume(1000.0)
    session.handle_deadline(1019.0)
    assert is_well(session)
    session.handle_deadline(1020.0)
    assert isinstance(session.error, LimitExceeded)


# --- a machine that was suspended -----------------------------------------------------------------------


def test_after_a_suspension_the_peer_must_prove_that_it_is_there() -> None:
    session = live(SessionOptions(ping_interval=20.0, pong_timeout=10.0, idle_timeout=120.0, auth_timeout=15.0))
    session.slept(3600.0)
    session.handle_deadline(1.0)
    assert sorted(map(str, session.data_to_send())) == sorted(map(str, [Ping(), Authenticate(Secret(TOKEN))]))
    session.receive_control_frame(2.0)
    session.handle_deadline(11.0)
    assert is_well(session)
    session.handle_deadline(16.0)
    assert isinstance(session.error, HeartbeatTimeout)


def test_a_suspension_takes_no_time_from_an_answer_that_is_awaited() -> None:
    session = live(SessionOptions(ping_interval=20.0, pong_timeout=10.0, idle_timeout=None))
    session.handle_deadline(20.0)
    assert session.data_to_send() == [Ping()]
    session.slept(3600.0)
    session.handle_deadline(29.0)
    assert is_well(session)
    session.receive_control_frame(29.5)
    session.handle_deadline(30.0)
    assert is_well(session)


def test_a_suspension_after_the_answer_to_a_ping_does_not_take_the_answer_back() -> None:
    session = live(SessionOptions(ping_interval=20.0, pong_timeout=10.0, idle_timeout=None))
    session.handle_deadline(20.0)
    assert session.data_to_send() == [Ping()]
    session.receive_control_frame(20.1)
    session.slept(3600.0)
    session.handle_deadline(21.0)
    assert session.data_to_send() == [Ping()]
    session.handle_deadline(30.9)
    assert is_well(session)
    session.handle_deadline(31.0)
    assert isinstance(session.error, HeartbeatTimeout)


def test_a_suspension_brings_the_next_token_forward() -> None:
    session = live(SessionOptions(idle_timeout=None))
    session.schedule_refresh(0.0, 900.0)
    session.slept(600.0)
    session.handle_deadline(299.0)
    assert not session.token_request()
    session.handle_deadline(300.0)
    assert session.token_request()


# --- closing while this side does not read --------------------------------------------------------------


def test_a_session_that_must_end_while_reading_is_paused_ends_after_close_timeout() -> None:
    session = live(SessionOptions(close_timeout=0.5))
    session.pause(10.0)
    session.close(20.0)
    assert session.data_to_send() == [CloseFrame(1000)]
    assert session.next_deadline() == 20.5
    session.handle_deadline(20.4)
    assert not session.close_expected()
    session.handle_deadline(20.5)
    assert session.close_expected()


# --- connecting -----------------------------------------------------------------------------------------


def test_connected_must_come_in_time() -> None:
    session = connected(SessionOptions(greeting_timeout=3.0), now=100.0)
    assert session.next_deadline() == 103.0
    assert due(session) == [CloseFrame(1000)]
    assert isinstance(session.error, ConnectFailed)
    assert "connect_timeout" in str(session.error)


def test_authenticated_must_come_in_time() -> None:
    session = connected(SessionOptions(greeting_timeout=3.0, auth_timeout=4.0))
    say(session, CONNECTED, 2.0)
    session.data_to_send()
    assert session.next_deadline() == 6.0
    assert due(session) == [CloseFrame(1000)]
    assert isinstance(session.error, HeartbeatTimeout)
    assert "auth_timeout" in str(session.error)


def test_a_deadline_that_has_not_come_does_nothing() -> None:
    session = connected(SessionOptions(greeting_timeout=3.0))
    session.handle_deadline(2.999)
    assert session.state is State.CONNECTING
    assert session.data_to_send() == []


def test_deadlines_that_come_together_end_the_session_once() -> None:
    session = connected(SessionOptions(greeting_timeout=3.0, ping_interval=3.0))
    session.handle_deadline(1e6)
    assert session.data_to_send().count(CloseFrame(1000)) == 1
    assert isinstance(session.error, ConnectFailed)


# --- ping and pong --------------------------------------------------------------------------------------


def test_a_ping_is_sent_after_silence() -> None:
    session = live(PINGS_ONLY)
    assert session.next_deadline() == 20.0
    assert due(session) == [Ping()]
    assert session.next_deadline() == 30.0


@pytest.mark.parametrize("by_message", [True, False])
def test_whatever_is_heard_puts_the_ping_off(by_message: bool) -> None:
    session = live(PINGS_ONLY)
    if by_message:
        say(session, HEARTBEAT, 15.0)
    else:
        session.receive_control_frame(15.0)
    assert session.next_deadline() == 35.0


def test_a_pong_settles_the_ping() -> None:
    session = live(PINGS_ONLY)
    due(session)
    session.receive_control_frame(20.5)
    assert session.error is None
    assert session.next_deadline() == 40.5


def test_a_ping_without_a_sign_of_life_ends_the_session() -> None:
    session = live(PINGS_ONLY)
    due(session)
    assert due(session) == [CloseFrame(1000)]
    assert isinstance(session.error, HeartbeatTimeout)
    assert "pong_timeout" in str(session.error)


def test_pings_are_sent_before_the_session_is_live_as_well() -> None:
    session = connected(SessionOptions(greeting_timeout=100.0, ping_interval=20.0))
    session.handle_deadline(20.0)
    assert session.data_to_send() == [Ping()]


# --- the proof that the service still serves us ---------------------------------------------------------


def test_a_quiet_service_must_acknowledge_an_authenticate() -> None:
    session = live(PROOFS_ONLY)
    assert session.next_deadline() == 120.0
    assert due(session) == [Authenticate(Token.of(TOKEN).secret)]
    assert say(session, AUTHENTICATED, 121.0) == []
    assert session.state is State.LIVE
    assert session.error is None


def test_pongs_do_not_count_as_that_proof() -> None:
    session = live(PROOFS_ONLY)
    session.receive_control_frame(119.0)
    assert due(session) == [Authenticate(Token.of(TOKEN).secret)]


def test_a_message_of_the_service_puts_the_proof_off() -> None:
    session = live(PROOFS_ONLY)
    say(session, HEARTBEAT, 100.0)
    session.handle_deadline(219.9)
    assert session.data_to_send() == []
    assert session.next_deadline() == 220.0
    assert due(session) == [Authenticate(Token.of(TOKEN).secret)]


def test_a_service_that_does_not_acknowledge_is_given_up() -> None:
    session = live(PROOFS_ONLY)
    due(session)
    assert session.next_deadline() == 130.0
    assert due(session) == [CloseFrame(1000)]
    assert isinstance(session.error, HeartbeatTimeout)


def test_events_flow_while_the_proof_waits() -> None:
    session = live(PROOFS_ONLY)
    due(session)
    [event] = say(session, BALANCE, 120.5)
    assert isinstance(event, BalanceUpdate)


def test_the_proof_may_be_turned_off() -> None:
    session = live(SessionOptions(ping_interval=1e6, idle_timeout=None))
    assert session.next_deadline() == 1e6


# --- pauses ---------------------------------------------------------------------------------------------


def test_while_paused_nothing_is_due() -> None:
    session = live(PINGS_ONLY)
    session.pause(5.0)
    assert session.next_deadline() is None
    session.handle_deadline(1e6)
    assert session.data_to_send() == []
    assert session.error is None


def test_a_pause_moves_every_deadline_by_its_length() -> None:
    session = live(PINGS_ONLY)
    session.pause(5.0)
    session.resume(105.0)
    assert session.next_deadline() == 120.0
    assert due(session) == [Ping()]


def test_a_pause_after_a_ping_leaves_the_peer_its_time() -> None:
    session = live(PINGS_ONLY)
    due(session)
    session.pause(25.0)
    session.resume(125.0)
    assert session.next_deadline() == 130.0
    session.receive_control_frame(126.0)
    assert session.next_deadline() == 146.0
    assert session.error is None


def test_a_pause_does_not_move_the_end_of_a_token() -> None:
    session = live(PINGS_ONLY)
    session.schedule_refresh(0.0, 15.0)
    session.pause(5.0)
    session.resume(16.0)
    assert session.next_deadline() == 15.0
    session.handle_deadline(16.0)
    assert session.token_request()


def test_resuming_without_a_pause_moves_nothing() -> None:
    session = live(PINGS_ONLY)
    session.resume(1000.0)
    assert session.next_deadline() == 20.0


def test_a_close_that_begins_during_a_pause_has_its_usual_deadline() -> None:
    session = live(SessionOptions(close_timeout=0.5))
    session.pause(10.0)
    session.close(110.0)
    session.resume(110.0)
    assert session.next_deadline() == 110.5


def test_a_token_that_is_sent_during_a_pause_has_its_usual_deadline() -> None:
    session = live(SessionOptions(ping_interval=1e6, idle_timeout=None, auth_timeout=10.0))
    session.pause(10.0)
    session.token_received(Token.of("second-token-0002"), 110.0, None)
    session.resume(111.0)
    deadline = session.next_deadline()
    assert deadline is not None
    assert 120.0 <= deadline <= 121.0


def test_what_is_heard_during_a_pause_is_not_heard_in_the_future() -> None:
    session = live(PINGS_ONLY)
    session.pause(10.0)
    session.receive_control_frame(50.0)
    session.resume(60.0)
    assert session.last_heard <= 60.0


# --- a day ----------------------------------------------------------------------------------------------


def test_a_day_of_messages_takes_a_moment() -> None:
    """24 hours: heartbeats each 30 s, a balance each 5 minutes, pongs, hourly refreshes, and two silent hours."""
    session = live(SessionOptions())
    session.schedule_refresh(0.0, 3600.0)
    began, now, number, next_message = time.process_time(), 0.0, 0, 30.0
    balances = refreshed = pings = proofs = 0
    while now < 86_400.0:
        deadline = session.next_deadline()
        assert deadline is not None
        assert deadline > now - 1e-9
        now = min(deadline, next_message)
        if now == next_message:
            number += 1
            next_message += 30.0
            if not 40_000.0 < now < 47_200.0:
                session.receive_text(BALANCE if number % 10 == 0 else HEARTBEAT, now, 7)
        session.handle_deadline(now)
        if session.token_request():
            session.token_received(Token.of(f"token-of-{now:.0f}"), now, 3600.0)
        while commands := session.data_to_send():
            for command in commands:
                if isinstance(command, Ping):
                    pings += 1
                    session.receive_control_frame(now)
                else:
                    assert isinstance(command, Authenticate)
                    proofs += 1
                    session.receive_text(AUTHENTICATED, now, 7)
        for event in session.events_received():
            balances += isinstance(event, BalanceUpdate)
            refreshed += isinstance(event, TokenRefreshed)
    assert session.state is State.LIVE
    assert session.error is None
    assert balances == 288 - 24
    assert refreshed == 24
    assert pings > 2000
    assert 24 + 50 < proofs < 24 + 70
    assert time.process_time() - began < 5.0
