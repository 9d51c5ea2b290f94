"""Waits for any number of sockets, for a wake-up from another thread, and for a deadline, all at once."""

from __future__ import annotations

import contextlib
import selectors
import socket
from typing import Generic, TypeVar

S = TypeVar("S")

_WAKE_UPS = 4096
# Operating systems limit the length of a timeout, so `wait` returns after one day at the latest.
_LONGEST = 86400.0


class Poller(Generic[S]):
    """One thread waits. Any thread, and any signal handler, may wake it, because `wake` takes no lock.

    `S` is the type of the objects that sockets are watched for.
    """

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
        # What each socket is watched for, by its descriptor.
        self._events: dict[int, int] = {}

    def wake(self) -> None:
        """End the present `wait`; if no thread waits, end the next `wait` at once."""
        # The error says that the buffer is full, and then `wait` ends anyway, or that the poller is closed.
        with contextlib.suppress(OSError):
            self._sender.send(b"\0")

    def watch(self, fd: int, owner: S, *, read: bool, write: bool) -> None:
        """Watch a socket from now on, or change what it is watched for.

        Args:
            fd: its file descriptor.
            owner: what `wait` returns when the socket is ready.
            read: True: wait until the socket has bytes to read.
            write: True: wait until the socket takes bytes. If neither is wanted, it is not watched.

        Raises:
            OSError: the system refuses to watch it.
        """
        events = (selectors.EVENT_READ if read else 0) | (selectors.EVENT_WRITE if write else 0)
        before = self._events.get(fd, 0)
        if events == before:
            return
        if not events:
            self.forget(fd)
        elif before:
            self._selector.modify(fd, events, owner)
            self._events[fd] = events
        else:
            self._selector.register(fd, events, owner)
            self._events[fd] = events

    def forget(self, fd: int) -> None:
        """Stop watching a socket. The caller must do this before it closes the socket."""
        if self._events.pop(fd, 0):
            self._selector.unregister(fd)

    def wait(self, timeout: float | None) -> list[tuple[S, bool, bool]]:
        """Wait until a socket is ready, another thread calls `wake`, or the timeout passes.

        Args:
            timeout: the longest wait in seconds; None: no limit.

        Returns:
            For each socket that is ready its owner, True if it has bytes to read, and True if it takes bytes.
        """
        ready: list[tuple[S, bool, bool]] = []
        for key, mask in self._selector.select(None if timeout is None else min(timeout, _LONGEST)):
            if key.data is None:
                with contextlib.suppress(BlockingIOError):
                    self._receiver.recv(_WAKE_UPS)
            else:
                ready.append((key.data, bool(mask & selectors.EVENT_READ), bool(mask & selectors.EVENT_WRITE)))
        return ready

    def close(self) -> None:
        """Close the file descriptors of the poller."""
        self._selector.close()
        self._receiver.close()
        self._sender.close()
