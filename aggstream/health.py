"""A client's report about itself."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Literal, TypeAlias

import attrs

from aggstream.errors import AggStreamError

Phase: TypeAlias = Literal[
    "idle", "connecting", "live", "waiting", "must sign in again", "failed", "stopping", "stopped"
]
"""Not started; on the way to a live connection; live; pausing before the next attempt; on the way out; ended.

Only an account of a fleet is "must sign in again", because its token is refused, or "failed", because it is
refused for another reason: see `Resting`."""


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
    """Counts since the start. Written by the I/O thread only.

    Attributes:
        connections: WebSocket connections that were opened.
        messages: text messages received.
        user_events: user events received and queued for the handlers.
        decode_failures: messages that could not be understood.
        gaps: outages in which user events may have been missed.
        gaps_resolved: of these, those that were closed from the REST API.
        reconnects: outages that ended.
        refreshes: new tokens that the service accepted.
        foreign: user events dropped because they came for a user who was not accepted, as after `switch_user`.
        foreign_events: messages that name another user than the one who is signed in, and were not delivered.
        pauses: how often reading paused because the handlers were behind.
        repeats: user events that were not delivered, because the same fact had been: see `UserEvent.id`.
        redelivered: events of the journal that were delivered again at the start.
    """

    connections: int = 0
    messages: int = 0
    user_events: int = 0
    decode_failures: int = 0
    gaps: int = 0
    gaps_resolved: int = 0
    reconnects: int = 0
    refreshes: int = 0
    foreign: int = 0
    foreign_events: int = 0
    pauses: int = 0
    repeats: int = 0
    redelivered: int = 0


@attrs.frozen(kw_only=True)
class Health:
    """A snapshot of a client. `ok` is true only if nothing is known to be wrong at this moment.

    Attributes:
        phase: "idle" (not started), "connecting", "live", "waiting" (pausing before the next attempt), "stopping"
            or "stopped".
        problems: what is wrong, in words; empty if all is well.
        user_id: the user who is signed in, by the service's word.
        continuity: whether something may have been missed of the user's orders.
        live_for: seconds since the present connection was authenticated; None if it is not.
        silent_for: seconds since anything came from the server; None without a connection.
        threads: which of the client's threads are alive, by name. Threads for blocking calls are not among them:
            they begin when a call is made, and end when there is none.
        queue_depth: events that wait for their handlers, or are being handled.
        held: live events that wait for what REST says of a gap.
        unknown_statuses: words that the service has told as the status of an order and that aggstream does not
            know: name them in `RestOptions.status_names`.
        running: handlers that run now, by name, with the seconds since they were called.
        coalesced: balances that a newer one of their venue replaced before a handler saw them.
        delivered: events that were handed to handlers.
        handler_errors: exceptions that handlers raised.
        dead: events that the journal has set aside since the start, because their handlers failed too often.
            An event no longer counts once it was made pending again and its handlers have finished.
        counters: what happened since the start: see `Counters`.
        last_error: what ended the last attempt or connection.
    """

    phase: Phase
    problems: tuple[str, ...]
    user_id: str | None
    continuity: Continuity
    live_for: float | None
    silent_for: float | None
    threads: Mapping[str, bool]
    queue_depth: int
    held: int = 0
    unknown_statuses: tuple[str, ...] = ()
    running: Mapping[str, float]
    coalesced: int
    delivered: int
    handler_errors: int
    dead: int
    counters: Counters
    last_error: AggStreamError | None

    @property
    def ok(self) -> bool:
        """True if the stream is live, its threads are alive, and the server is not silent past its deadline."""
        return not self.problems


@attrs.frozen(kw_only=True)
class FleetHealth:
    """A snapshot of a fleet. To make one takes the same time for any number of accounts, without `details`.

    Attributes:
        phase: "idle" (not started), "live", "stopping" or "stopped".
        accounts: how many accounts there are.
        phases: how many of them are in each phase: see `Phase`.
        problems: what is wrong, in words; empty if all is well.
        must_sign_in: the names of some accounts whose token is refused, ten at most.
        failed: the names of some accounts that are refused for another reason, ten at most.
        running: handlers that run now, by account and name, with the seconds since they were called.
        threads: which of the fleet's threads are alive, by name.
        waiting_to_connect: how many accounts wait for their turn to connect.
        details: the health of each account by its name; empty unless it was asked for.
    """

    phase: Phase
    accounts: int
    phases: Mapping[Phase, int]
    problems: tuple[str, ...]
    must_sign_in: tuple[str, ...]
    failed: tuple[str, ...]
    running: Mapping[tuple[str, str], float]
    threads: Mapping[str, bool]
    waiting_to_connect: int
    details: Mapping[str, Health] = attrs.field(factory=dict)

    @property
    def ok(self) -> bool:
        """True if all accounts are live, and nothing is known to be wrong at this moment."""
        return not self.problems


@attrs.frozen(kw_only=True)
class StopReport:
    """The work that `Client.stop` left undone. It is true in a condition if there is none.

    Attributes:
        undelivered: events that were received and will not be given to handlers.
        running: what still runs: handlers by name, or what a thread of ours waits for.
    """

    undelivered: int = 0
    running: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return not self.undelivered and not self.running
