"""What a text is made of: by the standard library, and by msgspec."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any


def parser() -> Callable[[str], Any]:
    return json.loads


def msgspec_decoder() -> Callable[[str], Any]:
    from benchmarks.peers.structs import decoder

    decode: Callable[[str], Any] = decoder().decode
    return decode
