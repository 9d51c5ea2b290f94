"""One order, as the program that waits for it sees it."""

from __future__ import annotations

import concurrent.futures
import queue
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol, TypeVar

from aggstream._base.deadline import Deadline
from aggstream._delivery.registry import Registry
from aggstream.errors import ConfigurationError
from aggstream.orders._order import Order, Outcome
from aggstream.orders._tracker import OrderEntry, Tracker

__all__ = ["TrackedOrder", "as_completed", "wait_all"]

R = TypeVar("R")


class Guard(Protocol):
    """Refuses to wait on a thread that would wait for itself."""

    def __call__(self) -> None:
        """Return if the calling thread may wait.

        Raises:
            StateError: it may not.
        """
        ...


class TrackedOrder:
    """One order that a program follows. All methods are for any thread, and for handlers."""

    def __init__(
        self,
        tracked: OrderEntry,
        tracker: Tracker,
        registry: Registry,
        *,
        guard: Guard,
        call: Callable[[Callable[[], object]], None],
    ) -> None:
        """Make one.

        Args:
            tracked: what is known of the order.
            tracker: whose order it is.
            registry: who handles its events.
            guard: refuses to wait on the threads that must tell of the end.
            call: lets a function be called where handlers run.
        """
        self._tracked = tracked
        self._tracker = tracker
        self._registry = registry
        self._guard = guard
        self._call = call

    def __repr__(self) -> str:
        order = self.order
        return f"<TrackedOrder {self.order_id!a}: {'unheard of' if order is None else order.status}>"

    def __eq__(self, other: object) -> bool:
        """Two are equal if they follow one order of one client."""
        return self._tracked is other._tracked if isinstance(other, TrackedOrder) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._tracked)

    @property
    def order_id(self) -> str:
        """The order's id."""
        return self._tracked.order_id

    @property
    def order(self) -> Order | None:
        """The known facts of the order at this moment; None if nothing is known."""
        return self._tracker.snapshot(self._tracked)

    @property
    def outcome(self) -> Outcome:
        """The outcome as it is known now, without waiting."""
        return self._tracker.outcome(self._tracked)

    def wait(self, timeout: float | None = None) -> Outcome:
        """Wait until the order has ended.

        The verdict does not wait for handlers: it is there as soon as the order's end has come from the stream or
        from REST. In a handler it can be waited for as well, but the events behind that handler wait, too.

        Args:
            timeout: seconds; None: until it has ended, or nobody will tell of its end any more, because the stream
                has ended, or there was a gap and there is no REST API to close it.

        Returns:
            The outcome. Its verdict is UNKNOWN, and `reason` says why, if the time ran out or it cannot be told.

        Raises:
            StateError: the client was not started, or this is a thread that would have to tell of the end.
        """
        self._guard()
        return self._tracker.wait(self._tracked, Deadline(timeout))

    def future(self) -> concurrent.futures.Future[Outcome]:
        """Return a future of the outcome, for libraries that take futures.

        Its callbacks run on a dispatch thread, between handlers. It is done when `wait()` without a timeout would
        return. Cancelling it changes nothing for the order.
        """
        future: concurrent.futures.Future[Outcome] = concurrent.futures.Future()

        def settle(outcome: Outcome) -> None:
            if future.set_running_or_notify_cancel():
                future.set_result(outcome)

        is_ours = True  # until somebody else has the future, and may have given it callbacks

        def hand_on(outcome: Outcome) -> None:
            if is_ours:
                settle(outcome)
            else:
                self._call(lambda: settle(outcome))

        self._tracker.when_ended(self._tracked, hand_on)
        is_ours = False
        return future

    def on(self, handler: Callable[[Any], R]) -> Callable[[Any], R]:
        """Register a handler for this order's events alone, up to the one that is its end; a decorator.

        It is called like any other handler, after those that were registered with `Client.on`.

        Raises:
            ConfigurationError: it cannot be called with one event.
        """
        self._registry.add_for_order(self.order_id, handler)
        return handler

    def off(self, handler: Callable[[Any], object]) -> None:
        """Remove what `on` has registered."""
        self._registry.remove_for_order(self.order_id, handler)


def wait_all(orders: Iterable[TrackedOrder], timeout: float | None = None) -> list[Outcome]:
    """Wait until all of some orders have ended, of one client or of several.

    Args:
        orders: the orders.
        timeout: seconds for all of them together; None: as for `TrackedOrder.wait`.

    Returns:
        Their outcomes, in the order in which the orders were given.

    Raises:
        StateError: as for `TrackedOrder.wait`.
    """
    deadline = Deadline(timeout)
    return [order.wait(deadline.remaining()) for order in _checked(orders)]


def as_completed(orders: Iterable[TrackedOrder], timeout: float | None = None) -> Iterator[Outcome]:
    """Yield the outcomes of some orders as they end; those that have not ended in time come last, as UNKNOWN.

    Args:
        orders: the orders, of one client or of several.
        timeout: seconds for all of them together; None: as for `TrackedOrder.wait`.

    Raises:
        StateError: as for `TrackedOrder.wait`.
    """
    waiting = _checked(orders)
    for order in waiting:
        order._guard()  # noqa: SLF001  (this module's own)
    return _completed(waiting, Deadline(timeout))


def _completed(waiting: list[TrackedOrder], deadline: Deadline) -> Iterator[Outcome]:
    ended: queue.SimpleQueue[tuple[int, Outcome]] = queue.SimpleQueue()
    callbacks = [_Into(ended, number) for number in range(len(waiting))]
    open_ = dict(enumerate(waiting))
    try:
        for order, callback in zip(waiting, callbacks, strict=True):
            order._tracker.when_ended(order._tracked, callback)  # noqa: SLF001
        while open_:
            try:
                number, outcome = ended.get(timeout=deadline.remaining())
            except queue.Empty:
                break
            del open_[number]
            yield outcome
        for order in open_.values():
            yield order.outcome
    finally:
        for order, callback in zip(waiting, callbacks, strict=True):
            order._tracker.no_longer_when_ended(order._tracked, callback)  # noqa: SLF001


class _Into:
    """Puts an outcome into a queue, with the number of its order."""

    def __init__(self, ended: queue.SimpleQueue[tuple[int, Outcome]], number: int) -> None:
        self._ended = ended
        self._number = number

    def __call__(self, outcome: Outcome) -> None:
        self._ended.put((self._number, outcome))


def _checked(orders: Iterable[TrackedOrder]) -> list[TrackedOrder]:
    waiting = list(orders)
    for order in waiting:
        if not isinstance(order, TrackedOrder):
            raise ConfigurationError(f"only what client.track(order_id) returns can be waited for, not {order!a}")
    return waiting
