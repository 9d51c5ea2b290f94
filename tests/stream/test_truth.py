"""Random lives of orders: what handlers are told is what really happened. `tests/scripts/truth.py` lives more of
them."""

from __future__ import annotations

import truth
from hypothesis import given, settings
from hypothesis import strategies as st


@settings(max_examples=300)
@given(seed=st.integers(0, 2**32), restarts=st.booleans())
def test_no_end_is_missing_and_nothing_is_told_twice_or_is_old_or_wrong(seed: int, restarts: bool) -> None:
    world = truth.live(seed, restarts=restarts)
    assert world.problems == []
    assert world.looks < 1500  # 200 questions and more are asked where every page has two of forty orders
