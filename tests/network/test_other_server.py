"""The whole client against a WebSocket server of another make, over TCP and TLS."""

from __future__ import annotations

import logging
import ssl
import time
from decimal import Decimal
from typing import Any

import pytest
from clients import MakeClient
from other_server import Peer, ServeFunction
from service_messages import BALANCE_UPDATE, ORDER_EVENT, ORDER_SUBMITTED
from waiting import DEADLINE, Until

import aggstream

EXAMPLES = (ORDER_SUBMITTED, BALANCE_UPDATE, ORDER_EVENT)


def test_the_example_messages_reach_typed_handlers_over_tls_before_and_after_a_server_close(
    other_server: ServeFunction, client_of: MakeClient, trusting: ssl.SSLContext, until: Until
) -> None:
    def script(peer: Peer) -> None:
        peer.sign_in()
        peer.send(*EXAMPLES)
        if peer.number == 1:
            peer.ws.close(1001, "going away")
        peer.wait_closed()

    server = other_server(script, tls=True)
    client = client_of(server.url, ssl_context=trusting)
    orders: list[aggstream.OrderSubmitted] = []
    balances: list[aggstream.BalanceUpdate] = []
    started: list[aggstream.OrderEvent] = []
    everything: list[str] = []
    client.on("order_submitted")(orders.append)
    client.on(aggstream.BalanceUpdate)(balances.append)
    client.on("order_event", "dag_started")(started.append)
    client.on("*")(lambda event: everything.append(event.type))

    client.start()
    until(lambda: len(started) == 2)
    before = time.monotonic()
    assert client.stop()
    assert time.monotonic() - before < 1.0

    assert [(o.order_id, o.price, o.size) for o in orders] == [("ord_abc123", Decimal("0.55"), Decimal(100))] * 2
    assert [b.trading_balance for b in balances] == [Decimal("945.00")] * 2
    assert started[1].occurred_at.isoformat() == "2024-03-09T16:00:00+00:00"
    user = ["order_submitted", "balance_update", "order_event"]
    live = ["connected", "authenticated"]
    outage = ["disconnected", "reconnecting", *live, "gap", "resumed", "reconciled"]
    assert everything == [*live, *user, *outage, *user, "disconnected", "stopped"]


def test_the_token_goes_in_a_message_and_never_into_the_url(
    other_server: ServeFunction, client_of: MakeClient, until: Until
) -> None:
    tokens: list[str] = []

    def script(peer: Peer) -> None:
        tokens.append(peer.sign_in())
        peer.wait_closed()

    server = other_server(script)
    client = client_of(server.url, app_id="app & co", headers={"X-Trace": "abc"})
    client.start()
    until(lambda: client.health().ok)
    path, headers = server.requests[0]
    assert path == "/ws?appId=app+%26+co"
    assert headers["Origin"] == "https://app.example"
    assert headers["X-Trace"] == "abc"
    assert "Cookie" not in headers
    assert tokens == ["token-of-xyz789"]


def test_the_token_goes_into_the_query_when_that_is_asked_for(
    other_server: ServeFunction, client_of: MakeClient, until: Until
) -> None:
    def script(peer: Peer) -> None:
        peer.send({"type": "connected", "appId": "app_demo123", "userId": "usr_xyz789"}, ORDER_SUBMITTED)
        peer.wait_closed()

    server = other_server(script)
    client = client_of(server.url, auth="query")
    seen: list[str] = []
    client.on("*")(lambda event: seen.append(event.type))
    client.start()
    until(lambda: "order_submitted" in seen)
    assert server.requests[0][0] == "/ws?appId=app_demo123&token=token-of-xyz789"
    assert seen[:3] == ["connected", "authenticated", "order_submitted"]
    assert client.health().user_id == "usr_xyz789"


