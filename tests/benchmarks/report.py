"""The figures as JSON, for other programs and for the plot."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.measurements import MEASUREMENTS
from benchmarks.pairs import Pair


def of(results: Mapping[str, Sequence[Pair]]) -> dict[str, Any]:
    """Return what was measured, by the names of measurements."""
    return {
        "python": platform.python_version(),
        "system": platform.system(),
        "cores": os.cpu_count(),
        "measurements": {
            name: [
                {"ours": pair.ours, "theirs": pair.theirs, "quantities": _quantities(name, pair)} for pair in pairs
            ]
            for name, pairs in results.items()
        },
    }


def _quantities(measurement: str, pair: Pair) -> dict[str, Any]:
    quantities = {}
    for quantity in MEASUREMENTS[measurement].quantities:
        ours, theirs = pair.medians(quantity.name)
        quantities[quantity.name] = {
            "unit": quantity.unit,
            "better": quantity.better,
            "ours": ours,
            "theirs": None if pair.theirs is None else theirs,
            "ratio": None if pair.theirs is None else pair.ratio(quantity.name),
            "ratios": [] if pair.theirs is None else pair.ratios(quantity.name),
        }
    return quantities
