"""The view of live events: one's own, from where one was, and not for ever."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.asgi import get_asgi_application
from django.db import connection
from django.test import Client, override_settings
from integrations.browsers import Browsers, Frame, read
from integrations.django.conftest import on_sqlite
from integrations.django.manage import Manage
from integrations.django.test_store import Broken
from integrations.view_claims import Site, ViewClaims
from journals import happened
from waiting import Until

from aggstream.events import UserEvent
from aggstream.integrations._sse import frames as frames_of
from aggstream.integrations.django._sse import StoredEvents
from aggstream.integrations.django._store.retrying import DatabaseRetrier
from aggstream.integrations.django._store.store import DatabaseStore
from aggstream.integrations.django.models import Stream
from aggstream.journal import StoreOptions
from aggstream.simulator import Simulator

SETTING = {"USER_ID": "shop.agg.user_id", "EVENTS_FOR": 0.001}


def store_of(account: str, user: str) -> DatabaseStore:
    stream = Stream.objects.create(account=account, owner="me")
    retrier = DatabaseRetrier("default")
    store = DatabaseStore("default", stream=stream.pk, owner="me", options=StoreOptions(), retrier=retrier)
    store.belongs_to(user)
    return store.open()


@pytest.fixture
def stores(database: None) -> dict[str, DatabaseStore]:
    return {user: store_of(user, user) for user in ("usr_1", "usr_2")}


@pytest.fixture
def signed_in(database: None) -> Callable[[str], Client]:
    def sign_in(name: str) -> Client:
        user, _ = User.objects.get_or_create(username=name)
        client = Client()
        client.force_login(user)
        return client

    return sign_in


class DjangoSite:
    def __init__(self, stores: dict[str, DatabaseStore], signed_in: Callable[[str], Client]) -> None:
        self._stores = stores
        self._signed_in = signed_in

    def store(self, user: str, events: Sequence[UserEvent]) -> list[int | None]:
        return self._stores[user].store(events)

    def frames(self, name: str, *, after: str | None = None, last_event_id: str | None = None) -> list[Frame]:
        data = {} if after is None else {"after": after}
        headers = {} if last_event_id is None else {"Last-Event-ID": last_event_id}
        return frames(self._signed_in(name), data=data, headers=headers)

    def status(self, name: str | None, *, after: str | None = None, method: str = "GET") -> int:
        client = Client() if name is None else self._signed_in(name)
        with override_settings(AGGSTREAM=SETTING):
            if method == "POST":
                return client.post("/events/").status_code
            return client.get("/events/", {} if after is None else {"after": after}).status_code


@pytest.fixture
def site(stores: dict[str, DatabaseStore], signed_in: Callable[[str], Client]) -> Site:
    return DjangoSite(stores, signed_in)


class TestView(ViewClaims):
    """The claims that all frameworks share."""


def frames(client: Client, **options: Any) -> list[Frame]:
    with override_settings(AGGSTREAM=SETTING):
        response: Any = client.get("/events/", **options)
        assert response.status_code == 200, response.content
        assert response["Content-Type"] == "text/event-stream"
        assert response["Cache-Control"] == "no-store"
        return list(read(response.streaming_content))


def test_a_user_whose_id_differs_in_case_alone_is_somebody_else(
    stores: dict[str, DatabaseStore], signed_in: Callable[[str], Client]
) -> None:
    upper = store_of("upper", "usr_A")
    upper.store([happened("theirs")])
    assert frames(signed_in("a"), data={"after": "0"}) == [Frame("0", "", "")]
    store_of("lower", "usr_a")  # an account of its own


def test_it_goes_on_after_the_last_event_that_was_seen_whosever_id_is_told(
    stores: dict[str, DatabaseStore], signed_in: Callable[[str], Client]
) -> None:
    one, two, three = happened("a"), happened("b"), happened("c")
    stores["usr_1"].store([one])
    [theirs] = stores["usr_2"].store([happened("d")])
    stores["usr_1"].store([two, three])
    client = signed_in("1")
    everything = frames(client, data={"after": "0"})
    resumed = frames(client, headers={"Last-Event-ID": everything[2].id}, data={"after": "0"})
    assert [frame.data for frame in resumed] == ["", three.text]
    after_theirs = frames(client, headers={"Last-Event-ID": str(theirs)})
    assert [frame.data for frame in after_theirs] == ["", two.text, three.text]


def test_everybody_is_refused_unless_the_project_says_who_is_who(
    stores: dict[str, DatabaseStore], signed_in: Callable[[str], Client]
) -> None:
    with override_settings(AGGSTREAM={}):
        assert signed_in("1").get("/events/").status_code == 403


def test_while_it_waits_it_holds_no_connection_and_shows_that_it_lives(stores: dict[str, DatabaseStore]) -> None:
    feed = frames_of(StoredEvents("default", "usr_1").page_after, 0, seconds=3600, heartbeat=0.01)
    assert next(feed).startswith("retry: ")
    assert next(feed) == ":\n\n"
    assert connection.connection is None
    event = happened("x")
    stores["usr_1"].store([event])
    assert event.text in next(frame for frame in feed if frame != ":\n\n")


def test_it_ends_in_time(database: None) -> None:
    started = time.monotonic()
    assert list(frames_of(StoredEvents("default", "usr_1").page_after, 5, seconds=0.05)) == [
        "retry: 1000\nid: 5\n\n"
    ]
    assert time.monotonic() >= started + 0.05


def test_a_database_that_is_away_ends_it_and_the_browser_asks_again(
    database: None, caplog: pytest.LogCaptureFixture
) -> None:
    with connection.execute_wrapper(Broken(lambda sql: True, 1)):
        assert len(list(frames_of(StoredEvents("default", "usr_1").page_after, 0, seconds=3600))) == 1
    assert "live events end" in caplog.text


def test_a_browser_that_finds_the_database_away_asks_again_with_what_it_has(
    signed_in: Callable[[str], Client], caplog: pytest.LogCaptureFixture
) -> None:
    client = signed_in("1")
    # With the sessions; and then with the events alone.
    for away in ("", "aggstream_event"):
        with connection.execute_wrapper(Broken(lambda sql: away in sql, 1)):  # noqa: B023  (called at once)
            assert frames(client, headers={"Last-Event-ID": "5"}) == [Frame("", "", "")]
    assert caplog.text.count("live events have to wait") == 2


@on_sqlite
def test_under_asgi_it_ends_at_once(stores: dict[str, DatabaseStore], signed_in: Callable[[str], Client]) -> None:
    event = happened("x")
    stores["usr_1"].store([event])
    cookie = f"sessionid={signed_in('1').cookies['sessionid'].value}".encode()
    scope = {"type": "http", "method": "GET", "path": "/events/", "query_string": b"after=0"}
    requests: list[dict[str, Any]] = [{"type": "http.request"}]
    sent: list[Mapping[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return requests.pop() if requests else await asyncio.Future()

    async def send(message: Mapping[str, Any]) -> None:
        sent.append(message)

    async def answer() -> None:
        await get_asgi_application()({**scope, "headers": [(b"cookie", cookie)]}, receive, send)

    with override_settings(AGGSTREAM=SETTING | {"EVENTS_FOR": 3600}):
        asyncio.run(answer())
    assert sent[0]["status"] == 200
    assert (b"Content-Type", b"text/event-stream") in sent[0]["headers"]
    assert [frame.data for frame in read(message["body"] for message in sent[1:])] == ["", event.text]


@pytest.fixture
def browsers(port: int, signed_in: Callable[[str], Client]) -> Iterator[Browsers]:
    made = Browsers(port, "/events/", lambda name: f"sessionid={signed_in(name).cookies['sessionid'].value}")
    yield made
    made.close()


@pytest.mark.parametrize("how", [(), ("--preload",), ("-k", "gthread", "--threads", "2")])
def test_two_browsers_see_their_own_users_orders_move_whichever_worker_answers(
    agg: Simulator, manage: Manage, browsers: Browsers, port: int, until: Until, how: tuple[str, ...]
) -> None:
    store_of("another", "usr_2").store([happened("theirs")])
    server = manage.python("-m", "gunicorn", "-w", "4", *how, "-b", f"127.0.0.1:{port}", "wsgi")
    until(lambda: server.output.count("Booting worker") == 4)
    assert agg.counts.handshakes == 0  # no worker starts a stream
    stream = manage.stream()
    until(lambda: stream.says("live as"))
    order = agg.begin_order("usr_1", scenario="filled")
    sent = order.advance(3)
    mine = browsers("1", "0")
    assert next(mine).id == "0"
    seen = [next(mine) for _ in sent]
    assert [json.loads(frame.data) for frame in seen] == sent
    browsers.close()  # the tab is closed, and opened again
    rest = order.finish()
    again = browsers("1", seen[-1].id)
    assert next(again).id == seen[-1].id
    assert [json.loads(next(again).data) for _ in rest] == rest
    theirs = browsers("2", "0")
    assert next(theirs).data == ""
    assert json.loads(next(theirs).data)["orderId"] == "theirs"
    assert stream.end() == 0
    assert agg.counts.handshakes == 1
