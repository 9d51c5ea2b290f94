"""Threads of the program that wait: for an event, for the next event to pull, or until the stream is live."""

from __future__ import annotations

import threading
from collections.abc import Callable

from aggstream._base.deadline import Deadline
from aggstream._delivery.expectation import Expectation
from aggstream._delivery.handler_calls import HandlerCalls
from aggstream._delivery.pull import PullBuffer
from aggstream.events import Event


class Waiting:
    """Lets threads wait, and sees to it that events cost nothing when none does. All methods are thread-safe."""

    def __init__(self, calls: HandlerCalls, *, length: int, size: int, name: str) -> None:
        """Let nobody wait yet.

        Args:
            calls: calls the taps by which events come here.
            length: how many events may wait to be pulled.
            size: how large their messages may be together, in bytes, about.
            name: begins the log lines.
        """
        self.buffer = PullBuffer(length, size, name)
        self._calls = calls
        # Guards the expectations and the choice of taps. No user code runs under it.
        self._lock = threading.Lock()
        self._expectations: tuple[Expectation, ...] = ()
        # Guards how often the stream went live; told by the I/O thread, because handlers may hang.
        self._turned = threading.Condition()
        self._times_live = 0

    def open_buffer(self) -> None:
        """Keep events for `Client.events()` from now on."""
        self.buffer.open()
        with self._lock:
            self._choose_taps()

    def wait_for(self, expectation: Expectation, deadline: Deadline, is_running: Callable[[], bool]) -> None:
        """Wait until an event has come, or none will.

        Args:
            expectation: has the event afterwards, or None.
            deadline: when to wait no longer.
            is_running: returns False if no event comes any more.
        """
        with self._lock:
            self._expectations = (*self._expectations, expectation)
            self._choose_taps()
        try:
            if is_running():
                expectation.wait(deadline)
        finally:
            with self._lock:
                self._expectations = tuple(e for e in self._expectations if e is not expectation)
                self._choose_taps()

    def wait_until_live(
        self, deadline: Deadline, is_live: Callable[[], bool], is_going: Callable[[], bool]
    ) -> bool | None:
        """Wait until the stream is live, or was live in the meantime.

        Args:
            deadline: when to wait no longer.
            is_live: returns True if the stream is live.
            is_going: returns False if it has ended.

        Returns:
            True if it was live, False if the time ran out, None if the stream has ended.
        """
        with self._turned:
            before = self._times_live
            while is_going():
                # It may have been live and be lost again before this thread was woken.
                if is_live() or self._times_live > before:
                    return True
                if deadline.expired():
                    return False
                self._turned.wait(deadline.remaining())
        return None

    def turn(self, *, is_live: bool) -> None:
        """Wake the threads that wait for the stream: it has gone live, or has ended."""
        with self._turned:
            self._times_live += is_live
            self._turned.notify_all()

    def switch_user(self, epoch: int) -> None:
        """Forget the events of the user before, and take none that come late."""
        self.buffer.drop_users_before(epoch)

    def end(self) -> None:
        """Wake all threads that wait: nothing more will come."""
        self.turn(is_live=False)
        self.buffer.end()
        for expectation in self._expectations:
            expectation.give_up()

    def after_fork_in_child(self) -> None:
        """Replace the locks, which threads of the parent may hold."""
        self._lock = threading.Lock()
        self._turned = threading.Condition()
        self.buffer.after_fork_in_child()

    def _choose_taps(self) -> None:
        pulls = (self.buffer.put,) if self.buffer.is_used else ()
        self._calls.taps = (*pulls, self._offer) if self._expectations else pulls

    def _offer(self, event: Event, epoch: int, size: int) -> None:
        for expectation in self._expectations:
            expectation.offer(event)
