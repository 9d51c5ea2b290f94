"""Where among the live events that are held back it is told what REST says: in the order of its happening."""

from __future__ import annotations

import datetime as dt
import json

import pytest

import aggstream
from aggstream._base.backoff import FullJitter
from aggstream._delivery.queue_items import SizedEvent
from aggstream._protocol.codec import Codec
from aggstream._stream.catch_up import CatchUp, ReadBalances, ReadOrders
from aggstream._stream.gaps import Gaps
from aggstream.events._records import Balances, OrderRecord, OrdersPage
from aggstream.health import Counters
from aggstream.orders._tracker import Tracker

NOW_MS = 1_710_000_000_000


def told(live: list[tuple[str, int]], status: str, at: int, *, filled: int = 0) -> list[str]:
    """Return the events of one order, live ones and then a record's, as the handlers get them."""
    options = aggstream.RestOptions()
    known = Gaps(has_rest=True)
    known.known_before(NOW_MS - 1000, None, is_searched=True)
    catch_up = CatchUp(
        Tracker(kept=10, kept_for=60.0),
        known,
        options,
        Counters(),
        hold_timeout=9,
        most_held=9,
        most_held_size=999,
        pauses=FullJitter(1.0, 60.0),
        rest_lag=0.0,
    )
    catch_up.connected(0.0, aggstream.Gap(number=1, started_ns=0, ended_ns=0))
    passed: list[SizedEvent] = []
    decode = Codec(aggstream.Limits()).decode
    for name, timestamp in live:
        message = {"type": "order_event", "event": name, "orderId": "a", "timestamp": NOW_MS + timestamp}
        passed += catch_up.passed([(decode(json.dumps(message), NOW_MS * 10**6), 1)], 0.0)
    moment = dt.datetime.fromtimestamp((NOW_MS + at) / 1000, dt.timezone.utc)
    record = OrderRecord(
        id="a", status=status, filled_amount_text=str(filled), created_at=moment, updated_at=moment
    )
    orders = catch_up.request()
    assert isinstance(orders, ReadOrders)
    catch_up.page_received(orders, OrdersPage(orders=(record,), date_ms=NOW_MS), 0.0, 0)
    balances = catch_up.request()
    assert isinstance(balances, ReadBalances)
    catch_up.balances_received(balances, Balances(cash=(), positions=(), raw={}), 0.0, NOW_MS * 10**6)
    return [
        event.sub_event or ""
        for event, _ in [*passed, *catch_up.events()]
        if isinstance(event, aggstream.OrderEvent)
    ]


@pytest.mark.parametrize(
    ("live", "at", "expected"),
    [
        ([("dag_completed", 2)], 1, ["filled", "dag_completed"]),
        ([("dag_completed", 2)], 2, ["dag_completed", "filled"]),
        ([("step_completed", 1), ("dag_completed", 3)], 2, ["step_completed", "filled", "dag_completed"]),
        ([("partially_filled", 3), ("dag_completed", 4)], 2, ["partially_filled", "filled", "dag_completed"]),
    ],
)
def test_a_status_is_told_before_what_has_happened_after_it_but_overtakes_no_status(
    live: list[tuple[str, int]], at: int, expected: list[str]
) -> None:
    assert told(live, "filled", at, filled=5) == expected


def test_that_an_order_is_open_is_not_told_after_something_else() -> None:
    assert told([("dag_started", 2)], "open", 1) == ["dag_started"]
    assert told([], "open", 1) == ["open"]
