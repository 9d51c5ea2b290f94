"""The view of live events: one's own, from where one was, and not for ever."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator, Mapping
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
from journals import CODEC, happened
from waiting import Until

from aggstream.events import UserEvent
from aggstream.integrations.django._sse import Feed
from aggstream.integrations.django._store.retrying import Patience
from aggstream.integrations.django._store.store import DatabaseStore
from aggstream.integrations.django.models import Stream
from aggstream.journal import StoreOptions
from aggstream.simulator import Simulator

SETTING = {"USER_ID": "shop.agg.user_id", "EVENTS_FOR": 0.001}


def store_of(account: str, user: str) -> DatabaseStore:
    stream = Stream.objects.create(account=account, owner="me")
    patience = Patience("default")
    store = DatabaseStore("default", stream=stream.pk, owner="me", options=StoreOptions(), patience=patience)
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


def frames(client: Client, **options: Any) -> list[Frame]:
    with override_settings(AGGSTREAM=SETTING):
        response: Any = client.get("/events/", **options)
        assert response.status_code == 200, response.content
        assert response["Content-Type"] == "text/event-stream"
        assert response["Cache-Control"] == "no-store"
        return list(read(response.streaming_content))


def test_each_user_sees_their_own_events_and_nobody_elses(
    stores: dict[str, DatabaseStore], signed_in: Callable[[str], Client]
) -> None:
    mine, theirs = [happened("mine"), happened("mine", "filled")], [happened("theirs")]
    stores["usr_1"].store(mine[:1])
    stores["usr_2"].store(theirs)
    stores["usr_1"].store(mine[1:])
    first, *events = frames(signed_in("1"), data={"after": "0"})
    assert first == Frame("0", "", "")
    assert [frame.data for frame in events] == [event.text for event in mine]
    assert {frame.event for frame in events} == {"order_event"}
    assert [frame.data for frame in frames(signed_in("2"), data={"after": "0"})[1:]] == [theirs[0].text]
    assert frames(signed_in("3"), data={"after": "0"}) == [Frame("0", "", "")]


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


def test_without_a_place_it_begins_now_and_tells_where_that_is(
    stores: dict[str, DatabaseStore], signed_in: Callable[[str], Client]
) -> None:
    [seq] = stores["usr_1"].store([happened("old")])
    [first] = frames(signed_in("1"))
    assert first.id == str(seq)
    new = happened("new")
    stores["usr_1"].store([new])
    assert [frame.data for frame in frames(signed_in("1"), headers={"Last-Event-ID": first.id})] == ["", new.text]


def test_a_message_of_many_lines_arrives_as_it_is(
    stores: dict[str, DatabaseStore], signed_in: Callable[[str], Client]
) -> None:
    text = '{\r\n"type": "order_event",\n"event": "x\u2028y",\r"orderId": "o", "timestamp": 5}'
    event = CODEC.decode(text, 1)
    assert isinstance(event, UserEvent)
    stores["usr_1"].store([event])
    [_, frame] = frames(signed_in("1"), data={"after": "0"})
    assert json.loads(frame.data) == json.loads(text)


def test_more_events_than_a_page_come_in_order(
    stores: dict[str, DatabaseStore], signed_in: Callable[[str], Client]
) -> None:
    events = [happened("o") for _ in range(450)]
    stores["usr_1"].store(events)
    # Its time is over after the first page; the rest is for the next answer.
    seen: list[str] = []
    place = "0"
    while len(seen) < 450:
        got = frames(signed_in("1"), headers={"Last-Event-ID": place})
        seen += [frame.data for frame in got[1:]]
        place = got[-1].id
    assert seen == [event.text for event in events]


@pytest.mark.parametrize("name", [None, "nobody"])
def test_who_has_no_account_is_refused(
    database: None, signed_in: Callable[[str], Client], name: str | None
) -> None:
    client = Client() if name is None else signed_in(name)
    with override_settings(AGGSTREAM=SETTING):
        assert client.get("/events/").status_code == 403


def test_everybody_is_refused_unless_the_project_says_who_is_who(
    stores: dict[str, DatabaseStore], signed_in: Callable[[str], Client]
) -> None:
    with override_settings(AGGSTREAM={}):
        assert signed_in("1").get("/events/").status_code == 403


@pytest.mark.parametrize("place", ["x", "-1", "1.5", "²", "9" * 19, "1\x00"])
def test_a_place_that_is_none_is_refused(signed_in: Callable[[str], Client], place: str) -> None:
    with override_settings(AGGSTREAM=SETTING):
        assert signed_in("1").get("/events/", {"after": place}).status_code == 400


def test_it_only_answers_to_get(signed_in: Callable[[str], Client]) -> None:
    with override_settings(AGGSTREAM=SETTING):
        assert signed_in("1").post("/events/").status_code == 405


def test_while_it_waits_it_holds_no_connection_and_shows_that_it_lives(stores: dict[str, DatabaseStore]) -> None:
    feed = Feed("default", "usr_1").frames(0, seconds=3600, heartbeat=0.01)
    assert next(feed).startswith("retry: ")
    assert next(feed) == ":\n\n"
    assert connection.connection is None
    event = happened("x")
    stores["usr_1"].store([event])
    assert event.text in next(frame for frame in feed if frame != ":\n\n")


def test_it_ends_in_time(database: None) -> None:
    started = time.monotonic()
    assert list(Feed("default", "usr_1").frames(5, seconds=0.05)) == ["retry: 1000\nid: 5\n\n"]
    assert time.monotonic() >= started + 0.05


def test_a_database_that_is_away_ends_it_and_the_browser_asks_again(
    database: None, caplog: pytest.LogCaptureFixture
) -> None:
    with connection.execute_wrapper(Broken(lambda sql: True, 1)):
        assert len(list(Feed("default", "usr_1").frames(0, seconds=3600))) == 1
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


def test_a_place_that_the_database_has_not_come_to_is_its_newest(
    stores: dict[str, DatabaseStore], signed_in: Callable[[str], Client]
) -> None:
    [seq] = stores["usr_1"].store([happened("x")])
    [first] = frames(signed_in("1"), headers={"Last-Event-ID": "9" * 18})
    assert first == Frame(str(seq), "", "")


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
