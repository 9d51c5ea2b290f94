"""An order as the page shows it: texts, made of exact numbers."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from decimal import Context, Decimal

from aggstream.integrations.django.models import Event, Order

# Of the simulator's shares; AGG's venues may have others.
UNITS_PER_SHARE = 1_000_000

# More digits than two numbers of the service have, so that nothing is rounded.
EXACT = Context(prec=200)

PARTLY = "Partly filled"

_STATES = {"filled": "filled", "failed": "failed", "rejected": "failed", "cancelled": "ended", "expired": "ended"}


@dataclasses.dataclass
class Step:
    """A step on the way to the venue."""

    name: str
    state: str
    """"started", "retrying", "failed" or "completed"."""
    attempt: int


@dataclasses.dataclass
class Row:
    """What nobody has told is empty."""

    order: Order
    state: str
    """"open", "filled", "partial", "failed" or "ended": its colour."""
    label: str
    size: str
    price: str
    total: str
    filled: str
    filled_units: int
    all_units: int
    reason: str
    steps: list[Step]


def row(order: Order) -> Row:
    """Return an order as the page shows it; its `events` are those of its steps."""
    filled = order.filled_amount_raw or 0
    if order.size is not None:
        units = int(EXACT.multiply(order.size, Decimal(UNITS_PER_SHARE)))
    else:  # it was submitted while no stream ran, and only REST has told of it
        units = filled + (order.remaining_amount_raw or 0)
    state, label = _state(order, filled)
    reasons = [order.status] if label == PARTLY else []
    return Row(
        order=order,
        state=state,
        label=label,
        size=shares(units) if units else "",
        price="" if order.price is None else dollars(order.price),
        total=""
        if order.price is None or order.size is None
        else dollars(EXACT.multiply(order.price, order.size)),
        filled=shares(filled),
        filled_units=filled,
        all_units=units,
        reason=": ".join([*reasons, *filter(None, [order.error_reason])]).replace("_", " "),
        steps=_steps(order.events.all()),
    )


def shares(units: int) -> str:
    """Return a number of shares, with as many decimals as it has."""
    whole, part = divmod(units, UNITS_PER_SHARE)
    return f"{whole:,}.{part:06d}".rstrip("0").rstrip(".")


def dollars(amount: Decimal) -> str:
    """Return an amount with as many decimals as it has, but with two at least."""
    whole, _, part = f"{amount:,f}".partition(".")
    return f"${whole}.{part.rstrip('0').ljust(2, '0')}"


def _state(order: Order, filled: int) -> tuple[str, str]:
    if not order.is_terminal:
        return ("partial", "Filling") if filled else ("open", "Working")
    if filled and order.status != "filled":
        return "partial", PARTLY
    return _STATES.get(order.status, "ended"), order.status.replace("_", " ").capitalize()


def _steps(events: Iterable[Event]) -> list[Step]:
    steps: dict[str, Step] = {}
    for event in events:
        told = event.message
        name = str(told.get("stepType") or "step")
        step = steps.setdefault(str(told.get("stepId") or name), Step(name.replace("_", " "), "", 0))
        step.state = event.sub_event.removeprefix("step_")
        step.attempt = max(step.attempt, int(Decimal(told.get("attempt") or 0)))  # 1.0 is told as a text
    return list(steps.values())
