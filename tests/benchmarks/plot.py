"""Draws a report, which comes on the standard input: how many times better or worse aggstream is."""

from __future__ import annotations

import json
import math
import sys
from typing import Any

import matplotlib as mpl

mpl.use("svg")

from benchmarks.programs import PEERS, PLAIN
from matplotlib import pyplot as plt

PANELS = (
    ("throughput", "events", "Events a second, from frame to function"),
    ("journal", "events", "The same with a journal on disk"),
    ("latency", "p50", "Latency at 1,000 a second"),
    ("latency", "p99", "The same, 99th percentile"),
    ("idle", "CPU", "CPU time of an idle stream"),
    ("imports", "a process", "Time of a process that only imports"),
    ("memory", "import", "Memory after the import"),
    ("memory", "further client", "Memory of one more client"),
)
# Each can be read on white and on black.
INK, BETTER, WORSE = "#7d8590", "#2f81f7", "#db6d28"
COLUMNS = 2
ROW, HEAD = 0.23, 0.62  # inches


def main() -> None:
    report = json.load(sys.stdin)
    panels = [(title, rows) for name, quantity, title in PANELS if (rows := _rows(report, name, quantity))]
    if not panels:
        sys.exit("none of these measurements is in the picture, which shows whole programs")
    figure = _draw(panels)
    # No date: the picture of the same figures is the same file.
    figure.savefig(sys.argv[1], transparent=True, metadata={"Date": None})


def _rows(report: dict[str, Any], measurement: str, quantity: str) -> list[tuple[str, float]]:
    """Return what aggstream is compared with in a panel, and how many times better it is."""
    rows = []
    for pair in report["measurements"].get(measurement, ()):
        found = pair["quantities"][quantity]
        if found["ratio"] and pair["theirs"] in PEERS:
            times = found["ratio"] if found["better"] == "more" else 1 / found["ratio"]
            mode = "without msgspec" if pair["ours"] == PLAIN else pair["ours"].partition(", journal ")[2]
            rows.append((f"{pair['theirs']} ({mode})" if mode else pair["theirs"], times))
    return rows


def _draw(panels: list[tuple[str, list[tuple[str, float]]]]) -> Any:
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "aggstream", "font.size": 8, "text.color": INK})
    mpl.rcParams["font.family"] = "sans-serif"
    lines = [panels[at : at + COLUMNS] for at in range(0, len(panels), COLUMNS)]
    heights = [HEAD + ROW * max(len(rows) for _, rows in line) for line in lines]
    figure = plt.figure(figsize=(8.6, sum(heights) + 0.5), layout="constrained")
    grid = figure.add_gridspec(len(lines), COLUMNS, height_ratios=heights)
    furthest = max(abs(math.log10(times)) for _, rows in panels for _, times in rows)
    for number, (title, rows) in enumerate(panels):
        _panel(figure.add_subplot(grid[divmod(number, COLUMNS)]), title, rows, 10 ** (furthest + 0.45))
    figure.suptitle(
        "How many times better (right, blue) or worse (left, orange) aggstream is than each; bars are logarithmic",
        fontsize=9,
    )
    return figure


def _panel(axes: Any, title: str, rows: list[tuple[str, float]], limit: float) -> None:
    most = max(6, len(rows))
    for place, (_, times) in enumerate(rows):
        colour = BETTER if times >= 1 else WORSE
        axes.barh(place, times - 1, left=1, height=0.62, color=colour)
        text = f"{times if times >= 1 else 1 / times:.1f}\N{MULTIPLICATION SIGN}"
        side = "left" if times >= 1 else "right"
        axes.annotate(
            text,
            (times, place),
            xytext=(4 if times >= 1 else -4, 0),
            textcoords="offset points",
            ha=side,
            va="center",
            color=colour,
            fontsize=7.5,
        )
    axes.set_title(title, fontsize=8.5, loc="left", color=INK)
    axes.set(xscale="log", xlim=(1 / limit, limit), ylim=(most - 0.4, -0.6))
    axes.axvline(1, color=INK, linewidth=0.8)
    axes.set_yticks(range(len(rows)), [name for name, _ in rows], color=INK)
    axes.tick_params(length=0)
    axes.xaxis.set_visible(False)
    axes.patch.set_visible(False)
    for spine in axes.spines.values():
        spine.set_visible(False)


if __name__ == "__main__":
    main()
