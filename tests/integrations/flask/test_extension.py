"""The extension in an application: what it makes, what surrounds handlers, and several applications at once."""

from __future__ import annotations

import contextlib
import queue
import signal
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from clients import BRISK
from flask import Flask, current_app, g
from flask_sqlalchemy import SQLAlchemy
from waiting import DEADLINE, Until

import aggstream
from aggstream.integrations._service import Service
from aggstream.integrations.flask import AggStream, _config
from aggstream.integrations.flask._run import JournalStreamOwner
from aggstream.simulator import Simulator

MakeApp = Callable[..., Flask]
Run = Callable[[Flask], Callable[[], int]]


@pytest.fixture
def make_app(agg: Simulator, tmp_path: Path) -> MakeApp:
    def make(name: str = "shop", user: str = "usr_1", **config: Any) -> Flask:
        app = Flask(name, instance_path=str(tmp_path / name))
        app.config.update(
            AGGSTREAM_APP_ID=agg.app_id,
            AGGSTREAM_ORIGIN=agg.origin,
            AGGSTREAM_URL=agg.url,
            AGGSTREAM_REST_URL=agg.rest_url,
            AGGSTREAM_TOKEN=lambda: agg.sign_in(user).access_token,
            AGGSTREAM_OPTIONS={"reconnect": BRISK, "close_timeout": 0.2},
            AGGSTREAM_JOURNAL=aggstream.JournalOptions(path="aggstream.db", retry_delay=0.01),
        )
        app.config.update(config)
        return app

    return make


@pytest.fixture
def run() -> Iterator[Run]:
    """Run an application's stream, as the command does; return what ends it and tells the exit code."""
    with contextlib.ExitStack() as stack:

        def start(app: Flask) -> Callable[[], int]:
            account, handlers = _config.account(app, "default"), app.extensions["aggstream"].handlers
            service = Service("default", lambda: JournalStreamOwner(app, account, handlers), drain=DEADLINE)
            codes: list[int] = []
            thread = threading.Thread(target=lambda: codes.append(service.run()))
            thread.start()

            def end() -> int:
                service.inbox.put(signal.SIGTERM)
                thread.join(DEADLINE)
                return codes[0]

            stack.callback(end)
            return end

        yield start


def test_an_application_that_is_only_made_opens_and_starts_nothing(
    make_app: MakeApp, tmp_path: Path, agg: Simulator
) -> None:
    threads = threading.active_count()
    extension, app = AggStream(), make_app()
    extension.on("*")(lambda event: None)
    extension.init_app(app)
    app.test_client().get("/")
    assert threading.active_count() == threads
    assert list(tmp_path.iterdir()) == []
    assert agg.counts.handshakes == 0
    assert app.extensions["aggstream"] is extension


def test_each_call_of_a_handler_has_a_context_of_its_own_and_the_teardown_functions_after_it(
    make_app: MakeApp, run: Run, agg: Simulator
) -> None:
    told: queue.SimpleQueue[object] = queue.SimpleQueue()

    def token() -> str:
        told.put(f"token of {current_app.name}")
        return agg.sign_in("usr_1").access_token

    app = make_app(AGGSTREAM_TOKEN=token)
    extension = AggStream(app)
    app.teardown_appcontext(lambda error: told.put(type(error)))

    @extension.on("order_event", "filled")
    def handle(event: aggstream.OrderEvent) -> None:
        told.put((current_app.name, "seen" in g))
        g.seen = True
        if not event.redelivered:
            raise LookupError

    end = run(app)
    agg.wait_for_connections(1, timeout=DEADLINE)
    assert [told.get(timeout=DEADLINE) for _ in range(2)] == ["token of shop", type(None)]
    agg.place_order("usr_1", scenario="filled")
    assert [told.get(timeout=DEADLINE) for _ in range(4)] == [
        ("shop", False), LookupError, ("shop", False), type(None),
    ]  # fmt: skip
    assert end() == 0


