"""`flask aggstream run` against the simulator: what reaches handlers, and what happens when something dies."""

from __future__ import annotations

import contextlib
import signal
import sqlite3
from pathlib import Path

import pytest
from integrations.flask.conftest import on_postgres, on_sqlite
from integrations.flask.desks import Desk
from integrations.processes import Process
from integrations.servers import Postgres
from integrations.stream_claims import USER, Fact, Service, StreamClaims, all_done, is_live
from waiting import Until

from aggstream.journal import JournalReader, retry
from aggstream.simulator import Simulator
from aggstream.testing import ChaosProxy


class FlaskService:
    def __init__(self, desk: Desk) -> None:
        self.token = desk.environment["DESK_TOKEN"]
        self._desk = desk

    def start(self, *, token: str | None = None, **environment: str) -> Process:
        return self._desk.stream(DESK_TOKEN=token or self.token, **environment)

    def stored(self) -> list[Fact]:
        return [Fact(it.id, it.state, it.order_id, it.terminal, it.source) for it in self._desk.stored()]

    def ends(self) -> dict[str, str | None]:
        return self._desk.ends()

    def seen(self) -> list[str]:
        return self._desk.seen()


@pytest.fixture
def service(desk: Desk) -> Service:
    return FlaskService(desk)


class TestStream(StreamClaims):
    """The claims that all frameworks share."""


@on_sqlite
def test_the_journal_is_the_users_and_no_event_is_redelivered(agg: Simulator, desk: Desk, until: Until) -> None:
    process = desk.stream()
    until(lambda: is_live(agg, process))
    agg.place_order(USER, scenario="filled")
    until(lambda: desk.ends() == agg.terminal_orders(USER))
    assert process.end() == 0
    assert not any(desk.redelivered())
    with JournalReader(desk.journal) as reader:
        assert reader.user_id == USER


@on_sqlite
def test_a_handler_that_fails_too_often_leaves_its_event_for_the_next_start(
    agg: Simulator, desk: Desk, until: Until
) -> None:
    process = desk.stream()
    until(lambda: is_live(agg, process))
    mend = desk.trouble()
    agg.begin_order(USER).advance(1)
    until(lambda: desk.stored(state="dead"))
    [dead] = desk.stored()
    assert (dead.attempts, desk.seen()) == (2, [])
    until(lambda: process.says("aggstream journal show"))
    assert process.end() == 0
    mend()
    assert retry(desk.journal) == 1
    again = desk.stream()
    until(lambda: not desk.stored(state="pending") and desk.seen())
    assert again.end() == 0
    assert (desk.seen()[0], desk.redelivered()[0]) == (dead.id, True)


@on_sqlite
def test_a_standby_ends_when_it_is_told_to(agg: Simulator, desk: Desk, until: Until) -> None:
    first = desk.stream()
    until(lambda: is_live(agg, first))
    second = desk.stream()
    until(lambda: second.says("standing by"))
    assert second.end() == 0
    assert first.end() == 0


@on_postgres
def test_a_database_of_the_handlers_that_stops_and_starts_costs_no_event(
    agg: Simulator, desk: Desk, postgres: Postgres, until: Until
) -> None:
    process = desk.stream()
    until(lambda: is_live(agg, process))
    agg.place_order(USER)
    until(lambda: all_done(FlaskService(desk), agg.books(USER).emitted))
    postgres.stop()
    try:
        agg.place_orders(USER, 3)
        # Far more often than max_attempts, which is two.
        until(lambda: process.output.count("nothing is lost") > 20)
        assert len(desk.stored()) == agg.books(USER).emitted
        assert not desk.stored(state="dead")
    finally:
        postgres.start()
    until(lambda: all_done(FlaskService(desk), agg.books(USER).emitted))
    assert process.end() == 0
    assert set(desk.seen()) == {event.id for event in desk.stored()}
    assert desk.ends() == agg.terminal_orders(USER)


@on_postgres
def test_who_is_asked_to_end_while_the_handlers_database_is_away_ends_and_the_next_one_delivers(
    agg: Simulator, desk: Desk, postgres: Postgres, until: Until
) -> None:
    process = desk.stream()
    until(lambda: is_live(agg, process))
    postgres.stop()
    try:
        agg.place_orders(USER, 2)
        until(lambda: process.says("nothing is lost") and len(desk.stored()) == agg.books(USER).emitted)
        assert process.end() == 1  # something was left to do
        pending = desk.stored(state="pending")
        assert pending
        again = desk.stream()
        # Its token function needs the database as well.
        until(lambda: again.says("OperationalError"))
    finally:
        postgres.start()
    ended = agg.terminal_orders(USER)
    until(lambda: desk.ends() == ended and not desk.stored(state="pending"))
    assert again.end() == 0
    assert {event.id for event in pending} <= set(desk.seen()) == {event.id for event in desk.stored()}


