"""What a stream's command promises to a supervisor. Each framework gives the fixture `start_broken`."""

from __future__ import annotations

import json
from typing import Any, Protocol

import pytest
from integrations.processes import Process
from waiting import Until

from aggstream.simulator import Simulator


class StartBroken(Protocol):
    """Starts the command in a project whose handler divides by zero."""

    def __call__(self, *arguments: str) -> Process:
        """Start it, with further arguments."""
        ...


class CommandClaims:
    """The claims. A framework's tests inherit them."""

    @pytest.mark.parametrize("arguments", [(), ("--log-format", "plain"), ("--log-format", "json")])
    def test_each_record_is_one_line_also_of_a_traceback(
        self, agg: Simulator, start_broken: StartBroken, until: Until, arguments: tuple[str, ...]
    ) -> None:
        process = start_broken(*arguments)
        until(lambda: process.says("live as"))
        agg.begin_order("usr_1").advance(1)
        until(lambda: process.says("is set aside"))
        assert process.end() == 0
        lines = process.output.splitlines()
        if "json" in arguments:
            records: list[dict[str, Any]] = [json.loads(line) for line in lines]
            assert {"time", "level", "logger", "thread", "message"} <= set.intersection(*map(set, records))
            assert any("ZeroDivisionError" in record.get("exception", "") for record in records)
        else:
            assert all(line[:2] == "20" for line in lines), lines
            assert any("ZeroDivisionError" in line for line in lines)
