"""One attempt to have an event handled: all of its handlers at first, and later those that failed."""

from __future__ import annotations

import time

import attrs

from aggstream._delivery.acks import Acks
from aggstream._delivery.handler_calls import Caller, HandlerCalls
from aggstream._delivery.queue_items import Item
from aggstream._delivery.registry import Handler
from aggstream.events import BalanceUpdate, Event, UserEvent

_NOT_IN_THIS_PROCESS = 1e9


@attrs.frozen(eq=False, repr=False)
class Attempt:
    """An event some of whose handlers failed, or one that was given to none yet."""

    item: Item
    handlers: tuple[Handler, ...] | None = None
    """Those that failed; None: all are to be called."""
    number: int = 0
    """How often handlers of the event were called."""


def try_handlers(
    attempt: Attempt, caller: Caller, calls: HandlerCalls, acks: Acks | None
) -> tuple[Attempt, float] | None:
    """Call the handlers of an event, and tell the journal what became of it.

    Args:
        attempt: the event, and which of its handlers.
        caller: counts it, and shows what runs.
        calls: calls the handlers.
        acks: tells the journal; None: there is none, and nothing is tried again.

    Returns:
        The next attempt, and when it is due in monotonic seconds; None if the event is done.
    """
    item, tally = attempt.item, caller.tally
    if calls.is_abandoned:
        return None
    is_first = not attempt.number
    tally.begun += is_first
    if calls.is_stale(item.event, item.epoch):
        tally.stale += 1
        return None
    errors = calls.call(caller, item.event, item.epoch, item.size, attempt.handlers)
    tally.delivered += is_first
    if acks is None or item.seq is None or calls.is_abandoned:  # meanwhile
        return None
    if not errors:
        acks.succeeded(item.seq)
        return None
    number = attempt.number + 1
    pause = acks.failed(item.seq, [error for _, error in errors], number)
    if pause is None:
        return None
    event = attrs.evolve(item.event, redelivered=True) if isinstance(item.event, UserEvent) else item.event
    failed = tuple(handler for handler, _ in errors)
    if not all(isinstance(error, Exception) for _, error in errors):
        # A handler has left the program, which ends now. What it has begun is the next process's.
        pause = _NOT_IN_THIS_PROCESS
    return Attempt(attrs.evolve(item, event=event), failed, number), time.monotonic() + pause


def line_of(event: Event) -> str:
    """Return the name of the line that an event keeps: its order's, or its venue's balance's."""
    if isinstance(event, BalanceUpdate):
        return line_of_balance(event.venue)
    return f"order {getattr(event, 'order_id', '')}"


def line_of_balance(venue: str) -> str:
    """Return the name of the line that the balances of a venue keep."""
    return f"balance of {venue}"