@on_sqlite
def test_a_file_of_the_handlers_that_is_locked_costs_no_event(
    agg: Simulator, desk: Desk, tmp_path: Path, until: Until
) -> None:
    process = desk.stream()
    until(lambda: is_live(agg, process))
    with contextlib.closing(sqlite3.connect(tmp_path / "desk.db", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        agg.begin_order(USER, scenario="filled").finish()
        until(lambda: process.output.count("nothing is lost") > 5)
        assert not desk.stored(state="dead")
    until(lambda: all_done(FlaskService(desk), agg.books(USER).emitted))
    assert process.end() == 0
    order = {event.id for event in desk.stored() if event.order_id}
    assert [id_ for id_ in desk.seen() if id_ in order] == [e.id for e in desk.stored() if e.id in order]
    assert set(desk.seen()) == {event.id for event in desk.stored()}


@on_sqlite
def test_a_file_that_is_no_journal_ends_it_and_stays_as_it_is(desk: Desk) -> None:
    desk.journal.parent.mkdir()
    desk.journal.write_bytes(b"something else" * 1000)
    process = desk.stream()
    assert process.end(None) == 1
    assert process.output.startswith("Error: ")
    assert "damaged, or is no journal" in process.output
    assert desk.journal.read_bytes() == b"something else" * 1000


@on_sqlite
@pytest.mark.parametrize("how", [(), ("--preload",), ("-k", "gthread", "--threads", "2")])
def test_beside_gunicorns_workers_there_is_one_stream_and_each_event_once(
    agg: Simulator, desk: Desk, port: int, until: Until, how: tuple[str, ...]
) -> None:
    server = desk.python("-m", "gunicorn", "-w", "4", *how, "-b", f"127.0.0.1:{port}", "desk:create_app()")
    until(lambda: server.output.count("Booting worker") == 4)
    first, second = desk.stream(), desk.stream()
    until(lambda: first.says("live as") or second.says("live as"))
    agg.place_orders(USER, 3)
    until(lambda: all_done(FlaskService(desk), agg.books(USER).emitted))
    server.process.send_signal(signal.SIGHUP)
    until(lambda: server.output.count("Booting worker") == 8)  # with workers that begin anew
    agg.place_orders(USER, 3)
    until(lambda: all_done(FlaskService(desk), agg.books(USER).emitted))
    assert agg.counts.handshakes == 1
    assert (first.end(), second.end()) == (0, 0)
    assert desk.seen() == [event.id for event in desk.stored()]


@on_postgres
def test_whatever_dies_in_turn_beside_gunicorn_no_order_is_lost(
    agg: Simulator, desk: Desk, postgres: Postgres, port: int, until: Until
) -> None:
    server = desk.python("-m", "gunicorn", "-w", "4", "-b", f"127.0.0.1:{port}", "desk:create_app()")
    with ChaosProxy.for_url(agg.url) as proxy:
        urls = {"AGGSTREAM_URL": proxy.url_for(agg.url), "AGGSTREAM_REST_URL": proxy.url_for(agg.rest_url)}

        def stream() -> Process:
            return desk.stream(**urls)

        def orders() -> None:
            agg.place_orders(USER, 3)

        def is_caught_up() -> bool:
            return desk.ends() == agg.terminal_orders(USER) and not desk.stored(state="pending")

        owner = stream()
        until(lambda: is_live(agg, owner))
        standby = stream()
        until(lambda: standby.says("standing by"))
        orders()
        owner.kill()
        orders()
        until(lambda: standby.says("live as"))
        owner, standby = standby, stream()
        orders()
        until(lambda: standby.says("standing by"))
        standby.kill()
        orders()
        proxy.refusing = True
        proxy.reset()
        until(lambda: agg.connections == 0)
        orders()
        proxy.heal()
        until(lambda: agg.connections == 1)
        orders()
        until(is_caught_up)
        postgres.stop()
        try:
            orders()
            until(lambda: owner.output.count("nothing is lost") > 20)
            owner.kill()
            orders()
            owner = desk.stream(**urls, DESK_TOKEN_AT_ONCE="yes")
            until(lambda: owner.says("live as") and owner.says("nothing is lost"))
            orders()
        finally:
            postgres.start()
        until(is_caught_up)
        assert owner.end() == 0
    server.end()
    stored = desk.stored()
    assert not desk.stored(state="dead")
    assert len({event.id for event in stored}) == len(stored)
    assert set(desk.seen()) == {event.id for event in stored}
