"""The I/O thread: its selector, its inbox, and the wish that it ends.

Other threads put a command into the inbox and wake it. `stream.py` obeys the commands. One loop drives one
stream; a loop for many would wait for many sockets at once, and this is the place for it.
"""

from __future__ import annotations

import collections
import threading
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from aggstream._base.signals import full_mask
from aggstream._base.threads import Gate, make_thread
from aggstream._network.poller import Poller

C = TypeVar("C")


class Loop(Generic[C]):
    """A thread that waits for a socket, a wake-up and a deadline. Its commands are of the type `C`."""

    def __init__(self, name: str) -> None:
        """Make one that is not started, and holds no descriptor.

        Args:
            name: the thread's.
        """
        self.name = name
        self.poller: Poller
        """Waits; made by `start`, so that a client which is never started can be started in a forked child."""
        self.stop_requested = False
        """True once the stream is to end."""
        self.fatal: BaseException | None = None
        """The error that ends the stream; None if there is none."""
        self._inbox: collections.deque[C] = collections.deque()
        self._thread: threading.Thread | None = None

    # --- for any thread ---------------------------------------------------------------------------------

    def start(self, gate: Gate, main: Callable[[], None]) -> None:
        """Start the thread.

        Args:
            gate: where it waits until all threads of the client are there.
            main: the function that it runs.

        Raises:
            RuntimeError: it cannot be started.
            OSError: there are no descriptors left for it.
        """
        poller = Poller()
        try:
            thread = make_thread(gate.run, main, name=self.name, mask=full_mask())
            thread.start()
        except BaseException:
            poller.close()
            raise
        self.poller = poller
        self._thread = thread

    def reset(self) -> None:
        """Wait for the thread to end, whose gate was cancelled; then it is as if it had never been started."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
            self.poller.close()
        self.stop_requested = False

    def wake(self) -> None:
        """Let the thread look at what has changed. Takes no lock."""
        if self._thread is not None:
            self.poller.wake()

    def ask(self, command: C) -> None:
        """Put a command into the inbox."""
        self._inbox.append(command)
        self.wake()

    def request_stop(self) -> None:
        """Ask the stream to end. Takes no lock, so a signal handler may call it."""
        self.stop_requested = True
        self.wake()

    def fail(self, error: BaseException) -> None:
        """End the stream with an error, unless another one ends it already."""
        if self.fatal is None:
            self.fatal = error
        self.request_stop()

    @property
    def is_made(self) -> bool:
        """True from the start on; False again in a forked child."""
        return self._thread is not None

    def is_alive(self) -> bool:
        """Return True if the thread runs."""
        return self._thread is not None and self._thread.is_alive()

    def is_own_thread(self) -> bool:
        """Return True if the calling thread is this one."""
        return threading.current_thread() is self._thread

    def join(self, timeout: float | None) -> bool | None:
        """Wait for the thread to end; return True if it has, None if it is not quite started."""
        thread = self._thread
        if thread is None or thread.ident is None:
            return None
        thread.join(timeout)
        return not thread.is_alive()

    def after_fork_in_child(self) -> None:
        """Close the child's descriptors, and forget the thread, which is the parent's."""
        if self._thread is not None:
            self._thread = None
            self.poller.close()

    # --- for the thread ---------------------------------------------------------------------------------

    def commands(self) -> Iterator[C]:
        """Yield the commands that are in the inbox, and those that come meanwhile."""
        while self._inbox:
            yield self._inbox.popleft()
