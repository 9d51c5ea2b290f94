"""The messages as msgspec's structs, as exact as aggstream's events: frozen, with `Decimal` for price and size."""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal
from typing import Any, TypeAlias

import msgspec
from benchmarks.messages import SUB_EVENTS
from benchmarks.peers.functions import Handle


def _wire_name(name: str) -> str:
    return re.sub("(?<=[a-z])(?=[A-Z])", "_", name).lower()


class Message(msgspec.Struct, frozen=True, tag=_wire_name, rename="camel"):
    pass


class OrderSubmitted(Message, frozen=True):
    venue: str
    order_id: str
    side: str
    price: Decimal
    size: Decimal
    outcome_id: str
    timestamp: int


class BalanceUpdate(Message, frozen=True):
    venue: str
    trading_balance_cents: int
    wallet_balance_cents: int
    timestamp: int


class OrderEvent(Message, frozen=True):
    event: str
    order_id: str
    timestamp: int
    user_id: str | None = None
    venue: str | None = None
    filled_amount_raw: str | None = None
    remaining_amount_raw: str | None = None
    error_reason: str | None = None
    dag_run_id: str | None = None
    step_id: str | None = None
    step_type: str | None = None
    template_name: str | None = None
    attempt: int | None = None


class Connected(Message, frozen=True):
    app_id: str


class Authenticated(Message, frozen=True):
    user_id: str


class Heartbeat(Message, frozen=True):
    pass


Event: TypeAlias = OrderSubmitted | BalanceUpdate | OrderEvent | Connected | Authenticated | Heartbeat


def decoder() -> Any:
    return msgspec.json.Decoder(Event)


def dispatcher(handle: Handle) -> Callable[[Any], None]:
    """Return what calls the user's function of an event, if it has one."""

    def submitted(event: OrderSubmitted) -> None:
        handle(event.timestamp)

    def balance(event: BalanceUpdate) -> None:
        handle(event.timestamp)

    def order_event(event: OrderEvent) -> None:
        handle(event.timestamp)

    functions: dict[tuple[type, str | None], Callable[[Any], None]] = {
        (OrderSubmitted, None): submitted,
        (BalanceUpdate, None): balance,
        **{(OrderEvent, name): order_event for name in SUB_EVENTS},
    }

    def dispatch(event: Any) -> None:
        function = functions.get((type(event), getattr(event, "event", None)))
        if function is not None:
            function(event)

    return dispatch
