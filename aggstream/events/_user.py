"""The three events about a user's orders and balances.

Source: the service's page on user events, unless a docstring says otherwise.
"""

from __future__ import annotations

import datetime as dt
import enum
import hashlib
import json
from collections.abc import Callable, Mapping
from decimal import Decimal
from types import MemberDescriptorType
from typing import Any, ClassVar, Final, Literal, TypeAlias, cast

import attrs

from aggstream._base.times import moment_of_ms
from aggstream.events._amounts import raw_amount
from aggstream.events._base import Event, wire

Family: TypeAlias = Literal["run", "step", "terminal"]
"""The subject of an order_event: the run of the order's execution graph, a step of it, or the order's status."""


class Side:
    """Known values of `side`. The set is open: compare, do not convert."""

    BUY: Final = "buy"
    SELL: Final = "sell"


class Venue:
    """Known values of `venue`. The set is open: compare, do not convert."""

    KALSHI: Final = "kalshi"
    POLYMARKET: Final = "polymarket"
    LIMITLESS: Final = "limitless"
    OPINION: Final = "opinion"
    PREDICT: Final = "predict"
    PROBABLE: Final = "probable"
    MYRIAD: Final = "myriad"
    HYPERLIQUID: Final = "hyperliquid"


class OrderEventName:
    """Known values of `OrderEvent.event`. The set is open: compare, do not convert.

    `dag_started` and `step_started` stand in the public documentation; the others are assumed.
    """

    DAG_STARTED: Final = "dag_started"
    DAG_COMPLETED: Final = "dag_completed"
    DAG_FAILED: Final = "dag_failed"
    STEP_STARTED: Final = "step_started"
    STEP_COMPLETED: Final = "step_completed"
    STEP_FAILED: Final = "step_failed"
    STEP_RETRYING: Final = "step_retrying"
    PARTIALLY_FILLED: Final = "partially_filled"
    FILLED: Final = "filled"
    FAILED: Final = "failed"
    CANCELLED: Final = "cancelled"
    EXPIRED: Final = "expired"


class Verdict(enum.Enum):
    """How an order ended."""

    FILLED = "filled"
    PARTIALLY_FILLED = "partially_filled"
    """It ended before all of it was filled: the rest failed, was cancelled, or expired."""
    FAILED = "failed"
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
    # More fills may follow a partial one. Calling it the end would stop a program from looking too early.
    OrderEventName.PARTIALLY_FILLED: OrderEventKind("terminal"),
    OrderEventName.FILLED: OrderEventKind("terminal", is_terminal=True, verdict=Verdict.FILLED),
    OrderEventName.FAILED: OrderEventKind("terminal", is_terminal=True, verdict=Verdict.FAILED),
    OrderEventName.CANCELLED: OrderEventKind("terminal", is_terminal=True, verdict=Verdict.CANCELLED),
    OrderEventName.EXPIRED: OrderEventKind("terminal", is_terminal=True, verdict=Verdict.EXPIRED),
}
"""The order's statuses by name; `dag_*` and `step_*` need no row. An `order_` prefix is ignored.

Add a row for a status that the service has and this version does not know:
`ORDER_EVENTS["settled"] = OrderEventKind("terminal", is_terminal=True, verdict=Verdict.FILLED)`.
"""

_PREFIX = "order_"
_RUN, _STEP = OrderEventKind("run"), OrderEventKind("step")


def order_event_kind(name: str) -> OrderEventKind | None:
    """Return what `name` stands for, or None if neither the table nor its prefix tells."""
    bare = name.removeprefix(_PREFIX)
    kind = ORDER_EVENTS.get(name) or ORDER_EVENTS.get(bare)
    if kind is not None:
        return kind
    if bare.startswith("dag_"):
        return _RUN
    if bare.startswith("step_"):
        return _STEP
    return None


Source: TypeAlias = Literal["stream", "reconcile"]
"""Where a fact came from: the socket, or the REST API after something may have been missed on the socket."""


def _digest(*parts: str) -> str:
    return hashlib.blake2b("\0".join(parts).encode(errors="surrogatepass"), digest_size=12).hexdigest()


@attrs.frozen(kw_only=True, repr=False)
class UserEvent(Event):
    """The base of the events about the user's orders and balances."""

    timestamp: int
    """When it happened, by the service's clock: milliseconds since the epoch."""
    source: Source = attrs.field(default="stream", eq=False)
    """"reconcile" if it was read from the REST API, because the stream may have missed it."""
    redelivered: bool = attrs.field(default=False, eq=False)
    """True if its handlers may have been called with it before: the journal delivers it again."""
    text: str = attrs.field(default="", eq=False, repr=False)
    """The JSON text that it was made of: the message as received, or what was made of a REST answer."""

    @property
    def id(self) -> str:
        """The id by which repeats are known, 24 hex digits: the same whenever and from wherever a fact comes."""
        return _digest(self.TYPE, self.text or repr(attrs.evolve(self, source="stream", redelivered=False)))

    @property
    def occurred_at(self) -> dt.datetime:
        """`timestamp` as an aware datetime in UTC, exact to the millisecond.

        Raises:
            OverflowError: the service sent a number that is no date.
        """
        return moment_of_ms(self.timestamp)


