"""One process of a measurement: does what its arguments say, and prints the figures as a JSON line."""

from __future__ import annotations

import argparse
import json
import sys

from benchmarks.cores import stay_on
from benchmarks.measurement import Plan
from benchmarks.measurements import MEASUREMENTS


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("measurement")
    parser.add_argument("subjects", nargs="+")
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--messages", required=True)
    options = parser.parse_args()
    stay_on("receiver")
    measure = MEASUREMENTS[options.measurement].measure
    plan = Plan(options.count, options.messages)
    figures = [measure(subject, plan) for subject in options.subjects]
    sys.stdout.write(json.dumps(figures) + "\n")


if __name__ == "__main__":
    main()
