"""Compare aggstream with what else one could use, on loopback sockets, pair by pair in turns.

    python tests/benchmarks/compare.py [--only NAME ...] [--runs N] [--quick] [--plot PATH] [--json PATH]

The peers are installed into environments of their own, in `.benchmarks/` at the top of the checkout. What sends is
another process, on another core where there are two. Only the ratios say something: each is of two neighbours in
time.
The exit code is 1 if a peer cannot be installed or does not run.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import environments, processes, report, table
from benchmarks.environments import InstallFailed, environment_for
from benchmarks.measurement import Figures, Measurement, Plan
from benchmarks.measurements import MEASUREMENTS
from benchmarks.pairs import Pair, take_turns
from benchmarks.processes import SubjectFailed


def main() -> int:
    options = arguments()
    chosen = [MEASUREMENTS[name] for name in options.only]
    try:
        say("preparing the environments")
        pythons = environments.prepare(needed(chosen, plot=options.plot is not None))
        results: dict[str, list[Pair]] = {}
        for measurement in chosen:
            results[measurement.name] = compare(measurement, pythons, options)
            sys.stdout.write(table.render(measurement, results[measurement.name]) + "\n")
            sys.stdout.flush()
        figures = report.of(results)
        if options.json is not None:
            options.json.write_text(json.dumps(figures, indent=1) + "\n")
        if options.plot is not None:
            processes.run_plot(pythons["plot"], figures, options.plot)
    except (InstallFailed, SubjectFailed) as error:
        say(f"failed: {error}")
        return 1
    return 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Compare aggstream with what else one could use.")
    names = tuple(MEASUREMENTS)
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--runs", type=int, help="turns of each pair (default: 5; with --quick: 1)")
    parser.add_argument("--quick", action="store_true", help="a few minutes, and less to be relied on")
    parser.add_argument(
        "--messages", choices=("examples", "orders"), default="examples", help="(default: examples)"
    )
    parser.add_argument("--plot", type=Path, metavar="PATH", help="write a picture of the ratios, in SVG")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write all figures")
    options = parser.parse_args()
    options.runs = options.runs or (1 if options.quick else 5)
    return options


def needed(chosen: list[Measurement], *, plot: bool) -> set[str]:
    names = {
        environment_for(subject, measurement.environment)
        for measurement in chosen
        for pair in measurement.pairs
        for subject in pair
        if subject is not None
    }
    return names | ({"plot"} if plot else set())


def compare(measurement: Measurement, pythons: dict[str, Path], options: argparse.Namespace) -> list[Pair]:
    plan = Plan(measurement.quick_count if options.quick else measurement.count, options.messages)
    done = 0

    def run(subjects: Sequence[str]) -> list[Figures]:
        nonlocal done
        done += 1
        say(f"{measurement.name} {done}: {' and '.join(subjects)}")
        python = pythons[environment_for(subjects[-1], measurement.environment)]
        return processes.run_subject(python, measurement.name, subjects, plan, environments.ROOT)

    return take_turns(measurement, run, min(options.runs, measurement.most_runs or options.runs))


def say(line: str) -> None:
    sys.stderr.write(f"{line}\n")


if __name__ == "__main__":
    sys.exit(main())
