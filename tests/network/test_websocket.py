"""What a peer can do to a connection, byte by byte: during the handshake, and after it."""

from __future__ import annotations

import logging
import os
import socket
import ssl
import struct
import threading

import pytest
import websocket
from clients import MakeClient
from other_server import Peer, ServeFunction
from raw_server import ServeBytes, drain, frame, read_request, upgrade
from service_messages import ORDER_SUBMITTED
from waiting import DEADLINE, Until

import aggstream
from aggstream import Limits
from aggstream._network.websocket import Message, Transport

ONCE = aggstream.ReconnectPolicy(max_attempts=1)
CONNECTED = b'{"type":"connected","appId":"app_demo123"}'
AUTHENTICATED = b'{"type":"authenticated","userId":"usr_xyz789"}'
LIVE = frame(CONNECTED) + frame(AUTHENTICATED)


def what_ends(client: aggstream.Client) -> BaseException:
    """Start a client that gives up at once, and return what was wrong."""
    client.start()
    with pytest.raises(aggstream.AggStreamError) as caught:
        client.wait(DEADLINE)
    error = caught.value
    return error.__cause__ if isinstance(error, aggstream.ReconnectGaveUp) and error.__cause__ else error


# --- the handshake --------------------------------------------------------------------------------------


def test_one_deadline_holds_over_a_handshake_that_drips(raw_server: ServeBytes, client_of: MakeClient) -> None:
    stop = threading.Event()

    def drip(sock: socket.socket) -> None:
        read_request(sock)
        sock.sendall(b"HTTP/1.1 101 Switching Protocols\r\nX-Slow: ")
        while not stop.wait(0.02):
            sock.sendall(b"a")

    error = what_ends(client_of(raw_server(drip).url, connect_timeout=0.3, reconnect=ONCE))
    stop.set()
    assert isinstance(error, aggstream.ConnectFailed)
    assert "connect_timeout" in str(error)


def test_a_connection_that_does_not_come_about_ends_for_the_server_also_if_a_child_holds_a_copy(
    raw_server: ServeBytes, client_of: MakeClient, until: Until
) -> None:
    asked = threading.Event()
    ended: list[bytes] = []

    def script(sock: socket.socket) -> None:
        read_request(sock)
        asked.set()
        ended.append(drain(sock))

    client = client_of(raw_server(script).url)
    client.start()
    assert asked.wait(DEADLINE)
    opening = client._stream._attempt._opening
    assert opening is not None
    sock = opening._made
    assert sock is not None
    copy = os.dup(sock.fileno())
    try:
        client.stop()
        until(lambda: ended)
    finally:
        os.close(copy)
    assert ended == [b""]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"", "closed it during the handshake: if it speaks TLS at this port, is it wss:"),
        (b"SMTP ready\r\n\r\n", "handshake failed"),
        (b"HTTP/1.1 200 OK\r\n\r\n", "HTTP status 200"),
        (b"HTTP/1.1 101 OK\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n", "handshake failed"),
        (b"HTTP/1.1 101 OK\r\nX: \xff\xfe\r\n\r\n", "handshake failed"),
        (b"HTTP/1.1 0 \0token-of-xyz789:\r\n\r\n", "no HTTP/1 status"),
    ],
)
def test_a_handshake_that_is_none_is_a_typed_error(
    answer: bytes, words: str, raw_server: ServeBytes, client_of: MakeClient
) -> None:
    def script(sock: socket.socket) -> None:
        read_request(sock)
        sock.sendall(answer)

    error = what_ends(client_of(raw_server(script).url, reconnect=ONCE))
    assert isinstance(error, aggstream.ConnectFailed)
    assert words in str(error)
    assert str(error).isprintable()
    assert "xyz789" not in str(error)


def test_a_redirect_is_not_followed(raw_server: ServeBytes, client_of: MakeClient) -> None:
    elsewhere = raw_server(drain)

    def redirect(sock: socket.socket) -> None:
        read_request(sock)
        sock.sendall(b"HTTP/1.1 307 Moved\r\nLocation: " + elsewhere.url.encode() + b"\r\n\r\n")

    error = what_ends(client_of(raw_server(redirect).url))
    assert isinstance(error, aggstream.HandshakeRejected)
    assert error.status == 307
    assert elsewhere.connections == 0


