"""Look at a wheel as the one who installs it alone does. Runs in the environment where it was installed."""

from __future__ import annotations

import importlib.util
import pathlib
import re
import subprocess
import sys
import tempfile
import zipfile
from email.parser import Parser

RUNTIME = {"attrs", "cattrs", "tenacity", "urllib3", "websocket-client"}
EXTRAS = {"aiohttp", "django", "flask", "jwt", "rich", "pytest"}


def requirement_name(requirement: str) -> str:
    """Return the name in a requirement such as `attrs>=23.2`."""
    return re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0]


def main(wheel: str) -> None:
    """Fail with an assertion if something is wrong with the wheel."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        [metadata] = [name for name in names if name.endswith(".dist-info/METADATA")]
        fields = Parser().parsestr(archive.read(metadata).decode())
    requirements = fields.get_all("Requires-Dist", [])
    bare = {requirement_name(r) for r in requirements if "extra ==" not in r}
    assert bare == RUNTIME, f"METADATA requires {bare}"
    assert fields["Requires-Python"] == ">=3.10"
    assert set(fields.get_all("Provides-Extra", [])) >= {"simulator", "demo", "django", "flask", "test", "dev"}
    assert "aggstream/py.typed" in names
    django = "aggstream/integrations/django"
    assert {f"{django}/migrations/0001_initial.py", f"{django}/management/commands/aggstream.py"} <= set(names)
    assert not [name for name in names if name.startswith(("tests/", "examples/"))]

    present = {name for name in EXTRAS if importlib.util.find_spec(name)}
    assert not present, f"this environment is not bare: {present}"
    with tempfile.TemporaryDirectory() as elsewhere:
        python = [sys.executable, "-W", "error"]
        listed = "import aggstream as a; [getattr(a, name) for name in a.__all__]; print(a.__file__)"
        found = subprocess.run([*python, "-c", listed], cwd=elsewhere, check=True, capture_output=True, text=True)
        assert "site-packages" in found.stdout, found.stdout
        command = str(pathlib.Path(sys.executable).with_name("aggstream"))
        for name, extra in (("demo", "demo"), ("simulate", "simulator")):
            ran = subprocess.run([command, name], cwd=elsewhere, check=False, capture_output=True, text=True)
            assert ran.returncode == 2, (name, ran)
            assert f"aggstream[{extra}]" in ran.stderr, (name, ran)
            assert "Traceback" not in ran.stderr, (name, ran)
        for words, code, says in (
            (["listen"], 2, "AGGSTREAM_APP_ID"),
            (["wait", "ord_1"], 2, "AGGSTREAM_APP_ID"),
            (["orders"], 2, "AGGSTREAM_APP_ID"),
            (["journal", "list", "nowhere.db"], 1, "nowhere.db"),
        ):
            ran = subprocess.run([command, *words], cwd=elsewhere, check=False, capture_output=True, text=True)
            assert ran.returncode == code, (words, ran)
            assert says in ran.stderr, (words, ran)
            assert "Traceback" not in ran.stderr, (words, ran)
    sys.stdout.write(f"{wheel}: 1 passed, 0 failed\n")


if __name__ == "__main__":
    main(sys.argv[1])
