"""The simulator's WebSocket, seen by a client that shares no code with it."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from websockets.exceptions import ConnectionClosed, ConnectionClosedError, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from aggstream.simulator import Simulator

if TYPE_CHECKING:
    from collections.abc import Iterator

PATIENCE = 20


class Peer:
    """A client of the simulator: JSON in and out, and never waits forever."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket

    def text(self) -> str:
        text = self.socket.recv(timeout=PATIENCE)
        assert isinstance(text, str)
        return text

    def get(self) -> Any:
        return json.loads(self.text())

    def texts(self, last: str) -> list[str]:
        """Return all texts before this one."""
        return list(iter(self.text, last))

    def until(self, **wanted: Any) -> list[Any]:
        """Return all frames up to the first that has these values."""
        frames = [self.get()]
        while any(frames[-1].get(key) != value for key, value in wanted.items()):
            frames.append(self.get())
        return frames

    def put(self, message: Any) -> None:
        self.socket.send(message if isinstance(message, str | bytes) else json.dumps(message))

    def authenticate(self, token: str) -> Any:
        self.put({"action": "authenticate", "token": token})
        return self.get()

    def closed(self) -> tuple[int, str]:
        """Read to the end; return the close that the server sent."""
        with pytest.raises(ConnectionClosed) as caught:
            self.texts("a text that nobody sends")
        assert caught.value.rcvd is not None
        return caught.value.rcvd.code, caught.value.rcvd.reason


@contextmanager
def peer(simulator: Simulator, *, token: str | None = None, **options: Any) -> Iterator[Peer]:
    query = f"?appId={simulator.app_id}" + (f"&token={token}" if token else "")
    options = {"origin": simulator.origin, "ping_interval": None, "proxy": None} | options
    with connect(simulator.url + options.pop("query", query), **options) as socket:
        yield Peer(socket)


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    # A heartbeat among the frames would be one more case in every test but the one about heartbeats.
    with Simulator(heartbeat_interval=3600) as simulator:
        yield simulator


@contextmanager
def signed_in(simulator: Simulator, user_id: str = "usr_demo") -> Iterator[Peer]:
    with peer(simulator, token=simulator.sign_in(user_id).access_token) as client:
        assert client.get() == {"type": "connected", "appId": simulator.app_id, "userId": user_id}
        yield client


@pytest.mark.parametrize(
    ("query", "origin", "status"),
    [
        ("", "https://app.example", 400),
        ("?appId=", "https://app.example", 400),
        ("?appId=app_other", "https://app.example", 403),
        ("?appId=app_demo123", "https://other.example", 403),
        ("?appId=app_demo123", None, 403),
        ("?appId=app_demo123&token=nonsense", "https://app.example", 401),
    ],
)
def test_a_handshake_that_is_not_in_order_is_refused(
    simulator: Simulator, query: str, origin: str | None, status: int
) -> None:
    with pytest.raises(InvalidStatus) as caught, peer(simulator, query=query, origin=origin):
        pass
    assert caught.value.response.status_code == status
    assert "error" in json.loads(caught.value.response.body)
    assert simulator.counts.handshakes == simulator.counts.handshakes_refused == 1


def test_a_connection_without_a_token_is_greeted_without_a_user(simulator: Simulator) -> None:
    with peer(simulator) as client:
        assert client.get() == {"type": "connected", "appId": "app_demo123"}
        assert simulator.wait_for_connections(1, authenticated=False)
        assert not simulator.wait_for_connections(1, timeout=0.01)
        assert simulator.connections == 1


def test_a_token_may_come_by_message_or_in_the_query(simulator: Simulator) -> None:
    token = simulator.sign_in("usr_a").access_token
    with peer(simulator) as by_message, peer(simulator, token=token) as by_query:
        by_message.get()
        assert by_message.authenticate(token) == {"type": "authenticated", "userId": "usr_a"}
        assert by_query.get()["userId"] == "usr_a"
        assert simulator.wait_for_connections(2)
        assert simulator.counts.authentications == 2


