"""The view of live events: one's own, from where one was, and not for ever."""

from __future__ import annotations

import http.client
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from desk import create_app
from flask import Flask
from flask.testing import FlaskClient
from integrations.browsers import Browsers, Frame, read
from integrations.flask.conftest import on_sqlite
from integrations.flask.desks import Desk
from journals import CODEC, happened
from waiting import Until

from aggstream import ConfigurationError, JournalOptions
from aggstream.events import UserEvent
from aggstream.integrations.flask import AggStream
from aggstream.integrations.flask._sse import Feed
from aggstream.journal import Journal
from aggstream.simulator import Simulator

SignIn = Callable[[str], FlaskClient]


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Flask:
    monkeypatch.setenv("DESK_INSTANCE", str(tmp_path))
    return create_app(AGGSTREAM_ACCOUNTS={"one": {}, "two": {"JOURNAL": "two.db"}}, AGGSTREAM_EVENTS_FOR=0.001)


@pytest.fixture
def journals(tmp_path: Path) -> Iterator[dict[str, Journal]]:
    made = {}
    for user, name in (("usr_1", "aggstream.db"), ("usr_2", "two.db")):
        made[user] = Journal(JournalOptions(path=tmp_path / name))
        made[user].belongs_to(user)
    yield made
    for journal in made.values():
        journal.close()


@pytest.fixture
def signed_in(app: Flask) -> SignIn:
    def sign_in(name: str) -> FlaskClient:
        client = app.test_client()
        client.post(f"/sign-in/{name}")
        return client

    return sign_in


def frames(client: FlaskClient, **options: Any) -> list[Frame]:
    response = client.get("/events", **options)
    assert response.status_code == 200, response.text
    assert response.headers["Content-Type"] == "text/event-stream"
    assert response.headers["Cache-Control"] == "no-store"
    return list(read(response.iter_encoded()))


def test_each_user_sees_their_own_events_and_nobody_elses(journals: dict[str, Journal], signed_in: SignIn) -> None:
    mine, theirs = [happened("mine"), happened("mine", "filled")], [happened("theirs")]
    journals["usr_1"].store(mine)
    journals["usr_2"].store(theirs)
    first, *events = frames(signed_in("1"), query_string={"after": "0"})
    assert first == Frame("0", "", "")
    assert [frame.data for frame in events] == [event.text for event in mine]
    assert {frame.event for frame in events} == {"order_event"}
    assert [frame.data for frame in frames(signed_in("2"), query_string={"after": "0"})[1:]] == [theirs[0].text]
    assert frames(signed_in("3"), query_string={"after": "0"}) == [Frame("0", "", "")]


def test_who_signs_in_as_somebody_else_sees_that_ones_events(
    journals: dict[str, Journal], signed_in: SignIn
) -> None:
    theirs = happened("theirs")
    journals["usr_1"].store([happened("mine")])
    journals["usr_2"].store([theirs])
    client = signed_in("1")
    client.post("/sign-in/2")
    assert [frame.data for frame in frames(client, query_string={"after": "0"})[1:]] == [theirs.text]


def test_a_journal_that_is_nobodys_yet_shows_nothing(tmp_path: Path, signed_in: SignIn) -> None:
    assert frames(signed_in("1"), query_string={"after": "0"}) == [Frame("0", "", "")]
    with Journal(JournalOptions(path=tmp_path / "aggstream.db")) as journal:
        journal.store([happened("whose")])
        assert frames(signed_in("1"), query_string={"after": "0"}) == [Frame("0", "", "")]
        journal.belongs_to("usr_1")
        assert len(frames(signed_in("1"), query_string={"after": "0"})) == 2


def test_it_goes_on_after_the_last_event_that_was_seen(journals: dict[str, Journal], signed_in: SignIn) -> None:
    one, two = happened("a"), happened("b")
    journals["usr_1"].store([one, two])
    client = signed_in("1")
    everything = frames(client, query_string={"after": "0"})
    assert [frame.data for frame in everything[1:]] == [one.text, two.text]
    # The header goes before the argument, which stays in the URL when a browser asks again.
    headers = {"Last-Event-ID": everything[1].id}
    assert [f.data for f in frames(client, headers=headers, query_string={"after": "0"})] == ["", two.text]


