"""Events for programs that pull them instead of being called: `Client.events()`."""

from __future__ import annotations

import collections
import logging
import threading
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, TypeVar, cast

from aggstream._base.deadline import Deadline
from aggstream._delivery.registry import Key
from aggstream.events import Event, is_users

if TYPE_CHECKING:
    from typing_extensions import Self

logger = logging.getLogger("aggstream.delivery")

E_co = TypeVar("E_co", bound=Event, covariant=True)

_PATIENCE = 10.0


# From the end of the time for which events are held back until they are here, in seconds, at most.
_UNTIL_RELEASED = 2.0


class PullBuffer:
    """Keeps events until they are pulled. When it is full, the dispatch thread waits, and so does the server.

    It is open from the first call of `Client.events()`, so that nothing is lost between two calls.
    """

    def __init__(self, length: int, size: int, name: str) -> None:
        """Make one that is not open.

        Args:
            length: how many events it holds.
            size: how large their messages may be together, in bytes, about.
            name: begins the log lines.
        """
        self._name = name
        self._length = length
        self._size = size
        # Guards everything below. No user code runs under it, and no other lock is taken.
        self._changed = threading.Condition()
        self._events: collections.deque[tuple[Event, int]] = collections.deque()
        self._held_size = 0
        self._epoch = 0
        self._open = False
        self.is_used = False
        """True once it was opened."""
        self._bounded = True
        self._ended = False

    def after_fork_in_child(self) -> None:
        """Replace the lock, which a thread of the parent may hold."""
        self._changed = threading.Condition()

    def open(self) -> None:
        """Begin to keep events."""
        with self._changed:
            self._open = self.is_used = True

    def close(self) -> None:
        """Keep nothing any more, and forget what is kept."""
        with self._changed:
            self._open = False
            self._events.clear()
            self._held_size = 0
            self._changed.notify_all()

    def stop_waiting(self) -> None:
        """Keep the events that still come without waiting for room: the stream is stopping."""
        with self._changed:
            self._bounded = False
            self._changed.notify_all()

    def end(self) -> None:
        """End: a thread that waits gets the events that are there, and then the end."""
        with self._changed:
            self._ended = True
            self._bounded = False
            self._changed.notify_all()

    def put(self, event: Event, epoch: int, size: int = 0) -> None:
        """Keep an event; called on a dispatch thread, and waits there while the buffer is full."""
        with self._changed:
            while self._open and self._bounded and self._is_full():
                if not self._changed.wait(_PATIENCE):
                    logger.warning(
                        "%s: events() is not pulled, and %d events wait there: the stream waits. "
                        "Pull on, or close() what events() returned",
                        self._name,
                        len(self._events),
                    )
            if self._open and not (epoch < self._epoch and is_users(event)):
                self._events.append((event, size))
                self._held_size += size
                self._changed.notify_all()

    def _is_full(self) -> bool:
        return len(self._events) >= self._length or self._held_size >= self._size

    def drop_users_before(self, epoch: int) -> None:
        """Forget the events of users of earlier epochs, and take none that come late."""
        with self._changed:
            self._epoch = epoch
            self._events = collections.deque(held for held in self._events if not is_users(held[0]))
            self._held_size = sum(size for _, size in self._events)
            self._changed.notify_all()

    def get(self, deadline: Deadline) -> Event | None:
        """Return the next event; None if none came in time, or none will come."""
        with self._changed:
            while not self._events:
                if self._ended or not self._open or deadline.expired():
                    return None
                self._changed.wait(deadline.remaining())
            event, size = self._events.popleft()
            self._held_size -= size
            self._changed.notify_all()
            return event


class EventIterator(Iterator[E_co]):
    """The iterator that `Client.events()` returns. Iterate in a thread of your own; several share the events."""

    def __init__(
        self,
        buffer: PullBuffer,
        key: Key,
        timeout: float | None,
        *,
        guard: Callable[[], None],
        at_end: Callable[[], None],
        refuse: Callable[[], None] = lambda: None,
        held_for_at_most: Callable[[], float | None] = lambda: None,
    ) -> None:
        """Make one.

        Args:
            buffer: where the events are.
            key: which of them are wanted; the others are skipped.
            timeout: seconds to wait for each wanted event; None: until the stream ends.
            guard: raises if the calling thread must not wait.
            at_end: raises what ended the stream, if something did.
            refuse: raises if this process must not use it.
            held_for_at_most: returns the seconds for which events that have come are held back; None if none is.
        """
        self._buffer = buffer
        self._key = key
        self._timeout = timeout
        self._guard = guard
        self._at_end = at_end
        self._refuse = refuse
        self._held_for_at_most = held_for_at_most

    def __next__(self) -> E_co:
        """Return the next event that is wanted.

        Raises:
            StopIteration: none came within the timeout, or the stream was stopped.
            StateError: called on the dispatch thread, which would wait for itself.
            AggStreamError: what ended the stream, once everything before it was pulled.
        """
        self._guard()
        event = self._wanted(Deadline(self._timeout))
        # What has come and waits for REST is no silence.
        while event is None and (held := self._held_for_at_most()) is not None:
            event = self._wanted(Deadline(held + _UNTIL_RELEASED))
        if event is not None:
            return event
        self._at_end()
        raise StopIteration

    def _wanted(self, deadline: Deadline) -> E_co | None:
        while (event := self._buffer.get(deadline)) is not None:
            if self._key.matches(event):
                return cast("E_co", event)
        return None

    def close(self) -> None:
        """Keep no events any more; a later `events()` begins anew.

        Raises:
            StateError: this is a forked child of the process that has started the client.
        """
        self._refuse()
        self._buffer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