def test_a_server_that_speaks_no_tls_is_a_typed_error(raw_server: ServeBytes, client_of: MakeClient) -> None:
    def plain(sock: socket.socket) -> None:
        sock.recv(10)
        sock.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    url = raw_server(plain).url.replace("ws://", "wss://")
    error = what_ends(client_of(url, reconnect=ONCE))
    assert isinstance(error, aggstream.ConnectFailed)
    assert "no TLS connection" in str(error)


def test_a_server_that_is_silent_in_the_tls_handshake_costs_the_timeout(
    raw_server: ServeBytes, client_of: MakeClient
) -> None:
    url = raw_server(drain).url.replace("ws://", "wss://")
    error = what_ends(client_of(url, reconnect=ONCE, connect_timeout=0.2))
    assert isinstance(error, aggstream.ConnectFailed)
    assert "connect_timeout" in str(error)


def test_stop_interrupts_connecting(raw_server: ServeBytes, client_of: MakeClient, until: Until) -> None:
    server = raw_server(drain)
    client = client_of(server.url, connect_timeout=3600.0)
    client.start()
    until(lambda: server.connections == 1)
    assert client.stop(timeout=DEADLINE)


def test_an_unknown_host_is_a_typed_error_that_names_it(client_of: MakeClient) -> None:
    error = what_ends(client_of("wss://no-such-host.invalid/ws", reconnect=ONCE))
    assert isinstance(error, aggstream.ConnectFailed)
    assert "no-such-host.invalid" in str(error)


@pytest.mark.parametrize(
    ("url", "peer"), [("ws://127.0.0.1:9/ws", "127.0.0.1:9"), ("ws://localhost:9/ws", "localhost:9")]
)
def test_a_port_where_nobody_listens_is_named(url: str, peer: str, client_of: MakeClient) -> None:
    error = what_ends(client_of(url, reconnect=ONCE))
    assert isinstance(error, aggstream.ConnectFailed)
    assert str(error).startswith(f"no TCP connection to {peer}: ")


