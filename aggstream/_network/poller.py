"""Waiting for a socket, for a wake-up from another thread, and for a deadline, all at once."""

from __future__ import annotations

import contextlib
import selectors
import socket

_WAKE_UPS = 4096
# Operating systems limit a time-out; a longer wait looks at the clock once a day.
_LONGEST = 86400.0


class Poller:
    """One thread waits, any thread may wake it: also a signal handler, because `wake` takes no lock."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._receiver, self._sender = socket.socketpair()
        self._receiver.setblocking(False)
        self._sender.setblocking(False)
        self._selector.register(self._receiver, selectors.EVENT_READ)
        self._watched: tuple[int, int] | None = None
        self.woken = False
        """Whether `wake` was called since the wait before the last one."""

    def wake(self) -> None:
        """End the present wait, or else the next one."""
        # Full: it wakes anyway. Closed: nobody waits any more.
        with contextlib.suppress(OSError):
            self._sender.send(b"\0")

    def wait(
        self, fd: int | None, *, read: bool = True, write: bool = False, timeout: float | None = None
    ) -> tuple[bool, bool]:
        """Wait for a socket, a wake-up, or the time.

        Args:
            fd: the socket's descriptor; None: none.
            read: whether to wait for something to read.
            write: whether to wait for room to write.
            timeout: seconds; None: for ever.

        Returns:
            Whether the socket can be read from, and written to.
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
        """Stop watching the socket: call it before the socket is closed."""
        self._watch(None)

    def close(self) -> None:
        """Release the descriptors."""
        self._selector.close()
        self._receiver.close()
        self._sender.close()

    def _watch(self, wanted: tuple[int, int] | None) -> None:
        if wanted == self._watched:
            return
        if self._watched is not None:
            self._selector.unregister(self._watched[0])
        if wanted is not None:
            self._selector.register(*wanted)
        self._watched = wanted
