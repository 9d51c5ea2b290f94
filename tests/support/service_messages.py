"""The three messages of a user, as the service documents them."""

from __future__ import annotations

ORDER_SUBMITTED = """{
"type": "order_submitted",
"venue": "kalshi",
"orderId": "ord_abc123",
"side": "buy",
"price": 0.55,
"size": 100,
"outcomeId": "clv2abc123def456",
"timestamp": 1710000000000
}"""
BALANCE_UPDATE = """{
"type": "balance_update",
"venue": "kalshi",
"tradingBalanceCents": 94500,
"walletBalanceCents": 100000,
"timestamp": 1710000000000
}"""
ORDER_EVENT = """{
"type": "order_event",
"event": "dag_started",
"userId": "usr_xyz789",
"orderId": "ord_abc123",
"venue": "kalshi",
"filledAmountRaw": "string",
"remainingAmountRaw": "string",
"errorReason": "string",
"dagRunId": "string",
"stepId": "string",
"stepType": "string",
"templateName": "string",
"attempt": 0,
"timestamp": 1710000000000
}"""
