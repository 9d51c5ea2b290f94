"""The counts that the simulator keeps: of requests, and of events."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Counts:
    """The simulator's counts of requests since it was made.

    Attributes:
        handshakes: requests for a WebSocket, accepted or refused.
        handshakes_refused: the refused ones of these.
        authentications: accepted access tokens, from messages and from queries.
        authentications_refused: refused access tokens, from messages and from queries.
        refreshes: refresh tokens that were exchanged for a new pair.
        refreshes_refused: refused calls to refresh.
        rest_calls: calls of /execution/*, accepted or refused.
        rest_calls_refused: the refused ones of these.
        order_pages: pages of orders that the simulator has answered with, also if the answer did not arrive.
    """

    handshakes: int = 0
    handshakes_refused: int = 0
    authentications: int = 0
    authentications_refused: int = 0
    refreshes: int = 0
    refreshes_refused: int = 0
    rest_calls: int = 0
    rest_calls_refused: int = 0
    order_pages: int = 0


@dataclass(frozen=True)
class Books:
    """The simulator's count of one user's events; `emitted == sent + missed`, always.

    Attributes:
        emitted: events that happened.
        sent: the events of these that were queued for at least one authenticated connection of the user.
        missed: the events of these that happened while the user had no authenticated connection.
    """

    emitted: int
    sent: int
    missed: int
