"""The way of a frame through the house is short: few files, and few steps from one into another."""

from __future__ import annotations

import pytest
from walks import walk


@pytest.mark.parametrize("fast", [True, False], ids=["fast", "slow"])
@pytest.mark.parametrize(("journal", "files", "entries"), [(False, 13, 20), (True, 17, 34)], ids=["", "journal"])
def test_an_event_crosses_few_files(journal: bool, files: int, entries: int, fast: bool) -> None:
    walked = walk(journal=journal, fast=fast)
    assert walked.calls[0].file == "_stream/engine.py", walked
    assert any(call.file == "_delivery/dispatcher.py" for call in walked.calls), walked
    assert walked.files <= files, walked
    assert walked.entries <= entries, walked
