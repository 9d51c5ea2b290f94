"""What must hold for any bytes whatever: no exception but ours, no hang, no growth.

Each function takes bytes, as a fuzzer makes them. `test_fuzz.py` calls them with hypothesis, and
`scripts/fuzz.py` with a fuzzer that is guided by coverage.
"""

from __future__ import annotations

import contextlib
import pickle
import socket
from collections.abc import Callable, Iterator
from http.client import RemoteDisconnected

from aggstream import Limits
from aggstream._base.deadline import Deadline
from aggstream._base.secret import Secret
from aggstream._network.http import _NoHead, _TimedResponse
from aggstream._network.opening import _HandshakeSocket, _open_websocket
from aggstream._network.proxy import Proxy
from aggstream._network.tunnel import open_tunnel
from aggstream._network.websocket import Binary, Message, PeerClosed, Transport
from aggstream._protocol.codec import Codec
from aggstream._protocol.options import SessionOptions
from aggstream._protocol.session import Session
from aggstream._protocol.states import State
from aggstream.errors import (
    AggStreamError,
    ConnectFailed,
    ConnectionLost,
    DecodeError,
    LocalProtocolError,
    RemoteProtocolError,
    TokenUnavailable,
)
from aggstream.events import Authenticated, Event, UserEvent
from aggstream.tokens._token import Token

LIMITS = Limits(
    message_size=2000, frame_size=1000, fragments=16, json_depth=16, number_digits=20, handshake_size=2000
)
CODEC = Codec(LIMITS)
CONNECTED = '{"type": "connected", "appId": "a", "userId": "usr_1"}'
BALANCE = (
    '{"type": "balance_update", "venue": "v", "tradingBalanceCents": 1, "walletBalanceCents": 2, "timestamp": 3}'
)
TEXTS = [
    CONNECTED,
    '{"type": "connected", "appId": "a"}',
    '{"type": "authenticated", "userId": "usr_1"}',
    '{"type": "authenticated", "userId": "usr_2"}',
    '{"type": "authenticated"}',
    '{"type": "heartbeat", "ts": 0}',
    '{"type": "error", "message": "no"}',
    '{"type": "error", "message": "no", "channel": "orderbook"}',
    BALANCE,
    '{"type": "order_event", "event": "filled", "userId": "usr_2", "orderId": "o", "timestamp": 1}',
    '{"type": "new"}',
    "not JSON",
]


def _is_fit_for_a_log(error: AggStreamError) -> None:
    assert str(error).isprintable()
    assert len(str(error)) < 1000


# --- the codec ------------------------------------------------------------------------------------------


def codec(data: bytes) -> None:
    """Any text is an event or a DecodeError; what is an event can be shown and pickled."""
    try:
        event = CODEC.decode(data.decode(errors="replace"), 1)
    except DecodeError as error:
        _is_fit_for_a_log(error)
        return
    assert isinstance(event, Event)
    assert repr(event).isprintable()
    assert pickle.loads(pickle.dumps(event)) is not None  # noqa: S301  (our own)
    for check in (lambda: event.sub_event, lambda: event.received_at, lambda: hash(event.type)):
        check()


# --- the session ----------------------------------------------------------------------------------------


def session(data: bytes) -> None:
    """Any sequence of inputs keeps the promises; each byte is an input, and most take the next as an argument."""
    options = SessionOptions(token_in_query=bool(data) and data[0] & 1 == 1, limits=LIMITS)
    one = Session(options, Token.of("token-0000-0000"), expected_user=None)
    source = iter(data[1:])
    now, is_signed_in = 0.0, False
    for number in source:
        argument = next(source, 0)
        now += argument / 8
        was_closed = one.state is State.CLOSED
        with contextlib.suppress(LocalProtocolError):
            _act(one, number % 15, argument, now)
        events, commands = one.events_received(), one.data_to_send()
        assert not (was_closed and (events or commands))
        for event in events:
            is_signed_in = is_signed_in or isinstance(event, Authenticated)
            assert is_signed_in or not isinstance(event, UserEvent)
        _check_deadlines(one, now)
        assert len(one._held) <= 10_000
        assert len(one._sign_in._secrets) <= 8
        assert len(one._timers._stoppable) + len(one._timers._steady) <= 10


def _act(one: Session, what: int, argument: int, now: float) -> None:
    token = Token.of(f"token-{argument:04}-0000")
    actions: list[Callable[[], object]] = [
        lambda: one.connection_made(now),
        lambda: one.receive_text(TEXTS[argument % len(TEXTS)], now, 1),
        lambda: one.receive_text(TEXTS[argument % len(TEXTS)], now, 1),
        lambda: one.receive_text(TEXTS[argument % len(TEXTS)][: argument % 60], now, 1),
        lambda: one.receive_control_frame(now),
        lambda: one.receive_partial(argument % 3 or None, now),
        lambda: one.receive_close(1000 + argument * 14, "reason \n", now),
        lambda: one.connection_lost(ConnectionLost("lost")),
        lambda: one.token_received(token, now, argument or None),
        lambda: one.token_failed(TokenUnavailable("no"), now, argument or None),
        lambda: one.pause(now),
        lambda: one.resume(now),
        lambda: one.slept(float(argument)),
        lambda: one.handle_deadline(now),
        lambda: one.close(now),
    ]
    actions[what]()


