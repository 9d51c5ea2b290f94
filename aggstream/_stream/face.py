"""What a program asks of one user's stream: its events, its orders, and how it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, Protocol, TypeVar, overload

from aggstream._base.deadline import Deadline
from aggstream._delivery.expectation import Expectation
from aggstream._delivery.pull import EventIterator
from aggstream._delivery.registry import key_of
from aggstream._stream.health_check import check_up
from aggstream._stream.parts import Parts
from aggstream.errors import ConfigurationError, StateError, WaitTimeout
from aggstream.events import BalanceUpdate, Event, OrderEvent, OrderSubmitted
from aggstream.health import Continuity, Health
from aggstream.orders import Order
from aggstream.orders._tracked_order import TrackedOrder

E = TypeVar("E", bound=Event)


class Life(Protocol):
    """The life of a stream, as far as those who wait for it need it."""

    @property
    def is_started(self) -> bool:
        """True once it was started."""
        ...

    def is_running(self) -> bool:
        """Return True from the start until the handlers have ended."""
        ...

    def is_going(self) -> bool:
        """Return True from the start until the stream has ended; handlers may still run after it."""
        ...

    def refuse_other_process(self) -> None:
        """Raise StateError in a forked child of the process that has started it."""
        ...

    def refuse_own_thread(self, call: str) -> None:
        """Raise StateError on a thread on which `call` would wait for itself."""
        ...

    def raise_error(self) -> None:
        """Raise the error that has ended the stream, if one has."""
        ...


class StreamFace:
    """The orders and the events of one user. Methods are for any thread, and for handlers unless they say no."""

    _parts: Parts
    _life: Life

    # --- waiting for events -----------------------------------------------------------------------------

    @overload
    def events(self, *, timeout: float | None = None) -> EventIterator[Event]: ...
    @overload
    def events(self, key: type[E], /, *sub_events: str, timeout: float | None = None) -> EventIterator[E]: ...
    @overload
    def events(self, key: str, /, *sub_events: str, timeout: float | None = None) -> EventIterator[Any]: ...
    def events(self, *key: str | type[Event], timeout: float | None = None) -> EventIterator[Any]:
        """Return an iterator over the events, for a program that pulls instead of being called.

        Events are kept from the first call on, in one buffer for all calls, so nothing is lost between two
        loops; call it before `start` to miss nothing. A program that opens it must pull: when it holds
        `queue_size` events, the stream waits. `close()` on the iterator ends that.

        Args:
            key: which events are wanted, as for `on`, with their sub-events; none: all. The others are skipped,
                so use the same for all calls.
            timeout: seconds without a wanted event after which a loop ends; None: when the stream ends. During
                an outage, too, a loop ends so, as if nothing had happened: `health()` tells the two apart, and
                a `Gap` comes once the stream is live again. Time in which events wait for REST is no silence.

        Returns:
            An iterator; it raises what ended the stream, after the last event.

        Raises:
            ConfigurationError: the key can never match.
            StateError: when iterated on a dispatch thread, which would wait for itself.
        """
        wanted = key_of(key[0] if key else "*", key[1:])
        self._refuse_other_process()
        self._parts.waiting.open_buffer()
        return EventIterator(
            self._parts.waiting.buffer,
            wanted,
            timeout,
            guard=lambda: self._life.refuse_own_thread("events()"),
            at_end=self._life.raise_error,
            refuse=self._refuse_other_process,
            held_for_at_most=lambda: self._parts.stream.pipeline.held_for_at_most,
        )

    # fmt: off
    @overload
    def wait_for(
        self, key: type[E], /, *, event: str | None = None, timeout: float | None = None, **fields: object
    ) -> E: ...
    @overload
    def wait_for(
        self, key: Literal["order_submitted"], /, *, event: None = None, timeout: float | None = None,
        **fields: object
    ) -> OrderSubmitted: ...
    @overload
    def wait_for(
        self, key: Literal["balance_update"], /, *, event: None = None, timeout: float | None = None,
        **fields: object
    ) -> BalanceUpdate: ...
    @overload
    def wait_for(
        self, key: Literal["order_event"], /, *, event: str | None = None, timeout: float | None = None,
        **fields: object
    ) -> OrderEvent: ...
    @overload
    def wait_for(
        self, key: str, /, *, event: str | None = None, timeout: float | None = None, **fields: object
    ) -> Any: ...
    # fmt: on
    def wait_for(
        self,
        key: str | type[Event],
        /,
        *,
        event: str | None = None,
        timeout: float | None = None,
        **fields: object,
    ) -> Event:
        """Wait for an event that is handled after this call. Handlers are called all the same.

        Args:
            key: a type's name, an event class, or `"*"`, as for `on`.
            event: the sub-event of an `order_event`.
            timeout: seconds; None: until the stream ends. An outage does not end the wait, and what happens in
                it never comes.
            fields: values that the event's fields must have: `order_id="ord_abc123"`.

        Raises:
            WaitTimeout: none came in time; says so if the stream is not live.
            ConfigurationError: the key, or a field's name, can never match.
            StateError: the stream has ended or is not started, or this is a thread of the client's own.
            AggStreamError: what ended the stream meanwhile.
        """
        expectation = Expectation(key_of(key, () if event is None else (event,)), fields)
        self._life.refuse_own_thread("waiting for an event")
        self._parts.waiting.wait_for(expectation, Deadline(timeout), self._life.is_running)
        if expectation.event is None:
            self._life.raise_error()
            if not self._life.is_running():
                raise StateError("the stream does not run: there is nothing to wait for")
            why = "" if self._is_live() else f", and the stream is not live: {self._why_not_live()}"
            if held := self._parts.stream.pipeline.catch_up.held:
                why += f", and {held} events wait for what the REST API says of a gap"
            raise WaitTimeout(f"no {expectation} within {timeout} s{why}")
        return expectation.event

    def wait_until_live(self, timeout: float | None = None) -> None:
        """Wait until the user is signed in; return at once if that is so already. It waits for no handler.

        Args:
            timeout: seconds; None: until the stream is live, or ends.

        Raises:
            WaitTimeout: it was not live in time.
            StateError: the stream has ended or is not started, or this is a thread of the client's own.
            AggStreamError: what ended the stream meanwhile.
        """
        self._life.refuse_own_thread("wait_until_live()")
        was_live = self._parts.waiting.wait_until_live(Deadline(timeout), self._is_live, self._life.is_going)
        if was_live is False:
            raise WaitTimeout(f"not live within {timeout} s: {self._why_not_live()}")
        if was_live is None:
            self._life.raise_error()
            raise StateError("the stream does not run: there is nothing to wait for")

    def _is_live(self) -> bool:
        return self._parts.stream.phase == "live"

    def _why_not_live(self) -> str:
        return str(self._parts.stream.last_error or self._parts.stream.phase)

    # --- orders -----------------------------------------------------------------------------------------

    @property
    def orders(self) -> Mapping[str, Order]:
        """The orders that are known, by their ids: a live mapping of immutable snapshots.

        Orders that have ended are forgotten by age and number: see `orders_kept` and `orders_kept_for`.
        """
        self._refuse_other_process()
        return self._parts.tracker.orders()

    @property
    def continuity(self) -> Continuity:
        """Whether something may have been missed of the user's orders."""
        self._refuse_other_process()
        return self._parts.tracker.continuity

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
        tracked = self._parts.tracker.track(order_id)
        if not tracked.is_known:
            self._find_out(order_id)
        return TrackedOrder(
            tracked, self._parts.tracker, self._parts.registry, guard=self._guard_wait, call=self._call
        )

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
        if self._parts.tracker.wait_until_caught_up(Deadline(timeout)):
            return
        if self._parts.tracker.stopped:
            self._life.raise_error()
            raise StateError("the stream does not run: there is nothing to wait for")
        raise WaitTimeout(f"not caught up within {timeout} s: {self._why_not_caught_up()}")

    def health(self) -> Health:
        """Return how the stream is at this moment, from any thread, without waiting."""
        self._refuse_other_process()
        return check_up(self._parts.stream, self._parts.dispatcher, self._parts.options)

    # --- inside -----------------------------------------------------------------------------------------

    def _refuse_other_process(self) -> None:
        self._life.refuse_other_process()

    def _find_out(self, order_id: str) -> None:
        self._parts.stream.find_out(order_id)

    def _call(self, function: Callable[[], object]) -> None:
        self._parts.dispatcher.call(function)

    def _guard_wait(self) -> None:
        """Raise StateError on the I/O thread, which must tell of an order's end, and so cannot wait for it."""
        self._refuse_other_process()
        if self._parts.stream.engine.is_own_thread():
            raise StateError("this thread of the client's own must tell of it, so it cannot wait for it")
        if not self._life.is_started:
            raise StateError("the client is not started: call start() first, or use run()")

    def _why_not_caught_up(self) -> str:
        if not self._is_live():
            return f"not live: {self._parts.stream.last_error or self._parts.stream.phase}"
        error = self._parts.stream.pipeline.catch_up.last_error
        if error is not None:
            return f"the REST API does not tell what was missed: {error}"
        return (
            "there is no REST API to ask: see the option rest_url"
            if not self._parts.stream.pipeline.has_rest
            else "still reading"
        )