def test_ten_thousand_events_and_a_close_reach_the_handler_once_and_in_order_while_handlers_raise(
    other_server: ServeFunction, client_of: MakeClient, until: Until, caplog: pytest.LogCaptureFixture
) -> None:
    count = 10_000

    def script(peer: Peer) -> None:
        peer.sign_in()
        if peer.number == 1:
            for number in range(count):
                peer.send(
                    f'{{"type":"balance_update","venue":"kalshi","tradingBalanceCents":{number},'
                    f'"walletBalanceCents":0,"timestamp":{number}}}'
                )
            peer.ws.close(1001)
        peer.wait_closed()

    caplog.set_level(logging.CRITICAL, "aggstream")
    client = client_of(other_server(script).url, queue_size=1000)
    handled: list[int] = []
    failures: list[int] = []

    @client.on("balance_update")
    def raising(event: aggstream.BalanceUpdate) -> None:
        if event.timestamp % 3 == 0:
            raise ValueError(event.timestamp)

    @client.on("balance_update")
    def keeping(event: aggstream.BalanceUpdate) -> None:
        handled.append(event.trading_balance_cents)

    @client.on_error
    def failed(error: BaseException, event: aggstream.Event) -> None:
        failures.append(int(str(error)))

    client.start()
    until(lambda: client.health().counters.gaps == 1)
    client.stop()
    assert handled == list(range(count))
    assert failures == list(range(0, count, 3))
    assert client.health().handler_errors == len(failures)


def test_messages_that_are_not_understood_cost_only_themselves(
    other_server: ServeFunction, client_of: MakeClient, until: Until
) -> None:
    def script(peer: Peer) -> None:
        peer.sign_in()
        peer.send("{nonsense", ORDER_SUBMITTED.replace("0.55", '"0.55"'))
        peer.ws.send(b"\x00binary")
        peer.send({"type": "order_amended", "orderId": "ord_1"}, BALANCE_UPDATE)
        peer.wait_closed()

    client = client_of(other_server(script).url)
    failed: list[aggstream.DecodeFailed] = []
    unknown: list[Any] = []
    balances: list[aggstream.BalanceUpdate] = []
    client.on("decode_failed")(failed.append)
    client.on("order_amended")(unknown.append)
    client.on("balance_update")(balances.append)
    client.start()
    until(lambda: balances)
    assert [f.error.path for f in failed] == ["$", "$.price", "$"]
    assert failed[0].text == "{nonsense"
    assert unknown[0].raw == {"type": "order_amended", "orderId": "ord_1"}
    assert client.health().counters.decode_failures == 3
    assert client.health().counters.connections == 1


def test_fragmented_messages_and_pings_between_them_are_put_together(
    other_server: ServeFunction, client_of: MakeClient, until: Until
) -> None:
    pongs: list[float] = []

    def script(peer: Peer) -> None:
        peer.sign_in()
        peer.ws.send([ORDER_SUBMITTED[:20], ORDER_SUBMITTED[20:40], "", ORDER_SUBMITTED[40:]])
        assert peer.ws.ping("are you there?").wait(DEADLINE)
        pongs.append(time.monotonic())
        peer.send(BALANCE_UPDATE)
        peer.wait_closed()

    client = client_of(other_server(script).url)
    seen: list[aggstream.Event] = []
    client.on(aggstream.UserEvent)(seen.append)
    client.start()
    until(lambda: len(seen) == 2)
    assert pongs
    assert isinstance(seen[0], aggstream.OrderSubmitted)


@pytest.mark.parametrize("tls", [False, True])
def test_stop_is_quick_and_closes_in_form(
    tls: bool, other_server: ServeFunction, client_of: MakeClient, trusting: ssl.SSLContext, until: Until
) -> None:
    codes: list[int | None] = []

    def script(peer: Peer) -> None:
        peer.sign_in()
        codes.append(peer.wait_closed())

    client = client_of(other_server(script, tls=tls).url, ssl_context=trusting if tls else None)
    client.start()
    until(lambda: client.health().ok)
    assert client.stop()
    assert client.stop()
    until(lambda: codes == [1000])


def test_a_certificate_that_does_not_verify_is_fatal_and_says_so(
    other_server: ServeFunction, client_of: MakeClient
) -> None:
    client = client_of(other_server(lambda peer: None, tls=True).url)
    client.start()
    with pytest.raises(aggstream.ConnectFailed, match="certificate is not valid"):
        client.wait(DEADLINE)
    assert not client.health().ok