def _check_deadlines(one: Session, now: float) -> None:
    """What is due is soon done."""
    for _ in range(20):
        due = one.next_deadline()
        if due is None or due > now:
            return
        one.handle_deadline(now)
        one.data_to_send()
        one.events_received()
    raise AssertionError("deadlines without an end")


# --- the transport --------------------------------------------------------------------------------------


def transport(data: bytes) -> None:
    """Any bytes give messages until the first that is wrong, however they are cut."""
    cut = 1 + (data[0] if data else 0)
    stream = data[1:]
    whole, sliced = _receive([stream]), _receive([stream[at : at + cut] for at in range(0, len(stream), cut)])
    assert whole == sliced


def _receive(pieces: list[bytes]) -> tuple[list[object], type[AggStreamError]]:
    """Return the messages, and what came after them."""
    ours, theirs = socket.socketpair()
    messages: list[object] = []
    with ours, theirs:
        ours.setblocking(False)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 18)
        one = Transport(ours, b"", LIMITS)
        for piece in [*pieces, None]:
            theirs.shutdown(socket.SHUT_WR) if piece is None else theirs.sendall(piece)
            try:
                _receive_all(one, messages)
            except RemoteProtocolError:
                assert b"\x88\x82" in one._out  # a close frame that says so
                return messages, RemoteProtocolError
            except ConnectionLost:
                return messages, ConnectionLost
            if messages and isinstance(messages[-1], PeerClosed):
                return messages, ConnectionLost
            held = len(one._frames._received) + one._fragments._size
            assert held <= LIMITS.message_size + LIMITS.frame_size
    raise AssertionError("the end was not seen")


def _receive_all(one: Transport, messages: list[object]) -> None:
    while True:
        received: list[Message] = []
        try:
            one.receive(received)
        finally:
            for message in received:
                if isinstance(message, list):
                    messages += message
                elif isinstance(message, (Binary, PeerClosed)):
                    messages.append(message)
        if not one.has_buffered or (messages and isinstance(messages[-1], PeerClosed)):
            return


# --- the handshake --------------------------------------------------------------------------------------


def handshake(data: bytes) -> None:
    """Any answer is refused by a ConnectFailed: no bytes can know the key."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(data[:60_000])
        theirs.shutdown(socket.SHUT_WR)
        ours.setblocking(False)
        stream = _HandshakeSocket(ours, LIMITS.handshake_size, Deadline(None), _nothing_comes)
        try:
            _open_websocket(stream, Secret("ws://localhost:9/ws?appId=a"), "https://app.example", {})
        except ConnectFailed as error:
            _is_fit_for_a_log(error)
            return
    raise AssertionError("the handshake was taken for one")


def answer(data: bytes) -> None:
    """Any answer of a proxy is a tunnel or a ConnectFailed, and any answer of REST is one or an error of HTTP."""
    with _played(data) as stream:
        proxy = Proxy("http", "proxy.example", 3128)
        try:
            open_tunnel(stream, proxy, "agg.example", 443, largest=LIMITS.handshake_size)
        except ConnectFailed as error:
            _is_fit_for_a_log(error)
    with (
        _played(data) as stream,
        contextlib.closing(_TimedResponse(stream, method="GET")) as response,
        contextlib.suppress(_NoHead, RemoteDisconnected),
    ):
        response.begin()
        # urllib3 would log what is no header.
        assert not response.msg.defects
        assert not response.msg.get_payload()


@contextlib.contextmanager
def _played(data: bytes) -> Iterator[socket.socket]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(data[:60_000])
        theirs.shutdown(socket.SHUT_WR)
        yield ours


def _nothing_comes(sock: socket.socket, *, write: bool, deadline: Deadline) -> None:
    raise AssertionError("everything is there")


TARGETS: dict[str, Callable[[bytes], None]] = {
    "codec": codec,
    "session": session,
    "transport": transport,
    "handshake": handshake,
    "answer": answer,
}


def seeds(name: str) -> Iterator[bytes]:
    """Return inputs that get far, to begin with."""
    if name == "codec":
        yield from (text.encode() for text in TEXTS)
    elif name == "session":
        yield bytes([0, 0, 0, 1, 1, 1, 2, 1, 8, 8, 9, 1, 2, 14, 200])
        yield bytes([1, 0, 0, 1, 0, 1, 8, 10, 5, 1, 3, 1, 9, 6, 0])
    elif name == "transport":
        for text in TEXTS[:4]:
            yield b"\x03\x81" + bytes([len(text)]) + text.encode() + b"\x89\x00\x88\x02\x03\xe8"
        yield b"\x01\x01\x02\xe2\x82\x80\x01\xac\x82\x01a"
    else:
        yield (
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: AAAA\r\n\r\n"
        )
        yield b"HTTP/1.1 103 Early\r\nLink: <\xff>,\r\n\t<b>\r\n\r\nHTTP/1.1 200 OK\nX-\xe9: y\nX: \x85\r\n\n"
        yield b"HTTP/1.1 503 No\r\nRetry-After: 7\r\nContent-Length: 2\r\nSet-Cookie: a=b; Domain=x\r\n\r\nno"
