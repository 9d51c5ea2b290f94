"""Many streams on one engine, in the process that is measured, and what they cost."""

from __future__ import annotations

import contextlib
import gc
import os
import resource
import socket
import ssl
import statistics
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.many_server import ManyServer

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from streams import Streams

from aggstream import Event, OrderEvent
from aggstream._delivery.registry import key_of

PATIENCE = 60.0
_PAGE = os.sysconf("SC_PAGE_SIZE")
# Until an outage has ended, and what connecting has left to do is done.
_SETTLE = 12.0


class CountedStreams(Streams):
    """Streams on one engine whose selector's returns are counted."""

    def __init__(self, server: ManyServer) -> None:
        context = None if server.authority is None else ssl.create_default_context(cadata=server.authority)
        super().__init__(server.url, ssl_context=context)
        self.turns = self.idle_turns = 0

    def start(self) -> None:
        super().start()
        select = self.engine._selector.select

        def counted(timeout: float | None = None) -> Any:
            ready = select(timeout)
            self.turns += 1
            self.idle_turns += not any(key.data is not None for key, _ in ready)
            return ready

        self.engine._selector.select = counted  # type: ignore[method-assign]

    def await_live(self, connections: int = 1) -> float:
        """Wait until all are live after so many connections; return the seconds that took."""
        began = time.monotonic()
        while not all(one.phase == "live" and one.counters.connections >= connections for one in self.streams):
            if time.monotonic() > began + PATIENCE:
                raise TimeoutError(f"{sum(stream.phase == 'live' for stream in self.streams)} streams are live")
            self.has_turned.wait(0.05)
            self.has_turned.clear()
        return time.monotonic() - began


def measure(count: int, *, tls: bool, is_silent: bool, seconds: float, events: int) -> dict[str, float]:
    """Return what so many streams cost; see `engine.py`."""
    _allow_descriptors(3 * count + 200)
    with ManyServer(tls=tls) as server:
        streams = CountedStreams(server)
        handled = _Counter()
        streams.registry.add(key_of(OrderEvent), handled, once=False)
        with _warm(server):
            pass
        gc.collect()
        before, descriptors = _resident(), _descriptors()
        for number in range(count):
            streams.add(lambda number=number: f"token-of-usr_{number}")  # type: ignore[misc]
        streams.start()
        figures: dict[str, float] = {"live after, s": streams.await_live()}
        threads = _threads()
        time.sleep(_SETTLE)
        figures |= _sizes(count, before, descriptors, threads)
        if not is_silent:
            server.ask("traffic", 30.0, 20.0)
        figures |= _idle(streams, seconds)
        server.ask("silence")
        if events:
            server.ask("drop")
            figures["live again after, s"] = streams.await_live(connections=2)
            threads = _threads()
            time.sleep(_SETTLE)
            again = _sizes(count, before, descriptors, threads)
            figures |= {f"{name}, again": value for name, value in again.items()}
            figures["CPU of an event, us"] = _burst(server, handled, count, events)
        streams.stop()
    return figures


@contextlib.contextmanager
def _warm(server: ManyServer) -> Iterator[None]:
    """Have everything loaded that one stream loads."""
    streams = CountedStreams(server)
    streams.add(lambda: "token-of-warm")
    streams.start()
    streams.await_live()
    yield
    streams.stop()


class _Counter:
    """A handler that counts."""

    def __init__(self) -> None:
        self.count = 0
        self._changed = threading.Condition()
        self._awaited = -1

    def __call__(self, event: Event) -> None:
        with self._changed:
            self.count += 1
            if self.count == self._awaited:
                self._changed.notify()

    def wait_for(self, count: int) -> None:
        """Wait until so many were counted."""
        with self._changed:
            self._awaited = count
            if not self._changed.wait_for(lambda: self.count >= count, PATIENCE):
                raise TimeoutError(f"{count - self.count} events did not come")