def test_the_next_address_is_tried_if_one_does_not_answer(
    other_server: ServeFunction, client_of: MakeClient, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    def script(peer: Peer) -> None:
        peer.sign_in()
        peer.wait_closed()

    server = other_server(script)
    real = socket.getaddrinfo
    # A listener whose queue is full drops what knocks, as a host behind a silent firewall does.
    with socket.socket() as silent, socket.socket() as first, socket.socket() as second:
        silent.bind(("127.0.0.1", 0))
        silent.listen(0)
        for knock in (first, second):
            knock.setblocking(False)
            knock.connect_ex(silent.getsockname())

        def two_addresses(host: str, port: int, **options: int) -> list[object]:
            good = real("127.0.0.1", port, **options)
            return [(*good[0][:4], silent.getsockname()), *good]

        monkeypatch.setattr(socket, "getaddrinfo", two_addresses)
        client = client_of(server.url, connect_timeout=1.0, reconnect=ONCE)
        client.start()
        until(lambda: client.health().ok)
        client.stop()


def test_the_trace_of_the_library_does_not_show_the_token_in_the_url(
    raw_server: ServeBytes, client_of: MakeClient, until: Until, caplog: pytest.LogCaptureFixture
) -> None:
    requests: list[bytes] = []

    def script(sock: socket.socket) -> None:
        requests.append(upgrade(sock, also=frame(CONNECTED.replace(b"}", b',"userId":"usr_xyz789"}'))))
        drain(sock)

    websocket.enableTrace(True, handler=caplog.handler)
    try:
        client = client_of(raw_server(script).url, auth="query")
        client.start()
        client.wait_until_live(DEADLINE)
        until(lambda: requests)
        client.stop()
    finally:
        websocket.enableTrace(False)
        logging.getLogger("websocket").removeHandler(caplog.handler)
    assert b"token-of-xyz789" in requests[0]
    assert "token-of-xyz789" not in caplog.text


# --- frames ---------------------------------------------------------------------------------------------


def test_frames_that_come_with_the_handshake_are_not_lost(
    raw_server: ServeBytes, client_of: MakeClient, until: Until
) -> None:
    def script(sock: socket.socket) -> None:
        upgrade(sock, also=LIVE + frame(ORDER_SUBMITTED.encode()))
        drain(sock)

    client = client_of(raw_server(script).url)
    seen: list[aggstream.OrderSubmitted] = []
    client.on("order_submitted")(seen.append)
    client.start()
    until(lambda: seen)


def test_a_message_that_comes_byte_by_byte_is_put_together(
    raw_server: ServeBytes, client_of: MakeClient, until: Until
) -> None:
    def script(sock: socket.socket) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        upgrade(sock, also=LIVE)
        for byte in frame(ORDER_SUBMITTED.encode()):
            sock.sendall(bytes([byte]))
        drain(sock)

    client = client_of(raw_server(script).url)
    seen: list[aggstream.OrderSubmitted] = []
    client.on("order_submitted")(seen.append)
    client.start()
    until(lambda: seen)


def test_a_character_may_be_cut_by_fragments_and_by_reads(
    raw_server: ServeBytes, client_of: MakeClient, until: Until
) -> None:
    """Each of two messages, in three fragments and in one frame, comes byte by byte."""
    text = '{"type": "new", "text": "\u20ac\U0001f600"}'.encode()

    def script(sock: socket.socket) -> None:
        upgrade(sock)
        live = [b'{"type":"connected","appId":"a"}', b'{"type":"authenticated","userId":"u"}']
        cut = [frame(text[:26], fin=False), frame(text[26:29], opcode=0, fin=False), frame(text[29:], opcode=0)]
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in b"".join([*map(frame, live), *cut, frame(text)]):
            sock.sendall(bytes([byte]))
        drain(sock)

    client = client_of(raw_server(script).url)
    seen: list[aggstream.UnknownEvent] = []
    client.on("new")(seen.append)
    client.start()
    until(lambda: len(seen) == 2)
    assert [event.raw["text"] for event in seen] == ["\u20ac\U0001f600"] * 2


@pytest.mark.parametrize(
    ("data", "code", "words"),
    [
        (frame(b"\xff\xfe"), 1007, "not UTF-8"),
        (frame(b"\x03\xe8\xff", opcode=8), 1007, "not UTF-8"),
        # As soon as it is there: the rest of the frame, and of the message, never comes.
        (frame(b"\xc3\xa9\xff" + b"a" * 100)[:20], 1007, "not UTF-8"),
        (frame(b"a", fin=False) + frame(b"\xf4\x90", opcode=0, fin=False), 1007, "not UTF-8"),
        (frame(b"\xe2\x82", fin=False) + frame(b"a" * 50, opcode=0, fin=False)[:10], 1007, "not UTF-8"),
        (frame(b"\xe2\x82", fin=False) + frame(b"", opcode=0), 1007, "not UTF-8"),
        (b"\x81\x7f" + (1 << 50).to_bytes(8, "big"), 1009, "limits.frame_size"),
        (frame(b"a" * 600, fin=False) + frame(b"a" * 600, opcode=0), 1009, "limits.message_size"),
        (b"\x81\x81\x00\x00\x00\x00a", 1002, "broke the WebSocket protocol: a server must not mask its frames"),
        (b"\x83\x00", 1002, "opcode"),
        (b"\xc1\x00", 1002, "rsv"),
        (frame(b"a", opcode=0), 1002, "Illegal frame"),
        (frame(b"a" * 126, opcode=9), 1002, "control frame"),
        (frame(b"a", opcode=10, fin=False), 1002, "control frame"),
        (frame(b"\x00", opcode=8), 1002, "close frame"),
    ],
)
def test_a_broken_frame_ends_the_connection_with_the_right_code_after_what_came_before(
    data: bytes, code: int, words: str, raw_server: ServeBytes, client_of: MakeClient
) -> None:
    answers: list[bytes] = []

    def script(sock: socket.socket) -> None:
        upgrade(sock, also=LIVE + frame(ORDER_SUBMITTED.encode()) + data)
        answers.append(drain(sock))

    server = raw_server(script)
    client = client_of(server.url, limits=aggstream.Limits(message_size=1000), reconnect=ONCE)
    seen: list[aggstream.Event] = []
    client.on("order_submitted")(seen.append)
    lost: list[aggstream.Disconnected] = []
    client.on("disconnected")(lost.append)
    error = what_ends(client)
    assert isinstance(error, aggstream.RemoteProtocolError)
    assert words in str(error)
    assert [(end.initiated_by, end.requested) for end in lost] == [("client", False)]
    assert len(seen) == 1
    server.join()
    assert _close_code(answers[0]) == code


def _close_code(data: bytes) -> int:
    """The code of the last frame that a client sent, which is masked."""
    assert data[-8:-6] == b"\x88\x82"
    mask, payload = data[-6:-2], data[-2:]
    return int(struct.unpack("!H", bytes(a ^ b for a, b in zip(payload, mask, strict=False)))[0])


def test_a_connection_that_is_reset_is_lost_and_not_a_crash(raw_server: ServeBytes, client_of: MakeClient) -> None:
    def reset(sock: socket.socket) -> None:
        upgrade(sock, also=LIVE)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    error = what_ends(client_of(raw_server(reset).url, reconnect=ONCE))
    assert isinstance(error, aggstream.ConnectionLost)
    assert error.initiated_by == "network"


def test_a_peer_that_pings_and_never_reads_is_dropped(raw_server: ServeBytes, client_of: MakeClient) -> None:
    def script(sock: socket.socket) -> None:
        upgrade(sock, also=LIVE)
        while True:
            sock.sendall(frame(b"p" * 125, opcode=9) * 100)

    error = what_ends(client_of(raw_server(script).url, reconnect=ONCE))
    assert isinstance(error, aggstream.ConnectionLost)
    assert "does not read" in str(error)


# --- silence --------------------------------------------------------------------------------------------


def test_a_peer_that_does_not_answer_a_ping_is_found(raw_server: ServeBytes, client_of: MakeClient) -> None:
    def script(sock: socket.socket) -> None:
        upgrade(sock, also=LIVE)
        drain(sock)

    client = client_of(raw_server(script).url, ping_interval=0.1, pong_timeout=0.1, reconnect=ONCE)
    error = what_ends(client)
    assert isinstance(error, aggstream.HeartbeatTimeout)
    assert "pong_timeout" in str(error)


def test_a_peer_that_never_says_connected_is_found(raw_server: ServeBytes, client_of: MakeClient) -> None:
    def script(sock: socket.socket) -> None:
        upgrade(sock)
        drain(sock)

    error = what_ends(client_of(raw_server(script).url, connect_timeout=0.2, reconnect=ONCE))
    assert isinstance(error, aggstream.ConnectFailed)
    assert "connected" in str(error)


def test_a_peer_that_does_not_acknowledge_the_authentication_is_found(
    other_server: ServeFunction, client_of: MakeClient
) -> None:
    def script(peer: Peer) -> None:
        peer.greet()
        peer.wait_closed()

    error = what_ends(client_of(other_server(script).url, auth_timeout=0.2, reconnect=ONCE))
    assert isinstance(error, aggstream.HeartbeatTimeout)
    assert "auth_timeout" in str(error)


def test_a_quiet_account_is_no_fault_as_long_as_the_service_acknowledges(
    other_server: ServeFunction, client_of: MakeClient, until: Until
) -> None:
    proofs: list[str] = []

    def script(peer: Peer) -> None:
        peer.sign_in()
        for _ in range(3):
            proofs.append(peer.receive()["token"])
            peer.send({"type": "authenticated", "userId": "usr_xyz789"})
        peer.wait_closed()

    client = client_of(other_server(script).url, idle_timeout=0.05, reconnect=ONCE)
    seen: list[str] = []
    client.on("*")(lambda event: seen.append(event.type))
    client.start()
    until(lambda: len(proofs) == 3)
    assert seen == ["connected", "authenticated"]


def test_a_server_that_answers_no_close_frame_does_not_hold_up_stop(
    raw_server: ServeBytes, client_of: MakeClient, until: Until
) -> None:
    def script(sock: socket.socket) -> None:
        upgrade(sock, also=LIVE)
        drain(sock)

    client = client_of(raw_server(script).url, close_timeout=0.05)
    client.start()
    until(lambda: client.health().ok)
    assert client.stop(timeout=DEADLINE)


def test_an_insecure_context_is_the_users_choice(
    other_server: ServeFunction, client_of: MakeClient, until: Until
) -> None:
    def script(peer: Peer) -> None:
        peer.sign_in()
        peer.wait_closed()

    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    client = client_of(other_server(script, tls=True).url, ssl_context=context)
    client.start()
    until(lambda: client.health().ok)


@pytest.mark.parametrize("header", [b"Set-Cookie: a@b=1\r\n", b""])
def test_a_handshake_that_trips_the_library_is_a_typed_error(
    header: bytes, raw_server: ServeBytes, client_of: MakeClient
) -> None:
    def script(sock: socket.socket) -> None:
        read_request(sock)
        sock.sendall(b"HTTP/1.1 302 Found\r\n" + header + b"\r\n" if header else b"\r\n")

    error = what_ends(client_of(raw_server(script).url, reconnect=ONCE))
    assert isinstance(error, aggstream.ConnectFailed)


def test_a_flood_of_empty_fragments_ends_the_connection_and_not_the_client(
    raw_server: ServeBytes, client_of: MakeClient
) -> None:
    def script(sock: socket.socket) -> None:
        upgrade(sock, also=LIVE + frame(b"", fin=False))
        while True:
            sock.sendall(frame(b"", opcode=0, fin=False) * 1000)

    error = what_ends(client_of(raw_server(script).url, reconnect=ONCE))
    assert isinstance(error, aggstream.RemoteProtocolError)
    assert "limits.fragments" in str(error)


def test_what_came_before_a_reset_is_delivered_although_answers_cannot_be_sent(
    raw_server: ServeBytes, client_of: MakeClient
) -> None:
    count = 5_000

    def script(sock: socket.socket) -> None:
        upgrade(sock, also=LIVE)
        one = frame(ORDER_SUBMITTED.encode())
        sock.sendall(b"".join(one + (frame(b"p", opcode=9) if n % 10 == 0 else b"") for n in range(count)))
        # Closed with the client's pongs unread: what it sends from now on is answered by a reset.

    seen: list[aggstream.Event] = []
    client = client_of(raw_server(script).url, reconnect=ONCE)
    first = threading.Event()

    @client.on("order_submitted")
    def keep(event: aggstream.OrderSubmitted) -> None:
        seen.append(event)
        first.set()

    error = what_ends(client)
    assert isinstance(error, aggstream.ConnectionLost)
    assert first.is_set()
    assert len(seen) <= count


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("ssl_context", "ca.pem"),
        ("ssl_context", False),
        ("ssl_context", ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)),
        ("headers", ["X: y"]),
        ("auth_close_codes", 1008),
        ("auth_close_codes", "1008"),
        ("reconnect", "never"),
        ("limits", 5),
        ("name", ""),
    ],
)
def test_options_of_a_wrong_kind_are_refused_when_the_client_is_made(
    option: str, value: object, client_of: MakeClient
) -> None:
    with pytest.raises(aggstream.ConfigurationError, match=option):
        client_of("wss://localhost:9/ws", **{option: value})


def test_not_more_messages_are_taken_at_once_than_the_owner_can_be_kept_waiting_for() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        transport = Transport(ours, b"", Limits())
        theirs.sendall(frame(b"{}") * 3000)
        taken: list[int] = []
        while sum(taken) < 3000:
            messages: list[Message] = []
            transport.receive(messages)
            taken.append(sum(len(texts) for texts in messages if isinstance(texts, list)))
            assert transport.has_buffered is (sum(taken) < 3000)
        assert max(taken) <= 400
