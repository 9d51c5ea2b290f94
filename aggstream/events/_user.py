"""The three events about a user's orders and balances.

Source: the service's page on user events, unless a docstring says otherwise.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from types import MemberDescriptorType
from typing import Any, ClassVar, Final, Literal, TypeAlias, cast

import attrs

from aggstream._base.times import moment_of_ms
from aggstream.events._amounts import normal_amount, raw_amount
from aggstream.events._base import Event, wire
from aggstream.events._statuses import (
    ORDER_EVENTS,
    PROGRESS,
    Family,
    OrderEventKind,
    OrderEventName,
    normal_form,
    order_event_kind,
)


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


Source: TypeAlias = Literal["stream", "reconcile"]
"""Where a fact came from: the socket, or the REST API after something may have been missed on the socket."""


def _digest(*parts: str) -> str:
    return hashlib.blake2b("\0".join(parts).encode(errors="surrogatepass"), digest_size=12).hexdigest()


@attrs.frozen(kw_only=True, repr=False)
class UserEvent(Event):
    """The base of the events about the user's orders and balances."""

    timestamp: int
    """When it happened, by the service's clock: milliseconds since the epoch."""
    user_id: str | None = None
    """The AGG user whose event it is: by the message, else the user who was signed in when it came."""
    source: Source = attrs.field(default="stream", eq=False)
    """"reconcile" if it was read from the REST API, because the stream may have missed it."""
    redelivered: bool = attrs.field(default=False, eq=False)
    """True if its handlers may have been called with it before: the journal delivers it again."""
    text: str = attrs.field(default="", eq=False, repr=False)
    """The JSON text that it was made of: the message as received, or what was made of a REST answer."""

    stored_id: str = attrs.field(default="", eq=False, repr=False)
    """The id under which it was stored, if it comes from a store; else empty. `id` is this one then."""

    @property
    def id(self) -> str:
        """The id by which repeats are known, 24 hex digits: the same whenever and from wherever a fact comes.

        It follows from the user's id and the whole text of the message. An event that comes from a store has the
        id under which it was stored, also if a later version of aggstream makes ids in another way.
        """
        return self.stored_id or self._made_id()

    def _made_id(self) -> str:
        text = self.text or repr(attrs.evolve(self, source="stream", redelivered=False))
        return _digest(self.TYPE, self.user_id or "", text)

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
    """The name as received. `sub_event` is its normal form; see `OrderEventName`."""
    order_id: str
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
    named_as: str = attrs.field(default="", eq=False, repr=False)
    """The name that `RestOptions.status_names` gives to `event`; empty if it gives none."""

    @property
    def filled_amount_raw(self) -> int | None:
        """The amount filled so far in base units; None if it is absent, or is no whole number."""
        return raw_amount(self.filled_amount_text)

    @property
    def remaining_amount_raw(self) -> int | None:
        """The amount not filled yet in base units; None if it is absent, or is no whole number."""
        return raw_amount(self.remaining_amount_text)

    @property
    def id(self) -> str:
        """The id by which repeats are known, 24 hex digits: the same whenever and from wherever a fact comes.

        Of a status of the order, it follows from the user, the order, the status and the filled amount. So the
        same status with another amount is another event. Of anything else it follows from the user and the whole
        message.
        """
        return self.stored_id or self._made_id()

    def _made_id(self) -> str:
        if not self._is_status():
            return super()._made_id()
        # By its letters alone: in that form a word keeps its id when it becomes a known one.
        word = self._normal_form().replace("_", "")
        amount = normal_amount(self.filled_amount_text)
        return _digest("status", self.user_id or "", self.order_id, word, amount)

    def _is_status(self) -> bool:
        """Return True if it tells of the order itself. The table of words has no say, because ids must last."""
        return not self._normal_form().startswith(("dag_", "step_"))

    def _normal_form(self) -> str:
        return self.event if self.event in _NORMAL else normal_form(self.event)

    @property
    def sub_event(self) -> str:
        """The normal form of `event`, by which handlers are found: "filled" for "FILLED" and "order_filled"."""
        event = self.named_as or self.event
        return event if event in _NORMAL else normal_form(event)

    @property
    def family(self) -> Family | None:
        """`"run"`, `"step"` or `"terminal"` by `ORDER_EVENTS`; None for a name that is not known."""
        kind = self.kind
        return None if kind is None else kind.family

    @property
    def is_terminal(self) -> bool:
        """True if nothing more happens to the order after this event, by `ORDER_EVENTS`."""
        kind = self.kind
        return kind is not None and kind.is_terminal

    @property
    def kind(self) -> OrderEventKind | None:
        """The meaning of `event` by `ORDER_EVENTS`; None for a name that is not known."""
        name = self.named_as or self.event
        return PROGRESS.get(name) or ORDER_EVENTS.get(name) or order_event_kind(name)


# Nearly all events come in these writings, which need no look at their letters.
_NORMAL = frozenset(name for key, name in vars(OrderEventName).items() if key.isupper())


def id_of_version_1(event: UserEvent) -> str:
    """Return the id under which a store of version 1 keeps an event that belongs to no order."""
    return _digest(event.TYPE, event.text)


def is_among(event: UserEvent, stored: Iterable[UserEvent]) -> bool:
    """Return True if one of some stored events of the same user is the same fact as an event.

    They are compared by the ids of this version, whatever the ids are under which they are stored. The ids of
    version 1 depended on its table of words, and left out the amount of an end.
    """
    id_ = event.id
    return any(attrs.evolve(old, stored_id="", user_id=event.user_id).id == id_ for old in stored)


def with_status_name(event: UserEvent, names: Mapping[str, str]) -> UserEvent:
    """Return an event with the name that `RestOptions.status_names` gives to its status, if it gives one."""
    if names and isinstance(event, OrderEvent):
        name = names.get(normal_form(event.event))
        return event if name is None else attrs.evolve(event, named_as=name)
    return event
