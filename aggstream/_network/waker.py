"""Ends the waiting of a selector from another thread."""

from __future__ import annotations

import contextlib
import selectors
import socket

_WAKE_UPS = 4096

LONGEST = 86400.0
"""Operating systems limit the length of a timeout, so a selector is asked to wait for a day at the longest."""


class Waker:
    """A pair of sockets. The thread that waits registers it for reading, and calls `drain` when it is ready.

    Any thread, and any signal handler, may call `wake`, because it takes no lock.
    """

    def __init__(self) -> None:
        """Make one.

        Raises:
            OSError: the process has no more descriptors.
        """
        self._receiver, self._sender = socket.socketpair()
        self._receiver.setblocking(False)
        self._sender.setblocking(False)

    @classmethod
    def with_selector(cls) -> tuple[Waker, selectors.BaseSelector]:
        """Make a waker, and a selector that waits for it. `None` is its data there.

        Raises:
            OSError: the process has no more descriptors.
        """
        waker = cls()
        try:
            selector = selectors.DefaultSelector()
            selector.register(waker, selectors.EVENT_READ)
        except BaseException:
            waker.close()
            raise
        return waker, selector

    def fileno(self) -> int:
        """Return the file descriptor to wait for."""
        return self._receiver.fileno()

    def wake(self) -> None:
        """End the present wait; if no thread waits, end the next wait at once."""
        # The error says that the buffer is full, and then the wait ends anyway, or that the waker is closed.
        with contextlib.suppress(OSError):
            self._sender.send(b"\0")

    def drain(self) -> None:
        """Forget the calls of `wake` until now."""
        with contextlib.suppress(BlockingIOError):
            self._receiver.recv(_WAKE_UPS)

    def close(self) -> None:
        """Close the file descriptors."""
        # First the end that `wake` writes to: else a write to it raises SIGPIPE in the program's thread.
        self._sender.close()
        self._receiver.close()
