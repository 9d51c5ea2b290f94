"""The I/O thread: one selector, one heap of deadlines and one inbox, for any number of streams.

A stream is a state machine that never blocks this thread. It is stepped when its deadline has passed, when another
thread has woken it, and when its connection has more to say than events. Then it does what is due, and returns its
next deadline. What blocks is done by the lanes (`_base/blocking_calls.py`), which wake the stream afterwards.
"""

from __future__ import annotations

import collections
import heapq
import itertools
import math
import selectors
import threading
import time
from typing import Protocol

from aggstream._base.blocking_calls import Lanes
from aggstream._base.signals import full_mask
from aggstream._base.threads import Gate, make_thread
from aggstream._delivery.workers import Workers
from aggstream._network.waker import LONGEST, Waker

# A deadline may be late by this part of the time until it, and by a second at most. So the deadlines of many
# streams fall on the same moments, and the thread wakes once for all of them.
_SLACK = 1 / 8
_LONGEST_TICK = 1.0
# Entries of the heap that are not used any more are removed when there are many more of them than of the others.
_MOST_UNUSED = 1000


class Driven(Protocol):
    """A stream, or the watch over its handlers: the engine steps it."""

    wake_at: float | None
    """The deadline that the engine keeps for it, in monotonic seconds. The engine alone writes it."""
    is_woken: bool
    """True until the engine steps what another thread has woken. The engine alone writes it."""
    is_ended: bool
    """True once the engine is to let go of it."""

    def step(self, polled_at: float) -> float | None:
        """Do what is due, without waiting for anything. It raises nothing.

        Args:
            polled_at: the moment before the sockets were looked at last, in monotonic seconds. A deadline that
                came later is not judged yet: what would have kept it may wait to be read.

        Returns:
            The next deadline, in monotonic seconds; None if there is none.
        """

    def next_deadline(self) -> float | None:
        """Return when it is to be stepped at the latest, in monotonic seconds; None if there is no such moment."""

    def broken(self, error: BaseException) -> None:
        """Take an error that its socket's `ready` has raised. It is stepped right after."""


class Socket(Protocol):
    """A connection of a stream: the engine tells it when it can read."""

    owner: Driven

    def ready(self, *, writable: bool) -> bool:
        """Read, and write if the socket takes bytes; return True if its owner is to be stepped."""


