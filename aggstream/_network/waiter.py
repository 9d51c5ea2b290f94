"""How the I/O thread waits while there is no session: always interruptible, always with a deadline."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import TypeVar

from aggstream._base.blocking_calls import Job
from aggstream._base.deadline import Deadline, nearest, seconds_until
from aggstream._network.poller import Poller

T = TypeVar("T")


class Waiter:
    """Waits by a poller, and looks at what other threads ask for each time it is woken."""

    def __init__(self, poller: Poller, obey: Callable[[], None], look: Callable[[], float | None]) -> None:
        """Make one.

        Args:
            poller: what waits.
            obey: raises to end whatever is waited for.
            look: looks after something else, and returns when it must be called again (monotonic), or None.
        """
        self._poller = poller
        self._obey = obey
        self._look = look

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        deadline = Deadline(seconds)
        while not deadline.expired():
            self._wait(None, deadline)

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait until a condition holds, which is looked at whenever the poller is woken."""
        while not condition():
            self._wait(None, Deadline(None))

    def job(self, job: Job[T], deadline: Deadline) -> T:
        """Return what a job returned, or raise what it raised.

        Raises:
            Abandoned: the deadline passed.
        """
        try:
            while not job.done:
                if deadline.expired():
                    job.abandon()
                self._wait(None, deadline)
        except BaseException:  # whatever ended the waiting, nobody waits for a job that hangs
            job.leave()
            raise
        self._obey()  # what was asked for meanwhile may have made the outcome nobody's
        return job.result()

    def socket(self, sock: socket.socket, *, write: bool, deadline: Deadline) -> None:
        """Return once a socket is ready.

        Raises:
            TimeoutError: the deadline passed.
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
