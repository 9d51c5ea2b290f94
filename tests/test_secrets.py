"""A canary for a token goes through everything that can go wrong, and is seen nowhere but on the wire."""

from __future__ import annotations

import logging
import pickle
import socket
import struct
import traceback
from collections.abc import Callable

import pytest
from conftest import DEADLINE, MakeClient, Peer, ServeBytes, ServeFunction, drain, frame, upgrade

import aggstream

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
