"""The threads that call handlers, for any number of streams.

Events wait for handlers in queues (`handler_queue.py`). The next thread that is free takes a queue that has
something, and one thread at a time has it, so that its events are handled in their order. The queues are taken in
turn: one with much to do, or with slow handlers, keeps one thread, and the others go on.
"""

from __future__ import annotations

import heapq
import itertools
import queue
import threading
import time
from collections.abc import Callable
from typing import Protocol

from aggstream._base.deadline import Deadline
from aggstream._base.greenlets import note_greenlet
from aggstream._base.threads import Gate, make_thread
from aggstream._delivery.handler_calls import Running


class Served(Protocol):
    """A queue of events for handlers, which the threads serve."""

    def serve(self, thread: threading.Thread) -> None:
        """Do what there is to do, on one thread at a time. It raises nothing.

        Args:
            thread: the thread that it runs on.
        """

    def claim(self) -> bool:
        """Return True if no thread serves it, and none is about to: then the caller is to have it served."""

    def running(self) -> list[Running]:
        """Return the handlers that run now."""


class Workers:
    """A pool of threads. Every method may be called from any thread."""

    def __init__(self, count: int, name: str) -> None:
        """Make the pool, without a thread.

        Args:
            count: the number of threads.
            name: begins their names.
        """
        suffixes = [""] if count == 1 else [f"-{number}" for number in range(1, count + 1)]
        self.count = count
        """The number of threads."""
        self.names = tuple(f"{name}-dispatch{suffix}" for suffix in suffixes)
        self.is_shared = False
        """True if queues of several streams wait for the threads: then they are taken in turn."""
        self.on_leave: list[Callable[[], None]] = []
        """Called on each thread before it ends."""
        self._threads: list[threading.Thread] = []
        # What each thread serves.
        self._serving: dict[threading.Thread, Served] = {}
        # None stands for the end, and goes from thread to thread.
        self._ready: queue.SimpleQueue[Served | None] = queue.SimpleQueue()
        self.put: Callable[[Served], None] = self._ready.put
        """Has a queue served by the next thread that is free. The caller must have claimed it."""
        # Guards the moments at which queues are to be served although nothing new is in them.
        self._lock = threading.Lock()
        self._timers: list[tuple[float, int, Served]] = []
        self._numbers = itertools.count()

    def start(self, gate: Gate) -> None:
        """Start the threads.

        Args:
            gate: where they wait until all threads are there.

        Raises:
            RuntimeError: one cannot be started; `reset` ends those that were.
        """
        for name in self.names:
            thread = make_thread(gate.run, self._run, name=name)
            thread.start()
            self._threads.append(thread)

    def reset(self) -> None:
        """Wait for the threads to end, whose gate was cancelled; then it is as if `start` had not been called."""
        for thread in self._threads:
            thread.join()
        self._threads.clear()
        self.on_leave.clear()

    def serve_at(self, served: Served, at: float) -> None:
        """Have a queue served at a moment in monotonic seconds, unless it is being served then."""
        with self._lock:
            heapq.heappush(self._timers, (at, next(self._numbers), served))
        self._ready.put(_NOTHING)  # a thread that waits must wait for this moment now

    def others_wait(self) -> bool:
        """Return True if other queues wait for a thread."""
        return not self._ready.empty()

    def close(self) -> None:
        """Let the threads end after what waits for them now."""
        self._ready.put(None)

    def threads(self) -> dict[str, bool]:
        """Return which threads are alive, by name."""
        alive = {thread.name for thread in self._threads if thread.is_alive()}
        return {name: name in alive for name in self.names}

    def running(self) -> list[Running]:
        """Return the handlers that run now on these threads."""
        served = {id(one): one for one in list(self._serving.values())}
        return [running for one in served.values() for running in one.running()]

    def is_own_thread(self) -> bool:
        """Return True if the calling thread is one of them."""
        return threading.current_thread() in self._threads

    def join(self, deadline: Deadline) -> bool:
        """Wait until all threads have ended; return True if they have. Never waits for the calling thread."""
        for thread in self._threads:
            if thread.ident is not None and thread is not threading.current_thread():
                thread.join(deadline.remaining())
        return not any(thread.is_alive() for thread in self._threads)

    def after_fork_in_child(self) -> None:
        """Replace the lock, which a thread of the parent may hold."""
        self._lock = threading.Lock()

    # --- on the threads ---------------------------------------------------------------------------------

    def _run(self) -> None:
        note_greenlet()
        thread = threading.current_thread()
        try:
            while (served := self._next()) is not None:
                self._serving[thread] = served
                served.serve(thread)
                del served, self._serving[thread]  # it is not kept while this thread waits
        finally:
            for leave in self.on_leave:
                leave()

    def _next(self) -> Served | None:
        """Wait for a queue that has something to do; return None if the thread should end."""
        while True:
            timeout = None
            if self._timers:
                # Before the queues that are ready: there may always be one.
                if (due := self._take_due()) is not None:
                    return due
                timeout = self._until_next_timer()
            try:
                served = self._ready.get(timeout=timeout)
            except queue.Empty:
                continue
            if served is not None:
                return served
            # The end: the others are to see it, too, but not before what waits.
            has_more = not self._ready.empty()
            self._ready.put(None)
            if not has_more:
                return None

    def _until_next_timer(self) -> float | None:
        with self._lock:
            return max(0.0, self._timers[0][0] - time.monotonic()) if self._timers else None

    def _take_due(self) -> Served | None:
        """Return a queue whose moment has come, and that no thread serves; None if there is none."""
        now = time.monotonic()
        with self._lock:
            while self._timers and self._timers[0][0] <= now:
                served = heapq.heappop(self._timers)[2]
                if served.claim():
                    return served
        return None


class _Nothing:
    """Wakes a thread, and gives it nothing to do."""

    def serve(self, thread: threading.Thread) -> None:
        """Do nothing."""

    def claim(self) -> bool:
        """Return False: it need not be served."""
        return False

    def running(self) -> list[Running]:
        """Return that no handler runs."""
        return []


_NOTHING = _Nothing()
