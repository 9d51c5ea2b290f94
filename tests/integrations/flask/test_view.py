"""The view of live events: one's own, from where one was, and not for ever."""

from __future__ import annotations

import http.client
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from desk import create_app
from flask import Flask
from flask.testing import FlaskClient
from integrations.browsers import Browsers, Frame, read
from integrations.flask.conftest import on_sqlite
from integrations.flask.desks import Desk
from integrations.view_claims import Site, ViewClaims
from journals import happened
from waiting import Until

from aggstream import ConfigurationError, JournalOptions
from aggstream.events import UserEvent
from aggstream.integrations._sse import Unreadable, answer
from aggstream.integrations._sse import frames as frames_of
from aggstream.integrations.flask import AggStream
from aggstream.integrations.flask._sse import JournaledEvents
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


class FlaskSite:
    def __init__(self, app: Flask, journals: dict[str, Journal], signed_in: SignIn) -> None:
        self._app = app
        self._journals = journals
        self._signed_in = signed_in

    def store(self, user: str, events: Sequence[UserEvent]) -> list[int | None]:
        return self._journals[user].store(events)

    def frames(self, name: str, *, after: str | None = None, last_event_id: str | None = None) -> list[Frame]:
        query = {} if after is None else {"after": after}
        headers = {} if last_event_id is None else {"Last-Event-ID": last_event_id}
        return frames(self._signed_in(name), query_string=query, headers=headers)

    def status(self, name: str | None, *, after: str | None = None, method: str = "GET") -> int:
        client = self._app.test_client() if name is None else self._signed_in(name)
        query = {} if after is None else {"after": after}
        return client.open("/events", method=method, query_string=query).status_code


@pytest.fixture
def site(app: Flask, journals: dict[str, Journal], signed_in: SignIn) -> Site:
    return FlaskSite(app, journals, signed_in)


class TestView(ViewClaims):
    """The claims that all frameworks share."""


def frames(client: FlaskClient, **options: Any) -> list[Frame]:
    response = client.get("/events", **options)
    assert response.status_code == 200, response.text
    assert response.headers["Content-Type"] == "text/event-stream"
    assert response.headers["Cache-Control"] == "no-store"
    return list(read(response.iter_encoded()))


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


def test_a_head_is_answered_at_once(app: Flask, signed_in: SignIn) -> None:
    app.config["AGGSTREAM_EVENTS_FOR"] = 3600
    assert signed_in("1").head("/events").status_code == 200


def test_while_it_waits_it_holds_no_file_and_shows_that_it_lives(tmp_path: Path) -> None:
    path = str(tmp_path / "aggstream.db")
    event = happened("x")
    feed = frames_of(JournaledEvents([path], "usr_1").page_after, 0, seconds=3600, heartbeat=0.01)
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
    assert list(frames_of(JournaledEvents(["nowhere.db"], "usr_1").page_after, 0, seconds=0.05)) == [
        "retry: 1000\nid: 0\n\n"
    ]
    assert time.monotonic() >= started + 0.05


@pytest.mark.parametrize("place", [None, "5"])
def test_a_browser_that_finds_the_journal_unreadable_asks_again_with_what_it_has(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, place: str | None
) -> None:
    (tmp_path / "broken.db").write_bytes(b"no journal" * 1000)
    events = JournaledEvents([str(tmp_path / "broken.db")], "usr_1")
    answered = answer(lambda: events, last_event_id=None, after=place, seconds=3600)
    assert (answered.status, list(answered.body)) == (200, ["retry: 1000\n\n"])
    assert "live events have to wait" in caplog.text


def test_a_journal_that_cannot_be_read_any_more_ends_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "broken.db").write_bytes(b"no journal" * 1000)
    events = JournaledEvents([str(tmp_path / "broken.db")], "usr_1")
    assert len(list(frames_of(events.page_after, 0, seconds=3600))) == 1
    assert "live events end" in caplog.text


def test_a_journal_that_cannot_be_read_is_nothing_to_other_users(
    journals: dict[str, Journal], tmp_path: Path
) -> None:
    (tmp_path / "broken.db").write_bytes(b"no journal" * 1000)
    event = happened("mine")
    journals["usr_1"].store([event])
    paths = [str(tmp_path / name) for name in ("broken.db", "aggstream.db")]
    assert event.text in "".join(frames_of(JournaledEvents(paths, "usr_1").page_after, 0, seconds=0.001))
    with pytest.raises(Unreadable):
        JournaledEvents(paths, "usr_3").newest()


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