class Engine:
    """Drives streams. The methods of the first part are for any thread, the others for the I/O thread."""

    def __init__(self, name: str, workers: Workers) -> None:
        """Make one that is not started, and holds no descriptor.

        Args:
            name: begins the threads' names.
            workers: the threads that call the handlers of its streams. They end after it.
        """
        self.workers = workers
        """The threads that call handlers."""
        self.name = f"{name}-io"
        """The name of the I/O thread."""
        self.lanes = Lanes(name)
        """Make the calls that block."""
        # Made by `start`, so that an engine which is never started can be started in a forked child.
        self._selector: selectors.BaseSelector
        self._waker: Waker
        # What each socket is watched for, by its descriptor.
        self._watched: dict[int, int] = {}
        self._streams: set[Driven] = set()
        self._woken: collections.deque[Driven] = collections.deque()
        self._deadlines: list[tuple[float, int, Driven]] = []
        self._numbers = itertools.count()
        # Sockets whose bytes were read in part, so that the selector does not tell of them.
        self._buffered: dict[Socket, None] = {}
        self._thread: threading.Thread | None = None

    # --- for any thread ---------------------------------------------------------------------------------

    def add(self, stream: Driven) -> None:
        """Drive a stream from the start on, until it has ended."""
        self._streams.add(stream)
        self.workers.is_shared = len(self._streams) > 1
        self.wake(stream)

    def start(self, gate: Gate) -> None:
        """Start the threads. They end when all streams have ended.

        Args:
            gate: where they wait until all threads are there.

        Raises:
            RuntimeError: one cannot be started.
            OSError: there are no descriptors left.
        """
        self.workers.start(gate)
        self.lanes.set_masks()
        self.open()
        try:
            thread = make_thread(gate.run, self._run, name=self.name, mask=full_mask())
            thread.start()
        except BaseException:
            self._close()
            raise
        self._thread = thread

    def open(self) -> None:
        """Make the selector.

        Raises:
            OSError: there are no descriptors left.
        """
        self._waker, self._selector = Waker.with_selector()

    def _close(self) -> None:
        self._selector.close()
        self._waker.close()

    def reset(self) -> None:
        """Wait for the threads to end, whose gate was cancelled; then it is as if they had never been started."""
        self.workers.reset()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
            self._close()

    def wake(self, driven: Driven) -> None:
        """Have something stepped as soon as possible. Takes no lock, so a signal handler may call it."""
        if not driven.is_woken:
            driven.is_woken = True
            self._woken.append(driven)
            if self._thread is not None:
                self._waker.wake()

    @property
    def is_made(self) -> bool:
        """True from the start on; False again in a forked child."""
        return self._thread is not None

    def is_alive(self) -> bool:
        """Return True if the thread runs."""
        return self._thread is not None and self._thread.is_alive()

    def is_own_thread(self) -> bool:
        """Return True if the calling thread is the I/O thread, or makes a blocking call for a stream."""
        return threading.current_thread() is self._thread or self.lanes.is_own_thread()

    def join(self, timeout: float | None) -> bool | None:
        """Wait for the thread to end; return True if it has, None if it is not quite started."""
        thread = self._thread
        if thread is None or thread.ident is None:
            return None
        thread.join(timeout)
        return not thread.is_alive()

    def after_fork_in_child(self) -> None:
        """Close the child's descriptors, and forget the thread, which is the parent's."""
        self.workers.after_fork_in_child()
        if self._thread is not None:
            self._thread = None
            self._close()

    # --- for the I/O thread -----------------------------------------------------------------------------

    def schedule(self, driven: Driven, at: float | None) -> None:
        """Note the next deadline of something, in monotonic seconds; None: it has none."""
        if at is None:
            driven.wake_at = None
            return
        at = on_common_tick(at, time.monotonic())
        if at == driven.wake_at:
            return
        driven.wake_at = at
        heapq.heappush(self._deadlines, (at, next(self._numbers), driven))
        if len(self._deadlines) > 2 * len(self._streams) + _MOST_UNUSED:
            self._deadlines = [entry for entry in self._deadlines if entry[0] == entry[2].wake_at]
            heapq.heapify(self._deadlines)

    def watch(self, fd: int, socket: Socket, *, read: bool, write: bool) -> None:
        """Wait for a socket from now on, or change what it is waited for.

        Args:
            fd: its file descriptor.
            socket: its `ready` is called.
            read: True: wait until the socket has bytes to read.
            write: True: wait until the socket takes bytes. If neither is wanted, it is not waited for.

        Raises:
            OSError: the system refuses to wait for it.
        """
        events = (selectors.EVENT_READ if read else 0) | (selectors.EVENT_WRITE if write else 0)
        before = self._watched.get(fd, 0)
        if events == before:
            return
        if not events:
            self.forget(fd)
            return
        if before:
            del self._watched[fd]  # a selector that refuses to change it waits for it no longer
            self._selector.modify(fd, events, socket)
        else:
            self._selector.register(fd, events, socket)
        self._watched[fd] = events

    def forget(self, fd: int) -> None:
        """Wait for a socket no longer. Its owner must do this before it closes the socket."""
        if self._watched.pop(fd, 0):
            self._selector.unregister(fd)

    def read_again(self, socket: Socket) -> None:
        """Have a socket's `ready` called at once: there are bytes of it that were read already."""
        self._buffered[socket] = None

    def turn(self) -> None:
        """Wait for what comes next, read it, and step what is due."""
        polled_at = time.monotonic()
        due = self._due(polled_at)
        buffered, self._buffered = self._buffered, {}
        for key, events in self._selector.select(0.0 if due or buffered else self._timeout(polled_at)):
            socket: Socket | None = key.data
            if socket is None:
                self._waker.drain()
                continue
            buffered.pop(socket, None)
            self._read(socket, due, writable=bool(events & selectors.EVENT_WRITE))
        for socket in buffered:
            self._read(socket, due, writable=False)
        for driven in due:
            if not driven.is_ended:
                self.schedule(driven, driven.step(polled_at))
            if driven.is_ended:
                self._streams.discard(driven)

    def _read(self, socket: Socket, due: dict[Driven, None], *, writable: bool) -> None:
        try:
            if socket.ready(writable=writable):
                due[socket.owner] = None
        except BaseException as error:  # it is that stream's alone
            socket.owner.broken(error)
            due[socket.owner] = None

    def _run(self) -> None:
        try:
            while self._streams:
                self.turn()
        except BaseException:
            if not self.is_made:  # a greenlet lives on in a forked child, and finds its descriptors closed
                threading.Event().wait()  # for ever: its end would be that of a thread which the child never had
            raise
        finally:
            self.lanes.close()
            self.workers.close()
            self._close()

    def _due(self, now: float) -> dict[Driven, None]:
        """Return what is to be stepped: what was woken, and what has a deadline that has passed."""
        due: dict[Driven, None] = {}
        while self._woken:
            driven = self._woken.popleft()
            driven.is_woken = False
            due[driven] = None
        deadlines = self._deadlines
        while deadlines and deadlines[0][0] <= now:
            at, _, driven = heapq.heappop(deadlines)
            if at == driven.wake_at:  # else another one has taken its place
                driven.wake_at = None
                due[driven] = None
        return due

    def _timeout(self, now: float) -> float | None:
        """Return the seconds until the next deadline; None if there is none."""
        deadlines = self._deadlines
        while deadlines and deadlines[0][0] != deadlines[0][2].wake_at:
            heapq.heappop(deadlines)
        return min(max(0.0, deadlines[0][0] - now), LONGEST) if deadlines else None


def on_common_tick(at: float, now: float) -> float:
    """Return a deadline, or a moment a little after it on which the deadlines of other streams fall as well."""
    wait = at - now
    if wait <= 0.0:
        return at
    # The largest power of 2 that is not above the slack.
    tick = math.ldexp(0.5, math.frexp(min(wait * _SLACK, _LONGEST_TICK))[1])
    return math.ceil(at / tick) * tick
