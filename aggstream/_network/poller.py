"""Waits for a socket, for a wake-up from another thread, and for a deadline, all at once."""

from __future__ import annotations

import contextlib
import selectors
import socket

_WAKE_UPS = 4096
# Operating systems limit the length of a timeout, so `wait` returns after one day at the latest.
_LONGEST = 86400.0


class Poller:
    """One thread waits. Any thread, and any signal handler, may wake it, because `wake` takes no lock."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        try:
            self._receiver, self._sender = socket.socketpair()
        except BaseException:
            self._selector.close()
            raise
        self._receiver.setblocking(False)
        self._sender.setblocking(False)
        self._selector.register(self._receiver, selectors.EVENT_READ)
        self._watched: tuple[int, int] | None = None
        self.woken = False
        """True if the last `wait` noticed a call of `wake`."""

    def wake(self) -> None:
        """End the present `wait`; if no thread waits, end the next `wait` at once."""
        # The error says that the buffer is full, and then `wait` ends anyway, or that the poller is closed.
        with contextlib.suppress(OSError):
            self._sender.send(b"\0")

    def wait(
        self, fd: int | None, *, read: bool = True, write: bool = False, timeout: float | None = None
    ) -> tuple[bool, bool]:
        """Wait until a socket is ready, another thread calls `wake`, or the timeout passes.

        Args:
            fd: the socket's file descriptor; None: wait for no socket.
            read: True: wait until the socket has bytes to read.
            write: True: wait until the socket takes bytes.
            timeout: the longest wait in seconds; None: no limit.

        Returns:
            Two flags: True if the socket has bytes to read, and True if the socket takes bytes.
        """
        events = (selectors.EVENT_READ if read else 0) | (selectors.EVENT_WRITE if write else 0)
        self._watch(None if fd is None or not events else (fd, events))
        ready = 0
        self.woken = False
        for key, mask in self._selector.select(None if timeout is None else min(timeout, _LONGEST)):
            if key.fileobj is self._receiver:
                self.woken = True
                with contextlib.suppress(BlockingIOError):
                    self._receiver.recv(_WAKE_UPS)
            else:
                ready = mask
        return bool(ready & selectors.EVENT_READ), bool(ready & selectors.EVENT_WRITE)

    def forget(self) -> None:
        """Stop watching the socket. The caller must do this before it closes the socket."""
        self._watch(None)

    def close(self) -> None:
        """Close the file descriptors of the poller."""
        self._selector.close()
        # First the end that `wake` writes to: without a reader, a write raises SIGPIPE in the program's thread.
        self._sender.close()
        self._receiver.close()

    def _watch(self, wanted: tuple[int, int] | None) -> None:
        if wanted == self._watched:
            return
        if self._watched is not None:
            self._selector.unregister(self._watched[0])
        if wanted is not None:
            self._selector.register(*wanted)
        self._watched = wanted
