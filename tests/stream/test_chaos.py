"""The books balance over sequences of faults; `scripts/chaos.py` plays many more of them."""

from __future__ import annotations

import pytest
import trustme
from chaos_lives import run
from hypothesis import settings


@pytest.mark.parametrize("tls", [False, True], ids=["tcp", "tls"])
def test_the_books_balance_whatever_happens(tls: bool, authority: trustme.CA) -> None:
    tally = run(authority, tls=tls, settings=settings(max_examples=8, stateful_step_count=12))
    assert tally["delivered"] > 0
