"""Threads for calls that block and cannot be interrupted: the token function, name look-ups, REST.

The calls of one kind share a lane. Lanes do not wait for each other, so a token function that hangs delays no
look-up. A thread of a lane begins when it is needed, and ends when it has had nothing to do for a while.
"""

from __future__ import annotations

import collections
import threading
import time
from collections.abc import Callable
from typing import Generic, NoReturn, TypeVar

from aggstream._base.signals import Mask, full_mask, present_mask
from aggstream._base.threads import make_thread

T = TypeVar("T")

# So many calls of a lane may hang at once before the next one has to wait: first so many seconds, then twice as
# long with each further call that hangs. A function that hangs each time must not cost a thread each time, but a
# process that lives for months must not give up either.
_MOST_HUNG = 5
_FIRST_PAUSE, _LONGEST_PAUSE = 60.0, 3600.0
# Seconds after which a thread that has nothing to do ends.
_IDLE = 10.0


class Interrupted(BaseException):
    """Ends the waiting for a job, because another thread asked for something else. It is no error."""


class Abandoned(TimeoutError):
    """A job was given up. A TimeoutError that the call itself raises is another thing: it is the call's result."""

    def __init__(self, *, has_begun: bool = True) -> None:
        super().__init__(
            "the call did not return in time" if has_begun else "an earlier call has not returned yet"
        )
        self.has_begun = has_begun
        """False if the call was not made, because an earlier one of its lane had not returned."""


class CallNotMade(Exception):
    """A call was not made. The text says why, and when the next one is."""

    def __init__(self, why: str, retry_after: float | None = None) -> None:
        super().__init__(why)
        self.retry_after = retry_after
        """The seconds after which the next call is made; None: it may be made at any time."""


class Job(Generic[T]):
    """One call. Its owner looks at `done` when it is woken, and then takes the outcome."""

    def __init__(self, call: Callable[[], T], on_left: Callable[[], None]) -> None:
        """Make a job that has not begun.

        Args:
            call: the call.
            on_left: called when nobody waits for it any more.
        """
        self.done = False
        self.abandoned = False
        self.has_begun = False
        self._call = call
        self._on_left = on_left
        self._outcome: T | None = None
        self._error: BaseException | None = None
        self._finished = threading.Event()

    def run(self) -> None:
        """Make the call. It runs on a thread of the lane."""
        self.has_begun = True
        try:
            self._outcome = self._call()
        except BaseException as error:  # it is the owner's, who raises it in `result`
            self._error = error
        self._finish()

    def refuse(self, error: CallNotMade) -> None:
        """Do not make the call; `result` raises the error."""
        self._error = error
        self._finish()

    def leave(self) -> None:
        """Wait for it no longer. A job that has not begun is not begun any more."""
        self.abandoned = True
        self._on_left()

    def abandon(self) -> NoReturn:
        """Wait for it no longer.

        Raises:
            Abandoned: always, as what came of it.
        """
        self.leave()
        raise Abandoned(has_begun=self.has_begun)

    def wait(self, timeout: float) -> T:
        """Wait on a thread that may block; return what the call returned, or raise what it raised.

        Raises:
            Abandoned: it did not return within `timeout` seconds.
        """
        if not self._finished.wait(timeout):
            self.abandon()
        return self.result()

    def result(self) -> T:
        """Return what the call returned, or raise what it raised."""
        if self._error is not None:
            raise self._error
        return self._outcome  # type: ignore[return-value]  # it is T once there is no error

    def _finish(self) -> None:
        self.done = True
        self._finished.set()


