"""Fuzz what takes bytes from a server, guided by coverage: needs atheris, which is not among the test's own needs.

    pip install atheris
    python tests/scripts/fuzz.py codec --seconds 180
    python tests/scripts/fuzz.py session | transport | handshake | answer

The targets stand in tests/fuzz_targets.py. An input that takes longer than ten seconds or more than a gibibyte is
a finding, too. What is found is saved in the working directory, and the exit code is not 0.
"""

from __future__ import annotations

import argparse
import contextlib
import pathlib
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "support"))

# Without atheris there is a --help all the same.
try:
    import atheris  # type: ignore[import-untyped,import-not-found,unused-ignore]
except ImportError:
    atheris = None

with contextlib.nullcontext() if atheris is None else atheris.instrument_imports(include=["aggstream"]):
    import fuzz_targets


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Fuzz one target, guided by coverage. Needs atheris: pip install atheris"
    )
    parser.add_argument("target", choices=sorted(fuzz_targets.TARGETS), help="what takes the bytes")
    parser.add_argument("--seconds", type=int, default=180, help="how long (default: 180)")
    parser.add_argument("--seed", type=int, default=1, help="of the mutations (default: 1)")
    parser.add_argument("--corpus", type=pathlib.Path, help="where inputs are read and kept; default: nowhere")
    options = parser.parse_args()
    if atheris is None:
        parser.error("this needs atheris: pip install atheris")
    with tempfile.TemporaryDirectory() as temporary:
        corpus = options.corpus or pathlib.Path(temporary)
        corpus.mkdir(exist_ok=True)
        for number, data in enumerate(fuzz_targets.seeds(options.target)):
            (corpus / f"seed-{number}").write_bytes(data)
        limits = [f"-max_total_time={options.seconds}", "-timeout=10", "-rss_limit_mb=1024", "-max_len=4096"]
        arguments = [sys.argv[0], str(corpus), f"-seed={options.seed}", "-print_final_stats=1", *limits]
        atheris.Setup(arguments, fuzz_targets.TARGETS[options.target])
        atheris.Fuzz()


if __name__ == "__main__":
    main()
