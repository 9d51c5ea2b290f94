"""What `help()` shows: that is where a user looks for a field and its unit."""

from __future__ import annotations

import pydoc
import re
from typing import Any

import attrs
import pytest

import aggstream
from aggstream._health import Counters
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
