"""What `help()` shows: that is where a user looks for a field and its unit."""

from __future__ import annotations

import pathlib
import pydoc
import re
import subprocess
import sys
from typing import Any

import attrs
import pytest

import aggstream
from aggstream.health import Counters
from aggstream.testing import ChaosProxy, Faults


@pytest.mark.parametrize(
    "cls",
    [
        aggstream.Health,
        Counters,
        aggstream.StopReport,
        aggstream.Limits,
        aggstream.ReconnectPolicy,
        Faults,
    ],
)
def test_each_field_is_explained(cls: type[Any]) -> None:
    shown = pydoc.plain(pydoc.render_doc(cls))
    for field in attrs.fields(cls):
        assert re.search(rf"^ \|      {field.name}: \S", shown, re.MULTILINE), field.name


def test_the_directions_of_a_chaos_proxy_are_explained() -> None:
    shown = pydoc.plain(pydoc.render_doc(ChaosProxy))
    for name in ("upstream", "downstream", "refusing", "accepted", "port"):
        assert f" |      {name}: " in shown


SCRIPTS = pathlib.Path(__file__).parents[1] / "scripts"
WITHOUT_ATHERIS = """
import runpy, sys
sys.modules["atheris"] = None
sys.argv = [sys.argv[1], "--help"]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.parametrize(
    ("script", "defaults"),
    [
        ("chaos", {"examples": "400", "steps": "20", "seed": "1", "tls": "plain TCP"}),
        ("soak", {"minutes": "5", "seed": "1", "tls": "plain TCP"}),
        ("fuzz", {"seconds": "180", "seed": "1"}),
    ],
)
def test_a_scripts_help_needs_nothing_and_tells_the_defaults(script: str, defaults: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_ATHERIS, str(SCRIPTS / f"{script}.py")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    for name, value in defaults.items():
        assert re.search(rf"^  --{name}\b[^(]*\(default: {value}\)$", done.stdout, re.MULTILINE), name
