"""Events of the stream's own life. They come in the same queue as the data, so their order is certain.

An outage reads: `Disconnected`, `Reconnecting` (once for each pause), `Connected`, `Authenticated`, `Gap`,
`Resumed`, and then the first user event after it.
"""

from __future__ import annotations

import datetime as dt
from typing import ClassVar, Literal

import attrs

from aggstream._base.text import shown
from aggstream._base.times import moment_of_ns
from aggstream.errors import AggStreamError, ConnectionLost, DecodeError
from aggstream.events._base import Event, lifecycle


@attrs.frozen(kw_only=True, repr=False)
class LifecycleEvent(Event):
    """The base of the events that the client itself makes."""


@lifecycle
@attrs.frozen(kw_only=True, repr=False)
class Disconnected(LifecycleEvent):
    """The connection ended, for whatever reason."""

    TYPE: ClassVar[str] = "disconnected"

    error: AggStreamError
    """Why."""
    code: int | None = None
    """The WebSocket close code, if the server closed in form."""
    initiated_by: Literal["server", "client", "network"] = "network"
    """The side that ended it; "client" also if this side gave up for what the server sent or did not send."""

    @property
    def requested(self) -> bool:
        """True if this side was asked for it, by `stop()` or `switch_user()`: then nothing is wrong."""
        return isinstance(self.error, ConnectionLost) and self.error.initiated_by == "client"


@lifecycle
@attrs.frozen(kw_only=True, repr=False)
class Reconnecting(LifecycleEvent):
    """The next attempt to connect comes after a pause."""

    TYPE: ClassVar[str] = "reconnecting"

    attempt: int
    """The number of the attempt that follows, from 1, in this outage."""
    delay: float
    """The pause before it, in seconds."""
    error: AggStreamError
    """The error that made it necessary."""


@lifecycle
@attrs.frozen(kw_only=True, repr=False)
class Gap(LifecycleEvent):
    """User events may have been missed between two moments: AGG replays nothing."""

    TYPE: ClassVar[str] = "gap"

    number: int
    """The gap's number since the start of the client, from 1."""
    started_ns: int
    """The last sign of life before it: nanoseconds since the epoch, by this machine's wall clock."""
    ended_ns: int
    """When the stream was authenticated again, or ended."""

    @property
    def started_at(self) -> dt.datetime:
        """`started_ns` as an aware datetime in UTC."""
        return moment_of_ns(self.started_ns)

    @property
    def ended_at(self) -> dt.datetime:
        """`ended_ns` as an aware datetime in UTC."""
        return moment_of_ns(self.ended_ns)


@lifecycle
@attrs.frozen(kw_only=True, repr=False)
class Resumed(LifecycleEvent):
    """The stream is live again after an outage."""

    TYPE: ClassVar[str] = "resumed"

    attempts: int
    """How many attempts it took."""
    downtime: float
    """From the loss of the connection to the new one's authentication, in seconds."""


@lifecycle
@attrs.frozen(kw_only=True, repr=False)
class Reconciled(LifecycleEvent):
    """The REST API was looked at for what may have been missed, and it is resolved, or not.

    It is resolved by a complete look that began `rest_lag` after the gap had ended, because REST may trail the
    stream for that long. What had changed was delivered before this, as user events with `source="reconcile"`. Not
    resolved is told once, when events are no longer held back for REST; REST is asked again, and once it answers
    the gap is told as resolved.
    """

    TYPE: ClassVar[str] = "reconciled"

    gaps: tuple[int, ...] = ()
    """The numbers of the gaps that this is about; none: it was the first look, a message was not understood, or
    the handlers were behind."""
    resolved: bool
    """True if everything that may have been missed is known now, unless REST trails by more than `rest_lag`, or
    does not list an order: see `unlisted`."""
    orders: int = 0
    """How many orders were read, in all looks."""
    pages: int = 0
    """In how many pages."""
    changed: int = 0
    """How many events were delivered because of it: those that a journal had already are not among them."""
    unlisted: tuple[str, ...] = ()
    """The ids of orders that are known to be open, and that the last look did not list. What became of them is not
    known."""
    took: float = 0.0
    """Seconds."""
    error: AggStreamError | None = None
    """Why it is not resolved; None if it is, or if the client has no REST API to ask."""


@lifecycle
@attrs.frozen(kw_only=True, repr=False)
class JournalFailed(LifecycleEvent):
    """The journal cannot be written to, and the stream goes on without it, as it was asked to."""

    TYPE: ClassVar[str] = "journal_failed"

    error: AggStreamError


@lifecycle
@attrs.frozen(kw_only=True, repr=False)
class DecodeFailed(LifecycleEvent):
    """One message could not be understood. The stream goes on."""

    TYPE: ClassVar[str] = "decode_failed"

    text: str = attrs.field(repr=shown)
    """The message as received."""
    error: DecodeError


@lifecycle
@attrs.frozen(kw_only=True, repr=False)
class TokenRefreshed(LifecycleEvent):
    """The service accepted a new token of the same user."""

    TYPE: ClassVar[str] = "token_refreshed"

    user_id: str | None
    expires_at: dt.datetime | None
    """The new token's `exp`, if it has one that can be read: a hint."""


@lifecycle
@attrs.frozen(kw_only=True, repr=False)
class ReadingPaused(LifecycleEvent):
    """The handlers are behind: nothing more is read until they have caught up, and the server has to wait."""

    TYPE: ClassVar[str] = "reading_paused"

    waiting: int
    """How many events wait for their handlers."""


@lifecycle
@attrs.frozen(kw_only=True, repr=False)
class ReadingResumed(LifecycleEvent):
    """The handlers have caught up with half of what waited, and reading goes on."""

    TYPE: ClassVar[str] = "reading_resumed"

    paused_for: float
    """Seconds."""


@lifecycle
@attrs.frozen(kw_only=True, repr=False)
class BalancesCoalesced(LifecycleEvent):
    """Balances were replaced by a newer one before a handler saw them. The newer one comes next."""

    TYPE: ClassVar[str] = "balances_coalesced"

    venue: str
    count: int
    """How many were replaced."""


@lifecycle
@attrs.frozen(kw_only=True, repr=False)
class Resting(LifecycleEvent):
    """An account of a fleet is refused for good, as it seems. Its stream rests, and the other accounts go on."""

    TYPE: ClassVar[str] = "resting"

    state: Literal["must sign in again", "failed"]
    """"must sign in again": the service refuses the user's token. The stream goes on once the account has another
    one. "failed": it was refused for another reason, and is tried again after the longest pause."""
    error: AggStreamError
    """Why."""


@lifecycle
@attrs.frozen(kw_only=True, repr=False)
class Stopped(LifecycleEvent):
    """The last event: the stream has ended."""

    TYPE: ClassVar[str] = "stopped"

    error: BaseException | None = None
    """The error that ended it; None if it was asked to stop."""
