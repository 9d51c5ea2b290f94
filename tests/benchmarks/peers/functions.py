"""The user's functions for parsed messages, in a dict by type and sub-event: what one writes without a library."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from benchmarks.messages import SUB_EVENTS

Message: TypeAlias = Mapping[str, Any]
Handle: TypeAlias = Callable[[int], object]
"""Called by each of the user's functions with the message's timestamp."""


def dispatcher(handle: Handle) -> Callable[[Message], None]:
    """Return what calls the function of a message, if it has one."""

    def submitted(message: Message) -> None:
        handle(message["timestamp"])

    def balance(message: Message) -> None:
        handle(message["timestamp"])

    def order_event(message: Message) -> None:
        handle(message["timestamp"])

    functions: dict[tuple[str, str | None], Callable[[Message], None]] = {
        ("order_submitted", None): submitted,
        ("balance_update", None): balance,
        **{("order_event", name): order_event for name in SUB_EVENTS},
    }

    def dispatch(message: Message) -> None:
        function = functions.get((message["type"], message.get("event")))
        if function is not None:
            function(message)

    return dispatch
