"""What a client tells about itself."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Literal, TypeAlias

import attrs

from aggstream.errors import AggStreamError

Phase: TypeAlias = Literal["idle", "connecting", "live", "waiting", "stopping", "stopped"]
"""Not started; on the way to a live connection; live; pausing before the next attempt; on the way out; ended."""


class Continuity(enum.Enum):
    """Whether something may have been missed of the user's orders."""

    LIVE = "live"
    """Nothing is missing: what has happened was told, and what happens will be."""
    CATCHING_UP = "catching up"
    """The state is being read from the REST API, and live events wait for it."""
    UNKNOWN = "unknown"
    """Something may be missing: there is no connection, or a gap that REST has not closed."""


@attrs.define
class Counters:
    """What happened since the start. Written by the I/O thread only."""

    connections: int = 0
    """WebSocket connections that were opened."""
    messages: int = 0
    """Text messages received."""
    user_events: int = 0
    """User events received and queued for the handlers."""
    decode_failures: int = 0
    """Messages that could not be understood."""
    gaps: int = 0
    """Gaps that were told."""
    gaps_resolved: int = 0
    """Of these, resolved from the REST API."""
    reconnects: int = 0
    """Outages that ended."""
    refreshes: int = 0
    """New tokens that the service accepted."""
    foreign: int = 0
    """User events dropped because they were another user's, as after `switch_user`."""
    pauses: int = 0
    """How often reading paused because the handlers were behind."""
    repeats: int = 0
    """User events that were not delivered, because the same fact had been delivered before: see `UserEvent.id`."""
    redelivered: int = 0
    """Events of the journal that were delivered again at the start."""


@attrs.frozen(kw_only=True)
class Health:
    """A snapshot of a client. `ok` is true only if nothing is known to be wrong at this moment."""

    phase: Phase
    problems: tuple[str, ...]
    """What is wrong, in words; empty if all is well."""
    user_id: str | None
    """Who is signed in, by the service's word."""
    continuity: Continuity
    """Whether something may have been missed of the user's orders."""
    live_for: float | None
    """Seconds since the present connection was authenticated; None if it is not."""
    silent_for: float | None
    """Seconds since anything came from the server; None without a connection."""
    threads: Mapping[str, bool]
    """Which of the client's threads are alive, by name."""
    queue_depth: int
    """Events that wait for their handlers, or are being handled."""
    running: Mapping[str, float]
    """Handlers that run now, by name, with the seconds since they were called."""
    coalesced: int
    """Balances that a newer one of their venue replaced before a handler saw them."""
    delivered: int
    """Events that were handed to handlers."""
    handler_errors: int
    """Exceptions that handlers raised."""
    counters: Counters
    last_error: AggStreamError | None
    """What ended the last attempt or connection."""

    @property
    def ok(self) -> bool:
        """True if the stream is live, its threads are alive, and the server is not silent past its deadline."""
        return not self.problems


@attrs.frozen(kw_only=True)
class StopReport:
    """What `Client.stop` left undone. It is true in a condition if that is nothing."""

    undelivered: int = 0
    """Events that were received and will not be given to handlers."""
    running: tuple[str, ...] = ()
    """What still runs: handlers by name, or what a thread of ours waits for."""

    def __bool__(self) -> bool:
        return not self.undelivered and not self.running
