"""The words of an `order_event`: how they are written, their normal form, and what they mean.

Sources: the service documents `dag_started`, `step_started`, and the statuses of a limit order (`pending`, `open`,
`partially_filled_open`, `filled`, `cancelled`, `expired`, `failed`) and of a paper order (`filled`, `rejected`).
The other words, and other writings of all of them, are assumed.
"""

from __future__ import annotations

import enum
import functools
import re
from typing import Final, Literal, TypeAlias

import attrs

Family: TypeAlias = Literal["run", "step", "terminal"]
"""The subject of an order_event: the run of the order's execution graph, a step of it, or the order's status."""


class OrderEventName:
    """Known normal forms of `OrderEvent.event`. The set is open: compare with `sub_event`, do not convert."""

    DAG_STARTED: Final = "dag_started"
    DAG_COMPLETED: Final = "dag_completed"
    DAG_FAILED: Final = "dag_failed"
    STEP_STARTED: Final = "step_started"
    STEP_COMPLETED: Final = "step_completed"
    STEP_FAILED: Final = "step_failed"
    STEP_RETRYING: Final = "step_retrying"
    SUBMITTED: Final = "submitted"
    PENDING: Final = "pending"
    OPEN: Final = "open"
    PARTIALLY_FILLED: Final = "partially_filled"
    FILLED: Final = "filled"
    FAILED: Final = "failed"
    REJECTED: Final = "rejected"
    CANCELLED: Final = "cancelled"
    EXPIRED: Final = "expired"


class Verdict(enum.Enum):
    """How an order ended."""

    FILLED = "filled"
    PARTIALLY_FILLED = "partially_filled"
    """It ended before all of it was filled: the rest failed, was cancelled, or expired."""
    FAILED = "failed"
    """It failed or was rejected, and nothing of it was filled."""
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    UNKNOWN = "unknown"
    """It cannot be told, or not yet. Never a guess."""


@attrs.frozen
class OrderEventKind:
    """The meaning of an order_event's name: one row of `ORDER_EVENTS`."""

    family: Family
    is_terminal: bool = False
    """True if nothing more happens to the order after this event."""
    verdict: Verdict = Verdict.UNKNOWN
    """The verdict on an order that ends with this event."""


ORDER_EVENTS: dict[str, OrderEventKind] = {
    OrderEventName.SUBMITTED: OrderEventKind("terminal"),
    OrderEventName.PENDING: OrderEventKind("terminal"),
    OrderEventName.OPEN: OrderEventKind("terminal"),
    # More fills may follow a partial one. Calling it the end would stop a program from looking too early.
    OrderEventName.PARTIALLY_FILLED: OrderEventKind("terminal"),
    OrderEventName.FILLED: OrderEventKind("terminal", is_terminal=True, verdict=Verdict.FILLED),
    OrderEventName.FAILED: OrderEventKind("terminal", is_terminal=True, verdict=Verdict.FAILED),
    OrderEventName.REJECTED: OrderEventKind("terminal", is_terminal=True, verdict=Verdict.FAILED),
    OrderEventName.CANCELLED: OrderEventKind("terminal", is_terminal=True, verdict=Verdict.CANCELLED),
    OrderEventName.EXPIRED: OrderEventKind("terminal", is_terminal=True, verdict=Verdict.EXPIRED),
}
"""The order's statuses by name; `dag_*` and `step_*` need no row. A name stands for all its writings.

Add a row for a status that the service has and this version does not know:
`ORDER_EVENTS["settled"] = OrderEventKind("terminal", is_terminal=True, verdict=Verdict.FILLED)`.
"""

_PREFIX = "order_"
_LONGEST = 64
# By their letters alone, so that neither case nor what stands between the words counts. Ids are made of the names
# on the right, and last: no row is ever changed.
_SAME = {
    name.replace("_", ""): name
    for key, name in vars(OrderEventName).items()
    if key.isupper() and isinstance(name, str)
} | {
    "canceled": OrderEventName.CANCELLED,
    "partiallyfilledopen": OrderEventName.PARTIALLY_FILLED,
    "partialfilled": OrderEventName.PARTIALLY_FILLED,
    "partialfill": OrderEventName.PARTIALLY_FILLED,
}
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_BETWEEN = re.compile(r"[\s\-.:/]+|_{2,}")
_RUN, _STEP = OrderEventKind("run"), OrderEventKind("step")
PROGRESS = {
    name: _RUN if name.startswith("dag_") else _STEP
    for name in _SAME.values()
    if name.startswith(("dag_", "step_"))
}
"""The meanings of the known names about the order's run and its steps. It is looked into before anything else
where it has to be quick; `order_event_kind` says the same."""


def normal_form(name: str) -> str:
    """Return the one writing of an order_event's name by which handlers, statuses and ids know it.

    "FILLED", "order_filled" and "orderFilled" are "filled"; "canceled" is "cancelled"; "partially_filled_open" is
    "partially_filled". A name that is not known is written in lower case, with "_" between its words.
    """
    return _normal(name) if len(name) <= _LONGEST else name


@functools.lru_cache(maxsize=1024)
def _normal(name: str) -> str:
    words = _BETWEEN.sub("_", _HUMP.sub("_", name.strip())).strip("_").lower()
    bare = words.removeprefix(_PREFIX)
    return _SAME.get(bare.replace("_", ""), bare or name)


def order_event_kind(name: str) -> OrderEventKind | None:
    """Return what `name` stands for, or None if neither the table nor its prefix tells."""
    kind = ORDER_EVENTS.get(name)
    return _kind(name) if kind is None else kind


def _kind(name: str) -> OrderEventKind | None:
    bare = normal_form(name)
    kind = ORDER_EVENTS.get(bare)
    if kind is not None:
        return kind
    if bare.startswith("dag_"):
        return _RUN
    if bare.startswith("step_"):
        return _STEP
    # A user's row, in the user's writing.
    return next((kind for row, kind in list(ORDER_EVENTS.items()) if normal_form(row) == bare), None)
