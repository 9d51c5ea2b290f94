"""Wait until an order has ended, and tell how by the exit code: 0 filled, 1 not, 3 not known.

It may be started before the order is placed, while it is under way, or long after it has ended: what the stream
does not tell is read from the REST API, if the client has one to ask (AGGSTREAM_REST_URL).
"""

import sys

import aggstream

order_id = sys.argv[1]
timeout = float(sys.argv[2]) if len(sys.argv) > 2 else 60.0

with aggstream.Client() as client:
    order = client.track(order_id)
    print(f"waiting for {order_id}", flush=True)
    outcome = order.wait(timeout)

if not outcome.is_known:
    print(f"{order_id}: not known: {outcome.reason}")
    sys.exit(3)
print(f"{order_id}: {outcome.verdict.value}")
sys.exit(0 if outcome.verdict is aggstream.Verdict.FILLED else 1)
