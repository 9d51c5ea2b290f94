"""The members that a stream needs of the place where its events are kept. `Journal` has them; a database may."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import attrs

from aggstream.events import UserEvent
from aggstream.journal._store_options import StoreOptions

if TYPE_CHECKING:
    from aggstream.journal._stored import StoredEvent


@attrs.frozen(kw_only=True)
class StoreMemory:
    """What a store knows of the streams before."""

    last_timestamp: int | None = None
    """The service's time, in milliseconds, up to which everything is known; None if nothing was ever told."""
    last_received_ns: int | None = None
    """When the last event was received that was stored as complete; before the first one, when the user signed in
    first. In nanoseconds since the epoch; None if nobody ever signed in."""
    closed_ns: int | None = None
    """When the stream before closed the store, in nanoseconds since the epoch; None if it did not."""
    history_until: int | None = None
    """The service's time, in milliseconds, up to which all was over before the first stream; None if unknown."""
    known_until: int | None = None
    """The service's time, in milliseconds, before which a look at REST need not go back; None if unknown."""
    is_searched: bool = False
    """True if all old open orders were searched for, to the end."""
    open_orders: frozenset[str] = frozenset()
    """The orders that are followed, or have events but no end."""


class EventStore(Protocol):
    """Where a stream's events are before their handlers run. One stream uses it, from several of its threads.

    Every method may block. If one raises a `JournalError`, nothing of what it was to change is changed, and what
    was stored before is safe.
    """

    @property
    def options(self) -> StoreOptions:
        """How often handlers are called again, and what happens if the store fails."""
        ...

    def store(self, events: Sequence[UserEvent], *, complete: bool = True) -> list[int | None]:
        """Keep events, all or none: when this returns, they outlive the process.

        Args:
            events: the events.
            complete: whether everything is known that happened before them. If not, `last_timestamp` and
                `last_received_ns` stay where they are, for a later stream to begin there.

        Returns:
            For each event its `seq`, growing in the order of the events; None for a repeat.
        """
        ...

    def done(self, seqs: Sequence[int]) -> None:
        """Note that the handlers of these pending events have finished."""
        ...

    def failed(self, seq: int, error_text: str, *, final: bool = False) -> bool:
        """Note that a handler of this pending event has failed, or that the event cannot be understood.

        Args:
            seq: the event's number.
            error_text: what went wrong.
            final: set the event aside as dead at once. It counts as no attempt.

        Returns:
            True if the event is dead now.
        """
        ...

    def pending(self, after: int = 0, limit: int = 500) -> list[StoredEvent]:
        """Return the pending events that were stored after the event `after`, oldest first, at most `limit`."""
        ...

    def events_of(self, order_id: str) -> list[StoredEvent]:
        """Return all events of an order, oldest first."""
        ...

    def recall(self) -> StoreMemory:
        """Return what earlier streams knew when they ended."""
        ...

    def remember(
        self,
        *,
        open_orders: Iterable[str] = (),
        history_until: int | None = None,
        known_until: int | None = None,
        is_searched: bool = False,
    ) -> None:
        """Keep, for later streams, something that this one has found out without an event.

        Args:
            open_orders: orders that are open, until an end of theirs is stored.
            history_until: the service's time, in milliseconds, up to which nothing is news for any stream. The
                first one that is given counts; later ones change nothing.
            known_until: the service's time, in milliseconds, before which a look at REST need not go back. The
                largest one that is given counts.
            is_searched: True once all old open orders were searched for; it stays true.
        """
        ...

    def belongs_to(self, user_id: str) -> None:
        """Keep at first whose events these are; later see that they are still the same user's.

        Raises:
            UserMismatch: they are another user's.
        """
        ...

    def retention(self, now_ns: int) -> int:
        """Delete a few of the done events that need not be kept; return how many, 0 if there are no more."""
        ...

    def hint(self, seq: int) -> str:
        """Return where a person finds an event that was set aside; for the log."""
        ...

    def leave(self) -> None:
        """Let go of what the calling thread holds of it: the thread ends."""
        ...

    def close(self) -> None:
        """Let another stream use it. Never fails, and waits for nothing; may be called again."""
        ...


@attrs.frozen
class Part:
    """Events of one account that are stored together with those of others."""

    account: str
    events: Sequence[UserEvent]
    complete: bool = True
    """As for `EventStore.store`."""


class FleetStore(Protocol):
    """Where the events of many accounts are before their handlers run. Any thread may call it, and may block."""

    @property
    def options(self) -> StoreOptions:
        """How often handlers are called again, and what happens if the store fails."""
        ...

    def of(self, account: str, user_id: str | None = None) -> EventStore:
        """Return the store of one account. To close it does not close the others'.

        Args:
            account: its name.
            user_id: the user whose events it holds, if that is known: events of the same user that a single client
                has stored become this account's, if it has none of its own.
        """
        ...

    def store_all(self, parts: Sequence[Part]) -> list[list[int | None] | Exception]:
        """Keep the events of many accounts, in one transaction.

        Returns:
            For each part what `EventStore.store` returns; or the exception that it would have raised, if the part
            itself is at fault, and then the other parts are stored all the same.

        Raises:
            JournalError: the store fails, and nothing is changed.
        """
        ...

    def retention(self, now_ns: int) -> int:
        """Delete a few of the done events that need not be kept; return how many, 0 if there are no more."""
        ...

    def leave(self) -> None:
        """Let go of what the calling thread holds of it: the thread ends."""
        ...

    def close(self) -> None:
        """Let another fleet use it. Never fails, and waits for nothing; may be called again."""
        ...


@runtime_checkable
class OpensFleetStore(Protocol):
    """Opens a store once the fleet starts. `Fleet(journal=…)` takes one."""

    @property
    def on_failure(self) -> str:
        """Whether the fleet ends ("stop") or goes on ("continue") if the store cannot be opened."""
        ...

    def open_fleet(self) -> FleetStore:
        """Return the store, opened for the calling process. Runs on the thread that calls `Fleet.start`.

        Raises:
            JournalError: it cannot be opened.
        """
        ...


@runtime_checkable
class OpensStore(Protocol):
    """Opens a store once the client starts. `Client(journal=…)` takes one."""

    @property
    def on_failure(self) -> str:
        """Whether the stream ends ("stop") or goes on ("continue") if the store cannot be opened."""
        ...

    def open(self) -> EventStore:
        """Return the store, opened for the calling process.

        Runs on the thread that calls `Client.start`.

        Raises:
            JournalError: it cannot be opened.
        """
        ...
