"""Measure what following orders, the journal and catching up cost.

    python tests/benchmarks/recovery.py [--orders 100000] [--missed 10000] [--events 20000] [--runs 3] [--json]

Three things, each in processes of its own, with the sender in another one:

- the memory that the orders take which a client follows, all of them ended, by the events of the simulator;
- events a second from the socket to a handler without a journal and with one, one after the other in each run;
- the time, and the most memory, to catch up with orders that were played while the client was away.

Prints the medians. The disk decides about the journal: `--directory` says where it is.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import gc
import json
import multiprocessing
import os
import pathlib
import resource
import socket
import statistics
import sys
import tempfile
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import Any, Literal, TypeVar

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "support"))

from raw_server import RawServer, frame, upgrade

import aggstream
from aggstream._protocol.codec import Codec
from aggstream.events import Event
from aggstream.journal import JournalOptions
from aggstream.orders._tracker import Tracker
from aggstream.simulator import Simulator, _lifecycle, _user

T = TypeVar("T")

USER = "usr_1"
PATIENCE = 300.0
_SPAWN = multiprocessing.get_context("spawn")
Mode = Literal["none", "normal", "full"]
MODES: tuple[Mode, ...] = ("none", "normal", "full")


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Measure what following orders, the journal and catching up cost."
    )
    parser.add_argument("--orders", type=int, default=100_000, help="orders that are followed (default: 100000)")
    parser.add_argument("--missed", type=int, default=10_000, help="orders to catch up with (default: 10000)")
    parser.add_argument("--events", type=int, default=20_000, help="for each journal (default: 20000)")
    parser.add_argument("--runs", type=int, default=3, help="of which the medians are (default: 3)")
    parser.add_argument("--directory", type=pathlib.Path, help="where journals are made; default: a temporary one")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    table = {"orders": options.orders, "missed": options.missed, "events": options.events}
    table["order_rss_bytes"] = round(apart(memory_of_orders, options.orders, traced=False))
    table["order_traced_bytes"] = round(apart(memory_of_orders, options.orders // 10, traced=True))
    speeds: dict[Mode, list[float]] = {mode: [] for mode in MODES}
    catching_up: list[tuple[float, float, float]] = []
    for _ in range(options.runs):
        with tempfile.TemporaryDirectory(dir=options.directory) as directory:
            for mode in MODES:
                speeds[mode].append(events_a_second(mode, options.events, directory))
            catching_up.append(catch_up(options.missed, directory))
    for mode, values in speeds.items():
        table[f"events_per_second_journal_{mode}"] = round(statistics.median(values))
    seconds, megabytes, rest_seconds = (statistics.median(values) for values in zip(*catching_up, strict=True))
    table["catch_up_ms"] = round(seconds * 1000)
    table["catch_up_reading_ms"] = round(rest_seconds * 1000)
    table["catch_up_peak_rss_mb"] = round(megabytes)
    if options.json:
        sys.stdout.write(json.dumps(table) + "\n")
    else:
        sys.stdout.writelines(f"{name:<34}{value:>12,}\n" for name, value in table.items())
    return 0


def apart(function: Callable[..., T], *arguments: object, **options: object) -> T:
    """Call a function in a process of its own, whose memory is its alone."""
    with concurrent.futures.ProcessPoolExecutor(max_workers=1, mp_context=_SPAWN) as pool:
        return pool.submit(function, *arguments, **options).result()


# --- orders ---------------------------------------------------------------------------------------------


def memory_of_orders(count: int, *, traced: bool) -> float:
    """Return the bytes that one of so many orders takes, by RSS or by `tracemalloc`."""
    tracker = Tracker(kept=count, kept_for=1e9)
    tracker.fold(_lives(100), 0.0)  # what is made once
    gc.collect()
    if traced:
        tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0] if traced else _rss()
    tracker.fold(_lives(count), 0.0)
    gc.collect()
    after = tracemalloc.get_traced_memory()[0] if traced else _rss()
    assert len(tracker.orders()) == count
    return (after - before) / count


def _lives(count: int) -> Iterator[Event]:
    """Yield the events of orders of all scenarios, decoded from their messages."""
    codec = Codec(aggstream.Limits())
    user = _user.SimulatedUser(USER, seed=count, now=time.time, history=1)
    for _ in range(count):
        lifecycle = user.begin_order(_lifecycle.choose())
        while (text := user.next_frame(lifecycle)) is not None:
            yield codec.decode(text, time.time_ns())


def _rss() -> int:
    return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


# --- the journal ----------------------------------------------------------------------------------------


def events_a_second(mode: Mode, count: int, directory: str) -> float:
    """Return how many events a second reach a handler, from a server that sends as fast as it can."""
    here, there = _SPAWN.Pipe()
    server = _SPAWN.Process(target=serve_events, args=(there, count))
    server.start()
    try:
        return apart(take_events, here.recv(), mode, count, directory)
    finally:
        here.send(None)
        server.join()


def serve_events(ends: Connection, count: int) -> None:
    user = _user.SimulatedUser(USER, seed=1, now=time.time, history=1)
    blob = bytearray()
    written = 0
    while written < count:
        lifecycle = user.begin_order(_lifecycle.choose())
        while written < count and (text := user.next_frame(lifecycle)) is not None:
            blob += frame(text.encode())
            written += 1

    def script(sock: socket.socket) -> None:
        upgrade(sock, also=frame(b'{"type":"connected","appId":"app_demo123"}'))
        sock.recv(65536)
        sock.sendall(frame(b'{"type":"authenticated","userId":"usr_1"}') + blob)
        while sock.recv(65536):
            pass

    server = RawServer(script, None)
    ends.send(server.url)
    ends.recv()
    server.close()


def take_events(url: str, mode: Mode, count: int, directory: str) -> float:
    journal = None
    if mode != "none":
        journal = JournalOptions(path=pathlib.Path(directory, f"{mode}.db"), synchronous=mode)
    client = aggstream.Client(
        url=url, app_id="app_demo123", origin="https://app.example", token="t", rest=None, journal=journal
    )
    times: list[float] = []
    all_came = threading.Event()

    def handle(event: aggstream.UserEvent) -> None:
        times.append(time.perf_counter())
        if len(times) == count:
            all_came.set()

    client.on(aggstream.UserEvent)(handle)
    with client:
        assert all_came.wait(PATIENCE)
    return (count - 1) / (times[-1] - times[0])


# --- catching up ----------------------------------------------------------------------------------------


def catch_up(count: int, directory: str) -> tuple[float, float, float]:
    """Return the seconds to be told of all orders, the largest RSS in MB, and the seconds until REST was read."""
    here, there = _SPAWN.Pipe()
    server = _SPAWN.Process(target=serve_orders, args=(there, count))
    server.start()
    try:
        settings = here.recv()
        path = str(pathlib.Path(directory, "away.db"))
        apart(come_back, settings, path, 0)
        here.send("play")
        here.recv()
        return apart(come_back, settings, path, count)
    finally:
        here.send(None)
        server.join()


def serve_orders(ends: Connection, count: int) -> None:
    with Simulator(token_lifetime=3600.0, history=2 * count) as simulator:
        token = simulator.sign_in(USER).access_token
        ends.send({"url": simulator.url, "rest_url": simulator.rest_url, "token": token})
        while ends.recv() is not None:
            simulator.place_orders(USER, count)
            ends.send(None)


def come_back(settings: dict[str, Any], path: str, count: int) -> tuple[float, float, float]:
    client = aggstream.Client(
        app_id="app_demo123",
        origin="https://app.example",
        rest=aggstream.RestOptions(page_size=100, max_pages=count // 100 + 1),
        catch_up_timeout=PATIENCE,
        journal=path,
        **settings,
    )
    ends = 0
    reading: list[float] = []
    is_told = threading.Event()

    def handle(event: aggstream.OrderEvent) -> None:
        nonlocal ends
        ends += event.is_terminal

    def reconciled(event: aggstream.Reconciled) -> None:
        assert event.resolved
        reading.append(event.took)
        is_told.set()

    client.on(aggstream.OrderEvent)(handle)
    client.on(aggstream.Reconciled)(reconciled)
    began = time.perf_counter()
    with client:
        assert is_told.wait(PATIENCE)
        took = time.perf_counter() - began
    assert ends == count, ends
    return took, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, reading[0]


if __name__ == "__main__":
    sys.exit(main())
