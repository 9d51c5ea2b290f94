"""Wait until an order has ended, and tell how by the exit code: 0 filled, 1 not, 3 unknown.

Start it before the order is placed, with the order's id: only what comes after its start is seen.
"""

import sys

import aggstream

ENDS = [name for name, kind in aggstream.ORDER_EVENTS.items() if kind.is_terminal]

order_id = sys.argv[1]
timeout = float(sys.argv[2]) if len(sys.argv) > 2 else 60.0
client = aggstream.Client()
ended: list[aggstream.OrderEvent] = []


@client.on("order_event", *ENDS)
def settled(event: aggstream.OrderEvent) -> None:
    if event.order_id == order_id:
        ended.append(event)
        client.stop()


@client.on("authenticated")
def ready(event: aggstream.Authenticated) -> None:
    print(f"waiting for {order_id}", flush=True)


client.start()
client.wait(timeout)
client.stop()
if not ended:
    print(f"{order_id}: not known after {timeout} s; ask the REST API")
    sys.exit(3)
print(f"{order_id}: {ended[0].event} {ended[0].error_reason or ''}")
sys.exit(0 if ended[0].sub_event == "filled" else 1)
