"""What the tests of both frameworks need: a database server, the simulator, and a free port."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from integrations.servers import WHY_NOT, Postgres, binary

from aggstream.simulator import Simulator


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    if binary("initdb") is None or binary("pg_ctl") is None:
        pytest.skip(WHY_NOT)
    server = Postgres()
    yield server
    server.remove()


@pytest.fixture
def agg() -> Iterator[Simulator]:
    with Simulator(seed=7) as simulator:
        yield simulator


@pytest.fixture
def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])
