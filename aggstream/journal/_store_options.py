"""The options of every store of events, checked where they are given."""

from __future__ import annotations

from typing import Any, Literal

import attrs

from aggstream._base.checks import count, seconds
from aggstream.errors import ConfigurationError


def one_of(*words: str) -> Any:
    """Return a field that is one of some words, and the first of them by default."""

    def check(_: object, field: attrs.Attribute[Any], value: Any) -> None:
        if value not in words:
            known = " or ".join(f'"{word}"' for word in words)
            raise ConfigurationError(f"journal: {field.name} must be {known}, got {value!a}")

    return attrs.field(default=words[0], validator=check)


def _errors(value: Any) -> tuple[type[Exception], ...]:
    are_classes = isinstance(value, (tuple, list)) and all(
        isinstance(one, type) and issubclass(one, Exception) for one in value
    )
    if not are_classes:
        raise ConfigurationError(
            "journal: outage_errors must be a tuple of exception classes, as (sqlalchemy.exc.OperationalError,)"
        )
    return tuple(value)


@attrs.frozen(kw_only=True)
class StoreOptions:
    """How stored events are delivered and kept, wherever they are stored. Times are in seconds.

    Raises:
        ConfigurationError: an option cannot work.
    """

    max_attempts: int = count(5)
    """How often an event's handlers may fail before it is set aside as dead."""
    retry_delay: float = seconds(1.0)
    """From the first failure to the repetition; the pause doubles with each failure."""
    retry_delay_maximum: float = seconds(60.0)
    """The longest such pause."""
    outage_errors: tuple[type[Exception], ...] = attrs.field(default=(), converter=_errors)
    """The errors that handlers raise while something that they need is away, a database of their own say. Such a
    failure does not count: the handlers that failed are called again after the same growing pauses until they
    work. If only one of an event's handlers fails so, failures of the others with it do not count either."""
    keep_for: float = seconds(7 * 86400.0)
    """How long done events are kept, to tell repeats by; those of orders that have not ended are kept longer."""
    on_failure: Literal["stop", "continue"] = one_of("stop", "continue")
    """Whether the stream ends with the error when the store fails, or goes on without the store."""

    def __attrs_post_init__(self) -> None:
        if self.retry_delay > self.retry_delay_maximum:
            raise ConfigurationError("journal: retry_delay must not be above retry_delay_maximum")

    def delay_after(self, failures: int) -> float:
        """Return the pause, in seconds, after so many failures of an event's handlers, from 1."""
        doublings = min(failures - 1, 64)  # more would only overflow
        return min(self.retry_delay * 2.0**doublings, self.retry_delay_maximum)
