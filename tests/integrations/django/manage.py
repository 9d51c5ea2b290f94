"""`manage.py` of the project."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from integrations.processes import Process, Project

from aggstream.simulator import Simulator

PROJECT = Path(__file__).parent / "project"


class Manage(Project):
    """Starts commands of the project with a database and the simulator's user."""

    def __init__(self, database: dict[str, Any], agg: Simulator, directory: Path) -> None:
        token = agg.sign_in("usr_1", lifetime=3600).access_token
        super().__init__(PROJECT, agg, directory, SHOP_TOKEN=token, SHOP_DATABASE=json.dumps(database))

    def __call__(self, *arguments: str, **environment: str) -> Process:
        return self.python("manage.py", *arguments, **environment)

    def stream(self, *arguments: str, **environment: str) -> Process:
        """Start the stream."""
        return self("aggstream", "--log-format", "json", *arguments, **environment)
