"""The sender has one core, and what is measured another one."""

from __future__ import annotations

import os
from typing import Literal

AVAILABLE = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


def stay_on(role: Literal["sender", "receiver"]) -> None:
    """Keep this process on its role's core, where the system has two and can do that."""
    if len(AVAILABLE) > 1:
        os.sched_setaffinity(0, {AVAILABLE[0] if role == "sender" else AVAILABLE[1]})


def stay_anywhere() -> None:
    """Undo it."""
    if len(AVAILABLE) > 1:
        os.sched_setaffinity(0, AVAILABLE)
