"""Shows the way of one `order_event` through the files of the package, on the I/O thread.

python tests/scripts/walk.py [--journal] [--slow]
"""

from __future__ import annotations

import argparse
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "support"))

from walks import walk


def main() -> int:
    parser = argparse.ArgumentParser(description="Show the way of an event, file by file.")
    parser.add_argument("--journal", action="store_true", help="with a journal (default: without one)")
    parser.add_argument("--slow", action="store_true", help="without the extra `fast` (default: with it)")
    options = parser.parse_args()
    sys.stdout.write(f"{walk(journal=options.journal, fast=not options.slow)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
