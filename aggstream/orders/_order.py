"""Orders as they are known: immutable snapshots, folded out of everything that was said of an order."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from decimal import Decimal
from typing import Literal, TypeAlias

import attrs

from aggstream._base.times import moment_of_ms
from aggstream.events import Source, Verdict, order_event_kind

__all__ = ["AmountsDoubt", "Contradiction", "Order", "Outcome", "Step", "StepState"]

StepState: TypeAlias = Literal["started", "retrying", "failed", "completed"]
"""How far a step has come. The set is open: a `step_*` event of another name gives its own."""


AmountsDoubt: TypeAlias = Literal["", "unreadable", "disagree", "confirmed"]
"""Why the amounts of an order's end are no ground for a verdict: there is no doubt; an amount cannot be read; the
word of the end and its amounts disagree; they disagree, and the last look at REST has said the same amounts."""


@attrs.frozen(kw_only=True)
class Step:
    """One step of the run of an order's execution graph."""

    step_id: str | None
    step_type: str | None
    template_name: str | None
    attempt: int | None
    """The newest attempt that was heard of."""
    state: str
    """See `StepState`."""
    error_reason: str | None
    """Why the newest attempt failed; None if it has not."""
    first_timestamp: int
    """Milliseconds since the epoch, by the service's clock; likewise `last_timestamp`."""
    last_timestamp: int


@attrs.frozen(kw_only=True)
class Contradiction:
    """Two things that were said of an order and cannot both be true. The first one said is kept."""

    field: str
    kept: str
    refused: str
    source: Source
    """Where the refused one came from."""
    timestamp: int | None
    """Of what was refused: milliseconds since the epoch, by the service's clock."""


@attrs.frozen(kw_only=True)
class Order:
    """The known facts of an order at one moment. A fact that was not told is None.

    Events may come late, twice, out of order or not at all: a status only moves on, an amount only grows, and an
    end is never undone.
    """

    order_id: str
    status: str | None = None
    """The normal form of the last status that was told, as in `OrderEvent.sub_event`; "submitted" at first."""
    unknown_status: str | None = None
    """The last status that was told, if aggstream does not know the word: see `RestOptions.status_names`."""
    venue: str | None = None
    side: str | None = None
    price: Decimal | None = None
    """As submitted: a probability between 0 and 1."""
    size: Decimal | None = None
    """As submitted: a number of shares."""
    outcome_id: str | None = None
    amount_raw: int | None = None
    """The ordered amount in base units, which only REST tells. Nothing says that `filled_amount_raw` has the same
    unit: a purchase may be stated in money."""
    quoted_price_raw: int | None = None
    """As quoted, in base units, which only REST tells; likewise `quoted_cost_raw`."""
    quoted_cost_raw: int | None = None
    filled_amount_raw: int | None = None
    """Base units; likewise `remaining_amount_raw`. Both are None as well if the order was filled, and only
    messages before the end said amounts."""
    remaining_amount_raw: int | None = None
    unreadable_amount: str | None = None
    """What was said last of the filled amount, if it is no whole number: then the amount is not known."""
    amounts_doubt: AmountsDoubt = ""
    """Why the amounts of the order's end are no ground for a verdict; empty if they are."""
    was_partly_filled: bool = False
    """True if it was told that a part was filled, with or without an amount."""
    execution_price: Decimal | None = None
    """Only REST tells it."""
    error_reason: str | None = None
    dag_run_id: str | None = None
    run_state: str | None = None
    """"started", "completed" or "failed": the run of the execution graph, which is not the order's own status."""
    steps: tuple[Step, ...] = ()
    """In the order in which they were first heard of."""
    first_timestamp: int | None = None
    """The earliest thing that was told: milliseconds since the epoch, by the service's clock."""
    last_timestamp: int | None = None
    """The latest, likewise."""
    sources: Mapping[str, Source] = attrs.field(factory=dict, hash=False)
    """Where each of the fields came from."""
    contradictions: tuple[Contradiction, ...] = ()

    @property
    def is_terminal(self) -> bool:
        """True if nothing more happens to the order, by `ORDER_EVENTS`."""
        kind = None if self.status is None else order_event_kind(self.status)
        return kind is not None and kind.is_terminal

    @property
    def verdict(self) -> Verdict:
        """How it ended.

        It is `Verdict.UNKNOWN` if the order has not ended, was said to have ended in two ways, or if the amounts
        of its end cannot be read or disagree with the word: see `amounts_doubt`.
        """
        kind = None if self.status is None else order_event_kind(self.status)
        if kind is None or not kind.is_terminal or self.is_contradicted:
            return Verdict.UNKNOWN
        if self.amounts_doubt == "confirmed":
            return Verdict.PARTIALLY_FILLED if self.filled_amount_raw else Verdict.UNKNOWN
        if self.amounts_doubt:
            return Verdict.UNKNOWN
        if kind.verdict in (Verdict.FILLED, Verdict.UNKNOWN):
            return kind.verdict
        return Verdict.PARTIALLY_FILLED if self.filled_amount_raw or self.was_partly_filled else kind.verdict

    @property
    def is_contradicted(self) -> bool:
        """True if it was said to have ended in two ways: look at `contradictions`."""
        return any(contradiction.field == "status" for contradiction in self.contradictions)

    @property
    def first_seen_at(self) -> dt.datetime | None:
        """`first_timestamp` as an aware datetime in UTC."""
        return _moment(self.first_timestamp)

    @property
    def last_seen_at(self) -> dt.datetime | None:
        """`last_timestamp` as an aware datetime in UTC."""
        return _moment(self.last_timestamp)


@attrs.frozen(kw_only=True)
class Outcome:
    """How an order ended, as far as it is certain."""

    order_id: str
    verdict: Verdict
    order: Order | None
    """The known facts of the order; None if nothing is known."""
    reason: str = ""
    """Why the verdict is UNKNOWN, in words; empty if it is not."""
    error: BaseException | None = attrs.field(default=None, eq=False)
    """The error that ended the stream, if the verdict is unknown because of it."""

    @property
    def is_known(self) -> bool:
        """True if the verdict is another one than UNKNOWN."""
        return self.verdict is not Verdict.UNKNOWN

    @property
    def filled_amount_raw(self) -> int | None:
        """How much of the order was filled, in base units; None if nobody has told."""
        return None if self.order is None else self.order.filled_amount_raw


def _moment(timestamp: int | None) -> dt.datetime | None:
    try:
        return None if timestamp is None else moment_of_ms(timestamp)
    except OverflowError:  # the service sent a number that is no date
        return None
