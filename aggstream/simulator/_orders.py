"""The life of an order, as the frames that tell of it. Pure and seeded: no I/O, no clock.

```
order_submitted ─ balance_update (funds reserved) ─ dag_started ─ step_started ─ step_completed ─ …
    filled, partial, retried:  [partially_filled ─ balance_update]… filled ─ balance_update ─ dag_completed
    cancelled, expired:        dag_completed ─ [partially_filled ─ balance_update]… cancelled ─ balance_update
    failed:                    step_failed ─ dag_failed ─ failed ─ balance_update (funds released)
    rejected:                  dag_failed ─ rejected ─ balance_update
    fak:                       filled with a part of its amount ─ balance_update ─ dag_completed
    ioc:                       dag_completed ─ cancelled with a part of its amount ─ balance_update
```
An order of the scenarios "fak" and "ioc" is filled at once as far as it goes, and the rest ends. Assumed: with the
one the service says "filled", with the other "cancelled"; how much was filled say the amounts alone.

`Order.status` is the word by which REST tells of the order: it is documented. The words of the events are assumed.

A failed attempt that is not the last one is `step_failed ─ step_retrying`. A `balance_update` comes only when
a balance changed: selling reserves no money.

Money and shares are integers in base units, of which a dollar or a share has a million; balances are whole cents.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any, TypeAlias

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
TERMINAL = frozenset({"filled", "failed", "rejected", "cancelled", "expired"})
# The last ones are played only if they are asked for.
_WEIGHTS = (40, 25, 10, 8, 5, 12, 0, 0, 0)
# What REST says where an event has another word for it.
_REST_WORDS = {"partially_filled": "partially_filled_open"}

# Venues that hold the user's money themselves; with the others it moves on a chain first.
CUSTODIAL = frozenset({"kalshi"})
_CUSTODIAL_STEPS = ("quote", "risk_check", "place_order")
_CHAIN_STEPS = ("quote", "approve", "bridge", "place_order")
_REASONS = ("venue_timeout", "insufficient_liquidity", "price_moved", "venue_unavailable", "signature_rejected")
_QUESTIONS = ("Will it rain tomorrow?", "Will the bill pass?", "Will the home team win?", "Will rates be cut?")

# A price keeps four decimals and a size two, so that their JSON numbers are exact and never in exponents.
_PRICE_STEP = UNIT // 10_000
_SIZE_STEP = UNIT // 100
_LARGEST_SIZE = 10**9 * UNIT


@dataclass
class Wallet:
    """A user's money at one venue: what is there, and how much of it open buy orders have reserved."""

    venue: str
    wallet_cents: int = OPENING_CENTS
    reserved_cents: int = 0

    @property
    def trading_cents(self) -> int:
        """The amount that is free to trade with."""
        return self.wallet_cents - self.reserved_cents

    def reserve(self, cents: int) -> None:
        """Set money aside. What is missing is paid in first, so that an order never fails for lack of funds."""
        missing = max(0, cents - self.trading_cents)
        self.wallet_cents += -(-missing // OPENING_CENTS) * OPENING_CENTS
        self.reserved_cents += cents


@dataclass
class Order:
    """An order, and how far it has come. `filled_raw` and `status` say what the last frame said."""

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

    def cents(self, shares_raw: int) -> int:
        """Return what so many of its shares cost, rounded so that the venue never loses."""
        exact = self.price_raw * shares_raw
        unit = UNIT * UNITS_PER_CENT
        return -(-exact // unit) if self.side == "buy" else exact // unit


def in_units(name: str, number: object, step: int, limit: int) -> int:
    """Return a price or a size in base units.

    Args:
        name: how the error calls it.
        number: an int, float, Decimal, or their text.
        step: base units that it must be a multiple of.
        limit: base units that it must stay below.

    Raises:
        ValueError: it is no such number.
    """
    try:
        units = Decimal(str(number)) * UNIT
        if 0 < units < limit and units % step == 0:
            return int(units)
    except InvalidOperation:
        pass  # not a number, or not a finite one
    largest, digits = Decimal(limit) / UNIT, len(str(UNIT // step)) - 1
    raise ValueError(f"{name} must be between 0 and {largest}, with at most {digits} decimals: {number!r}")


def one_of(name: str, value: str | None, allowed: tuple[str, ...]) -> str | None:
    """Return the value.

    Raises:
        ValueError: it is neither None nor one of those allowed.
    """
    if value is not None and value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}: {value!r}")
    return value


@dataclass(frozen=True)
class Choices:
    """The choices for an order; the seed decides those that are None. Made by `choose`."""

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
    """Return the choices, checked.

    Raises:
        ValueError: one of them cannot be played.
    """
    if venue == "":
        raise ValueError("venue must not be empty")
    return Choices(
        one_of("scenario", scenario, SCENARIOS),
        venue,
        one_of("side", side, SIDES),
        None if price is None else in_units("price", price, _PRICE_STEP, UNIT),
        None if size is None else in_units("size", size, _SIZE_STEP, _LARGEST_SIZE),
    )


def draw(user_id: str, choices: Choices, rng: random.Random) -> tuple[Order, str]:
    """Return a new order and its scenario.

    Everything is drawn whether it is used or not: a choice changes what it names and nothing else.
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
    """One order's life: `frames` iterates over what is to be sent of it, all but the timestamps.

    Order and wallet change as the frame that tells of it is taken, never ahead of it, so that a snapshot
    between two frames agrees with what was streamed. The timestamp is for the caller to add: it is the last
    key of every frame.
    """

    def __init__(self, order: Order, wallet: Wallet, scenario: str, rng: random.Random) -> None:
        self.order = order
        self._wallet = wallet
        self._scenario = scenario
        self._rng = rng
        self._template = f"{order.venue}_{order.side}"
        self.frames = self._play()

    def length(self) -> int:
        """Return how many frames the whole life has, by living it with a twin. For one that has not begun."""
        twin = Lifecycle(copy.copy(self.order), copy.copy(self._wallet), self._scenario, copy.copy(self._rng))
        return sum(1 for _ in twin.frames)

    def _play(self) -> Iterator[Frame]:
        order = self.order
        yield self._submitted()
        if order.side == "buy":
            self._wallet.reserve(order.cents(order.size_raw))
            yield self._balance()
        order.status = "open"
        yield self._event("dag_started", self._run())
        if self._scenario == "rejected":
            order.error = "rejected by the venue"
            yield self._event("dag_failed", {"errorReason": order.error} | self._run())
            order.status = "rejected"
            yield self._event("rejected", self._amounts() | {"errorReason": order.error})
            yield from self._release()
            return
        yield from self._steps()
        if self._scenario == "failed":
            yield self._event("dag_failed", {"errorReason": order.error} | self._run())
            order.status = "failed"
            yield self._event("failed", self._amounts() | {"errorReason": order.error})
            yield from self._release()
            return
        if self._scenario in ("fak", "ioc"):
            yield from self._fill_at_once()
            return
        rests = self._scenario in ("cancelled", "expired")
        if rests:
            yield self._event("dag_completed", self._run())
        yield from self._fills()
        if rests:
            order.status = self._scenario
            yield self._event(order.status, self._amounts())
            yield from self._release()
        else:
            yield self._event("dag_completed", self._run())

    def _steps(self) -> Iterator[Frame]:
        """Run the steps; in a failed order the chosen one fails for good, in a retried one it recovers."""
        kinds = _CUSTODIAL_STEPS if self.order.venue in CUSTODIAL else _CHAIN_STEPS
        troubled = self._rng.choice(kinds)
        attempts = {"retried": self._rng.randint(1, 2), "failed": self._rng.randint(0, 2)}
        for kind in kinds:
            step = {
                "stepId": f"stp_{self._rng.getrandbits(32):08x}",
                "stepType": kind,
                "templateName": self._template,
                "attempt": 0,
            }
            run = {"dagRunId": self.order.dag_run_id}
            yield self._event("step_started", run | step)
            reason = {"errorReason": self._rng.choice(_REASONS)}
            if kind == troubled:
                for attempt in range(attempts.get(self._scenario, 0)):
                    yield self._event("step_failed", reason | run | step)
                    step["attempt"] = attempt + 1
                    yield self._event("step_retrying", run | step)
                if self._scenario == "failed":
                    self.order.error = reason["errorReason"]
                    yield self._event("step_failed", reason | run | step)
                    return
            yield self._event("step_completed", run | step)

    def _fills(self) -> Iterator[Frame]:
        """Fill in parts, and to the end unless the order is to rest."""
        order, rng = self.order, self._rng
        parts = {"partial": rng.randint(1, 3), "cancelled": rng.randint(0, 2), "expired": rng.randint(0, 2)}
        for _ in range(parts.get(self._scenario, 0)):
            remaining = order.size_raw - order.filled_raw
            # Something is left for the next part, however small the order.
            part = min(remaining - 1, max(1, remaining * rng.randint(20, 60) // 100))
            yield from self._fill(part, "partially_filled")
        if self._scenario not in parts or self._scenario == "partial":
            yield from self._fill(order.size_raw - order.filled_raw, "filled")

    def _fill_at_once(self) -> Iterator[Frame]:
        """Fill a part at once, and end with it."""
        part = max(1, self.order.size_raw * self._rng.randint(20, 60) // 100)
        if self._scenario == "fak":
            yield from self._fill(part, "filled")
            yield self._event("dag_completed", self._run())
        else:
            yield self._event("dag_completed", self._run())
            yield from self._fill(part, "cancelled")
        yield from self._release()

    def _fill(self, shares_raw: int, status: str) -> Iterator[Frame]:
        order, wallet = self.order, self._wallet
        before = order.cents(order.filled_raw)
        order.filled_raw += shares_raw
        order.status = _REST_WORDS.get(status, status)
        yield self._event(status, self._amounts())
        cents = order.cents(order.filled_raw) - before
        if not cents:
            return
        if order.side == "buy":
            wallet.reserved_cents -= cents
            wallet.wallet_cents -= cents
        else:
            wallet.wallet_cents += cents
        yield self._balance()

    def _release(self) -> Iterator[Frame]:
        """Give back what was reserved for the part that never filled."""
        order = self.order
        cents = order.cents(order.size_raw) - order.cents(order.filled_raw)
        if order.side == "buy" and cents:
            self._wallet.reserved_cents -= cents
            yield self._balance()

    def _submitted(self) -> Frame:
        order = self.order
        order.status = "pending"
        return {
            "type": "order_submitted",
            "venue": order.venue,
            "orderId": order.id,
            "side": order.side,
            "price": order.price_raw / UNIT,
            "size": shares(order.size_raw),
            "outcomeId": order.outcome_id,
        }

    def _balance(self) -> Frame:
        return {
            "type": "balance_update",
            "venue": self._wallet.venue,
            "tradingBalanceCents": self._wallet.trading_cents,
            "walletBalanceCents": self._wallet.wallet_cents,
        }

    def _event(self, event: str, fields: Frame) -> Frame:
        order = self.order
        frame = {
            "type": "order_event",
            "event": event,
            "userId": order.user_id,
            "orderId": order.id,
            "venue": order.venue,
        }
        return frame | fields

    def _run(self) -> Frame:
        return {"dagRunId": self.order.dag_run_id, "templateName": self._template}

    def _amounts(self) -> Frame:
        order = self.order
        return {
            "filledAmountRaw": str(order.filled_raw),
            "remainingAmountRaw": str(order.size_raw - order.filled_raw),
        }


def shares(raw: int) -> float:
    """Return a count of shares as the JSON number it is written as: whole ones without a point."""
    return raw // UNIT if raw % UNIT == 0 else raw / UNIT
