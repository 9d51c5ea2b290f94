"""What a stream costs on which nothing happens."""

from __future__ import annotations

import time
from typing import Literal

from benchmarks.measurement import Figures, Measurement, Plan, Quantity
from benchmarks.programs import AGGSTREAM, PEERS, PROGRAMS
from benchmarks.sender import Sender
from benchmarks.tally import Tally

HOUR = 3600.0
HEARTBEATS_EVERY = 30.0
PINGS_EVERY = 20.0
MS = 1000
SETTLE = 1.0
SENT = 20
RATE = 20.0


def measure(subject: str, plan: Plan) -> Figures:
    program, seconds = PROGRAMS[subject], plan.count / MS
    with Sender(plan.messages, program.dialect) as sender:
        tally = Tally(sender, program.group)
        with program.listening(sender.url, tally.handle):
            time.sleep(SETTLE)  # what connecting has left to do
            sender.keep_alive(seconds, heartbeats=HEARTBEATS_EVERY, pings=PINGS_EVERY)
            before = time.process_time()
            time.sleep(seconds)
            idle = (time.process_time() - before) / seconds
            heartbeat, ping = cpu_of_one(sender, "heartbeats"), cpu_of_one(sender, "pings")
            tally.prepare(1)
            tally.deliver()  # it was alive all the time
    return {"CPU": idle * HOUR, "a heartbeat": heartbeat * 1e6, "a ping": ping * 1e6}


def cpu_of_one(sender: Sender, kind: Literal["heartbeats", "pings"]) -> float:
    """Return what one takes when they come one after the other."""
    before = time.process_time()
    sender.pace(kind, SENT, RATE)
    sender.finish()
    time.sleep(1 / RATE)  # until the last one is seen to
    return (time.process_time() - before) / SENT


MEASUREMENT = Measurement(
    name="idle",
    title="Idle: CPU time of a stream with a heartbeat each 30 s and a server's ping each 20 s",
    notes=(
        "The CPU time of the whole process during a minute, taken for an hour, with each library's own pings and "
        "polling as they are by default; and of a single heartbeat and ping at 20 a second. With --quick, six "
        "seconds in which neither comes."
    ),
    quantities=(Quantity("CPU", "s/h"), Quantity("a heartbeat", "µs"), Quantity("a ping", "µs")),
    pairs=tuple((AGGSTREAM, peer) for peer in PEERS),
    measure=measure,
    count=61_000,
    quick_count=6_000,
    is_steady=True,
    most_runs=1,
)
