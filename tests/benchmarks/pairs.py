"""What is measured in turns, and what the ratios of neighbours say: the machine's mood is the same for both."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from benchmarks.measurement import Figures, Measurement

Run: TypeAlias = Callable[[Sequence[str]], list[Figures]]
"""Measures subjects in a process, in turns, and returns the figures of each turn."""


@dataclass
class Pair:
    """A subject of ours, what it is measured beside, and the figures of each turn."""

    ours: str
    theirs: str | None
    turns: list[tuple[Figures, Figures]] = field(default_factory=list)

    def medians(self, quantity: str) -> tuple[float, float]:
        """Return the median of ours, and of theirs."""
        return (
            statistics.median(ours[quantity] for ours, _ in self.turns),
            statistics.median(theirs[quantity] for _, theirs in self.turns),
        )

    def ratios(self, quantity: str) -> list[float]:
        """Return ours divided by theirs, of each turn in which there is something to divide by."""
        return [ours[quantity] / theirs[quantity] for ours, theirs in self.turns if theirs[quantity]]

    def ratio(self, quantity: str) -> float | None:
        """Return the median of the ratios, or None if there are none."""
        ratios = self.ratios(quantity)
        return statistics.median(ratios) if ratios else None


def take_turns(measurement: Measurement, run: Run, runs: int) -> list[Pair]:
    """Measure ours, theirs, ours, theirs, and so on, pair by pair."""
    if measurement.is_steady:
        return _around(measurement, run, runs)
    return [_pair(measurement, run, runs, Pair(*names)) for names in measurement.pairs]


def _pair(measurement: Measurement, run: Run, runs: int, pair: Pair) -> Pair:
    for _ in range(runs):
        if pair.theirs is None:
            [ours] = [theirs] = run([pair.ours])
        elif measurement.in_one_process:
            ours, theirs = run([pair.ours, pair.theirs])
        else:
            [ours], [theirs] = run([pair.ours]), run([pair.theirs])
        pair.turns.append((ours, theirs))
    return pair


def _around(measurement: Measurement, run: Run, runs: int) -> list[Pair]:
    """Measure ours once in each turn, and beside it all of theirs."""
    pairs = [Pair(*names) for names in measurement.pairs]
    subjects = {name: None for names in measurement.pairs for name in names if name is not None}
    for _ in range(runs):
        figures = {name: run([name])[0] for name in subjects}
        for pair in pairs:
            pair.turns.append((figures[pair.ours], figures[pair.theirs or pair.ours]))
    return pairs