def test_without_a_place_it_begins_now_and_tells_where_that_is(
    journals: dict[str, Journal], signed_in: SignIn
) -> None:
    [seq] = journals["usr_1"].store([happened("old")])
    [first] = frames(signed_in("1"))
    assert first.id == str(seq)
    new = happened("new")
    journals["usr_1"].store([new])
    assert [frame.data for frame in frames(signed_in("1"), headers={"Last-Event-ID": first.id})] == ["", new.text]


def test_a_message_of_many_lines_arrives_as_it_is(journals: dict[str, Journal], signed_in: SignIn) -> None:
    text = '{\r\n"type": "order_event",\n"event": "x\u2028y",\r"orderId": "o", "timestamp": 5}'
    event = CODEC.decode(text, 1)
    assert isinstance(event, UserEvent)
    journals["usr_1"].store([event])
    [_, frame] = frames(signed_in("1"), query_string={"after": "0"})
    assert json.loads(frame.data) == json.loads(text)


def test_more_events_than_a_page_come_in_order(journals: dict[str, Journal], signed_in: SignIn) -> None:
    events = [happened("o") for _ in range(450)]
    journals["usr_1"].store(events)
    # Its time is over after the first page; the rest is for the next answer.
    seen: list[str] = []
    place = "0"
    while len(seen) < 450:
        got = frames(signed_in("1"), headers={"Last-Event-ID": place})
        seen += [frame.data for frame in got[1:]]
        place = got[-1].id
    assert seen == [event.text for event in events]


@pytest.mark.parametrize("name", [None, "nobody"])
def test_who_has_no_account_is_refused(app: Flask, signed_in: SignIn, name: str | None) -> None:
    client = app.test_client() if name is None else signed_in(name)
    assert client.get("/events").status_code == 403


def an_app(agg: AggStream, **config: Any) -> Flask:
    app = Flask("other")
    app.config.update(config)
    agg.init_app(app)
    app.add_url_rule("/events", view_func=agg.events)
    return app


def test_everybody_is_refused_unless_the_application_says_who_is_who() -> None:
    assert an_app(AggStream()).test_client().get("/events").status_code == 403


def test_a_function_that_tells_no_text_is_a_mistake_and_not_nobody() -> None:
    app = an_app(AggStream(), AGGSTREAM_USER_ID=lambda: 5, TESTING=True)
    with pytest.raises(ConfigurationError, match="a text, or None, got int"):
        app.test_client().get("/events")


def test_what_is_configured_goes_before_the_decorator(
    journals: dict[str, Journal], tmp_path: Path, signed_in: SignIn
) -> None:
    agg = AggStream()
    agg.user_id(lambda: "usr_2")
    event = happened("mine")
    journals["usr_1"].store([event])
    settings = {"AGGSTREAM_JOURNAL": tmp_path / "aggstream.db", "AGGSTREAM_EVENTS_FOR": 0.001}
    configured = an_app(agg, **settings, AGGSTREAM_USER_ID=lambda: "usr_1").test_client()
    assert [f.data for f in frames(configured, query_string={"after": "0"})] == ["", event.text]
    assert frames(an_app(agg, **settings).test_client(), query_string={"after": "0"}) == [Frame("0", "", "")]


@pytest.mark.parametrize("place", ["x", "-1", "1.5", "²", "9" * 19, "1\x00"])
def test_a_place_that_is_none_is_refused(signed_in: SignIn, place: str) -> None:
    assert signed_in("1").get("/events", query_string={"after": place}).status_code == 400


def test_it_only_answers_to_get(app: Flask, signed_in: SignIn) -> None:
    app.config["AGGSTREAM_EVENTS_FOR"] = 3600
    assert signed_in("1").post("/events").status_code == 405
    assert signed_in("1").head("/events").status_code == 200  # at once