def test_flask_sqlalchemy_has_its_connection_back_after_each_call(
    make_app: MakeApp, run: Run, agg: Simulator, tmp_path: Path
) -> None:
    db = SQLAlchemy(engine_options={"poolclass": sa.QueuePool, "pool_size": 1, "max_overflow": 0})
    lent: queue.SimpleQueue[int] = queue.SimpleQueue()

    def token() -> str:
        db.session.execute(sa.text("SELECT 1"))
        return agg.sign_in("usr_1").access_token

    app = make_app(AGGSTREAM_TOKEN=token, SQLALCHEMY_DATABASE_URI=f"sqlite:///{tmp_path}/shop.sqlite")
    db.init_app(app)
    extension = AggStream(app)

    @extension.on(aggstream.UserEvent)
    def handle(event: aggstream.UserEvent) -> None:
        lent.put(db.engine.pool.checkedout())  # type: ignore[attr-defined]  # a QueuePool's
        db.session.execute(sa.text("SELECT 1"))  # and nothing is committed or closed

    end = run(app)
    agg.wait_for_connections(1, timeout=DEADLINE)
    agg.place_order("usr_1", scenario="filled")
    assert [lent.get(timeout=DEADLINE) for _ in range(agg.books("usr_1").emitted)] == [0] * agg.books(
        "usr_1"
    ).emitted
    assert end() == 0
    with app.app_context():
        db.engine.dispose()


def test_one_object_serves_several_applications_each_with_its_own_stream(
    make_app: MakeApp, run: Run, agg: Simulator, tmp_path: Path
) -> None:
    extension = AggStream()
    seen: queue.SimpleQueue[tuple[str, str]] = queue.SimpleQueue()
    extension.on("order_event", "filled")(lambda event: seen.put((current_app.name, event.order_id)))
    one, other = make_app("one", "usr_1"), make_app("other", "usr_2")
    extension.init_app(one)
    extension.init_app(other)
    ends = [run(one), run(other)]
    agg.wait_for_connections(2, timeout=DEADLINE)
    mine = agg.place_order("usr_1", scenario="filled")
    theirs = agg.place_order("usr_2", scenario="filled")
    assert {seen.get(timeout=DEADLINE) for _ in range(2)} == {("one", mine), ("other", theirs)}
    assert [end() for end in ends] == [0, 0]
    assert (tmp_path / "one" / "aggstream.db").exists()
    assert (tmp_path / "other" / "aggstream.db").exists()


def test_a_second_object_for_an_application_is_refused_because_the_firsts_handlers_would_be_forgotten(
    make_app: MakeApp,
) -> None:
    app, first = make_app(), AggStream()
    for _ in range(2):  # the same one is no other
        first.init_app(app)
    with pytest.raises(aggstream.ConfigurationError, match="shop has an AggStream already: make one for all"):
        AggStream(app)
    assert app.extensions["aggstream"] is first


def test_a_turn_that_is_over_leaves_the_journal_to_the_next_one(make_app: MakeApp) -> None:
    app = make_app()
    account, handlers = _config.account(app, "default"), AggStream(app).handlers
    one, other = (JournalStreamOwner(app, account, handlers) for _ in range(2))
    assert one.acquire()
    assert not other.acquire()
    one.release()
    assert other.acquire()
    other.release()
    other.release()


def test_a_journal_that_a_backup_locks_is_waited_for_and_no_event_is_lost(
    make_app: MakeApp, run: Run, agg: Simulator, until: Until, caplog: pytest.LogCaptureFixture
) -> None:
    app = make_app()
    extension = AggStream(app)
    ends: list[str] = []
    extension.on("order_event", "filled")(lambda event: ends.append(event.order_id))
    end = run(app)
    agg.wait_for_connections(1, timeout=DEADLINE)
    first = agg.place_order("usr_1", scenario="filled")
    until(lambda: ends == [first])
    path = f"{app.instance_path}/aggstream.db"
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as backup:
        backup.execute("BEGIN IMMEDIATE")
        second = agg.place_order("usr_1", scenario="filled")
        until(lambda: "has locked the journal" in caplog.text)
        third = agg.place_order("usr_1", scenario="filled")
        assert ends == [first]
    until(lambda: sorted(ends) == sorted([first, second, third]))
    assert end() == 0


def test_the_command_is_the_applications(make_app: MakeApp) -> None:
    app = make_app(AGGSTREAM_ACCOUNTS={"one": {}, "two": {"JOURNAL": "two.db"}})
    AggStream(app)
    result = app.test_cli_runner().invoke(args=["aggstream", "run"])
    assert (result.exit_code, "say which: --account one | two" in result.output) == (1, True)
