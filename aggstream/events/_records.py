"""The records that the REST API tells of a user: orders and balances.

Source: the service's public documentation of `GET /execution/orders` and `GET /execution/balances`. Which fields
may be absent is assumed: everything but what is needed to tell what the rest is about.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import attrs

from aggstream.errors import DecodeError
from aggstream.events._amounts import raw_amount
from aggstream.events._statuses import normal_form, order_event_kind

_NOTHING: Mapping[str, Any] = {}
# The type that contracts give their `decimals`.
_MOST_DECIMALS = 255


@attrs.frozen(kw_only=True)
class OrderRecord:
    """An order's present state, as the REST API tells it."""

    id: str
    status: str
    """As the service writes it; the set is open. `normal_status` is its normal form."""
    venue: str | None = None
    side: str | None = None
    amount_text: str | None = None
    """`amountRaw`, and likewise the others: base units, as received."""
    quoted_price_text: str | None = None
    quoted_cost_text: str | None = None
    filled_amount_text: str | None = None
    slippage_bps: int | None = None
    execution_price: Decimal | None = None
    tx_hash: str | None = None
    error_message: str | None = None
    created_at: dt.datetime | None = None
    """In UTC, and likewise `updated_at`; None as well if it is no date."""
    updated_at: dt.datetime | None = None
    market_id: str | None = None
    question: str | None = None
    outcome_label: str | None = None
    outcome_title: str | None = None
    raw: Mapping[str, Any] = attrs.field(default=_NOTHING, eq=False, repr=False)
    """As received, with numbers as `int` and `Decimal`."""
    named_as: str = attrs.field(default="", eq=False, repr=False)
    """The name that `RestOptions.status_names` gives to `status`; empty if it gives none."""
    in_one_unit: bool = attrs.field(default=False, eq=False, repr=False)
    """`RestOptions.amounts_in_one_unit`: True if `amount_raw` and `filled_amount_raw` have the same unit."""

    @property
    def normal_status(self) -> str:
        """The normal form of `status`, as in `OrderEvent.sub_event`: "filled" for "FILLED"."""
        return normal_form(self.named_as or self.status)

    @property
    def is_terminal(self) -> bool:
        """True if nothing more happens to the order, by `ORDER_EVENTS`."""
        kind = order_event_kind(self.normal_status)
        return kind is not None and kind.is_terminal

    @property
    def amount_raw(self) -> int | None:
        """The ordered amount in base units; None if it is absent, or is no whole number."""
        return raw_amount(self.amount_text)

    @property
    def quoted_price_raw(self) -> int | None:
        """The quoted price in base units; None if it is absent, or is no whole number."""
        return raw_amount(self.quoted_price_text)

    @property
    def quoted_cost_raw(self) -> int | None:
        """The quoted cost in base units; None if it is absent, or is no whole number."""
        return raw_amount(self.quoted_cost_text)

    @property
    def remaining_text(self) -> str | None:
        """The ordered amount less the filled one, if `in_one_unit` says that this makes sense; else None.

        It is None as well if one of the two amounts is not known, or if more is filled than was ordered.
        """
        amount, filled = self.amount_raw, self.filled_amount_raw
        return (
            None
            if not self.in_one_unit or amount is None or filled is None or filled > amount
            else str(amount - filled)
        )

    @property
    def filled_amount_raw(self) -> int | None:
        """The amount filled so far in base units; None if it is absent, or is no whole number."""
        return raw_amount(self.filled_amount_text)


@attrs.frozen(kw_only=True)
class OrdersPage:
    """One page of the user's orders, the newest first (assumed)."""

    orders: tuple[OrderRecord, ...]
    next_cursor: str | None = None
    """The cursor of the next page; None: this is the last page."""
    problems: tuple[DecodeError, ...] = ()
    """The errors of those orders of the page that were not understood, and are not in `orders`."""
    date_ms: int | None = attrs.field(default=None, eq=False, repr=False)
    """The `Date` of the answer, in milliseconds since the epoch; None if it had none."""


@attrs.frozen(kw_only=True)
class ChainBalance:
    """A token's balance on one chain."""

    chain_id: str | int | None = None
    """A number, or a text where chains have names."""
    token_address: str | None = None
    balance_text: str | None = None
    """`balanceRaw`: base units, as received."""
    last_synced_at: dt.datetime | None = None


@attrs.frozen(kw_only=True)
class CashBalance:
    """The user's holding of one token."""

    token_symbol: str
    total_text: str | None = None
    """`totalRaw`: base units, as received."""
    decimals: int | None = None
    chains: tuple[ChainBalance, ...] = ()

    @property
    def total(self) -> Decimal | None:
        """The total in whole tokens, exact; None if `totalRaw` or `decimals` is no number that makes sense."""
        raw = raw_amount(self.total_text)
        if raw is None or self.decimals is None or not 0 <= self.decimals <= _MOST_DECIMALS:
            return None
        # From text, because arithmetic would round to the precision of the thread's decimal context.
        return Decimal(f"{raw}E-{self.decimals}")


@attrs.frozen(kw_only=True)
class VenueBalance:
    """The user's balance at a venue."""

    venue: str
    balance_text: str | None = None
    """As received; in which unit is not public."""


@attrs.frozen(kw_only=True)
class Balances:
    """The user's balances, as the REST API tells them."""

    cash: tuple[CashBalance, ...] = ()
    positions: tuple[VenueBalance, ...] = ()
    problems: tuple[DecodeError, ...] = ()
    """The errors of those entries that were not understood, and are in neither of the two."""
    date_ms: int | None = attrs.field(default=None, eq=False, repr=False)
    """The `Date` of the answer, in milliseconds since the epoch; None if it had none."""
    raw: Mapping[str, Any] = attrs.field(default=_NOTHING, eq=False, repr=False)
    """As received, with numbers as `int` and `Decimal`."""
