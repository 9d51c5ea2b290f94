"""What a stream needs of the place where its events are kept. `Journal` is one; a database may be another."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from aggstream.events import UserEvent
from aggstream.journal._store_options import StoreOptions

if TYPE_CHECKING:
    from aggstream.journal._stored import StoredEvent


class EventStore(Protocol):
    """Where a stream's events are before their handlers run. One stream uses it, from several of its threads.

    Every method may block. If one raises a `JournalError`, nothing of what it was to change is changed, and what
    was stored before is safe.
    """

    @property
    def options(self) -> StoreOptions:
        """How often handlers are called again, and what happens if the store fails."""
        ...

    @property
    def closed_ns(self) -> int | None:
        """When the stream before this one closed it, in nanoseconds since the epoch; None if it did not."""
        ...

    def store(self, events: Sequence[UserEvent], *, complete: bool = True) -> list[int | None]:
        """Keep events, all or none: when this returns, they outlive the process.

        Args:
            events: the events.
            complete: whether everything is known that happened before them. If not, `last_timestamp` and
                `last_received_ns` stay where they are, for a later process to begin there.

        Returns:
            For each event its `seq`, growing in the order of the events; None for a repeat.
        """
        ...

    def done(self, seqs: Sequence[int]) -> None:
        """Note that the handlers of these pending events have finished."""
        ...

    def failed(self, seq: int, error_text: str) -> bool:
        """Note that a handler of this pending event has failed; tell whether the event is dead by now."""
        ...

    def skip(self, seq: int, reason: str) -> None:
        """Set a pending event aside as dead at once."""
        ...

    def follow(self, order_ids: Iterable[str]) -> None:
        """Note that orders are open, until an end of theirs is stored."""
        ...

    def pending(self, after: int = 0, limit: int = 500) -> list[StoredEvent]:
        """Return the pending events that were stored after the event `after`, oldest first, at most `limit`."""
        ...

    def events_of(self, order_id: str) -> list[StoredEvent]:
        """Return all events of an order, oldest first."""
        ...

    def knows_order(self, order_id: str) -> bool:
        """Tell whether there is an event of an order."""
        ...

    def open_orders(self) -> set[str]:
        """Return the ids of the orders that are followed, or have events but no end."""
        ...

    def last_timestamp(self) -> int | None:
        """Return up to when everything is known, by the service's clock, in milliseconds; None if never told."""
        ...

    def last_received_ns(self) -> int | None:
        """Return when the last event that was complete was received; before the first, when a user signed in."""
        ...

    def history_until(self) -> int | None:
        """Return up to when everything had been over before the first stream began, by the service's clock."""
        ...

    def note_history(self, timestamp: int) -> None:
        """Keep, once, the service's time up to which nothing is news for any stream, in milliseconds."""
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


@runtime_checkable
class OpensStore(Protocol):
    """What `Client(journal=…)` takes: how to open a store, once the client starts."""

    @property
    def on_failure(self) -> str:
        """What the stream does if it cannot be opened: "stop" or "continue"."""
        ...

    def open(self) -> EventStore:
        """Return the store, opened for the calling process.

        Runs on the thread that calls `Client.start`.

        Raises:
            JournalError: it cannot be opened.
        """
        ...