class _RawOfText:
    """`raw` of an event that keeps its text: made when it is first asked for, because few ask."""

    def __init__(self, stored: MemberDescriptorType) -> None:
        self._stored = stored

    def __get__(self, event: UserEvent | None, owner: type[UserEvent]) -> Mapping[str, Any] | _RawOfText:
        if event is None:
            return self
        try:
            raw: Mapping[str, Any] = self._stored.__get__(event, owner)
        except AttributeError:
            raw = _parse(event.text)
            self._stored.__set__(event, raw)
        return raw

    def __set__(self, event: UserEvent, raw: Mapping[str, Any]) -> None:
        self._stored.__set__(event, raw)


# It was found to be in order, and within the limits, when the event was made of it.
_parse: Callable[[str], Mapping[str, Any]] = json.JSONDecoder(parse_float=Decimal).decode
UserEvent.raw = _RawOfText(cast("MemberDescriptorType", Event.raw))  # type: ignore[assignment]


@wire
@attrs.frozen(kw_only=True, repr=False)
class OrderSubmitted(UserEvent):
    """A trade was accepted for execution."""

    TYPE: ClassVar[str] = "order_submitted"

    venue: str
    """See `Venue`."""
    order_id: str
    side: str
    """See `Side`."""
    price: Decimal
    """A probability between 0 and 1, exactly as written in the message."""
    size: Decimal
    """The number of shares, exactly as written in the message."""
    outcome_id: str


def _dollars(cents: int) -> Decimal:
    # From text, because arithmetic would round to the precision of the thread's decimal context.
    return Decimal(f"{cents}E-2")


@wire
@attrs.frozen(kw_only=True, repr=False)
class BalanceUpdate(UserEvent):
    """A venue's balance after an execution."""

    TYPE: ClassVar[str] = "balance_update"

    venue: str
    """See `Venue`."""
    trading_balance_cents: int
    wallet_balance_cents: int

    @property
    def trading_balance(self) -> Decimal:
        """The trading balance in dollars, exact."""
        return _dollars(self.trading_balance_cents)

    @property
    def wallet_balance(self) -> Decimal:
        """The wallet balance in dollars, exact."""
        return _dollars(self.wallet_balance_cents)


@wire
@attrs.frozen(kw_only=True, repr=False)
class OrderEvent(UserEvent):
    """Something happened to an order: to the run of its execution graph (DAG), a step of it, or its status.

    It is the same for every venue and told apart by `event`. Which of the optional fields are there depends
    on `event`: step fields on steps, amounts on fills, `error_reason` on failures (assumed).
    """

    TYPE: ClassVar[str] = "order_event"

    event: str
    """See `OrderEventName`."""
    order_id: str
    user_id: str | None = None
    venue: str | None = None
    """See `Venue`."""
    filled_amount_text: str | None = None
    """`filledAmountRaw` as received."""
    remaining_amount_text: str | None = None
    """`remainingAmountRaw` as received."""
    error_reason: str | None = None
    dag_run_id: str | None = None
    step_id: str | None = None
    step_type: str | None = None
    template_name: str | None = None
    attempt: int | None = None

    @property
    def filled_amount_raw(self) -> int | None:
        """The amount filled so far in base units; None if it is absent or not all digits."""
        return raw_amount(self.filled_amount_text)

    @property
    def remaining_amount_raw(self) -> int | None:
        """The amount not filled yet in base units; None if it is absent or not all digits."""
        return raw_amount(self.remaining_amount_text)

    @property
    def id(self) -> str:
        """The id by which repeats are known, 24 hex digits: the same whenever and from wherever a fact comes.

        An order takes on a status once, from whichever source: of a status, the id follows from the order, the
        status and, if it is not the end, the filled amount. Of anything else it follows from the whole message.
        """
        kind = order_event_kind(self.event)
        # REST always tells an order's status, also by a name that is not known.
        if self.source == "stream" and (kind is None or kind.family != "terminal"):
            return super().id
        filled = "" if kind is not None and kind.is_terminal else str(self.filled_amount_raw)
        return _digest("status", self.order_id, self.sub_event, filled)

    @property
    def sub_event(self) -> str:
        """`event` without an `order_` prefix: the name by which handlers are found."""
        return self.event.removeprefix(_PREFIX)

    @property
    def family(self) -> Family | None:
        """`"run"`, `"step"` or `"terminal"` by `ORDER_EVENTS`; None for a name that nobody has heard of."""
        kind = order_event_kind(self.event)
        return None if kind is None else kind.family

    @property
    def is_terminal(self) -> bool:
        """True if nothing more happens to the order after this event, by `ORDER_EVENTS`."""
        kind = order_event_kind(self.event)
        return kind is not None and kind.is_terminal
