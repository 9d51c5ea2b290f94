"""The waiting of the I/O thread while there is no session. Other threads can interrupt it at any time."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import TypeVar

from aggstream._base.blocking_calls import Job
from aggstream._base.deadline import Deadline, nearest, seconds_until
from aggstream._network.poller import Poller

T = TypeVar("T")


class Waiter:
    """Waits with a poller. After each wake-up it handles the requests of other threads."""

    def __init__(self, poller: Poller, obey: Callable[[], None], look: Callable[[], float | None]) -> None:
        """Make a waiter.

        Args:
            poller: the poller that waits.
            obey: handles the requests of other threads. It raises an exception to end the waiting.
            look: does other regular work. It returns the monotonic time of its next call, or None.
        """
        self._poller = poller
        self._obey = obey
        self._look = look

    def sleep(self, seconds: float) -> None:
        """Wait for some seconds."""
        deadline = Deadline(seconds)
        while not deadline.expired():
            self._wait(None, deadline)

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait until a condition is true. The condition is tested after each wake-up."""
        while not condition():
            self._wait(None, Deadline(None))

    def job(self, job: Job[T], deadline: Deadline) -> T:
        """Wait for a job; return the job's result, or raise the job's exception.

        Raises:
            Abandoned: the deadline passed before the job was done.
        """
        try:
            while not job.done:
                if deadline.expired():
                    job.abandon()
                self._wait(None, deadline)
        except BaseException:  # after an interruption, no thread waits for the job, which may hang
            job.leave()
            raise
        self._obey()  # a request of another thread may have made the result useless
        return job.result()

    def socket(self, sock: socket.socket, *, write: bool, deadline: Deadline) -> None:
        """Wait until a socket is ready.

        Raises:
            TimeoutError: the deadline passed first.
        """
        try:
            while not deadline.expired():
                if any(self._wait(sock.fileno(), deadline, write=write)):
                    return
            raise TimeoutError
        finally:
            self._poller.forget()

    def _wait(self, fd: int | None, deadline: Deadline, *, write: bool = False) -> tuple[bool, bool]:
        self._obey()
        timeout = seconds_until(nearest(deadline.at, self._look()))
        return self._poller.wait(fd, read=not write, write=write, timeout=timeout)
