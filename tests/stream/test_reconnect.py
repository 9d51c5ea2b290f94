"""Outages: how they are told, how often is tried, and what is given up, over real sockets."""

from __future__ import annotations

import socket
import threading
from http import HTTPStatus

import pytest
from clients import MakeClient
from other_server import Peer, ServeFunction
from service_messages import ORDER_SUBMITTED
from waiting import DEADLINE, Until
from websockets.http11 import Request, Response
from websockets.sync.server import ServerConnection, serve

import aggstream


def closed_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def test_a_server_that_is_down_is_tried_with_pauses_and_comes_back_without_help(
    client_of: MakeClient, until: Until
) -> None:
    port = closed_port()
    client = client_of(f"ws://127.0.0.1:{port}/ws")
    pauses: list[aggstream.Reconnecting] = []
    client.on("reconnecting")(pauses.append)
    client.start()
    until(lambda: len(pauses) >= 5)
    assert [pause.attempt for pause in pauses[:5]] == [2, 3, 4, 5, 6]
    assert all(isinstance(pause.error, aggstream.ConnectFailed) for pause in pauses)
    bounds = [0.05, 0.1, 0.2, 0.2, 0.2]
    assert all(0 <= pause.delay <= bound for pause, bound in zip(pauses, bounds, strict=False))
    assert not client.health().ok

    def script(ws: ServerConnection) -> None:
        peer = Peer(ws, 1)
        peer.sign_in()
        peer.wait_closed()

    with serve(script, "127.0.0.1", port, compression=None) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        until(lambda: client.health().ok)
        client.stop()
        server.shutdown()
        thread.join()
    # Nothing was live before, so nothing can have been missed.
    assert client.health().counters.gaps == 0


def test_a_server_that_accepts_and_drops_is_not_stormed(
    other_server: ServeFunction, client_of: MakeClient, until: Until
) -> None:
    def script(peer: Peer) -> None:
        peer.sign_in()
        peer.ws.close(1011)

    policy = aggstream.ReconnectPolicy(initial=0.02, maximum=60.0, healthy_after=DEADLINE, max_attempts=5)
    client = client_of(other_server(script).url, reconnect=policy)
    bounds: list[float] = []

    @client.on("reconnecting")
    def keep(event: aggstream.Reconnecting) -> None:
        bounds.append(event.delay)

    client.start()
    with pytest.raises(aggstream.ReconnectGaveUp) as caught:
        client.wait(DEADLINE)
    assert caught.value.attempts == 5
    assert isinstance(caught.value.__cause__, aggstream.ConnectionLost)
    assert all(delay <= 0.02 * 2**number for number, delay in enumerate(bounds))
    assert len(bounds) == 4


def test_a_count_begins_afresh_after_a_connection_was_healthy(
    other_server: ServeFunction, client_of: MakeClient
) -> None:
    def script(peer: Peer) -> None:
        peer.sign_in()
        peer.receive()  # the re-authentication, well after the connection became healthy
        peer.ws.close(1011)

    policy = aggstream.ReconnectPolicy(initial=0.01, maximum=0.01, healthy_after=0.05, max_attempts=1)
    client = client_of(other_server(script).url, reconnect=policy, idle_timeout=0.3)
    attempts: list[int] = []
    many = threading.Event()

    @client.on("resumed")
    def keep(event: aggstream.Resumed) -> None:
        attempts.append(event.attempts)
        if len(attempts) == 3:
            many.set()

    client.start()
    assert many.wait(DEADLINE)
    assert attempts == [1, 1, 1]


@pytest.mark.parametrize(
    ("status", "headers", "retried"),
    [(503, {"Retry-After": "1"}, True), (429, {}, True), (403, {}, False), (302, {"Location": "/x"}, False)],
)
def test_the_status_of_a_refused_handshake_decides_and_retry_after_is_honoured(
    status: int, headers: dict[str, str], retried: bool, client_of: MakeClient, until: Until
) -> None:
    def refuse_first(ws: ServerConnection, request: Request) -> Response | None:
        asked.append(request.path)
        if len(asked) > 1:
            return None
        response = ws.respond(HTTPStatus(status), "not now")
        response.headers.update(headers)
        return response

    def script(ws: ServerConnection) -> None:
        peer = Peer(ws, 1)
        peer.sign_in()
        peer.wait_closed()

    asked: list[str] = []
    with serve(script, "127.0.0.1", 0, process_request=refuse_first, compression=None) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        policy = aggstream.ReconnectPolicy(initial=0.01, maximum=2.0)
        client = client_of(f"ws://127.0.0.1:{server.socket.getsockname()[1]}/ws", reconnect=policy)
        pauses: list[aggstream.Reconnecting] = []
        client.on("reconnecting")(pauses.append)
        client.start()
        if retried:
            until(lambda: client.health().ok)
            error = pauses[0].error
            assert pauses[0].delay >= (1.0 if headers else 0.0)
        else:
            with pytest.raises(aggstream.HandshakeRejected) as caught:
                client.wait(DEADLINE)
            error = caught.value
            assert len(asked) == 1
        client_error = error
        assert isinstance(client_error, aggstream.HandshakeRejected)
        assert client_error.status == status
        assert not retried or client.stop()
        server.shutdown()
        thread.join()


