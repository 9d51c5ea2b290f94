"""What the tests of fleets have in common."""

from __future__ import annotations

import collections
import threading
from typing import Any, Protocol

import aggstream
from aggstream import Event, OrderEvent


class MakeFleet(Protocol):
    def __call__(self, **options: Any) -> aggstream.Fleet: ...


class Record:
    """The events of a fleet, by account."""

    def __init__(self, fleet: aggstream.Fleet, key: str = "*") -> None:
        self.events: dict[str, list[Event]] = collections.defaultdict(list)
        self._lock = threading.Lock()
        fleet.on(key)(self._note)

    def _note(self, event: Event) -> None:
        with self._lock:
            self.events[event.account].append(event)

    def of(self, account: str, cls: type[Event] = OrderEvent) -> list[Any]:
        with self._lock:
            return [event for event in self.events[account] if isinstance(event, cls)]
