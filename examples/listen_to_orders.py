"""Call plain functions for what happens to your orders, until Ctrl-C or SIGTERM.

Set AGGSTREAM_APP_ID, AGGSTREAM_ORIGIN and AGGSTREAM_TOKEN first; `aggstream simulate` prints a set to try.
"""

import logging
import sys

import aggstream

logging.basicConfig(level=logging.WARNING)
client = aggstream.Client()


@client.on("order_submitted")
def submitted(event: aggstream.OrderSubmitted) -> None:
    print(f"{event.order_id}: {event.side} {event.size} at {event.price} on {event.venue}", flush=True)


@client.on("order_event", "filled", "failed", "rejected", "cancelled", "expired")
def settled(event: aggstream.OrderEvent) -> None:
    print(f"{event.order_id}: {event.sub_event} {event.error_reason or ''}", flush=True)


@client.on(aggstream.BalanceUpdate)
def balance(event: aggstream.BalanceUpdate) -> None:
    print(f"{event.venue}: ${event.trading_balance} to trade with", flush=True)


@client.on("gap")
def missed(event: aggstream.Gap) -> None:
    print(
        f"between {event.started_at} and {event.ended_at} events may be missing: look at your orders", flush=True
    )


sys.exit(client.run())
