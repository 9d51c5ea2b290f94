"""The waiting for one socket while a connection is opened, on a thread that may block."""

from __future__ import annotations

import selectors
import socket

from aggstream._base.blocking_calls import Interrupted
from aggstream._base.deadline import Deadline
from aggstream._network.waker import LONGEST, Waker


class SocketWait:
    """Waits for a socket. Any thread may interrupt it."""

    def __init__(self) -> None:
        """Make one, with file descriptors of its own.

        Raises:
            OSError: the process has no more descriptors.
        """
        self.is_interrupted = False
        self._waker, self._selector = Waker.with_selector()

    def interrupt(self) -> None:
        """End the present wait, and each later one, with `Interrupted`. Takes no lock."""
        self.is_interrupted = True
        self._waker.wake()

    def wait(self, sock: socket.socket, *, write: bool, deadline: Deadline) -> None:
        """Wait until a socket is ready.

        Raises:
            TimeoutError: the deadline passed first.
            Interrupted: another thread called `interrupt`.
        """
        fd = sock.fileno()
        self._selector.register(fd, selectors.EVENT_WRITE if write else selectors.EVENT_READ)
        try:
            while not self.is_interrupted:
                if deadline.expired():
                    raise TimeoutError
                remaining = deadline.remaining()
                if self._selector.select(None if remaining is None else min(remaining, LONGEST)):
                    break
            if self.is_interrupted:
                raise Interrupted
        finally:
            self._selector.unregister(fd)

    def close(self) -> None:
        """Close the file descriptors."""
        self._selector.close()
        self._waker.close()
