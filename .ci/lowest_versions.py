"""Prints the lowest versions that setup.cfg admits, for the package and its extras, as constraints for pip."""

from __future__ import annotations

import configparser
import re
import sys
from pathlib import Path

EXTRAS = ("fast", "socks", "simulator", "demo", "flask", "django")

config = configparser.ConfigParser(interpolation=None)
config.read(Path(__file__).parents[1] / "setup.cfg", encoding="utf-8")
lines = config["options"]["install_requires"].splitlines()
for extra in EXTRAS:
    lines += config["options.extras_require"][extra].splitlines()
for line in lines:
    if found := re.match(r"([\w-]+) >= ([\d.]+)", line):
        sys.stdout.write(f"{found[1]} == {found[2]}\n")
