"""What the tests of both frameworks need: a database server, the simulator, and a free port."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from integrations.servers import MariaDB, Postgres
from ports import free_port

from aggstream.simulator import Simulator


def running(kind: type[Postgres | MariaDB]) -> Iterator[Any]:
    """Let a server run, or skip where it is not installed."""
    if (why_not := kind.why_not()) is not None:
        pytest.skip(why_not)
    server = kind()
    yield server
    server.remove()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    yield from running(Postgres)


@pytest.fixture
def agg() -> Iterator[Simulator]:
    # Some tests address it through a proxy with a port of its own.
    with Simulator(seed=7, allowed_hosts=["127.0.0.1"]) as simulator:
        yield simulator


@pytest.fixture
def port() -> int:
    return free_port()
