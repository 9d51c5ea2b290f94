"""What a measurement says of itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from benchmarks.messages import Messages

Figures: TypeAlias = dict[str, float]


@dataclass(frozen=True)
class Plan:
    """How much is measured in one run."""

    count: int
    messages: Messages = "examples"


@dataclass(frozen=True)
class Quantity:
    name: str
    unit: str
    better: Literal["more", "less", "neither"] = "less"


@dataclass(frozen=True)
class Measurement:
    name: str
    title: str
    notes: str
    """What is counted and what is not, in a sentence or two."""
    quantities: tuple[Quantity, ...]
    pairs: tuple[tuple[str, str | None], ...]
    """What is measured beside what; None: beside nothing."""
    measure: Callable[[str, Plan], Figures]
    count: int
    quick_count: int
    in_one_process: bool = False
    """Both of a pair are measured in one process, in turns."""
    is_steady: bool = False
    """It hardly varies, so that one turn of ours does for all pairs."""
    most_runs: int | None = None
    """So many are enough, because it takes long or hardly varies."""
    environment: str = "peers"
