"""One process at a time has a stream, whatever becomes of processes, connections and the database."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import connection
from django.test import override_settings
from integrations.django.conftest import on_postgres
from integrations.servers import Postgres
from waiting import Until

import aggstream
from aggstream.integrations.django import _settings
from aggstream.integrations.django._owner.advisory_lock import AdvisoryLock
from aggstream.integrations.django._owner.ownership import Ownership, ownership_of
from aggstream.integrations.django.models import Stream

pytestmark = pytest.mark.usefixtures("database")


HOUR = dt.timedelta(hours=1)  # by which clocks may differ, and no time zones do


class Candidates:
    """Processes that want the stream, as far as the database can tell."""

    def __init__(self) -> None:
        self._made: list[Ownership] = []

    def __call__(self, account: str = "default", **setting: Any) -> Ownership:
        with override_settings(AGGSTREAM={"LEASE": 60, **setting, "ACCOUNTS": {account: {}}}):
            made = ownership_of(_settings.account(account))
        self._made.append(made)
        return made

    def close(self) -> None:
        for made in self._made:
            made.release()


@pytest.fixture
def candidate(database: None) -> Iterator[Candidates]:
    candidates = Candidates()
    yield candidates
    candidates.close()


KINDS = pytest.mark.parametrize("lock", [None, "lease"])


@KINDS
def test_one_has_it_until_it_lets_go(candidate: Candidates, lock: str | None) -> None:
    one, other = candidate(LOCK=lock), candidate(LOCK=lock)
    assert one.acquire()
    assert one.is_held()
    assert not other.acquire()
    assert not other.acquire()
    row = Stream.objects.get()
    assert (row.owner, row.account) == (one.owner, "default")
    assert "process" in row.owner_name
    one.release()
    assert other.acquire()
    assert not one.is_held()
    one.release()  # is no longer its to let go of
    assert other.is_held()


@KINDS
def test_another_account_is_another_matter(candidate: Candidates, lock: str | None) -> None:
    assert candidate("one", LOCK=lock).acquire()
    assert candidate("two", LOCK=lock).acquire()


def test_a_lease_that_was_not_renewed_is_anybodys(candidate: Candidates, until: Until) -> None:
    one, other = candidate(LOCK="lease", LEASE=0.2), candidate(LOCK="lease", LEASE=60)
    assert one.acquire()
    until(other.acquire)
    assert not one.is_held()
    assert other.is_held()


def test_a_lease_that_was_late_but_is_nobody_elses_goes_on(candidate: Candidates) -> None:
    one = candidate(LOCK="lease", LEASE=0.001)
    assert one.acquire()
    assert one.is_held()


@on_postgres
def test_a_lock_whose_connection_is_cut_is_taken_again_or_lost(candidate: Candidates) -> None:
    one, other = candidate(), candidate()
    assert isinstance(one, AdvisoryLock)
    assert one.acquire()
    cut_connections()
    assert one.is_held()
    assert not other.acquire()
    cut_connections()
    assert candidate().acquire()
    assert not one.is_held()


def cut_connections() -> None:
    """End all connections but the one that this is said on."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )


@on_postgres
def test_a_database_that_is_away_has_given_it_to_nobody(candidate: Candidates, postgres: Postgres) -> None:
    one = candidate()
    assert one.acquire()
    postgres.stop()
    try:
        assert one.is_held()
        assert one.is_held()
    finally:
        postgres.start()
    assert one.is_held()
    assert not candidate().acquire()


@on_postgres
def test_the_locks_connection_tells_when_its_host_is_gone(candidate: Candidates) -> None:
    one = candidate()
    assert isinstance(one, AdvisoryLock)
    assert one.acquire()
    assert one._connection is not None
    with one._connection.cursor() as cursor:
        cursor.execute("SHOW tcp_keepalives_idle")
        assert cursor.fetchone() == ("10",)
    info = one._connection.connection.info
    parameters = info.get_parameters() if hasattr(info, "get_parameters") else info.dsn_parameters  # psycopg2
    assert parameters["tcp_user_timeout"] == "10000"


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_there_are_no_advisory_locks_elsewhere(candidate: Candidates) -> None:
    with pytest.raises(aggstream.ConfigurationError, match="PostgreSQL only"):
        candidate(LOCK="advisory")


def test_a_lease_is_kept_in_universal_time_wherever_the_server_stands(candidate: Candidates) -> None:
    before = dt.datetime.now(dt.timezone.utc)
    assert candidate(LOCK="lease", LEASE=60).acquire()
    until = Stream.objects.get().lease_until
    assert until is not None
    assert before - HOUR < until - dt.timedelta(seconds=60) < dt.datetime.now(dt.timezone.utc) + HOUR


@KINDS
def test_an_owner_finds_out_that_its_row_is_anothers(candidate: Candidates, lock: str | None) -> None:
    one = candidate(LOCK=lock)
    assert one.acquire()
    Stream.objects.update(owner="another")
    assert not one.is_held()
