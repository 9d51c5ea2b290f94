"""How the tests wait: on a condition, with a deadline that no busy machine reaches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

DEADLINE = 30.0


class Until(Protocol):
    def __call__(self, condition: Callable[[], object], /) -> None: ...
