"""The states of a session, and every step between them.

IDLE            made, not connected yet
CONNECTING      the WebSocket is open; waiting for the service's `connected`
AUTHENTICATING  `authenticate` is sent; waiting for `authenticated`
LIVE            signed in; the user's events come
CLOSING         our close frame is sent; waiting for the peer's, while what it sent before still counts
CLOSED          over; a session is never used again

Rules that the table holds:
- CLOSED is reached from everywhere and left for nowhere.
- LIVE is reached only by the service's word: an `authenticated`, or a `connected` that names the user
  (when the token was in the query).
- Authenticating again (a new token, another user, a proof of life) is a flag beside LIVE, not a state.
- What the service repeats (`connected`, `authenticated`) changes nothing; it may be an alpha's quirk.
"""

from __future__ import annotations

import enum


class State(enum.Enum):
    """The states of a session."""

    IDLE = "idle"
    CONNECTING = "connecting"
    AUTHENTICATING = "authenticating"
    LIVE = "live"
    CLOSING = "closing"
    CLOSED = "closed"


class Signal(enum.Enum):
    """The signals that move a session from state to state."""

    OPENED = "the WebSocket handshake is done"
    GREETED = "the service said `connected`"
    AUTHENTICATED = "the service accepted the token"
    CLOSE_SENT = "this side began to close"
    ENDED = "the connection is gone"


TRANSITIONS: dict[State, dict[Signal, State]] = {
    State.IDLE: {
        Signal.OPENED: State.CONNECTING,
        Signal.ENDED: State.CLOSED,
    },
    State.CONNECTING: {
        Signal.GREETED: State.AUTHENTICATING,
        Signal.AUTHENTICATED: State.LIVE,
        Signal.CLOSE_SENT: State.CLOSING,
        Signal.ENDED: State.CLOSED,
    },
    State.AUTHENTICATING: {
        Signal.GREETED: State.AUTHENTICATING,
        Signal.AUTHENTICATED: State.LIVE,
        Signal.CLOSE_SENT: State.CLOSING,
        Signal.ENDED: State.CLOSED,
    },
    State.LIVE: {
        Signal.GREETED: State.LIVE,
        Signal.AUTHENTICATED: State.LIVE,
        Signal.CLOSE_SENT: State.CLOSING,
        Signal.ENDED: State.CLOSED,
    },
    State.CLOSING: {
        Signal.GREETED: State.CLOSING,
        Signal.ENDED: State.CLOSED,
    },
    State.CLOSED: {
        Signal.ENDED: State.CLOSED,
    },
}
