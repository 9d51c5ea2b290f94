"""How much memory processes have (Linux)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

_PAGE_MB = os.sysconf("SC_PAGE_SIZE") / 1e6
_STATM = "/proc/self/statm"


def resident_mb() -> float:
    """Return that of this process."""
    return int(Path(_STATM).read_text().split()[1]) * _PAGE_MB


def resident_after(imports: str) -> float:
    """Return that of another process that has imported something and nothing else."""
    text = f"{imports}\nprint(open({_STATM!r}).read().split()[1])"
    done = subprocess.run([sys.executable, "-c", text], check=True, capture_output=True, text=True)
    return int(done.stdout) * _PAGE_MB
