"""Live many random lives of orders, and compare what handlers were told with what really happened.

    python tests/scripts/truth.py [--lives N] [--seed N]

Nothing in them is real but the client's catching up, so a life takes milliseconds. Amounts and words in any
writing, messages late and twice, gaps, REST that trails by up to a minute, fails, and moves its pages while they
are read, clocks that are apart by up to an hour, processes that end and begin again. Prints what it came to as
JSON. The exit code is 1 if anything was missing, told twice, old, or wrong.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

import truth


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Live random lives of orders, and look for what was told wrongly."
    )
    parser.add_argument("--lives", type=int, default=3000, metavar="N", help="(default: 3000)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="the first life's (default: 0)")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    told = looks = 0
    problems: dict[int, list[str]] = {}
    for seed in range(options.seed, options.seed + options.lives):
        # With a journal what is told twice is dropped, so that every other life has none.
        world = truth.live(seed, restarts=bool(seed % 2))
        told += len(world.told)
        looks += world.looks
        if world.problems:
            problems[seed] = world.problems
    summary = {"seed": options.seed, "lives": options.lives, "told": told, "questions_to_rest": looks}
    sys.stdout.write(json.dumps({**summary, "problems": problems}) + "\n")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