@pytest.mark.parametrize("token", ["nonsense", "a.b.c", 7, None])
def test_a_bad_token_is_refused_and_the_connection_closed(simulator: Simulator, token: Any) -> None:
    with peer(simulator) as client:
        client.get()
        refusal = client.authenticate(token)
        assert (refusal["type"], refusal["code"]) == ("error", "invalid_token")
        assert client.closed()[0] == 4401
    assert simulator.counts.authentications_refused == 1


def test_another_simulators_token_is_refused(simulator: Simulator) -> None:
    token = Simulator().sign_in().access_token
    with pytest.raises(InvalidStatus), peer(simulator, token=token):
        pass


def test_the_next_authentications_are_refused_as_told(simulator: Simulator) -> None:
    tokens = simulator.sign_in()
    simulator.refuse_tokens(2)
    with pytest.raises(InvalidStatus), peer(simulator, token=tokens.access_token):
        pass
    with peer(simulator) as client:
        client.get()
        assert client.authenticate(tokens.access_token)["code"] == "invalid_token"
    with signed_in(simulator):
        assert simulator.counts.authentications_refused == 2


def test_the_next_handshakes_are_refused_as_told(simulator: Simulator) -> None:
    simulator.refuse_connections(1, status=429, retry_after=7)
    with pytest.raises(InvalidStatus) as caught, peer(simulator):
        pass
    assert caught.value.response.status_code == 429
    assert caught.value.response.headers["Retry-After"] == "7"
    with peer(simulator) as client:
        assert client.get()["type"] == "connected"


@pytest.mark.parametrize("message", ["{", "[]", "7", '"action"', "{}", b"\x00", "[" * 100_000, {"action": ["x"]}])
def test_a_message_that_makes_no_sense_gets_an_error_and_the_connection_stays(
    simulator: Simulator, message: Any
) -> None:
    with peer(simulator) as client:
        client.get()
        client.put(message)
        assert client.get()["type"] == "error"
        client.put({"action": "dance"})
        assert client.get()["code"] == "unknown_action"


def test_market_data_is_subscribed_to_in_name_only(simulator: Simulator) -> None:
    with peer(simulator) as client:
        client.get()
        client.put({"action": "subscribe", "channel": "orderbook", "outcomeIds": ["vmo_1"]})
        assert client.get() == {"type": "subscribed", "channel": "orderbook", "outcomeIds": ["vmo_1"]}
        client.put({"action": "unsubscribe", "channel": "arb", "marketIds": ["m1"]})
        assert client.get() == {"type": "unsubscribed", "channel": "arb", "marketIds": ["m1"]}


def test_heartbeats_come_until_they_are_stalled() -> None:
    with Simulator(heartbeat_interval=0.01, now=lambda: 1710000000.5) as simulator, peer(simulator) as client:
        client.get()
        assert client.get() == client.get() == {"type": "heartbeat", "ts": 1710000000500}
        simulator.stall_heartbeats()
        simulator.push("mark")
        client.texts("mark")
        with pytest.raises(TimeoutError):
            client.socket.recv(timeout=0.1)
        simulator.stall_heartbeats(False)
        assert client.get()["type"] == "heartbeat"


def test_a_connection_ends_with_its_token(simulator: Simulator) -> None:
    tokens = simulator.sign_in(lifetime=0.3)
    with peer(simulator, token=tokens.access_token) as client:
        client.get()
        assert client.get()["code"] == "token_expired"
        assert client.closed()[0] == 4401


def test_authenticating_again_in_time_keeps_the_connection(simulator: Simulator) -> None:
    short, long = simulator.sign_in(lifetime=1), simulator.sign_in()
    with peer(simulator) as client, peer(simulator, token=short.access_token) as witness:
        client.get(), witness.get()
        client.authenticate(short.access_token)
        assert client.authenticate(long.access_token)["type"] == "authenticated"
        # The other connection with the short token shows when its time is over.
        assert witness.closed()[0] == 4401
        simulator.push("still there")
        assert client.text() == "still there"


