"""Finding code by its name: a process imports only what it measures."""

from __future__ import annotations

import importlib
from typing import Any


def load(place: str) -> Any:
    """Return what is at `module:name` in this folder."""
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(f"benchmarks.{module}"), name)
