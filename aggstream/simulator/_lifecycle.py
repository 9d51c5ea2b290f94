"""The lifecycle of an order, as the frames that the service sends. It follows from a seed, without I/O or clock.

```
order_submitted ─ balance_update (funds reserved) ─ dag_started ─ step_started ─ step_completed ─ …
    filled, partial, retried:  [partially_filled ─ balance_update]… filled ─ balance_update ─ dag_completed
    cancelled, expired:        dag_completed ─ [partially_filled ─ balance_update]… cancelled ─ balance_update
    failed:                    step_failed ─ dag_failed ─ failed ─ balance_update (funds released)
    rejected:                  dag_failed ─ rejected ─ balance_update
    fak:                       filled with a part of its amount ─ balance_update ─ dag_completed
    ioc:                       dag_completed ─ cancelled with a part of its amount ─ balance_update
```
An order of the scenarios "fak" and "ioc" is filled in part at once, and the rest of it ends. Assumed: the service
then says "filled" for "fak" and "cancelled" for "ioc"; only the amounts show how much was filled.

`Order.status` is the status that REST returns. Its values are documented; the names of the events are assumed.

A failed attempt that is not the last one is `step_failed ─ step_retrying`. A `balance_update` is sent only if a
balance has changed: a sell order reserves no money.

Money and shares are integers in base units: one dollar or share is a million of them. Balances are whole cents.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any, TypeAlias

from aggstream.simulator._checks import one_of

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator

Frame: TypeAlias = dict[str, Any]

UNIT = 1_000_000
UNITS_PER_CENT = UNIT // 100
OPENING_CENTS = 100_000

SIDES = ("buy", "sell")
VENUES = ("kalshi", "polymarket", "limitless", "opinion", "predict", "probable", "myriad", "hyperliquid")
SCENARIOS = ("filled", "partial", "failed", "cancelled", "expired", "retried", "rejected", "fak", "ioc")
TERMINAL_STATUSES = frozenset({"filled", "failed", "rejected", "cancelled", "expired"})
# The last three have weight 0: they are played only if the caller asks for them.
_WEIGHTS = (40, 25, 10, 8, 5, 12, 0, 0, 0)
# By the name of an event, the status of REST, where the two differ.
_REST_STATUSES = {"partially_filled": "partially_filled_open"}

# These venues hold the user's money themselves. For the others, the money moves on a chain first.
CUSTODIAL = frozenset({"kalshi"})
_CUSTODIAL_STEPS = ("quote", "risk_check", "place_order")
_CHAIN_STEPS = ("quote", "approve", "bridge", "place_order")
_REASONS = ("venue_timeout", "insufficient_liquidity", "price_moved", "venue_unavailable", "signature_rejected")
_QUESTIONS = ("Will it rain tomorrow?", "Will the bill pass?", "Will the home team win?", "Will rates be cut?")

# A price has at most four decimals and a size two, so that their JSON numbers are exact and have no exponent.
_PRICE_STEP = UNIT // 10_000
_SIZE_STEP = UNIT // 100
_LARGEST_SIZE = 10**9 * UNIT


@dataclass
class Wallet:
    """A user's money at one venue: all of it, and the part that open buy orders have reserved."""

    venue: str
    wallet_cents: int = OPENING_CENTS
    reserved_cents: int = 0

    @property
    def trading_cents(self) -> int:
        """The cents that are free to trade with."""
        return self.wallet_cents - self.reserved_cents

    def reserve(self, cents: int) -> None:
        """Reserve money. Missing money is paid in first, so that no order fails for lack of funds."""
        missing = max(0, cents - self.trading_cents)
        self.wallet_cents += -(-missing // OPENING_CENTS) * OPENING_CENTS
        self.reserved_cents += cents


@dataclass
class Order:
    """An order and its progress. `filled_raw` and `status` have the values of the last frame."""

    id: str
    user_id: str
    venue: str
    outcome_id: str
    side: str
    price_raw: int
    size_raw: int
    dag_run_id: str
    question: str
    outcome: str
    tx_hash: str | None
    status: str = ""
    filled_raw: int = 0
    error: str | None = None
    created_ms: int = 0
    updated_ms: int = 0

    def cost_cents(self, shares_raw: int) -> int:
        """Return the cost of this many of its shares in cents, rounded in favour of the venue."""
        exact = self.price_raw * shares_raw
        unit = UNIT * UNITS_PER_CENT
        return -(-exact // unit) if self.side == "buy" else exact // unit


def in_base_units(name: str, number: object, step: int, limit: int) -> int:
    """Return a price or a size in base units.

    Args:
        name: the name of the number in the error.
        number: an int, a float, a Decimal, or a text of one.
        step: the number must be a multiple of this many base units.
        limit: the number must be below this many base units.

    Raises:
        ValueError: the number is not in this range, or not a multiple of the step.
    """
    try:
        units = Decimal(str(number)) * UNIT
        if 0 < units < limit and units % step == 0:
            return int(units)
    except InvalidOperation:
        pass  # the value is not a finite number
    largest, digits = Decimal(limit) / UNIT, len(str(UNIT // step)) - 1
    raise ValueError(f"{name} must be between 0 and {largest}, with at most {digits} decimals, got {number!r}")


@dataclass(frozen=True)
class Choices:
    """The caller's choices for an order, made by `choose`. The seed decides each one that is None."""

    scenario: str | None
    venue: str | None
    side: str | None
    price_raw: int | None
    size_raw: int | None


def choose(
    scenario: str | None = None,
    venue: str | None = None,
    side: str | None = None,
    price: object = None,
    size: object = None,
) -> Choices:
    """Check the choices for an order, and return them.

    Raises:
        ValueError: a choice is not possible.
    """
    if venue == "":
        raise ValueError("venue must not be empty")
    return Choices(
        one_of("scenario", scenario, SCENARIOS),
        venue,
        one_of("side", side, SIDES),
        None if price is None else in_base_units("price", price, _PRICE_STEP, UNIT),
        None if size is None else in_base_units("size", size, _SIZE_STEP, _LARGEST_SIZE),
    )


def draw_order(user_id: str, choices: Choices, rng: random.Random) -> tuple[Order, str]:
    """Return a random new order and its scenario.

    Every value is drawn, even if a choice replaces it. So a choice changes only its own value and no other.
    """
    scenario = rng.choices(SCENARIOS, _WEIGHTS)[0]
    venue, side = rng.choice(VENUES), rng.choice(SIDES)
    price_raw, size_raw = rng.randrange(5, 96) * UNITS_PER_CENT, rng.randrange(1, 201) * UNIT
    venue = choices.venue or venue
    tx_hash = f"0x{rng.getrandbits(256):064x}"
    order = Order(
        id=f"ord_{rng.getrandbits(64):016x}",
        user_id=user_id,
        venue=venue,
        outcome_id=f"vmo_{rng.getrandbits(48):012x}",
        side=choices.side or side,
        price_raw=choices.price_raw or price_raw,
        size_raw=choices.size_raw or size_raw,
        dag_run_id=f"dag_{rng.getrandbits(48):012x}",
        question=rng.choice(_QUESTIONS),
        outcome=rng.choice(("Yes", "No")),
        tx_hash=None if venue in CUSTODIAL else tx_hash,
    )
    return order, choices.scenario or scenario


class Lifecycle:
    """One order's lifecycle. `frames` iterates over the frames to send, without their timestamps.

    The order and the wallet change when the caller takes the frame that tells of the change, and not before. So a
    snapshot between two frames agrees with the sent frames. The caller adds the timestamp, each frame's last key.
    """

    def __init__(self, order: Order, wallet: Wallet, scenario: str, rng: random.Random) -> None:
        self.order = order
        self._wallet = wallet
        self._scenario = scenario
        self._rng = rng
        self._template = f"{order.venue}_{order.side}"
        self.frames = self._all_frames()

    def length(self) -> int:
        """Return the number of frames of the whole life, by running a copy. Call this before the first frame."""
        duplicate = Lifecycle(copy.copy(self.order), copy.copy(self._wallet), self._scenario, copy.copy(self._rng))
        return sum(1 for _ in duplicate.frames)

    def _all_frames(self) -> Iterator[Frame]:
        order = self.order
        yield self._submitted_frame()
        if order.side == "buy":
            self._wallet.reserve(order.cost_cents(order.size_raw))
            yield self._balance_frame()
        order.status = "open"
        yield self._order_frame("dag_started", self._dag_fields())
        if self._scenario == "rejected":
            order.error = "rejected by the venue"
            yield self._order_frame("dag_failed", {"errorReason": order.error} | self._dag_fields())
            order.status = "rejected"
            yield self._order_frame("rejected", self._amount_fields() | {"errorReason": order.error})
            yield from self._release_funds()
            return
        yield from self._steps()
        if self._scenario == "failed":
            yield self._order_frame("dag_failed", {"errorReason": order.error} | self._dag_fields())
            order.status = "failed"
            yield self._order_frame("failed", self._amount_fields() | {"errorReason": order.error})
            yield from self._release_funds()
            return
        if self._scenario in ("fak", "ioc"):
            yield from self._fill_at_once()
            return
        ends_unfilled = self._scenario in ("cancelled", "expired")
        if ends_unfilled:
            yield self._order_frame("dag_completed", self._dag_fields())
        yield from self._fills()
        if ends_unfilled:
            order.status = self._scenario
            yield self._order_frame(order.status, self._amount_fields())
            yield from self._release_funds()
        else:
            yield self._order_frame("dag_completed", self._dag_fields())

    def _steps(self) -> Iterator[Frame]:
        """Run the steps. In "failed" one of them fails for good; in "retried" it fails first, then succeeds."""
        kinds = _CUSTODIAL_STEPS if self.order.venue in CUSTODIAL else _CHAIN_STEPS
        failing_kind = self._rng.choice(kinds)
        attempts = {"retried": self._rng.randint(1, 2), "failed": self._rng.randint(0, 2)}
        for kind in kinds:
            step = {
                "stepId": f"stp_{self._rng.getrandbits(32):08x}",
                "stepType": kind,
                "templateName": self._template,
                "attempt": 0,
            }
            run = {"dagRunId": self.order.dag_run_id}
            yield self._order_frame("step_started", run | step)
            reason = {"errorReason": self._rng.choice(_REASONS)}
            if kind == failing_kind:
                for attempt in range(attempts.get(self._scenario, 0)):
                    yield self._order_frame("step_failed", reason | run | step)
                    step["attempt"] = attempt + 1
                    yield self._order_frame("step_retrying", run | step)
                if self._scenario == "failed":
                    self.order.error = reason["errorReason"]
                    yield self._order_frame("step_failed", reason | run | step)
                    return
            yield self._order_frame("step_completed", run | step)

    def _fills(self) -> Iterator[Frame]:
        """Fill the order in parts, and completely unless its scenario ends it unfilled."""
        order, rng = self.order, self._rng
        parts = {"partial": rng.randint(1, 3), "cancelled": rng.randint(0, 2), "expired": rng.randint(0, 2)}
        for _ in range(parts.get(self._scenario, 0)):
            remaining = order.size_raw - order.filled_raw
            # Each part leaves something for the next one, also in a small order.
            part = min(remaining - 1, max(1, remaining * rng.randint(20, 60) // 100))
            yield from self._fill_shares(part, "partially_filled")
        if self._scenario not in parts or self._scenario == "partial":
            yield from self._fill_shares(order.size_raw - order.filled_raw, "filled")

    def _fill_at_once(self) -> Iterator[Frame]:
        """Fill a part of the order at once, and end the order."""
        part = max(1, self.order.size_raw * self._rng.randint(20, 60) // 100)
        if self._scenario == "fak":
            yield from self._fill_shares(part, "filled")
            yield self._order_frame("dag_completed", self._dag_fields())
        else:
            yield self._order_frame("dag_completed", self._dag_fields())
            yield from self._fill_shares(part, "cancelled")
        yield from self._release_funds()

    def _fill_shares(self, shares_raw: int, status: str) -> Iterator[Frame]:
        order, wallet = self.order, self._wallet
        before = order.cost_cents(order.filled_raw)
        order.filled_raw += shares_raw
        order.status = _REST_STATUSES.get(status, status)
        yield self._order_frame(status, self._amount_fields())
        cents = order.cost_cents(order.filled_raw) - before
        if not cents:
            return
        if order.side == "buy":
            wallet.reserved_cents -= cents
            wallet.wallet_cents -= cents
        else:
            wallet.wallet_cents += cents
        yield self._balance_frame()

    def _release_funds(self) -> Iterator[Frame]:
        """Release the money that was reserved for the unfilled part."""
        order = self.order
        cents = order.cost_cents(order.size_raw) - order.cost_cents(order.filled_raw)
        if order.side == "buy" and cents:
            self._wallet.reserved_cents -= cents
            yield self._balance_frame()

    def _submitted_frame(self) -> Frame:
        order = self.order
        order.status = "pending"
        return {
            "type": "order_submitted",
            "venue": order.venue,
            "orderId": order.id,
            "side": order.side,
            "price": order.price_raw / UNIT,
            "size": shares_as_json(order.size_raw),
            "outcomeId": order.outcome_id,
        }

    def _balance_frame(self) -> Frame:
        return {
            "type": "balance_update",
            "venue": self._wallet.venue,
            "tradingBalanceCents": self._wallet.trading_cents,
            "walletBalanceCents": self._wallet.wallet_cents,
        }

    def _order_frame(self, event: str, fields: Frame) -> Frame:
        order = self.order
        frame = {
            "type": "order_event",
            "event": event,
            "userId": order.user_id,
            "orderId": order.id,
            "venue": order.venue,
        }
        return frame | fields

    def _dag_fields(self) -> Frame:
        return {"dagRunId": self.order.dag_run_id, "templateName": self._template}

    def _amount_fields(self) -> Frame:
        order = self.order
        return {
            "filledAmountRaw": str(order.filled_raw),
            "remainingAmountRaw": str(order.size_raw - order.filled_raw),
        }


def shares_as_json(raw: int) -> float:
    """Return a number of shares for JSON: a whole number as an int, so that it has no decimal point."""
    return raw // UNIT if raw % UNIT == 0 else raw / UNIT
