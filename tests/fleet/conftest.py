"""Fleets against the simulator."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
from fleets import MakeFleet

import aggstream
from aggstream.simulator import Simulator


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    with Simulator(seed=5) as simulator:
        yield simulator


@pytest.fixture
def fleet_of(simulator: Simulator) -> Iterator[MakeFleet]:
    """Make fleets of the simulator's users that are stopped when the test ends, however it ends."""
    fleets: list[aggstream.Fleet] = []

    def make(**options: Any) -> aggstream.Fleet:
        settings: dict[str, Any] = {
            "app_id": simulator.app_id,
            "origin": simulator.origin,
            "url": simulator.url,
            "rest_url": simulator.rest_url,
            "token": lambda account: simulator.sign_in(f"usr_{account}").access_token,
            "reconnect": aggstream.ReconnectPolicy(initial=0.01, maximum=0.2),
            "close_timeout": 0.2,
            "rest_lag": 0,
            "connects_per_second": 1000,
            "rest_requests_per_second": 1000,
        }
        fleet = aggstream.Fleet(**{**settings, **options})
        fleets.append(fleet)
        return fleet

    yield make
    for fleet in fleets:
        with contextlib.suppress(BaseException):
            fleet.stop()