def test_one_function_decides_what_is_fatal_and_a_user_may_replace_it(
    other_server: ServeFunction, client_of: MakeClient
) -> None:
    asked: list[aggstream.AggStreamError] = []

    def never(error: aggstream.AggStreamError) -> bool:
        asked.append(error)
        return False

    def script(peer: Peer) -> None:
        peer.sign_in()
        peer.ws.close(1012, "restarting")

    client = client_of(other_server(script).url, reconnect=aggstream.ReconnectPolicy(decide=never))
    client.start()
    with pytest.raises(aggstream.ConnectionLost, match="restarting") as caught:
        client.wait(DEADLINE)
    assert caught.value.code == 1012
    assert asked == [caught.value]


def test_a_limit_of_time_ends_the_attempts(client_of: MakeClient) -> None:
    policy = aggstream.ReconnectPolicy(initial=0.05, maximum=0.05, max_time=0.3)
    client = client_of(f"ws://127.0.0.1:{closed_port()}/ws", reconnect=policy)
    client.start()
    with pytest.raises(aggstream.ReconnectGaveUp) as caught:
        client.wait(DEADLINE)
    assert caught.value.attempts >= 2


def test_stop_interrupts_a_pause_at_once(client_of: MakeClient) -> None:
    policy = aggstream.ReconnectPolicy(initial=3600.0, maximum=3600.0)
    client = client_of(f"ws://127.0.0.1:{closed_port()}/ws", reconnect=policy)
    client.start()
    client.wait_for("reconnecting", timeout=DEADLINE)
    assert client.stop(timeout=DEADLINE)


def test_events_before_a_close_in_one_batch_with_authentication_leave_a_gap_that_is_told(
    other_server: ServeFunction, client_of: MakeClient, until: Until
) -> None:
    def script(peer: Peer) -> None:
        peer.greet()
        peer.receive()
        if peer.number == 1:
            # One write: signed in, an event, and gone.
            with peer.ws.protocol_mutex:
                protocol = peer.ws.protocol
                protocol.send_text(b'{"type":"authenticated","userId":"usr_xyz789"}')
                protocol.send_text(ORDER_SUBMITTED.encode())
                protocol.send_close(1001)
                peer.ws.socket.sendall(b"".join(protocol.data_to_send()))
        else:
            peer.send({"type": "authenticated", "userId": "usr_xyz789"})
        peer.wait_closed()

    client = client_of(other_server(script).url)
    seen: list[str] = []
    client.on("*")(lambda event: seen.append(event.type))
    client.start()
    until(lambda: "reconciled" in seen)
    first = ["connected", "authenticated", "order_submitted", "disconnected", "reconnecting"]
    assert seen == [*first, "connected", "authenticated", "gap", "resumed", "reconciled"]


def test_a_gap_says_from_when_to_when(other_server: ServeFunction, client_of: MakeClient, until: Until) -> None:
    def script(peer: Peer) -> None:
        peer.sign_in()
        if peer.number == 1:
            peer.ws.close(1001)
        peer.wait_closed()

    client = client_of(other_server(script).url)
    gaps: list[aggstream.Gap] = []
    client.on("gap")(gaps.append)
    with client:
        until(lambda: gaps)
    [gap] = gaps
    assert gap.number == 1
    assert gap.started_at < gap.ended_at <= gap.received_at


def test_a_gap_begins_where_the_last_live_connection_ended_however_many_came_between(
    other_server: ServeFunction, client_of: MakeClient, until: Until
) -> None:
    def script(peer: Peer) -> None:
        if peer.number in (1, 4):
            peer.sign_in()
        else:
            peer.greet()
        if peer.number < 4:
            peer.ws.close(1001)
        peer.wait_closed()

    client = client_of(other_server(script).url)
    lost: list[aggstream.Disconnected] = []
    gaps: list[aggstream.Gap] = []
    client.on("disconnected")(lost.append)
    client.on("gap")(gaps.append)
    with client:
        until(lambda: gaps)
        assert gaps[0].number == 1
        assert gaps[0].started_at <= lost[0].received_at
        assert len(lost) == 3


def test_an_outage_that_goes_on_when_the_stream_ends_is_told_as_a_gap(
    other_server: ServeFunction, client_of: MakeClient, until: Until
) -> None:
    def script(peer: Peer) -> None:
        peer.greet()
        peer.receive()
        if peer.number == 1:
            peer.send({"type": "authenticated", "userId": "usr_xyz789"})
        else:
            peer.wait_closed()

    client = client_of(other_server(script).url)
    seen: list[aggstream.Event] = []
    client.on("*")(seen.append)
    client.start()
    until(lambda: client.health().counters.connections >= 2)
    client.stop()
    gap, reconciled, stopped = seen[-3:]
    assert isinstance(gap, aggstream.Gap)
    assert isinstance(reconciled, aggstream.Reconciled)
    assert (reconciled.resolved, reconciled.gaps) == (False, (1,))
    assert isinstance(stopped, aggstream.Stopped)
    assert client.health().counters.gaps == 1
    assert client.health().counters.gaps_resolved == 0


def test_a_stream_that_is_stopped_while_live_ends_in_no_gap(
    other_server: ServeFunction, client_of: MakeClient
) -> None:
    def script(peer: Peer) -> None:
        peer.sign_in()
        peer.wait_closed()

    client = client_of(other_server(script).url)
    seen: list[str] = []
    client.on("*")(lambda event: seen.append(event.type))
    with client:
        client.wait_until_live(DEADLINE)
    assert seen == ["connected", "authenticated", "disconnected", "stopped"]
