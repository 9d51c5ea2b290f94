"""Memory: after the import, for each further client, and as events go by."""

from __future__ import annotations

import contextlib

from benchmarks.measurement import Figures, Measurement, Plan, Quantity
from benchmarks.programs import AGGSTREAM, PEERS, PROGRAMS
from benchmarks.resident import resident_after, resident_mb
from benchmarks.sender import Sender
from benchmarks.tally import Tally

FURTHER = 10


def measure(subject: str, plan: Plan) -> Figures:
    program = PROGRAMS[subject]
    with Sender(plan.messages, program.dialect) as sender, Sender(plan.messages, program.dialect) as silent:
        tally = Tally(sender, program.group)
        with program.listening(sender.url, tally.handle):
            one = resident_mb()
            with contextlib.ExitStack() as others:
                for _ in range(FURTHER):
                    others.enter_context(program.listening(silent.url, lambda timestamp: None))
                several = resident_mb()
            tally.prepare(plan.count)
            tally.deliver()
            before = resident_mb()
            count = tally.prepare(plan.count)
            tally.deliver()
            after = resident_mb()
    return {
        "import": resident_after(program.imports) - resident_after(""),
        "further client": (several - one) / FURTHER,
        "100,000 events": (after - before) * 100_000 / count,
    }


MEASUREMENT = Measurement(
    name="memory",
    title="Memory: resident, in a process of its own",
    notes=(
        "Of a process that only imports, above bare Python; of each of ten further clients in one process; "
        "and what remains of the events of a second burst, after a first one that was as large. Of the lives of "
        "orders aggstream remembers 10,000, which are 70,000 events; with --quick it is still learning them."
    ),
    quantities=(
        Quantity("import", "MB"),
        Quantity("further client", "MB"),
        Quantity("100,000 events", "MB", "neither"),
    ),
    pairs=tuple((AGGSTREAM, peer) for peer in PEERS),
    measure=measure,
    count=100_000,
    quick_count=10_000,
    is_steady=True,
    most_runs=2,
)
