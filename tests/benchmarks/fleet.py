"""Measure a fleet of many accounts against servers in another process.

    python tests/benchmarks/fleet.py [--accounts 2000] [--runs 3] [--only NAME ...]

Four parts, each in a process of its own:

- `start`: how long it takes until all accounts are live, what one costs in memory, threads and descriptors;
- `latency`: 1,000 events a second, spread over all accounts, and the same rate for a single client, in turns;
- `hang`: 50 accounts, of which one's handlers hang in 100 orders and another floods, and none of that, in turns;
- `storm`: the service is stopped and comes back: how many accounts connect in a second, when all gaps are closed.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import logging
import multiprocessing
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import cores
from benchmarks.many_server import ManyServer
from benchmarks.many_streams import PATIENCE, _allow_descriptors, _descriptors, _resident, _threads

import aggstream
from aggstream import Event, OrderEvent
from aggstream.simulator import Simulator

PARTS = ("start", "latency", "hang", "storm")
RATE, SECONDS = 1000.0, 8.0
BOUND, REST_BOUND, REST_LAG = 100.0, 100.0, 2.0
_SPAWN = multiprocessing.get_context("spawn")


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure a fleet of many accounts.")
    parser.add_argument("--accounts", type=int, default=2000)
    parser.add_argument("--runs", type=int, default=3, help="turns of what is compared (default: 3)")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--subject", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.subject is not None:
        what = json.loads(options.subject)
        cores.stay_on("receiver")
        _allow_descriptors(3 * options.accounts + 400)
        say(json.dumps(SUBJECTS[what.pop("name")](**what)))
        return 0
    for part in options.only:
        if part in ("start", "storm"):
            say(f"{part}: {words(run(part, options.accounts))}")
            continue
        plain, other = ("single", "fleet") if part == "latency" else ("calm", "hang")
        ratios = []
        for turn in range(options.runs):
            order = (plain, other) if turn % 2 else (other, plain)
            figures = {name: run(name, options.accounts) for name in order}
            ratios.append(figures[other]["p99, us"] / figures[plain]["p99, us"])
            say(f"{part}: {plain} {words(figures[plain])}; {other} {words(figures[other])}")
        say(f"{part}: the p99's ratio is {statistics.median(ratios):.2f}")
    return 0


def run(name: str, accounts: int) -> dict[str, float]:
    given: dict[str, Any] = {"name": name}
    if name in ("start", "fleet", "storm"):
        given["count"] = accounts
    command = [sys.executable, __file__, "--accounts", str(accounts), "--subject", json.dumps(given)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1200, check=False)
    if done.returncode:
        raise SystemExit(f"{given} failed:\n{done.stdout}{done.stderr}")
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def words(figures: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in figures.items())


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


@contextlib.contextmanager
def fleet_of(server: ManyServer, count: int, **options: Any) -> Iterator[aggstream.Fleet]:
    fleet = aggstream.Fleet(
        app_id="a",
        origin="https://app.example",
        url=server.url,
        accounts=[aggstream.Account(f"usr_{number}", token=f"token-of-usr_{number}") for number in range(count)],
        connects_per_second=2000,
        **options,
    )
    try:
        yield fleet
    finally:
        fleet.stop()


# --- the parts, each in its own process -----------------------------------------------------------------


def start(count: int) -> dict[str, float]:
    with ManyServer(tls=False) as server:
        with fleet_of(server, 1) as warm, warm:
            warm.wait_until_live(PATIENCE)
        before, descriptors = _resident(), _descriptors()
        with fleet_of(server, count) as fleet:
            began = time.monotonic()
            fleet.start()
            fleet.wait_until_live(PATIENCE)
            live = time.monotonic() - began
            threads = _threads()
            time.sleep(3.0)
            figures = {
                "live after, s": live,
                "threads": threads,
                "descriptors beside the sockets": _descriptors() - descriptors - count,
                "KB an account": (_resident() - before) / 1024 / count,
            }
            began = time.perf_counter()
            for _ in range(100):
                fleet.health()
            figures["health(), us"] = (time.perf_counter() - began) * 1e4
            began = time.monotonic()
            fleet.stop(30)
            figures["stopped after, s"] = time.monotonic() - began
            return figures


class Latency:
    """Takes how long events were under way."""

    def __init__(self, expected: int) -> None:
        self.taken: list[int] = []
        self.has_all = threading.Event()
        self._expected = expected
        self._lock = threading.Lock()

    def take(self, event: OrderEvent) -> None:
        took = time.monotonic_ns() - event.timestamp
        with self._lock:
            self.taken.append(took)
            if len(self.taken) == self._expected:
                self.has_all.set()

    def figures(self) -> dict[str, float]:
        if not self.has_all.wait(PATIENCE):
            raise TimeoutError(f"{len(self.taken)} events came")
        cuts = statistics.quantiles((nanoseconds / 1000 for nanoseconds in self.taken), n=100)
        return {"p50, us": cuts[49], "p99, us": cuts[98]}


def latency(count: int) -> dict[str, float]:
    with ManyServer(tls=False) as server, fleet_of(server, count) as fleet:
        taken = Latency(int(RATE * SECONDS))
        fleet.on(OrderEvent)(taken.take)
        fleet.start()
        fleet.wait_until_live(PATIENCE)
        time.sleep(2.0)
        server.ask("rate", RATE, SECONDS, "")
        return taken.figures()


def single() -> dict[str, float]:
    with ManyServer(tls=False) as server:
        taken = Latency(int(RATE * SECONDS))
        client = aggstream.Client(app_id="a", origin="https://app.example", url=server.url, token="token-of-usr_0")
        client.on(OrderEvent)(taken.take)
        with client:
            client.wait_until_live(PATIENCE)
            time.sleep(2.0)
            server.ask("rate", RATE, SECONDS, "")
            return taken.figures()


def beside(*, troubles: bool) -> dict[str, float]:
    with ManyServer(tls=False) as server, fleet_of(server, 50) as fleet:
        taken, release = Latency(int(RATE * SECONDS)), threading.Event()

        @fleet.on(OrderEvent)
        def handle(event: OrderEvent) -> None:
            if event.account == "usr_0":
                release.wait(PATIENCE)
            elif event.account != "usr_1":
                taken.take(event)

        fleet.start()
        fleet.wait_until_live(PATIENCE)
        if troubles:
            server.ask("orders", "usr_0", 100)
            server.ask("flood", "usr_1")
        time.sleep(2.0)
        # The two in trouble get none of these.
        server.ask("forget", "usr_0", "usr_1")
        server.ask("rate", RATE, SECONDS, "")
        figures = taken.figures()
        release.set()
        return figures


# --- a service that is stopped and comes back -----------------------------------------------------------


def serve(commands: Pipe) -> None:
    """Run a simulator, and obey until the other end is closed."""
    cores.stay_on("sender")
    opened: list[float] = []
    with Simulator(heartbeat_interval=30) as simulator:
        is_over = threading.Event()

        def watch() -> None:
            seen = 0
            while not is_over.wait(0.01):
                now, count = time.monotonic(), simulator.counts.handshakes
                opened.extend(itertools.repeat(now, count - seen))
                seen = count

        watcher = threading.Thread(target=watch)
        watcher.start()
        commands.send((simulator.url, simulator.rest_url, simulator.app_id, simulator.origin))
        obey: dict[str, Callable[..., object]] = {
            "sign_in": lambda count: [simulator.sign_in(f"usr_{n}").access_token for n in range(count)],
            "stop": simulator.stop,
            "start": simulator.start,
            "place": lambda count: [simulator.place_order(f"usr_{n}") for n in range(count)],
            "opened": opened.copy,
        }
        with contextlib.suppress(EOFError):
            while True:
                what, *arguments = commands.recv()
                answer = obey[what](*arguments)
                commands.send(answer)
        is_over.set()
        watcher.join()


def storm(count: int) -> dict[str, float]:
    ends, theirs = _SPAWN.Pipe()
    process = _SPAWN.Process(target=serve, args=(theirs,), daemon=True)
    process.start()
    theirs.close()

    def ask(what: str, *arguments: object) -> Any:
        ends.send((what, *arguments))
        return ends.recv()

    logging.getLogger("aggstream").setLevel(logging.CRITICAL)  # thousands of lines about connections that are lost
    url, rest_url, app_id, origin = ends.recv()
    tokens = ask("sign_in", count)
    fleet = aggstream.Fleet(
        app_id=app_id,
        origin=origin,
        url=url,
        rest_url=rest_url,
        accounts=[aggstream.Account(f"acc_{n}", token=token) for n, token in enumerate(tokens)],
        connects_per_second=BOUND,
        rest_requests_per_second=REST_BOUND,
        rest_lag=REST_LAG,
        queue_size=1000,
    )
    told: dict[str, set[str]] = {"gap": set(), "reconciled": set(), "unresolved": set()}

    @fleet.on("*")
    def note(event: Event) -> None:
        if isinstance(event, aggstream.Gap):
            told["gap"].add(event.account)
        elif isinstance(event, aggstream.Reconciled) and event.gaps:
            told["reconciled" if event.resolved else "unresolved"].add(event.account)
            if event.resolved:
                told["unresolved"].discard(event.account)

    fleet.start()
    fleet.wait_until_live(10 * PATIENCE)
    accounts = [fleet.account(name) for name in fleet.accounts]
    for account in accounts:
        account.wait_until_caught_up(10 * PATIENCE)
    ask("stop")
    before = len(ask("opened"))
    time.sleep(2.0)
    ask("start")
    back = time.monotonic()
    ask("place", count)  # most of them before their account is back
    fleet.wait_until_live(10 * PATIENCE)
    live = time.monotonic() - back
    for account in accounts:
        account.wait_until_caught_up(10 * PATIENCE)
    closed = time.monotonic() - back
    opened = ask("opened")[before:]
    known = sum(any(order.is_terminal for order in account.orders.values()) for account in accounts)
    fleet.stop(30)
    ends.close()
    process.join()
    return {
        "live again after, s": live,
        "all gaps closed after, s": closed,
        "most openings in a second": most_in_a_second(opened),
        "gaps told": len(told["gap"]),
        "gaps resolved": len(told["reconciled"]),
        "unresolved": len(told["unresolved"]),
        "accounts that know their order's end": known,
    }


def most_in_a_second(moments: list[float]) -> int:
    most, first = 0, 0
    for at, moment in enumerate(moments):
        while moments[first] <= moment - 1.0:
            first += 1
        most = max(most, at + 1 - first)
    return most


SUBJECTS: dict[str, Callable[..., dict[str, float]]] = {
    "start": start,
    "fleet": latency,
    "single": single,
    "calm": lambda: beside(troubles=False),
    "hang": lambda: beside(troubles=True),
    "storm": storm,
}

if __name__ == "__main__":
    assert os.name == "posix"
    sys.exit(main())
