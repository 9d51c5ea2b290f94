"""The waiting for one socket while a connection is opened, on a thread that may block."""

from __future__ import annotations

import socket

from aggstream._base.blocking_calls import Interrupted
from aggstream._base.deadline import Deadline
from aggstream._network.poller import Poller


class SocketWait:
    """Waits for a socket. Any thread may interrupt it."""

    def __init__(self) -> None:
        """Make one, with file descriptors of its own.

        Raises:
            OSError: the process has no more descriptors.
        """
        self.is_interrupted = False
        self._poller: Poller[socket.socket] = Poller()

    def interrupt(self) -> None:
        """End the present wait, and each later one, with `Interrupted`. Takes no lock."""
        self.is_interrupted = True
        self._poller.wake()

    def wait(self, sock: socket.socket, *, write: bool, deadline: Deadline) -> None:
        """Wait until a socket is ready.

        Raises:
            TimeoutError: the deadline passed first.
            Interrupted: another thread called `interrupt`.
        """
        fd = sock.fileno()
        self._poller.watch(fd, sock, read=not write, write=write)
        try:
            while True:
                if self.is_interrupted:
                    raise Interrupted
                if deadline.expired():
                    raise TimeoutError
                if self._poller.wait(deadline.remaining()):
                    return
        finally:
            self._poller.forget(fd)

    def close(self) -> None:
        """Close the file descriptors."""
        self._poller.close()
