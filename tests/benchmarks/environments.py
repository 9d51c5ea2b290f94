"""The environments that subjects run in: peers in fixed versions, and the project as it stands."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks.programs import COINBASE

CHECKOUT = Path(__file__).parents[2]
ROOT = CHECKOUT / ".benchmarks"


class InstallFailed(Exception):
    """An environment cannot be made."""


@dataclass(frozen=True)
class Environment:
    requirements: tuple[str, ...]
    extra: str = ""
    """Of the project."""


ENVIRONMENTS = {
    "peers": Environment(
        (
            "msgspec==0.22.0",
            "picows==2.3.1",
            "pybit==5.17.0",
            "requests==2.34.2",
            "slack_sdk==3.48.0",
            "websocket-client==1.9.2",
            "websockets==17.4",
        )
    ),
    # It takes no `websockets` from 14 on.
    "coinbase": Environment(("coinbase-advanced-py==1.8.4",)),
    "recovery": Environment((), extra="[test]"),
    "plot": Environment(("matplotlib==3.11.2",)),
}


def environment_for(subject: str, usual: str) -> str:
    """Return the name of the environment that has what a subject needs."""
    return "coinbase" if subject == COINBASE else usual


def prepare(names: set[str]) -> dict[str, Path]:
    """Return the interpreter of each environment, made or brought up to date.

    Raises:
        InstallFailed: something cannot be installed; says what pip has said.
    """
    ROOT.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as directory:
        wheel = _wheel(Path(directory))
        return {name: _prepared(name, ENVIRONMENTS[name], wheel) for name in sorted(names)}


def _wheel(directory: Path) -> Path:
    # From a copy: what earlier builds have left in the checkout would get into it.
    source = directory / "source"
    shutil.copytree(CHECKOUT, source, ignore=shutil.ignore_patterns(".*", "build", "*.egg-info", "__pycache__"))
    _run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(directory), str(source))
    [wheel] = directory.glob("*.whl")
    return wheel


def _prepared(name: str, environment: Environment, wheel: Path) -> Path:
    home = ROOT / name
    python = home / "bin" / "python"
    wanted = "\n".join((sys.version, environment.extra, *environment.requirements))
    stamp = home / "requirements.txt"
    if not stamp.exists() or stamp.read_text() != wanted:
        _run(sys.executable, "-m", "venv", "--clear", str(home))
        _install(python, f"{wheel}{environment.extra}", *environment.requirements)
        stamp.write_text(wanted)
    else:
        _install(python, f"{wheel}{environment.extra}")
        _install(python, "--no-deps", "--force-reinstall", str(wheel))
    return python


def _install(python: Path, *arguments: str) -> None:
    _run(str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *arguments)


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise InstallFailed(f"this failed: {' '.join(command)}\n{done.stdout}{done.stderr}")
