"""One thread for what blocks and cannot be interrupted: the token provider, and looking up a host name."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Generic, NoReturn, TypeVar

from aggstream._base.threads import make_thread

T = TypeVar("T")

# A function that hangs each time it is called must not cost a thread each time.
_MOST_HUNG = 4


class Interrupted(BaseException):
    """Ends the waiting for a job, because another thread asked for something else. It is no error."""


class Abandoned(TimeoutError):
    """A job was given up. A TimeoutError that the call itself raises is another thing: it is the call's result."""


class Job(Generic[T]):
    """One call. Its owner looks at `done` when it is woken, and then takes the outcome."""

    def __init__(self, call: Callable[[], T], what: str) -> None:
        self.what = what
        self.done = False
        self.abandoned = False
        self._call = call
        self._outcome: T | None = None
        self._error: BaseException | None = None

    def run(self) -> None:
        """Make the call. It runs on the work thread."""
        try:
            self._outcome = self._call()
        except BaseException as error:  # it is the owner's, who raises it in `result`
            self._error = error
        self.done = True

    def leave(self) -> None:
        """Wait for it no longer. A job that has not begun is not begun any more."""
        self.abandoned = True

    def abandon(self) -> NoReturn:
        """Wait for it no longer.

        Raises:
            Abandoned: always, as what came of it.
        """
        self.leave()
        raise Abandoned

    def result(self) -> T:
        """Return what the call returned, or raise what it raised."""
        if self._error is not None:
            raise self._error
        return self._outcome  # type: ignore[return-value]  # it is T once there is no error


class WorkThread:
    """Runs jobs one at a time. A job that hangs is left to a thread of its own once its owner gives it up."""

    def __init__(self, name: str, wake: Callable[[], None]) -> None:
        """Make one.

        Args:
            name: the thread's name.
            wake: called on the work thread after each job.
        """
        self.name = f"{name}-work"
        self._wake = wake
        self._jobs: queue.SimpleQueue[Job[object] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._current: Job[object] | None = None
        self._hung: list[threading.Thread] = []

    def submit(self, call: Callable[[], T], what: str) -> Job[T]:
        """Queue a call; `what` says in words what it does.

        Raises:
            RuntimeError: the thread cannot be started.
        """
        current = self._current
        self._hung = [thread for thread in self._hung if thread.is_alive()]
        if current is not None and current.abandoned and self._thread and len(self._hung) < _MOST_HUNG:
            self._hung.append(self._thread)
            self.close()
            self._jobs = queue.SimpleQueue()
            self._thread = self._current = None
        if self._thread is None:
            thread = make_thread(self._run, self._jobs, name=self.name)
            thread.start()  # the system may have no more threads
            self._thread = thread
        job = Job(call, what)
        self._jobs.put(job)  # type: ignore[arg-type]  # a queue of jobs of any kind
        return job

    def forgive(self) -> None:
        """Forget the calls that hung until now: later calls are of another function."""
        self._hung.clear()

    def close(self) -> None:
        """Let the thread end after the job that it is at."""
        self._jobs.put(None)

    def join(self, timeout: float | None) -> None:
        """Wait for the thread to end."""
        if self._thread is not None:
            self._thread.join(timeout)

    def doing(self) -> str | None:
        """Return in words what the thread is doing; None if it is idle."""
        current = self._current
        return None if current is None else current.what

    def is_own_thread(self) -> bool:
        """Return True if the calling thread is this one."""
        return self._thread is threading.current_thread()

    def is_alive(self) -> bool:
        """Return True if the thread lives; it is made with the first job."""
        return self._thread is None or self._thread.is_alive()

    def _run(self, jobs: queue.SimpleQueue[Job[object] | None]) -> None:
        while (job := jobs.get()) is not None:
            if job.abandoned:
                continue
            if self._jobs is jobs:
                self._current = job
            job.run()
            if self._jobs is jobs:
                self._current = None
            self._wake()
