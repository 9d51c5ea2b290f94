"""Books over the simulator's wire and the client's handlers, that must balance whatever happens between them.

An event's `timestamp` is strictly increasing for one user of the simulator, so it names the event.
"""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Iterator
from typing import Any

import attrs

import aggstream
from aggstream.simulator import _connection

_USER_EVENTS = ("order_submitted", "balance_update", "order_event")


class UntoldLoss(AssertionError):
    """The books do not balance."""


@attrs.define
class Ledger:
    """What was put on the wire of each connection of the server, and what reached a handler, in order."""

    sent: dict[int, list[int]] = attrs.field(factory=dict)
    """By the number of the server's connection."""
    received: list[int | aggstream.Event] = attrs.field(factory=list)
    """In the order of the calls; of a user's event only what names it, because runs may be long."""
    _numbers: dict[object, int] = attrs.field(factory=dict)

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Enter what the simulator sends, in the order of its queues."""
        send = _connection.ServerConnection.send

        def recording(connection: _connection.ServerConnection, frame: str | dict[str, Any]) -> None:
            message = json.loads(frame) if isinstance(frame, str) else frame
            if not connection.closing and message.get("type") in _USER_EVENTS:
                number = self._numbers.setdefault(connection, len(self._numbers))
                self.sent.setdefault(number, []).append(message["timestamp"])
            send(connection, frame)

        _connection.ServerConnection.send = recording  # type: ignore[method-assign,assignment]
        try:
            yield
        finally:
            _connection.ServerConnection.send = send  # type: ignore[method-assign]

    def watch(self, client: aggstream.Client) -> None:
        """Enter what reaches a handler. It must be the client's only one that may be slow, or the first."""
        client.on(aggstream.UserEvent)(lambda event: self.received.append(event.timestamp))
        client.on(aggstream.LifecycleEvent)(self.received.append)
        client.on(aggstream.Authenticated)(self.received.append)

    def has_delivered(self, name: int) -> bool:
        """Tell whether an event was among the last that reached a handler."""
        return name in self.received[-50:]

    def balance(self) -> Balance:
        """Return the balance.

        Raises:
            UntoldLoss: an event is missing that lies in no gap that was told, or came twice or out of order.
        """
        delivered = [event for event in self.received if isinstance(event, int)]
        for one, other in itertools.pairwise(delivered):
            if one >= other:
                raise UntoldLoss(f"{other} came after {one}")
        stretches = list(self._stretches())
        for stretch in stretches:
            self._check_stretch(stretch)
        emitted = {number for numbers in self.sent.values() for number in numbers}
        if foreign := set(delivered) - emitted:
            raise UntoldLoss(f"nobody has sent {sorted(foreign)[:5]}")
        gaps = sum(isinstance(event, aggstream.Gap) for event in self.received)
        return Balance(
            sent=len(emitted), delivered=len(delivered), lost_in_gaps=len(emitted) - len(delivered), gaps=gaps
        )

    def _stretches(self) -> Iterator[list[int]]:
        """Yield what was delivered by each connection, and see that a gap is told before the next."""
        stretch: list[int] = []
        was_live, may_deliver = False, False
        for event in self.received:
            if isinstance(event, aggstream.Authenticated):
                may_deliver = may_deliver or not was_live
                was_live = True
            elif isinstance(event, aggstream.Gap):
                may_deliver = True
            elif isinstance(event, aggstream.Disconnected):
                yield stretch
                stretch, may_deliver = [], False
            elif isinstance(event, int):
                if not may_deliver:
                    raise UntoldLoss(f"{event} came without a gap being told after the outage before it")
                stretch.append(event)
        yield stretch

    def _check_stretch(self, stretch: list[int]) -> None:
        if stretch and not any(sent[: len(stretch)] == stretch for sent in self.sent.values()):
            raise UntoldLoss(f"{stretch[:5]}… is not the beginning of what any connection was sent")


@attrs.frozen
class Balance:
    """Events on the wire, those that reached a handler, and those that lie in gaps that were told."""

    sent: int
    delivered: int
    lost_in_gaps: int
    gaps: int
