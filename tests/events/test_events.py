"""The events: typed, frozen, exact."""

from __future__ import annotations

import datetime as dt
import decimal
import json
import pickle
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import attrs
import pytest

import aggstream
from aggstream import (
    ORDER_EVENTS,
    AggStreamError,
    Authenticated,
    Balances,
    BalancesCoalesced,
    BalanceSnapshot,
    BalanceUpdate,
    Connected,
    ConnectionLost,
    DecodeError,
    DecodeFailed,
    Disconnected,
    ErrorMessage,
    Event,
    Gap,
    Heartbeat,
    HeartbeatTimeout,
    JournalFailed,
    JournalFull,
    OrderEvent,
    OrderEventKind,
    OrderEventName,
    OrderSubmitted,
    ReadingPaused,
    ReadingResumed,
    Reconciled,
    Reconnecting,
    Resting,
    Resumed,
    Side,
    Stopped,
    Subscribed,
    TokenRefreshed,
    UnknownEvent,
    Unsubscribed,
    Venue,
)
from aggstream._base.text import shown
from aggstream._protocol.codec import Codec
from aggstream.events import LIFECYCLE_TYPES, WIRE_TYPES, order_event_kind

decode = Codec(aggstream.Limits()).decode

UTC = dt.timezone.utc

# Byte for byte as they stand on the service's page.
PAGE_ORDER_SUBMITTED = """{
"type": "order_submitted",
"venue": "kalshi",
"orderId": "ord_abc123",
"side": "buy",
"price": 0.55,
"size": 100,
"outcomeId": "clv2abc123def456",
"timestamp": 1710000000000
}"""
PAGE_BALANCE_UPDATE = """{
"type": "balance_update",
"venue": "kalshi",
"tradingBalanceCents": 94500,
"walletBalanceCents": 100000,
"timestamp": 1710000000000
}"""
PAGE_ORDER_EVENT = """{
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

LOST = ConnectionLost("reset", code=1012, reason="restart", initiated_by="server")
EXAMPLES: list[Event] = [
    decode(PAGE_ORDER_SUBMITTED, 5),
    decode(PAGE_BALANCE_UPDATE, 5),
    decode(PAGE_ORDER_EVENT, 5),
    decode('{"type": "market_resolved", "outcomes": [1.5]}', 5),
    Connected(app_id="app_demo123", user_id="usr_1"),
    Authenticated(user_id="usr_1"),
    Heartbeat(ts=5),
    ErrorMessage(message="no", code=7, channel="arb"),
    Subscribed(channel="orderbook", outcome_ids=("a",)),
    Unsubscribed(channel="orderbook", outcome_ids=("a",)),
    Disconnected(error=LOST, code=1012, initiated_by="server"),
    Reconnecting(attempt=2, delay=1.5, error=LOST),
    Gap(number=1, started_ns=5, ended_ns=7),
    Resumed(attempts=2, downtime=3.5),
    Resting(state="failed", error=LOST),
    ReadingPaused(waiting=3),
    ReadingResumed(paused_for=0.5),
    BalancesCoalesced(venue="kalshi", count=2),
    DecodeFailed(text="nope", error=DecodeError("not JSON", path="$")),
    TokenRefreshed(user_id="usr_1", expires_at=dt.datetime(2030, 1, 1, tzinfo=UTC)),
    Reconciled(gaps=(3,), resolved=True, orders=7, pages=1, changed=2, took=0.25),
    JournalFailed(error=JournalFull("the disk is full", path="j.db")),
    BalanceSnapshot(timestamp=1, balances=Balances()),
    Stopped(error=LOST),
]


def order_event(event: str = "filled", **fields: Any) -> OrderEvent:
    return OrderEvent(event=event, order_id="ord_1", timestamp=1, **fields)


def balance(trading: int, wallet: int = 0) -> BalanceUpdate:
    return BalanceUpdate(venue="kalshi", trading_balance_cents=trading, wallet_balance_cents=wallet, timestamp=1)


@pytest.fixture
def order_events_table() -> Iterator[dict[str, OrderEventKind]]:
    before = dict(ORDER_EVENTS)
    yield ORDER_EVENTS
    ORDER_EVENTS.clear()
    ORDER_EVENTS.update(before)


# --- the page -------------------------------------------------------------------------------------------


def test_the_pages_order_submitted() -> None:
    event = decode(PAGE_ORDER_SUBMITTED, 5)
    assert event == OrderSubmitted(
        venue="kalshi",
        order_id="ord_abc123",
        side="buy",
        price=Decimal("0.55"),
        size=Decimal(100),
        outcome_id="clv2abc123def456",
        timestamp=1710000000000,
    )
    assert isinstance(event, OrderSubmitted)
    assert (type(event.price), type(event.size)) == (Decimal, Decimal)


def test_the_pages_balance_update() -> None:
    event = decode(PAGE_BALANCE_UPDATE, 5)
    assert event == BalanceUpdate(
        venue="kalshi", trading_balance_cents=94500, wallet_balance_cents=100000, timestamp=1710000000000
    )


def test_the_pages_order_event() -> None:
    event = decode(PAGE_ORDER_EVENT, 5)
    assert event == OrderEvent(
        event="dag_started",
        user_id="usr_xyz789",
        order_id="ord_abc123",
        venue="kalshi",
        filled_amount_text="string",
        remaining_amount_text="string",
        error_reason="string",
        dag_run_id="string",
        step_id="string",
        step_type="string",
        template_name="string",
        attempt=0,
        timestamp=1710000000000,
    )
    assert isinstance(event, OrderEvent)
    assert event.filled_amount_raw is None
    assert event.remaining_amount_raw is None


@pytest.mark.parametrize("text", [PAGE_ORDER_SUBMITTED, PAGE_BALANCE_UPDATE, PAGE_ORDER_EVENT])
def test_raw_is_the_pages_message(text: str) -> None:
    assert json.loads(json.dumps(decode(text, 5).raw, default=float)) == json.loads(text)


# --- every event ----------------------------------------------------------------------------------------


def test_there_is_an_example_of_every_type() -> None:
    expected = {*WIRE_TYPES.values(), *LIFECYCLE_TYPES.values(), UnknownEvent}
    assert {type(event) for event in EXAMPLES} == expected
    assert all(getattr(aggstream, cls.__name__) is cls for cls in expected)


@pytest.mark.parametrize("event", EXAMPLES, ids=lambda event: event.type)
def test_an_event_is_frozen_and_slotted(event: Event) -> None:
    for field in attrs.fields(type(event)):
        with pytest.raises(attrs.exceptions.FrozenInstanceError):
            setattr(event, field.name, None)
    with pytest.raises((AttributeError, TypeError)):
        setattr(event, "something_else", 1)  # noqa: B010
    assert not hasattr(event, "__dict__")


@pytest.mark.parametrize("protocol", [2, pickle.HIGHEST_PROTOCOL])
@pytest.mark.parametrize("event", EXAMPLES, ids=lambda event: event.type)
def test_an_event_survives_pickling(event: Event, protocol: int) -> None:
    twin = pickle.loads(pickle.dumps(event, protocol))  # noqa: S301
    assert type(twin) is type(event)
    assert (twin.raw, twin.received_ns, twin.type, twin.sub_event) == (
        event.raw,
        event.received_ns,
        event.type,
        event.sub_event,
    )
    assert repr(twin) == repr(event)
    if not isinstance(event, UnknownEvent) and not isinstance(getattr(event, "error", None), AggStreamError):
        assert twin == event


@pytest.mark.parametrize("event", EXAMPLES, ids=lambda event: event.type)
def test_an_event_can_be_put_into_a_set(event: Event) -> None:
    assert len({event, event}) == 1


@pytest.mark.parametrize("event", EXAMPLES, ids=lambda event: event.type)
def test_field_names_are_in_snake_case_and_the_base_ones_are_there(event: Event) -> None:
    names = [field.name for field in attrs.fields(type(event))]
    assert all(name == name.lower() for name in names)
    assert {"raw", "received_ns"} <= set(names)


def test_events_are_equal_by_what_they_say_and_not_by_when_they_came() -> None:
    assert decode(PAGE_BALANCE_UPDATE, 5) == decode(PAGE_BALANCE_UPDATE, 6)
    assert decode(PAGE_BALANCE_UPDATE, 5) != decode(PAGE_ORDER_SUBMITTED, 5)


def test_the_time_of_receipt_is_an_aware_datetime_cut_to_microseconds() -> None:
    event = decode(PAGE_BALANCE_UPDATE, 1_710_000_000_123_456_789)
    assert event.received_at == dt.datetime(2024, 3, 9, 16, 0, 0, 123456, tzinfo=UTC)


def test_the_time_of_receipt_of_an_event_of_the_clients_own_is_now() -> None:
    before = dt.datetime.now(UTC) - dt.timedelta(milliseconds=1)
    assert before <= Heartbeat().received_at <= dt.datetime.now(UTC) + dt.timedelta(milliseconds=1)


def test_a_repr_shows_the_fields_and_nothing_of_raw() -> None:
    text = PAGE_BALANCE_UPDATE.replace('"venue"', '"accessToken": "eyJsecret", "venue"')
    event = decode(text, 5)
    assert event.raw["accessToken"] == "eyJsecret"
    assert "eyJsecret" not in repr(event)
    assert "trading_balance_cents=94500" in repr(event)


def test_a_repr_leaves_out_what_is_not_there_and_shows_moments_as_times() -> None:
    gap = Gap(number=1, started_ns=1795547429308840579, ended_ns=1795547431000000000)
    assert repr(gap) == (
        "Gap(number=1, started_at=2026-11-24T19:10:29.308840+00:00, ended_at=2026-11-24T19:10:31+00:00)"
    )
    assert "None" not in repr(order_event())
    assert "event='filled', order_id='ord_1'" in repr(order_event())
    assert repr(Stopped()) == "Stopped()"
    refreshed = TokenRefreshed(user_id=None, expires_at=dt.datetime(2030, 1, 1, tzinfo=UTC))
    assert repr(refreshed) == "TokenRefreshed(expires_at=2030-01-01T00:00:00+00:00)"
    assert repr(decode('{"type": "market_resolved"}', 5)) == "UnknownEvent(name='market_resolved')"


@pytest.mark.parametrize("event", EXAMPLES, ids=lambda event: event.type)
def test_a_repr_is_one_printable_line(event: Event) -> None:
    assert repr(event).startswith(f"{type(event).__name__}(")
    assert repr(event).isprintable()


def test_a_repr_of_a_text_that_was_not_understood_is_one_short_line() -> None:
    event = DecodeFailed(text="x\n\x1b[31m" * 1000, error=DecodeError("not JSON"))
    assert "\n" not in repr(event)
    assert "\x1b" not in repr(event)
    assert len(repr(event)) < 1500
    assert len(event.text) == 7000


@pytest.mark.parametrize("text", ["", "plain", "a\nb\x00\x1b", "\u00e9\ud800", "x" * 100_000])
def test_a_foreign_text_is_shown_on_one_short_line_of_printable_ascii(text: str) -> None:
    line = shown(text)
    assert line.isascii()
    assert line.isprintable()
    assert len(line) < 1000


# --- time and money -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("milliseconds", "moment"),
    [
        (1710000000000, dt.datetime(2024, 3, 9, 16, 0, tzinfo=UTC)),
        (1710000000001, dt.datetime(2024, 3, 9, 16, 0, 0, 1000, tzinfo=UTC)),
        (1710000000999, dt.datetime(2024, 3, 9, 16, 0, 0, 999000, tzinfo=UTC)),
        (0, dt.datetime(1970, 1, 1, tzinfo=UTC)),
        (-1, dt.datetime(1969, 12, 31, 23, 59, 59, 999000, tzinfo=UTC)),
    ],
)
def test_a_timestamp_keeps_its_milliseconds_and_is_aware(milliseconds: int, moment: dt.datetime) -> None:
    event = OrderEvent(event="filled", order_id="o", timestamp=milliseconds)
    assert event.timestamp == milliseconds
    assert event.occurred_at == moment
    assert event.occurred_at.utcoffset() == dt.timedelta(0)


def test_a_timestamp_that_is_no_date_is_an_overflow_error_only_when_it_is_asked_for() -> None:
    event = OrderEvent(event="filled", order_id="o", timestamp=2**63 - 1)
    with pytest.raises(OverflowError):
        _ = event.occurred_at


@pytest.mark.parametrize(
    ("cents", "dollars"),
    [(94500, "945.00"), (1, "0.01"), (0, "0.00"), (-5, "-0.05"), (2**63 - 1, "92233720368547758.07")],
)
def test_balances_are_exact_dollars_also_under_a_tiny_decimal_context(cents: int, dollars: str) -> None:
    with decimal.localcontext() as context:
        context.prec = 2
        event = balance(cents, cents)
        trading, wallet = event.trading_balance, event.wallet_balance
    assert str(trading) == str(wallet) == dollars


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("0", 0),
        ("007", 7),
        ("1000000", 1000000),
        ("115792089237316195423570985008687907853269984665640564039457584007913129639936", 2**256),
        ("9" * 79, None),
        ("9" * 100_000, None),
        ("", None),
        ("string", None),
        ("-1", None),
        ("-0.0", None),
        ("1.5", None),
        ("4.00", 4),
        ("4e2", 400),
        ("+4.20E+2", 420),
        ("400e-2", 4),
        ("4e-1", None),
        (".0", 0),
        ("0e99", 0),
        (" 1", 1),
        ("1e77", 10**77),
        ("1e78", None),
        ("1e9999", None),
        ("1e99999999", None),
        ("1.", 1),
        (".", None),
        ("e5", None),
        ("1,000", None),
        ("NaN", None),
        ("Infinity", None),
        ("4" + "." + "0" * 200, 4),
        ("4" + "." + "0" * 300, None),
        ("1_000", None),
        ("\u0661", None),
        ("\u00b2", None),
        ("0x10", None),
        (None, None),
    ],
    ids=lambda value: ascii(value)[:12],
)
def test_a_raw_amount_is_a_whole_number_however_it_is_written_and_its_text_is_kept(
    text: str | None, amount: int | None
) -> None:
    event = order_event(filled_amount_text=text, remaining_amount_text=text)
    assert event.filled_amount_raw == amount
    assert event.remaining_amount_raw == amount
    assert event.filled_amount_text == text


# --- open sets ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "family", "terminal"),
    [
        ("dag_started", "run", False),
        ("dag_completed", "run", False),
        ("dag_failed", "run", False),
        ("dag_never_heard_of", "run", False),
        ("step_started", "step", False),
        ("step_completed", "step", False),
        ("step_failed", "step", False),
        ("step_retrying", "step", False),
        ("order_step_failed", "step", False),
        ("partially_filled", "terminal", False),
        ("filled", "terminal", True),
        ("failed", "terminal", True),
        ("cancelled", "terminal", True),
        ("expired", "terminal", True),
        ("order_filled", "terminal", True),
        ("order_partially_filled", "terminal", False),
        ("settled", None, False),
        ("order_", None, False),
        ("", None, False),
        ("FILLED", "terminal", True),
        ("orderFilled", "terminal", True),
        ("canceled", "terminal", True),
        ("rejected", "terminal", True),
        ("partially_filled_open", "terminal", False),
        ("PARTIALLYFILLED", "terminal", False),
        ("Step-Started", "step", False),
        ("open", "terminal", False),
        ("settling", None, False),
    ],
)
def test_the_family_and_the_end_of_an_order_event(name: str, family: str | None, terminal: bool) -> None:
    event = order_event(name)
    assert event.event == name
    assert event.family == family
    assert event.is_terminal is terminal
    assert (order_event_kind(name) is None) is (family is None)


@pytest.mark.parametrize("name", [value for key, value in vars(OrderEventName).items() if key.isupper()])
def test_every_name_that_is_known_has_a_family(name: str) -> None:
    assert order_event(name).family is not None


def test_a_user_may_add_a_status(order_events_table: dict[str, OrderEventKind]) -> None:
    assert not order_event("settled").is_terminal
    order_events_table["settled"] = OrderEventKind("terminal", is_terminal=True)
    assert order_event("settled").is_terminal
    assert order_event("order_settled").is_terminal
    assert order_event("settled").family == "terminal"


def test_a_users_row_counts_before_the_prefix(order_events_table: dict[str, OrderEventKind]) -> None:
    order_events_table["dag_aborted"] = OrderEventKind("terminal", is_terminal=True)
    assert order_event("dag_aborted").is_terminal
    assert not order_event("dag_failed").is_terminal


@pytest.mark.parametrize(
    ("event", "sub_event"), [("filled", "filled"), ("order_filled", "filled"), ("new", "new")]
)
def test_the_sub_event_of_an_order_event_has_no_order_prefix(event: str, sub_event: str) -> None:
    assert order_event(event).sub_event == sub_event


def test_other_events_have_no_sub_event() -> None:
    assert balance(1).sub_event is None
    assert Gap(number=1, started_ns=1, ended_ns=2).sub_event is None


def test_side_venue_and_event_are_open_sets() -> None:
    text = PAGE_ORDER_SUBMITTED.replace("kalshi", "newvenue").replace('"buy"', '"short"')
    event = decode(text, 5)
    assert isinstance(event, OrderSubmitted)
    assert (event.venue, event.side) == ("newvenue", "short")
    known = decode(PAGE_ORDER_SUBMITTED, 5)
    assert isinstance(known, OrderSubmitted)
    assert (known.venue, known.side) == (Venue.KALSHI, Side.BUY)


@pytest.mark.parametrize(
    ("error", "requested"),
    [
        (ConnectionLost("closed on request", code=1000, initiated_by="client"), True),
        (ConnectionLost("going away", code=1000, initiated_by="server"), False),
        (ConnectionLost("reset"), False),
        (HeartbeatTimeout("no answer"), False),
    ],
)
def test_a_disconnection_tells_whether_it_was_asked_for(error: AggStreamError, requested: bool) -> None:
    assert Disconnected(error=error, initiated_by="client").requested is requested


def test_a_gap_tells_its_two_moments() -> None:
    gap = Gap(number=1, started_ns=1_710_000_000_000_001_999, ended_ns=1_710_000_005_000_000_000)
    assert gap.started_at == dt.datetime(2024, 3, 9, 16, 0, 0, 1, tzinfo=UTC)
    assert gap.ended_at == dt.datetime(2024, 3, 9, 16, 0, 5, tzinfo=UTC)