class Lane:
    """Makes the calls of one kind, one at a time. Thread-safe.

    A call that hangs blocks the lane until its owner gives it up. Then it keeps its thread, and the lane goes on
    with another one.
    """

    def __init__(
        self,
        name: str,
        what: str,
        wake: Callable[[], None],
        *,
        mask: Mask = None,
        idle: float = _IDLE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Make a lane without a thread.

        Args:
            name: the name of its threads.
            what: what a call does, in words that follow "still": "waiting for the token provider".
            wake: called on the lane's thread after each call.
            mask: the signals that its threads block; None: those that the thread blocks which starts them.
            idle: seconds after which a thread that has nothing to do ends.
            clock: returns monotonic seconds.
        """
        self.name = name
        self.mask = mask
        """The signals that its threads block."""
        self._idle = idle
        self._clock = clock
        self._what = what
        self._wake = wake
        self._changed = threading.Condition()
        self._waiting: collections.deque[Job[object]] = collections.deque()
        self._worker: _Worker | None = None
        self._hung: list[_Worker] = []
        self._hung_at = 0.0
        self._is_closed = False

    def submit(self, call: Callable[[], T]) -> Job[T]:
        """Queue a call. If it cannot be made, the job is done at once, and its result is CallNotMade."""
        job = Job(call, self._go_on)
        with self._changed:
            self._leave_hung_worker()
            refusal = self._find_worker()
            if refusal is None:
                self._waiting.append(job)  # type: ignore[arg-type]  # a queue of jobs of any kind
                self._changed.notify_all()
        if refusal is not None:
            job.refuse(refusal)
        return job

    def forgive(self) -> None:
        """Forget the calls that hung until now: later calls are of another function."""
        with self._changed:
            self._hung.clear()

    def close(self) -> None:
        """Let the threads end after the calls that wait for them and were not given up."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def join(self, timeout: float | None) -> None:
        """Wait for the threads to end; `close` must have been called."""
        until = None if timeout is None else time.monotonic() + timeout
        for worker in self._workers():
            worker.thread.join(None if until is None else max(0.0, until - time.monotonic()))

    def doing(self) -> str | None:
        """Return in words what a thread of the lane is doing; None if all are idle."""
        return self._what if any(worker.job is not None for worker in self._workers()) else None

    def is_own_thread(self) -> bool:
        """Return True if the calling thread is one of the lane's."""
        return any(worker.thread is threading.current_thread() for worker in self._workers())

    def _workers(self) -> list[_Worker]:
        # Without the lock, because a signal handler may ask.
        worker = self._worker
        workers = [*self._hung] if worker is None else [*self._hung, worker]
        return [worker for worker in workers if worker.thread.is_alive()]

    def _go_on(self) -> None:
        """Let another thread take the jobs that wait behind a call that hangs."""
        with self._changed:
            self._leave_hung_worker()
            if any(not job.abandoned for job in self._waiting) and self._find_worker() is None:
                self._changed.notify_all()

    def _leave_hung_worker(self) -> None:
        """Go on without the thread whose call nobody waits for any more."""
        self._hung = [worker for worker in self._hung if worker.thread.is_alive()]
        worker = self._worker
        if worker is not None and worker.job is not None and worker.job.abandoned:
            self._hung.append(worker)
            self._hung_at = self._clock()
            self._worker = None

    def _find_worker(self) -> CallNotMade | None:
        """See to it that there is a thread for the next job; return why there is none."""
        if self._worker is not None:
            return None
        surplus = len(self._hung) - _MOST_HUNG
        pause = min(_FIRST_PAUSE * 2.0 ** min(surplus, 10), _LONGEST_PAUSE)
        remaining = self._hung_at + pause - self._clock()
        if surplus >= 0 and remaining > 0:
            return CallNotMade(
                f"{len(self._hung)} calls have not returned (still {self._what}): "
                f"the next one is made in {remaining:.0f} s at the earliest",
                remaining,
            )
        worker = _Worker()
        worker.thread = make_thread(self._run, worker, name=self.name, mask=self.mask)
        try:
            worker.thread.start()
        except (RuntimeError, MemoryError) as error:
            return CallNotMade(f"the system gives no thread for it ({error})")
        self._worker = worker
        return None

    # --- on the lane's thread ---------------------------------------------------------------------------

    def _run(self, worker: _Worker) -> None:
        while (job := self._next(worker)) is not None:
            job.run()
            worker.job = None
            self._wake()

    def _next(self, worker: _Worker) -> Job[object] | None:
        """Return the next job; None if the thread should end."""
        with self._changed:
            if self._worker is not worker:
                return None  # it was left behind with a call that hung
            self._changed.wait_for(lambda: self._waiting or self._is_closed, self._idle)
            while self._waiting:
                job = self._waiting.popleft()
                if not job.abandoned:
                    worker.job = job
                    return job
            self._worker = None
            return None


class _Worker:
    """A thread of a lane, and the job that it is at."""

    __slots__ = ("job", "thread")

    thread: threading.Thread

    def __init__(self) -> None:
        self.job: Job[object] | None = None


class BlockingCalls:
    """The lanes of one stream. Thread-safe."""

    def __init__(self, name: str, wake: Callable[[], None]) -> None:
        """Make the lanes, without a thread.

        Args:
            name: begins the names of the threads.
            wake: called on the thread of a call after each call.
        """
        self.tokens = Lane(f"{name}-tokens", "waiting for the token provider", wake)
        self.look_ups = Lane(f"{name}-look-up", "looking up the host", wake)
        self.rest = Lane(f"{name}-rest", "reading from the REST API", wake)
        self._lanes = (self.tokens, self.look_ups, self.rest)

    def set_masks(self) -> None:
        """Let the user's functions block the signals that the calling thread blocks, and our own code all."""
        self.tokens.mask = present_mask()
        self.look_ups.mask = self.rest.mask = full_mask()

    def close(self) -> None:
        """Let all threads end after the calls that wait for them and were not given up."""
        for lane in self._lanes:
            lane.close()

    def join(self, timeout: float | None) -> None:
        """Wait for all threads to end, for `timeout` seconds in all; `close` must have been called."""
        until = None if timeout is None else time.monotonic() + timeout
        for lane in self._lanes:
            lane.join(None if until is None else max(0.0, until - time.monotonic()))

    def doing(self) -> tuple[str, ...]:
        """Return in words what the threads are doing."""
        return tuple(what for lane in self._lanes if (what := lane.doing()) is not None)

    def is_own_thread(self) -> bool:
        """Return True if the calling thread is one of a lane."""
        return any(lane.is_own_thread() for lane in self._lanes)