def _sizes(count: int, before: int, descriptors: int, threads: int) -> dict[str, float]:
    gc.collect()
    return {
        "threads": threads,
        "descriptors beside the sockets": _descriptors() - descriptors - count,
        "KB a stream": (_resident() - before) / 1024 / count,
    }


def _idle(streams: CountedStreams, seconds: float) -> dict[str, float]:
    turns, idle_turns, cpu = streams.turns, streams.idle_turns, time.process_time()
    time.sleep(seconds)
    cpu = time.process_time() - cpu
    return {
        "idle CPU, ms/s": 1000 * cpu / seconds,
        "wake-ups/s": (streams.turns - turns) / seconds,
        "wake-ups of its own/s": (streams.idle_turns - idle_turns) / seconds,
    }


def _burst(server: ManyServer, handled: _Counter, count: int, events: int) -> float:
    each = max(1, events // count)
    for _ in range(2):  # the first one warms up
        expected = handled.count + each * count
        cpu = time.process_time()
        server.ask("burst", each)
        handled.wait_for(expected)
        cpu = time.process_time() - cpu
    return cpu / (each * count) * 1e6


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def _threads() -> int:
    return len(os.listdir("/proc/self/task"))


def _allow_descriptors(count: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(count, hard)), hard))


# --- one that misbehaves --------------------------------------------------------------------------------


def isolation(trouble: str, *, count: int, rate: float, seconds: float) -> dict[str, float]:
    """Return the latency of the other streams' events, and their slowest pong, beside one that is in trouble.

    Args:
        trouble: "none", "handler", "token", "rest", "drip" or "flood".
        count: the number of streams.
        rate: events a second, over all but that one.
        seconds: for how long.
    """
    first = _First(trouble)
    # A REST API that takes connections and never answers.
    with ManyServer(tls=False) as server, socket.create_server(("127.0.0.1", 0)) as silent:
        streams = CountedStreams(server)
        streams.registry.add(key_of(OrderEvent), first.handle, once=False)
        rest_url = f"http://127.0.0.1:{silent.getsockname()[1]}" if trouble == "rest" else None
        streams.add(first.token, rest_url=rest_url)
        for number in range(1, count):
            streams.add(lambda number=number: f"token-of-usr_{number}")  # type: ignore[misc]
        streams.start()
        streams.await_live()
        if trouble == "handler":
            server.ask("burst", 1)
        elif trouble == "token":
            server.ask("close_one", "usr_0")
        elif trouble in ("drip", "flood"):
            server.ask(trouble, "usr_0")
        time.sleep(1.0)
        first.begin(int(rate * seconds))
        server.ask("rate", rate, seconds, "usr_0")
        slowest = server.ask("pongs", "usr_0")
        if not first.has_all.wait(PATIENCE):
            raise TimeoutError(f"{len(first.taken)} events came")
        first.release.set()
        silent.close()
        streams.stop()
    cuts = statistics.quantiles((nanoseconds / 1000 for nanoseconds in first.taken), n=100)
    return {"p50, us": cuts[49], "p99, us": cuts[98], "slowest pong, ms": 1000 * slowest}


class _First:
    """The handlers, and the token function of the first stream, which is in trouble."""

    def __init__(self, trouble: str) -> None:
        self.taken: list[int] = []
        self.release = threading.Event()
        self.has_all = threading.Event()
        self._awaited = -1
        self._trouble = trouble
        self._tokens = 0

    def begin(self, count: int) -> None:
        """Measure so many events from now on."""
        self.taken.clear()
        self._awaited = count

    def handle(self, event: OrderEvent) -> None:
        if event.user_id != "usr_0":
            self.taken.append(time.monotonic_ns() - event.timestamp)
            if len(self.taken) == self._awaited:
                self.has_all.set()
        elif self._trouble == "handler":
            self.release.wait(PATIENCE)

    def token(self) -> str:
        self._tokens += 1
        if self._trouble == "token" and self._tokens > 1:
            self.release.wait(PATIENCE)
        return "token-of-usr_0"