def test_expiry_follows_the_clock_that_was_given() -> None:
    now = [1710000000.0]
    with Simulator(now=lambda: now[0], heartbeat_interval=3600) as simulator:
        # The loop's clock comes to the end of this token again and again, the simulator's own does not yet.
        token = simulator.sign_in(lifetime=0.002).access_token
        with peer(simulator, token=token) as client:
            client.get()
            for number in range(20):
                simulator.push(str(number))
                assert client.text() == str(number)
            now[0] += 1
            assert client.get()["code"] == "token_expired"


def test_expiry_may_be_left_to_the_client() -> None:
    with Simulator(enforce_expiry=False, heartbeat_interval=3600) as simulator, signed_in(simulator) as client:
        simulator.expire_tokens()
        simulator.place_order()
        assert client.get()["type"] == "order_submitted"


def test_tokens_can_be_expired_at_will(simulator: Simulator) -> None:
    with signed_in(simulator, "usr_a") as a, signed_in(simulator, "usr_b") as b, peer(simulator) as c:
        c.get()
        old = simulator.sign_in("usr_a")
        simulator.expire_tokens("usr_a")
        assert a.get()["code"] == "token_expired"
        assert a.closed()[0] == 4401
        assert c.authenticate(old.access_token)["code"] == "invalid_token"
        with peer(simulator) as nobody:
            nobody.get()
            simulator.expire_tokens()
            simulator.push("end")
            assert nobody.text() == "end"
        assert b.closed()[0] == 4401


def test_events_go_to_all_connections_of_the_user_and_to_nobody_else(simulator: Simulator) -> None:
    with ExitStack() as stack:
        first, second = (stack.enter_context(signed_in(simulator, "usr_a")) for _ in range(2))
        other, nobody = stack.enter_context(signed_in(simulator, "usr_b")), stack.enter_context(peer(simulator))
        nobody.get()
        order_id = simulator.place_order("usr_a", scenario="failed")
        assert simulator.push("end") == 4
        texts = first.texts("end")
        assert texts == second.texts("end")
        assert f'"orderId":"{order_id}"' in texts[0]
        assert other.text() == nobody.text() == "end"


def test_from_the_acknowledgement_on_a_connection_gets_the_new_users_events_only(simulator: Simulator) -> None:
    with signed_in(simulator, "usr_a") as client:
        play_a, play_b = (simulator.play(user, orders=None, rate=2000) for user in ("usr_a", "usr_b"))
        client.until(event="step_completed")
        client.put({"action": "authenticate", "token": simulator.sign_in("usr_b").access_token})
        before = client.until(type="authenticated")
        after = [client.get() for _ in range(200)]
        for play in (play_a, play_b):
            play.cancel()
        assert {frame["userId"] for frame in before[:-1] if frame["type"] == "order_event"} <= {"usr_a"}
        assert {frame["userId"] for frame in after if frame["type"] == "order_event"} == {"usr_b"}


def test_the_books_tell_what_was_missed(simulator: Simulator) -> None:
    simulator.place_order(scenario="filled")
    missed = simulator.books()
    assert missed.missed == missed.emitted > 0
    with signed_in(simulator) as client:
        simulator.place_order(scenario="filled")
        received = client.until(event="dag_completed")
    books = simulator.books()
    assert (books.sent, books.missed) == (len(received), missed.missed)
    assert books.emitted == books.sent + books.missed
    assert simulator.books("usr_other").emitted == 0


def test_a_push_is_sent_as_it_is_and_stays_out_of_the_books(simulator: Simulator) -> None:
    with signed_in(simulator, "usr_a") as client, signed_in(simulator, "usr_b"):
        assert simulator.push('{"type": \n"bröken', user_id="usr_a") == 1
        assert client.text() == '{"type": \n"bröken'
        assert simulator.push({"type": "new"}) == 2
        assert client.text() == '{"type":"new"}'
        with pytest.raises(ValueError, match="surrogates"):
            simulator.push("\ud800")
    assert simulator.books("usr_a").emitted == 0


