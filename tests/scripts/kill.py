"""Kill a program with a journal hundreds of times, and see that it misses nothing.

    python tests/scripts/kill.py --kills 300 --seed 1 [--tls] [--synchronous normal] [--workers 4]

The program's handlers write down what they are given; SIGKILL comes at random: at its start, while what is pending
is delivered again, while it catches up, while the REST API is out of order or the connection is lost. Prints a
summary as JSON. The exit code is 1 if a promise about delivery was broken; then the directory is kept, with
the journal, all lines of the handlers and what the program said in the end.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import pathlib
import shutil
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "support"))

import reaper
from kills import Kills, Settings, Violation


def main() -> int:
    parser = argparse.ArgumentParser(description="Kill a program with a journal, and see that it misses nothing.")
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--tls", action="store_true")
    parser.add_argument("--synchronous", choices=["full", "normal"], default="full")
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    reaper.begin()
    directory = pathlib.Path(tempfile.mkdtemp(prefix="kill-"))
    with contextlib.ExitStack() as stack:
        kills = Kills(stack, Settings(directory=directory, **vars(options)))
        try:
            summary = kills.run()
        except Violation as violation:
            summary = {**vars(options), "problems": [*kills.books.problems, str(violation)]}
    if summary["problems"]:
        summary["directory"] = str(directory)
    else:
        shutil.rmtree(directory)
    sys.stdout.write(json.dumps(summary) + "\n")
    return 1 if summary["problems"] else 0


if __name__ == "__main__":
    sys.exit(main())
