"""Measure one engine that drives many streams against a server in another process.

    python tests/benchmarks/engine.py [--streams 1 50 500 2000] [--seconds 60] [--events 60000] [--only NAME ...]

Three parts:

- `plain`, `tls`: heartbeats each 30 s and the server's pings each 20 s; then all connections end at once, and the
  streams connect again, at the pace of their pauses and of the lane that opens connections; then a burst;
- `silent`: a server that says nothing, so that each stream pings it;
- `isolation`: 50 streams, of which one's handler, token function or REST hangs, or whose server drips or floods.

Each line is a process of its own. What is compared with one stream is compared with a stream of the same run.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

PARTS = ("plain", "tls", "silent", "isolation")
TROUBLES = ("handler", "token", "rest", "drip", "flood")
STREAMS, RATE, SECONDS = 50, 500.0, 4.0


def main() -> int:
    options = arguments()
    if options.subject is not None:
        sys.stdout.write(json.dumps(subject(json.loads(options.subject))) + "\n")
        return 0
    results: dict[str, Any] = {}
    for part in options.only:
        if part == "isolation":
            results[part] = isolation(options.runs, options.troubles)
        else:
            results[part] = {count: crowd(part, count, options) for count in options.streams}
    if options.json is not None:
        options.json.write_text(json.dumps(results, indent=1) + "\n")
    return 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure one engine that drives many streams.")
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 50, 500, 2000])
    parser.add_argument("--seconds", type=float, default=60.0, help="how long they are idle (default: 60)")
    parser.add_argument(
        "--events", type=int, default=60_000, help="events of the burst, over all (default: 60000)"
    )
    parser.add_argument("--runs", type=int, default=5, help="turns of the isolation (default: 5)")
    parser.add_argument("--troubles", nargs="+", choices=TROUBLES, default=TROUBLES)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--json", type=Path, metavar="PATH", help="write all figures")
    parser.add_argument("--subject", help=argparse.SUPPRESS)
    return parser.parse_args()


def crowd(part: str, count: int, options: argparse.Namespace) -> dict[str, float]:
    is_silent = part == "silent"
    figures = run(
        {
            "what": "crowd",
            "count": count,
            "tls": part == "tls",
            "is_silent": is_silent,
            "seconds": options.seconds,
            "events": 0 if is_silent else options.events,
        }
    )
    say(f"{part}, {count} streams: " + ", ".join(f"{name} {value:.4g}" for name, value in figures.items()))
    return figures


def isolation(runs: int, troubles: Sequence[str]) -> dict[str, Any]:
    """Compare each trouble with none, in turns."""
    found: dict[str, Any] = {}
    for trouble in troubles:
        turns = []
        for turn in range(runs):
            order = ("none", trouble) if turn % 2 else (trouble, "none")
            turns.append({name: run({"what": "isolation", "trouble": name}) for name in order})
        ratios = [turn[trouble]["p99, us"] / turn["none"]["p99, us"] for turn in turns]
        found[trouble] = turns
        p99 = [statistics.median(turn[name]["p99, us"] for turn in turns) for name in ("none", trouble)]
        pong = max(turn[trouble]["slowest pong, ms"] for turn in turns)
        say(
            f"{trouble}: p99 {p99[0]:.0f} us without, {p99[1]:.0f} us with it, "
            f"ratio {statistics.median(ratios):.2f}, slowest pong {pong:.1f} ms"
        )
    return found


def run(what: dict[str, Any]) -> dict[str, float]:
    command = [sys.executable, __file__, "--subject", json.dumps(what)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1200, check=False)
    if done.returncode:
        raise SystemExit(f"{what} failed:\n{done.stdout}{done.stderr}")
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def subject(what: dict[str, Any]) -> dict[str, float]:
    from benchmarks import cores, many_streams

    cores.stay_on("receiver")
    kind = what.pop("what")
    if kind == "crowd":
        return many_streams.measure(what.pop("count"), **what)
    return many_streams.isolation(what["trouble"], count=STREAMS, rate=RATE, seconds=SECONDS)


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