def test_a_drop_comes_after_all_that_was_sent_before_it(simulator: Simulator) -> None:
    with signed_in(simulator, "usr_a") as client, signed_in(simulator, "usr_b") as other:
        playback = simulator.play("usr_a", orders=100)
        assert playback.wait(PATIENCE)
        assert simulator.drop(user_id="usr_a", code=4001, reason="enough") == 1
        simulator.place_order("usr_a")
        timestamps = [client.get()["timestamp"] for _ in range(playback.emitted)]
        assert timestamps == sorted(set(timestamps))
        assert client.closed() == (4001, "enough")
        assert simulator.books("usr_a").sent == playback.emitted
        assert simulator.books("usr_a").missed > 0
        assert simulator.connections == 1
        assert simulator.drop() == 1
        assert other.closed() == (1001, "going away")
        assert simulator.drop() == 0


def test_an_abort_is_a_reset(simulator: Simulator) -> None:
    with signed_in(simulator) as client:
        assert simulator.drop(abort=True) == 1
        with pytest.raises(ConnectionClosedError) as caught:
            client.text()
        assert caught.value.rcvd is None
        assert isinstance(caught.value.__cause__, ConnectionResetError)
        assert simulator.wait_for_connections(0, authenticated=False)


@pytest.mark.parametrize("code", [0, 999, 1005, 1006, 1015, 2000, 5000])
def test_codes_that_no_server_sends_are_refused(simulator: Simulator, code: int) -> None:
    with pytest.raises(ValueError, match="code"):
        simulator.drop(code=code)
    with pytest.raises(ValueError, match="reason"):
        simulator.drop(reason="ä" * 62)


def test_a_stalled_connection_is_open_and_dead(simulator: Simulator) -> None:
    with signed_in(simulator) as client, signed_in(simulator, "usr_b") as other:
        simulator.stall()
        simulator.stall()
        pong = client.socket.ping()
        simulator.place_order(scenario="filled")
        with signed_in(simulator) as later:
            simulator.place_order(scenario="filled")
            # The new connection is served, and the old ones are not, though their turn was before.
            assert len(later.until(event="dag_completed")) > 5
        assert not pong.is_set()
        with pytest.raises(TimeoutError):
            client.socket.recv(timeout=0)
        simulator.stall(False)
        assert client.until(event="dag_completed")
        assert client.until(event="dag_completed")
        assert pong.wait(PATIENCE)
        assert simulator.drop() == 2
        assert other.closed()[0] == 1001


def test_a_client_that_does_not_read_slows_the_play_down_and_loses_nothing(simulator: Simulator) -> None:
    with signed_in(simulator) as client:
        simulator.stall()
        playback = simulator.play(orders=1000)
        order = simulator.play("usr_other", orders=1)
        assert order.wait(PATIENCE)
        # The play stands still with a bounded number of frames queued.
        assert not playback.wait(0.3)
        assert playback.emitted < 5000
        with ThreadPoolExecutor() as pool:
            received = pool.submit(client.texts, "end")
            simulator.stall(False)
            assert playback.wait(PATIENCE)
            simulator.push("end")
        timestamps = [json.loads(text)["timestamp"] for text in received.result()]
        assert timestamps == sorted(set(timestamps))
        assert simulator.books().sent == playback.emitted == len(timestamps)


def test_a_client_that_goes_away_is_forgotten(simulator: Simulator) -> None:
    with signed_in(simulator):
        assert simulator.wait_for_connections(1)
    assert simulator.wait_for_connections(0, authenticated=False)
    with signed_in(simulator) as client:
        playback = simulator.play(orders=None)
        client.get()
        client.socket.socket.shutdown(2)  # in the midst of it, and without a goodbye
        assert simulator.wait_for_connections(0, authenticated=False)
        playback.cancel()
        assert playback.done
    books = simulator.books()
    assert books.emitted == books.sent + books.missed == playback.emitted
