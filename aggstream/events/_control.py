"""The service's control messages. Source: its public documentation."""

from __future__ import annotations

from typing import ClassVar

import attrs

from aggstream.events._base import Event, wire


@attrs.frozen(kw_only=True, repr=False)
class ControlMessage(Event):
    """The base of the messages about the connection itself."""


@wire
@attrs.frozen(kw_only=True, repr=False)
class Connected(ControlMessage):
    """The service accepted the connection for the app."""

    TYPE: ClassVar[str] = "connected"

    app_id: str | None = None
    user_id: str | None = None
    """Only if a valid token came with the connect."""


@wire
@attrs.frozen(kw_only=True, repr=False)
class Authenticated(ControlMessage):
    """The service accepted the token: from here on the user's events come."""

    TYPE: ClassVar[str] = "authenticated"

    user_id: str | None = None


@wire
@attrs.frozen(kw_only=True, repr=False)
class Heartbeat(ControlMessage):
    """The service is alive."""

    TYPE: ClassVar[str] = "heartbeat"

    ts: int = 0
    """Milliseconds since the epoch by the service's clock; may be 0."""


@wire
@attrs.frozen(kw_only=True, repr=False)
class ErrorMessage(ControlMessage):
    """The service says that something is wrong. Further fields, if it sent any, are in `raw`."""

    TYPE: ClassVar[str] = "error"

    message: str = ""
    code: str | int | None = None
    channel: str | None = None


@wire
@attrs.frozen(kw_only=True, repr=False)
class Subscribed(ControlMessage):
    """The service answers a subscription to market data."""

    TYPE: ClassVar[str] = "subscribed"

    channel: str | None = None
    outcome_ids: tuple[str, ...] = ()


@wire
@attrs.frozen(kw_only=True, repr=False)
class Unsubscribed(ControlMessage):
    """The service answers the end of a subscription to market data."""

    TYPE: ClassVar[str] = "unsubscribed"

    channel: str | None = None
    outcome_ids: tuple[str, ...] = ()
