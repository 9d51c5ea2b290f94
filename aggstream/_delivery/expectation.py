"""One `Client.wait_for()`: the event that it waits for."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Mapping

from aggstream._base.deadline import Deadline
from aggstream._delivery.registry import Key
from aggstream.errors import ConfigurationError
from aggstream.events import LIFECYCLE_TYPES, WIRE_TYPES, Event, UnknownEvent


class Expectation:
    """Takes the first event that it is about."""

    def __init__(self, key: Key, fields: Mapping[str, object]) -> None:
        """Make one for the events of a key whose fields have these values.

        Raises:
            ConfigurationError: the class has no such field.
        """
        if key.cls in WIRE_TYPES.values() or key.cls in LIFECYCLE_TYPES.values():
            for name in fields:
                if not hasattr(key.cls, name):
                    raise ConfigurationError(f"{key.cls.__name__} has no field {name}, so this would never match")
        self._key = key
        self._fields = fields
        self._done = threading.Event()
        self.event: Event | None = None

    def __str__(self) -> str:
        """Return in words which event is waited for, without the fields' values."""
        key = self._key
        name = ascii(key.name or key.cls.TYPE or key.cls.__name__)[1:-1]
        words = [name, *(ascii(sub_event) for sub_event in sorted(key.sub_events))]
        if self._fields:
            words.append(f"with this {' and '.join(self._fields)}")
        return " ".join(words)

    def offer(self, event: Event) -> None:
        """Look at an event; called on a dispatch thread."""
        if self.event is None and self._key.matches(event) and self._has_fields(event):
            self.event = event
            self._done.set()

    def give_up(self) -> None:
        """Wait no longer: nothing more will come."""
        self._done.set()

    def wait(self, deadline: Deadline) -> Event | None:
        """Return the event; None if it did not come in time, or will not."""
        self._done.wait(deadline.remaining())
        return self.event

    def _has_fields(self, event: Event) -> bool:
        found: Callable[[str], object]
        found = event.raw.__getitem__ if isinstance(event, UnknownEvent) else functools.partial(getattr, event)
        try:
            return all(bool(found(name) == value) for name, value in self._fields.items())
        except Exception:  # a property that has no value, or a value of the user's that cannot be compared
            return False
