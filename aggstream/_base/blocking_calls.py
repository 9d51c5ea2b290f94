"""Threads for calls that block and cannot be interrupted: opening a connection, the token function, REST.

The calls of one kind share a lane. Lanes do not wait for each other, so a token function that hangs delays no
connection. In a lane each stream has a queue of its own: the calls of one stream are made one at a time, and a
call that hangs delays no other stream. A thread of a lane begins when it is needed, and ends when it has had
nothing to do for a while.
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

# So many calls may hang at once before the next one has to wait, of one stream and of all: first so many seconds,
# then twice as long with each further call that hangs. A function that hangs each time must not cost a thread each
# time, but a process that lives for months must not give up either.
_MOST_HUNG, _MOST_HUNG_OF_ALL = 5, 32
_FIRST_PAUSE, _LONGEST_PAUSE = 60.0, 3600.0
# Seconds after which a thread that has nothing to do ends.
_IDLE = 10.0
# How many calls of one kind are made at once. The first number also paces the reconnecting of many streams.
_OPENINGS, _TOKENS, _REST = 4, 2, 2
# A call that takes longer, in seconds, does not count among them, so that a few slow ones do not keep all others
# waiting.
_SLOW = 1.0


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

    __slots__ = ("_call", "_error", "_finished", "_lane", "_outcome", "_queue", "abandoned", "began_at", "done")

    def __init__(self, call: Callable[[], T], lane: Lane, queue: CallQueue) -> None:
        """Make a job that has not begun.

        Args:
            call: the call.
            lane: makes it.
            queue: the queue that it waits in.
        """
        self.done = False
        self.abandoned = False
        self.began_at: float | None = None
        """When the call was begun, in monotonic seconds; None if it was not yet."""
        self._call = call
        self._lane = lane
        self._queue = queue
        self._outcome: T | None = None
        self._error: BaseException | None = None
        self._finished = threading.Event()

    @property
    def has_begun(self) -> bool:
        """True once the call was begun."""
        return self.began_at is not None

    def run(self) -> None:
        """Make the call. It runs on a thread of the lane."""
        try:
            self._outcome = self._call()
        except BaseException as error:  # it is the owner's, who raises it in `result`
            self._error = error
        self._finish()

    def refuse(self, error: CallNotMade) -> None:
        """Do not make the call; `result` raises the error."""
        self._error = error
        self._finish()

    def deadline(self, timeout: float) -> float:
        """Return when `check` is to be called, in monotonic seconds, if the call may take `timeout` seconds."""
        return time.monotonic() + min(timeout, _SLOW) if self.began_at is None else self.began_at + timeout

    def check(self, timeout: float) -> bool:
        """Return True if the call has taken `timeout` seconds, and has not returned. Waiting in the queue is free.

        A call that waits, because the lane is at slow ones, is begun.
        """
        if self.done:
            return False
        if self.began_at is None:
            self._lane.provide()
            return False
        return time.monotonic() >= self.began_at + timeout

    def leave(self) -> None:
        """Wait for it no longer. A job that has not begun is not begun any more."""
        self.abandoned = True
        self._lane.leave(self._queue, self)

    def abandon(self) -> NoReturn:
        """Wait for it no longer.

        Raises:
            Abandoned: always, as what came of it.
        """
        self.leave()
        raise Abandoned(has_begun=self.has_begun)

    def wait(self, timeout: float) -> T:
        """Wait on a thread that may block; return what the call returned, or raise what it raised.

        Args:
            timeout: the seconds that the call may wait in its queue, and then the seconds that it may take.

        Raises:
            Abandoned: it did not return in time.
        """
        is_finished = self._finished.wait(timeout)
        if not is_finished and self.began_at is not None:
            is_finished = self._finished.wait(max(0.0, self.began_at + timeout - time.monotonic()))
        if not is_finished:
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


class CallQueue:
    """One stream's calls in a lane: they are made one at a time, in their order. Thread-safe.

    A call that hangs blocks the queue until its owner gives it up. Then it keeps its thread, and the queue goes on
    with another one.
    """

    __slots__ = ("_lane", "_wake", "hung", "hung_at", "is_ready", "running", "waiting")

    def __init__(self, lane: Lane, wake: Callable[[], None]) -> None:
        """Make one; `wake` is called on a thread of the lane after each call."""
        self._lane = lane
        self._wake = wake
        # The lane's lock guards all of these.
        self.waiting: tuple[Job[object], ...] = ()
        self.running: Job[object] | None = None
        self.hung: tuple[_Worker, ...] = ()
        self.hung_at = 0.0
        self.is_ready = False

    def submit(self, call: Callable[[], T]) -> Job[T]:
        """Queue a call. If it cannot be made, the job is done at once, and its result is CallNotMade."""
        return self._lane.submit(self, call)

    def forgive(self) -> None:
        """Forget the calls that hung until now: later calls are of another function."""
        self._lane.forgive(self)

    def wake(self) -> None:
        """Tell the stream that a call has returned. Called on a thread of the lane."""
        self._wake()


class _Worker:
    """A thread of a lane, and the job that it is at."""

    __slots__ = ("job", "thread")

    thread: threading.Thread

    def __init__(self) -> None:
        self.job: Job[object] | None = None


class Lane:
    """Makes the calls of one kind, for any number of streams. Thread-safe."""

    def __init__(
        self,
        name: str,
        what: str,
        *,
        at_once: int = 1,
        mask: Mask = None,
        idle: float = _IDLE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Make a lane without a thread.

        Args:
            name: the name of its threads.
            what: what a call does, in words that follow "still": "waiting for the token provider".
            at_once: the number of calls that are made at once. A call that its owner has given up does not count.
            mask: the signals that its threads block; None: those that the thread blocks which starts them.
            idle: seconds after which a thread that has nothing to do ends.
            clock: returns monotonic seconds.
        """
        self.name = name
        self.mask = mask
        """The signals that its threads block."""
        self._at_once = at_once
        self._idle = idle
        self._clock = clock
        self._what = what
        self._changed = threading.Condition()
        # The queues whose next call may begin, in turn.
        self._ready: collections.deque[CallQueue] = collections.deque()
        self._workers: tuple[_Worker, ...] = ()
        self._idle_workers = 0
        self._hung: tuple[_Worker, ...] = ()
        self._hung_at = 0.0
        self._is_closed = False

    def submit(self, queue: CallQueue, call: Callable[[], T]) -> Job[T]:
        """Queue a call; see `CallQueue.submit`."""
        job = Job(call, self, queue)
        with self._changed:
            refusal = self._refusal(queue)
            if refusal is None:
                queue.waiting = (*queue.waiting, job)  # type: ignore[arg-type]  # jobs of any kind
                self._make_ready(queue)
                refusal = self._provide()
                if refusal is not None:
                    queue.waiting = queue.waiting[:-1]
        if refusal is not None:
            job.refuse(refusal)
        return job

    def forgive(self, queue: CallQueue) -> None:
        """Forget a queue's calls that hung until now."""
        with self._changed:
            self._hung = tuple(worker for worker in self._hung if worker not in queue.hung)
            queue.hung = ()

    def close(self) -> None:
        """Let the threads end after the calls that wait for them and were not given up."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def join(self, timeout: float | None) -> None:
        """Wait for the threads to end; `close` must have been called."""
        until = None if timeout is None else time.monotonic() + timeout
        for worker in self._living():
            worker.thread.join(None if until is None else max(0.0, until - time.monotonic()))

    def doing(self) -> str | None:
        """Return in words what a thread of the lane is doing; None if all are idle."""
        return self._what if any(worker.job is not None for worker in self._living()) else None

    def is_own_thread(self) -> bool:
        """Return True if the calling thread is one of the lane's."""
        return any(worker.thread is threading.current_thread() for worker in self._living())

    def _living(self) -> list[_Worker]:
        # Without the lock, because a signal handler may ask.
        return [worker for worker in (*self._hung, *self._workers) if worker.thread.is_alive()]

    def _make_ready(self, queue: CallQueue) -> None:
        """Let the next call of a queue begin, if there is one and no other one is being made."""
        if queue.waiting and queue.running is None and not queue.is_ready:
            queue.is_ready = True
            self._ready.append(queue)

    def provide(self) -> None:
        """See to it that a call which waits is begun, if the threads are at slow calls."""
        with self._changed:
            self._provide()

    def leave(self, queue: CallQueue, job: Job[T]) -> None:
        """Go on without a call that nobody waits for any more."""
        with self._changed:
            if queue.running is not job:
                return
            worker = next(worker for worker in self._workers if worker.job is job)
            self._workers = tuple(other for other in self._workers if other is not worker)
            self._hung = (*self._hung, worker)
            queue.hung = (*queue.hung, worker)
            self._hung_at = queue.hung_at = self._clock()
            queue.running = None
            self._make_ready(queue)
            refusal = self._provide()
            stranded = [] if refusal is None else self._take_all()
        for other_queue, waiting in stranded:
            assert refusal is not None
            waiting.refuse(refusal)
            other_queue.wake()

    def _take_all(self) -> list[tuple[CallQueue, Job[object]]]:
        """Return the calls that wait, and let none of them wait any more."""
        taken = [(queue, job) for queue in self._ready for job in queue.waiting]
        for queue in self._ready:
            queue.waiting = ()
            queue.is_ready = False
        self._ready.clear()
        return taken

    def _refusal(self, queue: CallQueue) -> CallNotMade | None:
        """Return why no call of a queue is made now; None if it may be."""
        self._hung = tuple(worker for worker in self._hung if worker.thread.is_alive())
        queue.hung = tuple(worker for worker in queue.hung if worker.thread.is_alive())
        return self._pause_after(len(queue.hung), _MOST_HUNG, queue.hung_at) or self._pause_after(
            len(self._hung), _MOST_HUNG_OF_ALL, self._hung_at
        )

    def _pause_after(self, hung: int, most: int, hung_at: float) -> CallNotMade | None:
        surplus = hung - most
        pause = min(_FIRST_PAUSE * 2.0 ** min(surplus, 10), _LONGEST_PAUSE)
        remaining = hung_at + pause - self._clock()
        if surplus < 0 or remaining <= 0:
            return None
        return CallNotMade(
            f"{hung} calls have not returned (still {self._what}): "
            f"the next one is made in {remaining:.0f} s at the earliest",
            remaining,
        )

    def _provide(self) -> CallNotMade | None:
        """See to it that there is a thread for the calls that may begin; return why there is none."""
        if len(self._ready) <= self._idle_workers or self._is_busy():
            self._changed.notify()
            return None
        worker = _Worker()
        worker.thread = make_thread(self._run, worker, name=self.name, mask=self.mask)
        try:
            worker.thread.start()
        except (RuntimeError, MemoryError) as error:
            # The other threads make the call later.
            return None if self._workers else CallNotMade(f"the system gives no thread for it ({error})")
        self._workers = (*self._workers, worker)
        return None

    def _is_busy(self) -> bool:
        """Return True if so many calls are made that the next one has to wait."""
        if len(self._workers) < self._at_once:
            return False
        began = time.monotonic() - _SLOW
        jobs = [worker.job for worker in self._workers]
        quick = sum(1 for job in jobs if job is None or job.began_at is None or job.began_at > began)
        return quick >= self._at_once or len(self._workers) >= self._at_once + _MOST_HUNG_OF_ALL

    # --- on the lane's threads --------------------------------------------------------------------------

    def _run(self, worker: _Worker) -> None:
        while (queue := self._next(worker)) is not None:
            job = worker.job
            assert job is not None
            job.run()
            with self._changed:
                worker.job = None
                if queue.running is job:
                    queue.running = None
                    self._make_ready(queue)
            queue.wake()

    def _next(self, worker: _Worker) -> CallQueue | None:
        """Wait for the next job, and give it to a worker; return its queue, or None if the thread should end."""
        with self._changed:
            while worker in self._workers:  # else it was left behind with a call that hung
                if self._ready:
                    queue = self._ready.popleft()
                    queue.is_ready = False
                    if self._begin(worker, queue):
                        return queue
                    continue
                self._idle_workers += 1
                has_news = self._changed.wait_for(lambda: self._ready or self._is_closed, self._idle)
                self._idle_workers -= 1
                if not self._ready and (self._is_closed or not has_news):
                    self._workers = tuple(other for other in self._workers if other is not worker)
            return None

    def _begin(self, worker: _Worker, queue: CallQueue) -> bool:
        """Give a worker the next job of a queue that was not given up; return False if there is none."""
        while queue.waiting:
            job, *others = queue.waiting
            queue.waiting = tuple(others)
            if not job.abandoned:
                job.began_at = time.monotonic()
                worker.job = queue.running = job
                return True
        return False


