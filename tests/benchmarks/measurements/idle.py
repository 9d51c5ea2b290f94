"""What a stream costs on which nothing happens."""

from __future__ import annotations

import time
from typing import Literal

from benchmarks.measurement import Figures, Measurement, Plan, Quantity
from benchmarks.programs import AGGSTREAM, PEERS, PROGRAMS
from benchmarks.sender import Sender
from benchmarks.tally import Tally

HOUR = 3600.0
HEARTBEATS_AN_HOUR = HOUR / 30
PINGS_AN_HOUR = HOUR / 20
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
            before = time.process_time()
            time.sleep(seconds)
            silence = (time.process_time() - before) / seconds
            heartbeat = cpu_of_one(sender, "heartbeats", silence)
            ping = cpu_of_one(sender, "pings", silence)
            tally.prepare(1)
            tally.deliver()  # it was alive all the time
    return {
        "CPU": silence * HOUR + heartbeat * HEARTBEATS_AN_HOUR + ping * PINGS_AN_HOUR,
        "of it silence": silence * HOUR,
        "a heartbeat": heartbeat * 1e6,
        "a ping": ping * 1e6,
    }


def cpu_of_one(sender: Sender, kind: Literal["heartbeats", "pings"], silence: float) -> float:
    """Return what one takes beyond what silence takes in the meantime."""
    began, before = time.perf_counter(), time.process_time()
    sender.pace(kind, SENT, RATE)
    sender.finish()
    time.sleep(1 / RATE)  # until the last one is seen to
    meanwhile = silence * (time.perf_counter() - began)
    return max(0.0, (time.process_time() - before - meanwhile) / SENT)


MEASUREMENT = Measurement(
    name="idle",
    title="Idle: CPU time of a stream with a heartbeat each 30 s and a server's ping each 20 s",
    notes=(
        "Computed: the CPU time of the whole process in a silent while, with each library's own pings and polling "
        "as they are by default, taken for an hour; and 120 times that of a heartbeat and 180 times that of a "
        "ping, each measured at 20 a second."
    ),
    quantities=(
        Quantity("CPU", "s/h"),
        Quantity("of it silence", "s/h"),
        Quantity("a heartbeat", "µs"),
        Quantity("a ping", "µs"),
    ),
    pairs=tuple((AGGSTREAM, peer) for peer in PEERS),
    measure=measure,
    count=22_000,
    quick_count=2000,
    is_steady=True,
    most_runs=1,
)
