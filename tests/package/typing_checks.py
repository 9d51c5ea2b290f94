"""What a type checker says about the public API. mypy checks this file; nothing runs it.

A line with `type: ignore[...]` must be an error: `warn_unused_ignores` reports it once it no longer is.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import aggstream

if TYPE_CHECKING:
    from typing_extensions import assert_type  # noqa: TC004  (nothing runs this file)


def submitted(event: aggstream.OrderSubmitted) -> int:
    return 5


def order(event: aggstream.OrderEvent) -> None: ...
def balance(event: aggstream.BalanceUpdate) -> None: ...
def gap(event: aggstream.Gap) -> None: ...
def user(event: aggstream.UserEvent) -> None: ...
def lifecycle(event: aggstream.LifecycleEvent) -> None: ...
def anything(event: aggstream.Event) -> None: ...
def nothing() -> None: ...
def on_error(error: BaseException, event: aggstream.Event) -> None: ...


class Provider:
    def get_token(self, *, stale: str | None = None) -> str:
        return "token"


class NoProvider:
    def token(self) -> str:
        return "token"


def registration_by_name(client: aggstream.Client) -> None:
    client.on("order_submitted")(submitted)
    client.on("order_submitted")(user)
    client.on("order_submitted")(anything)
    client.on("order_submitted")(order)  # type: ignore[arg-type]
    client.on("order_submitted")(gap)  # type: ignore[arg-type]
    client.on("order_submitted")(nothing)  # type: ignore[arg-type]
    client.on("balance_update")(balance)
    client.on("balance_update")(submitted)  # type: ignore[arg-type]
    client.on("order_event")(order)
    client.on("order_event", "filled", "failed")(order)
    client.on("order_event", "filled")(balance)  # type: ignore[arg-type]
    client.on("gap")(gap)
    client.on("gap")(lifecycle)
    client.on("gap")(order)  # type: ignore[arg-type]
    client.on("stopped")(gap)  # type: ignore[arg-type]
    client.on("*")(anything)
    client.on("*")(order)  # type: ignore[arg-type]
    client.once("order_submitted")(submitted)
    client.once("order_submitted")(order)  # type: ignore[arg-type]
    client.once("order_event", "filled")(order)
    client.once("*")(gap)  # type: ignore[arg-type]


def registration_by_class(client: aggstream.Client) -> None:
    client.on(aggstream.Gap)(gap)
    client.on(aggstream.Gap)(lifecycle)
    client.on(aggstream.Gap)(order)  # type: ignore[arg-type]
    client.on(aggstream.OrderEvent, "filled")(order)
    client.on(aggstream.OrderEvent, 5)(order)  # type: ignore[call-overload]
    client.on(aggstream.UserEvent)(user)
    client.on(aggstream.UserEvent)(order)  # type: ignore[arg-type]
    client.on(aggstream.Event)(anything)
    client.once(aggstream.Gap)(gap)
    client.once(aggstream.Gap)(balance)  # type: ignore[arg-type]
    client.once(5)  # type: ignore[call-overload]
    assert_type(client.once("order_submitted")(submitted), Callable[[aggstream.OrderSubmitted], int])
    client.on(int)  # type: ignore[type-var]
    client.on(5)  # type: ignore[call-overload]
    client.on(Provider)  # type: ignore[type-var]


def registration_of_names_that_nobody_knows(client: aggstream.Client, name: str) -> None:
    client.on("market_resolved")(anything)
    client.on("market_resolved", "final")(anything)
    client.on(name)(anything)
    client.off(anything)
    client.off(order, "order_event", "filled")
    assert_type(client.off(gap, aggstream.Gap), int)


def the_function_is_returned_unchanged(client: aggstream.Client) -> None:
    @client.on("order_submitted")
    def decorated(event: aggstream.OrderSubmitted) -> str:
        assert_type(event.price, Decimal)
        return event.order_id

    assert_type(decorated, Callable[[aggstream.OrderSubmitted], str])
    assert_type(client.on(aggstream.OrderSubmitted)(submitted), Callable[[aggstream.OrderSubmitted], int])
    client.on_error(on_error)(ValueError(), aggstream.Heartbeat())
    client.on_error(order)  # type: ignore[type-var]


def waiting(client: aggstream.Client, name: str) -> None:
    assert_type(client.wait_for("order_submitted"), aggstream.OrderSubmitted)
    assert_type(client.wait_for("balance_update", timeout=5), aggstream.BalanceUpdate)
    assert_type(
        client.wait_for("order_event", event="filled", order_id="ord_abc123", timeout=60.0), aggstream.OrderEvent
    )
    assert_type(client.wait_for(aggstream.Gap, timeout=1), aggstream.Gap)
    assert_type(client.wait_for(aggstream.OrderEvent, event="filled"), aggstream.OrderEvent)
    assert_type(client.wait_for(name), Any)
    client.wait_for("order_submitted", timeout="5")  # type: ignore[call-overload]
    for event in client.events(timeout=1.0):
        assert_type(event, aggstream.Event)


def fields(
    event: aggstream.OrderEvent, submitted: aggstream.OrderSubmitted, update: aggstream.BalanceUpdate
) -> None:
    assert_type(event.filled_amount_raw, int | None)
    assert_type(event.is_terminal, bool)
    assert_type(event.sub_event, str)
    assert_type(submitted.size, Decimal)
    assert_type(update.trading_balance_cents, int)
    assert_type(update.trading_balance, Decimal)
    event.order_id = "other"  # type: ignore[misc]
    event.nothing  # type: ignore[attr-defined]  # noqa: B018


def tokens() -> None:
    aggstream.Client(token="token")
    aggstream.Client(token=lambda: "token")
    aggstream.Client(token=Provider())
    aggstream.Client(token=aggstream.RefreshingToken("refresh-token"))
    aggstream.Client(token=NoProvider())  # type: ignore[arg-type]
    aggstream.Client(token=lambda: 5)  # type: ignore[arg-type]
    aggstream.Client(auth="header")  # type: ignore[arg-type]
    aggstream.Client("app_demo123")  # type: ignore[call-arg]


def rest() -> None:
    with aggstream.RestClient(
        token=Provider(),
        options=aggstream.RestOptions(headers={"x-app-api-key": "key"}, status_names={"done": "filled"}),
    ) as client:
        assert_type(client, aggstream.RestClient)
        assert_type(client.orders_page(limit=5), aggstream.OrdersPage)
        for order in client.orders(status="open"):
            assert_type(order.execution_price, Decimal | None)
            order.status = "filled"  # type: ignore[misc]
        assert_type(client.balances().cash[0].total, Decimal | None)
    aggstream.RestOptions("https://api.example")  # type: ignore[call-arg]
    aggstream.RestOptions(headers={"x": 5})  # type: ignore[dict-item]
    aggstream.RestClient(options={})  # type: ignore[arg-type]


def running(client: aggstream.Client) -> None:
    with client as entered:
        assert_type(entered, aggstream.Client)
    assert_type(client.run(), int)
    assert_type(client.wait(timeout=1), bool)
    assert_type(client.stop(), aggstream.StopReport)
    assert_type(client.health(), aggstream.Health)
    assert_type(client.health().ok, bool)