class BlockingCalls:
    """The queues of one stream in the lanes. Thread-safe."""

    __slots__ = ("openings", "rest", "tokens")

    def __init__(self, lanes: Lanes, wake: Callable[[], None]) -> None:
        """Make the queues.

        Args:
            lanes: make the calls.
            wake: called on the thread of a call after each call.
        """
        self.openings = CallQueue(lanes.openings, wake)
        self.tokens = CallQueue(lanes.tokens, wake)
        self.rest = CallQueue(lanes.rest, wake)


class Lanes:
    """The lanes of an engine. Thread-safe."""

    def __init__(self, name: str) -> None:
        """Make the lanes, without a thread; `name` begins the names of the threads."""
        self.openings = Lane(f"{name}-opening", "opening a connection", at_once=_OPENINGS)
        self.tokens = Lane(f"{name}-tokens", "waiting for the token provider", at_once=_TOKENS)
        self.rest = Lane(f"{name}-rest", "reading from the REST API", at_once=_REST)
        self.accounts = Lane(f"{name}-accounts", "asking which accounts there are")
        self._lanes = (self.openings, self.tokens, self.rest, self.accounts)

    def set_masks(self) -> None:
        """Let the user's functions block the signals that the calling thread blocks, and our own code all."""
        self.tokens.mask = self.accounts.mask = present_mask()
        self.openings.mask = self.rest.mask = full_mask()

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