def test_while_it_waits_it_holds_no_file_and_shows_that_it_lives(tmp_path: Path) -> None:
    path = str(tmp_path / "aggstream.db")
    event = happened("x")
    feed = Feed([path], "usr_1").frames(0, seconds=3600, heartbeat=0.01)
    assert next(feed).startswith("retry: ")
    assert next(feed) == ":\n\n"
    with Journal(JournalOptions(path=path)) as journal:  # which comes meanwhile
        journal.belongs_to("usr_1")
    assert next(feed) == ":\n\n"
    assert not held(path)
    with Journal(JournalOptions(path=path)) as journal:
        journal.store([event])
    assert event.text in next(frame for frame in feed if frame != ":\n\n")


def held(path: str) -> bool:
    """Tell whether this process has a file open."""
    links = [os.path.join("/proc/self/fd", fd) for fd in os.listdir("/proc/self/fd")]
    return any(os.path.exists(link) and os.readlink(link) == path for link in links)


def test_it_ends_in_time() -> None:
    started = time.monotonic()
    assert list(Feed(["nowhere.db"], "usr_1").frames(5, seconds=0.05)) == ["retry: 1000\nid: 0\n\n"]
    assert time.monotonic() >= started + 0.05


@pytest.mark.parametrize("after", [None, 5])
def test_a_journal_that_cannot_be_read_ends_it_and_the_browser_asks_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, after: int | None
) -> None:
    (tmp_path / "broken.db").write_bytes(b"no journal" * 1000)
    [answer] = Feed([str(tmp_path / "broken.db")], "usr_1").frames(after, seconds=3600)
    assert answer == "retry: 1000\n\n"
    assert "live events end" in caplog.text


def test_a_place_that_the_journal_has_not_come_to_is_its_newest(
    journals: dict[str, Journal], tmp_path: Path
) -> None:
    [seq] = journals["usr_1"].store([happened("mine")])
    [first] = Feed([str(tmp_path / "aggstream.db")], "usr_1").frames(10**17, seconds=0.001)
    assert first == f"retry: 1000\nid: {seq}\n\n"


def test_a_journal_that_cannot_be_read_is_nothing_to_other_users(
    journals: dict[str, Journal], tmp_path: Path
) -> None:
    (tmp_path / "broken.db").write_bytes(b"no journal" * 1000)
    event = happened("mine")
    journals["usr_1"].store([event])
    paths = [str(tmp_path / name) for name in ("broken.db", "aggstream.db")]
    assert event.text in "".join(Feed(paths, "usr_1").frames(0, seconds=0.001))
    assert len(list(Feed(paths, "usr_3").frames(0, seconds=3600))) == 1


@pytest.fixture
def browsers(port: int) -> Iterator[Browsers]:
    def cookie_of(name: str) -> str:
        asking = http.client.HTTPConnection("127.0.0.1", port)
        asking.request("POST", f"/sign-in/{name}", headers={"Content-Length": "0"})
        cookie = asking.getresponse().headers["Set-Cookie"].partition(";")[0]
        asking.close()
        return cookie

    made = Browsers(port, "/events", cookie_of)
    yield made
    made.close()


@on_sqlite
@pytest.mark.parametrize("how", [(), ("--preload",), ("-k", "gthread", "--threads", "2")])
def test_two_browsers_see_their_own_users_orders_move_whichever_worker_answers(
    agg: Simulator, desk: Desk, browsers: Browsers, port: int, until: Until, how: tuple[str, ...]
) -> None:
    accounts = {"FLASK_AGGSTREAM_ACCOUNTS": '{"default": {}, "another": {"JOURNAL": "another.db"}}'}
    desk.journal.parent.mkdir()
    with Journal(JournalOptions(path=desk.journal.parent / "another.db")) as another:
        another.belongs_to("usr_2")
        another.store([happened("theirs")])
    server = desk.python(
        "-m", "gunicorn", "-w", "4", *how, "-b", f"127.0.0.1:{port}", "desk:create_app()", **accounts
    )
    until(lambda: server.output.count("Booting worker") == 4)
    assert agg.counts.handshakes == 0  # no worker starts a stream
    stream = desk.stream("--account", "default", **accounts)
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
