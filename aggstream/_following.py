"""What a client offers to those who want to know what became of their orders."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping

from aggstream._deadline import Deadline
from aggstream._health import Continuity
from aggstream._registry import Registrar
from aggstream._tracker import Tracker
from aggstream._tracking import TrackedOrder
from aggstream.errors import ConfigurationError, StateError, WaitTimeout
from aggstream.orders import Order


class Following(Registrar):
    """`orders`, `track`, `continuity` and `wait_until_caught_up`. Every method may be called from any thread."""

    def __init__(self, tracker: Tracker) -> None:
        super().__init__()
        self._tracker = tracker

    @property
    def orders(self) -> Mapping[str, Order]:
        """The orders that are known, by their ids: a live mapping of immutable snapshots.

        Orders that have ended are forgotten by age and number: see `orders_kept` and `orders_kept_for`.
        """
        self._refuse_other_process()
        return self._tracker.orders()

    @property
    def continuity(self) -> Continuity:
        """Whether something may have been missed of the user's orders."""
        self._refuse_other_process()
        return self._tracker.continuity

    def track(self, order_id: str) -> TrackedOrder:
        """Follow one order. Returns at once.

        There is no race: it may be called before the order is placed, while its events come, or long after it has
        ended. An order that the stream has told nothing of is looked for in the REST API, newest orders first.

        Args:
            order_id: the order's id.

        Raises:
            ConfigurationError: it is no text, or empty.
            StateError: this is a forked child of the process that has started the client.
        """
        if not isinstance(order_id, str) or not order_id:
            raise ConfigurationError("order_id must be a text that is not empty")
        self._refuse_other_process()
        tracked = self._tracker.track(order_id)
        if not tracked.is_known:
            self._look_up(order_id)
        return TrackedOrder(tracked, self._tracker, self._registry, guard=self._guard_wait, call=self._call)

    def wait_until_caught_up(self, timeout: float | None = None) -> None:
        """Wait until `continuity` is LIVE: nothing is missing of what happened to the user's orders.

        Args:
            timeout: seconds; None: until that is so, or the stream ends.

        Raises:
            WaitTimeout: it was not so in time.
            StateError: the client does not run, or this is a thread that would have to see to it.
            AggStreamError: what ended the stream meanwhile.
        """
        self._guard_wait()
        if self._tracker.wait_until_caught_up(Deadline(timeout)):
            return
        if self._tracker.stopped:
            self._raise_error()
            raise StateError("the stream does not run: there is nothing to wait for")
        raise WaitTimeout(f"not caught up within {timeout} s: {self._why_not_caught_up()}")

    @abstractmethod
    def _refuse_other_process(self) -> None:
        """Raise StateError in a forked child of the process that has started the client."""

    @abstractmethod
    def _guard_wait(self) -> None:
        """Raise StateError where waiting would be for itself, or for nothing."""

    @abstractmethod
    def _look_up(self, order_id: str) -> None:
        """Let the I/O thread find out what is known of an order."""

    @abstractmethod
    def _call(self, function: Callable[[], object]) -> None:
        """Let a function be called where handlers run."""

    @abstractmethod
    def _raise_error(self) -> None:
        """Raise what has ended the stream, if something has."""

    @abstractmethod
    def _why_not_caught_up(self) -> str:
        """Say in words why continuity is not LIVE."""
