"""`on`, `once` and `off`: the face of the registry that programs see."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar, overload

from aggstream._delivery.registry import Handler, Key, Registry, key_of
from aggstream.events import (
    Authenticated,
    BalancesCoalesced,
    BalanceUpdate,
    Connected,
    DecodeFailed,
    Disconnected,
    ErrorMessage,
    Event,
    Gap,
    Heartbeat,
    OrderEvent,
    OrderSubmitted,
    ReadingPaused,
    ReadingResumed,
    Reconnecting,
    Resting,
    Resumed,
    Stopped,
    Subscribed,
    TokenRefreshed,
    Unsubscribed,
)

E = TypeVar("E", bound=Event)
R = TypeVar("R")


class Register(Protocol[E]):
    """Registers a function and returns it unchanged."""

    def __call__(self, handler: Callable[[E], R], /) -> Callable[[E], R]:
        """Register `handler`."""
        ...


class Registrar:
    """`on`, `once` and `off`: what registers handlers. Every method may be called from any thread."""

    def __init__(self) -> None:
        self._registry = Registry()

    # fmt: off
    @overload
    def on(self, key: type[E], /, *sub_events: str) -> Register[E]: ...
    @overload
    def on(self, key: Literal["order_submitted"], /) -> Register[OrderSubmitted]: ...
    @overload
    def on(self, key: Literal["balance_update"], /) -> Register[BalanceUpdate]: ...
    @overload
    def on(self, key: Literal["order_event"], /, *sub_events: str) -> Register[OrderEvent]: ...
    @overload
    def on(self, key: Literal["connected"], /) -> Register[Connected]: ...
    @overload
    def on(self, key: Literal["authenticated"], /) -> Register[Authenticated]: ...
    @overload
    def on(self, key: Literal["heartbeat"], /) -> Register[Heartbeat]: ...
    @overload
    def on(self, key: Literal["error"], /) -> Register[ErrorMessage]: ...
    @overload
    def on(self, key: Literal["subscribed"], /) -> Register[Subscribed]: ...
    @overload
    def on(self, key: Literal["unsubscribed"], /) -> Register[Unsubscribed]: ...
    @overload
    def on(self, key: Literal["disconnected"], /) -> Register[Disconnected]: ...
    @overload
    def on(self, key: Literal["reconnecting"], /) -> Register[Reconnecting]: ...
    @overload
    def on(self, key: Literal["gap"], /) -> Register[Gap]: ...
    @overload
    def on(self, key: Literal["resumed"], /) -> Register[Resumed]: ...
    @overload
    def on(self, key: Literal["reading_paused"], /) -> Register[ReadingPaused]: ...
    @overload
    def on(self, key: Literal["reading_resumed"], /) -> Register[ReadingResumed]: ...
    @overload
    def on(self, key: Literal["balances_coalesced"], /) -> Register[BalancesCoalesced]: ...
    @overload
    def on(self, key: Literal["decode_failed"], /) -> Register[DecodeFailed]: ...
    @overload
    def on(self, key: Literal["token_refreshed"], /) -> Register[TokenRefreshed]: ...
    @overload
    def on(self, key: Literal["resting"], /) -> Register[Resting]: ...
    @overload
    def on(self, key: Literal["stopped"], /) -> Register[Stopped]: ...
    @overload
    def on(self, key: Literal["*"], /) -> Register[Event]: ...
    @overload
    def on(self, key: str, /, *sub_events: str) -> Register[Any]: ...
    # fmt: on
    def on(self, key: str | type[Any], /, *sub_events: str) -> Register[Any]:
        """Register a handler: a decorator, or `client.on("order_submitted")(function)`.

        The handler is called with one argument, the event, on the dispatch thread. Every handler that matches
        is called, in the order of registration. The function is returned unchanged, so decorators stack.

        Args:
            key: a type's name (`"order_event"`), an event class, or `"*"` for everything. A name that this
                version does not know is taken on purpose: its messages come as `UnknownEvent`.
            sub_events: for an `order_event`, the values of `event` that are meant; none: all. `"filled"` also
                means `"order_filled"`.

        Raises:
            ConfigurationError: a class that is no event, a sub-event of a type that has none, or a handler
                that cannot be called with one argument.
        """
        return self._register(key_of(key, sub_events), once=False)

    if TYPE_CHECKING:
        once = on  # it has the same overloads
    else:

        def once(self, key: str | type[Any], /, *sub_events: str) -> Register[Any]:
            """Register a handler like `on`, for the first event that matches only."""
            return self._register(key_of(key, sub_events), once=True)

    def off(self, handler: Handler, key: str | type[Event] | None = None, /, *sub_events: str) -> int:
        """Remove a handler: everywhere, or where it was registered with just this key and these sub-events.

        An event whose handlers are being called at this moment is still given to it.

        Args:
            handler: the function.
            key: as given to `on`; None: everywhere.
            sub_events: as given to `on`.

        Returns:
            The number of registrations that were removed; 0 if there was none.

        Raises:
            ConfigurationError: the key cannot be meant.
        """
        self._refuse_other_process()
        return self._registry.remove(handler, None if key is None else key_of(key, sub_events))

    def include(self, other: Registrar, around: Callable[[Handler], Handler]) -> int:
        """Register everything that is registered with another one now; return how much that is.

        Args:
            other: the other one.
            around: makes of each handler the one to register.
        """
        entries = other._registry.entries
        for entry in entries:
            self._registry.add(entry.key, around(entry.handler), once=entry.once)
        return len(entries)

    def _refuse_other_process(self) -> None:
        """Raise if this process must not use it: a forked child, if it is its parent's."""

    def _register(self, key: Key, *, once: bool) -> Register[Any]:
        self._refuse_other_process()

        def register(handler: Callable[[Any], R]) -> Callable[[Any], R]:
            self._registry.add(key, handler, once=once)
            return handler

        return register
