"""Answers of the REST API become records, or errors of ours that name the place: no socket, no clock."""

from __future__ import annotations

import copy
import datetime as dt
import json
import pickle
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from aggstream import DecodeError, Limits
from aggstream._base.json_text import Parser
from aggstream.events._records import Balances, CashBalance, OrderRecord, OrdersPage
from aggstream.rest._decoding import decode_balances, decode_orders_page, parse_date

UTC = dt.timezone.utc
ORDER = """{
"id": "ord_abc123", "venue": "kalshi", "status": "filled", "side": "buy", "amountRaw": "100000000",
"slippageBps": 50, "quotedPriceRaw": "550000", "quotedCostRaw": "55000000", "filledAmountRaw": "100000000",
"executionPrice": 0.5500000000000000000001, "txHash": "0xabc", "errorMessage": null,
"createdAt": "2024-03-09T16:00:00.123Z", "updatedAt": "2024-03-09T16:00:01Z",
"venueMarket": {"id": "vm_1", "question": "Will it rain?", "image": null},
"venueMarketOutcome": {"label": "Yes", "title": "It rains"}
}"""
BALANCES = """{
"cash": [{"tokenSymbol": "USDC", "totalRaw": "123456789012345678901234567890", "decimals": 6, "chains": [
    {"chainId": 137, "tokenAddress": "0x1", "balanceRaw": "5", "lastSyncedAt": "2024-03-09T16:00:00.123Z"}]}],
"positions": [{"venue": "kalshi", "balance": "94500000"}]
}"""


def page_of(*orders: str, rest: str = '"nextCursor": null, "hasMore": false') -> OrdersPage:
    return decode_orders_page(f'{{"data": [{", ".join(orders)}], {rest}}}')


def order_with(**changes: Any) -> str:
    return json.dumps({**json.loads(ORDER), **changes})


def only_order(page: OrdersPage) -> OrderRecord:
    assert page.problems == ()
    [order] = page.orders
    return order


# --- orders ---------------------------------------------------------------------------------------------


def test_every_field_of_an_order_is_read_exactly() -> None:
    order = only_order(page_of(ORDER))
    assert order == OrderRecord(
        id="ord_abc123",
        status="filled",
        venue="kalshi",
        side="buy",
        amount_text="100000000",
        quoted_price_text="550000",
        quoted_cost_text="55000000",
        filled_amount_text="100000000",
        slippage_bps=50,
        execution_price=Decimal("0.5500000000000000000001"),
        tx_hash="0xabc",
        error_message=None,
        created_at=dt.datetime(2024, 3, 9, 16, 0, 0, 123000, UTC),
        updated_at=dt.datetime(2024, 3, 9, 16, 0, 1, 0, UTC),
        market_id="vm_1",
        question="Will it rain?",
        outcome_label="Yes",
        outcome_title="It rains",
    )
    assert (order.amount_raw, order.filled_amount_raw) == (100_000_000, 100_000_000)


def test_a_page_is_read_from_bytes_as_well() -> None:
    assert decode_orders_page(f'{{"data": [{ORDER}]}}'.encode()) == page_of(ORDER)


def test_an_order_needs_an_id_and_a_status_and_nothing_else() -> None:
    assert only_order(page_of('{"id": "o", "status": "open"}')) == OrderRecord(id="o", status="open")


def test_null_means_the_same_as_a_field_that_is_not_there() -> None:
    nothing = dict.fromkeys(json.loads(ORDER))
    order = only_order(page_of(json.dumps({**nothing, "id": "o", "status": "open"})))
    assert order == OrderRecord(id="o", status="open")


def test_what_the_class_does_not_know_is_kept_in_raw() -> None:
    order = only_order(
        page_of('{"id": "o", "status": "a", "new": [1.50], "raw": 5, "venueMarket": {"image": "i"}}')
    )
    kept = {"new": [Decimal("1.50")], "raw": 5, "venueMarket": {"image": "i"}}
    assert order.raw == {"id": "o", "status": "a", **kept}


def test_an_amount_too_big_for_a_double_is_exact_however_it_is_written() -> None:
    digits = "12345678901234567890123456789"
    for written in (f'"{digits}"', digits):
        order = only_order(page_of(f'{{"id": "o", "status": "open", "filledAmountRaw": {written}}}'))
        assert (order.filled_amount_text, order.filled_amount_raw) == (digits, int(digits))


def test_an_amount_that_is_not_all_digits_is_kept_as_text() -> None:
    order = only_order(page_of('{"id": "o", "status": "open", "amountRaw": "string"}'))
    assert (order.amount_text, order.amount_raw) == ("string", None)


@pytest.mark.parametrize(
    ("written", "price"), [("0.55", "0.55"), ('"0.5500"', "0.5500"), ("1", "1"), ("5.5e-1", "0.55")]
)
def test_an_execution_price_is_taken_as_a_number_or_as_its_text(written: str, price: str) -> None:
    order = only_order(page_of(f'{{"id": "o", "status": "filled", "executionPrice": {written}}}'))
    assert order.execution_price == Decimal(price)


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"id": None}, "id: missing"),
        ({"id": 5}, "id: expected a string"),
        ({"status": None}, "status: missing"),
        ({"status": []}, "status: expected a string"),
        ({"side": 1}, "side: expected a string"),
        ({"venue": {}}, "venue: expected a string"),
        ({"amountRaw": [5]}, "amountRaw: expected a string"),
        ({"filledAmountRaw": True}, "filledAmountRaw: expected a string"),
        ({"slippageBps": "50"}, "slippageBps: expected an integer"),
        ({"slippageBps": 50.5}, "slippageBps: expected an integer"),
        ({"slippageBps": 2**64}, "slippageBps: expected an integer of at most 64 bits"),
        ({"executionPrice": "NaN"}, "executionPrice: expected a number"),
        ({"executionPrice": "1e999999"}, "executionPrice: expected a number"),
        ({"executionPrice": True}, "executionPrice: expected a number"),
        ({"venueMarket": "vm_1"}, "venueMarket: expected an object"),
        ({"venueMarket": {"id": 5}}, "venueMarket.id: expected a string"),
        ({"venueMarketOutcome": []}, "venueMarketOutcome: expected an object"),
        ({"venueMarketOutcome": {"label": False}}, "venueMarketOutcome.label: expected a string"),
    ],
)
def test_a_broken_order_costs_that_order_only_and_its_place_is_named(change: dict[str, Any], path: str) -> None:
    page = page_of(order_with(id="o1"), order_with(**change), order_with(id="o3"), "7")
    assert [order.id for order in page.orders] == ["o1", "o3"]
    first, second = page.problems
    assert str(first).startswith(f"$.data[1].{path}")
    assert first.path == f"$.data[1].{path.partition(':')[0]}"
    assert str(second) == "$.data[3]: expected an object, got a number"


def test_a_problem_tells_no_values_and_holds_no_frames() -> None:
    page = page_of(order_with(venue=["canary-value"]), order_with(executionPrice="canary-value"))
    assert len(page.problems) == 2
    for problem in page.problems:
        assert "canary" not in f"{problem!r} {vars(problem)}"
        assert problem.__traceback__ is None
        assert problem.__context__ is None


def test_records_can_be_pickled_and_copied() -> None:
    page, balances = page_of(ORDER, "5"), decode_balances(BALANCES)
    for twin in (pickle.loads(pickle.dumps(page)), copy.deepcopy(page)):  # noqa: S301  (our own)
        assert twin.orders == page.orders
        assert twin.orders[0].raw == page.orders[0].raw
        assert str(twin.problems[0]) == str(page.problems[0])
    assert pickle.loads(pickle.dumps(balances)) == balances  # noqa: S301


# --- pages ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rest", "cursor"),
    [
        ('"nextCursor": "c", "hasMore": true', "c"),
        ('"nextCursor": "c", "hasMore": false', None),
        ('"nextCursor": null, "hasMore": false', None),
        ('"nextCursor": "", "hasMore": false', None),
        ('"nextCursor": "c"', "c"),
        ('"nextCursor": "c", "hasMore": null', "c"),
        ('"nextCursor": null', None),
        ('"other": 1', None),
    ],
)
def test_which_page_is_the_last_one(rest: str, cursor: str | None) -> None:
    assert page_of(ORDER, rest=rest).next_cursor == cursor


@pytest.mark.parametrize("cursor", ["null", '""'])
def test_more_orders_without_a_cursor_are_no_last_page(cursor: str) -> None:
    """To take it for one would be a silent gap."""
    with pytest.raises(DecodeError, match="more orders") as caught:
        page_of(ORDER, rest=f'"nextCursor": {cursor}, "hasMore": true')
    assert caught.value.path == "$.nextCursor"


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("", "$"),
        ("[]", "$"),
        ("null", "$"),
        ("{}", "$.data"),
        ('{"data": null}', "$.data"),
        ('{"data": {}}', "$.data"),
        ('{"data": [], "hasMore": "true"}', "$.hasMore"),
        ('{"data": [], "nextCursor": 5}', "$.nextCursor"),
        ('{"data": NaN}', "$"),
        ('{"data": ' + "[" * 100 + "]" * 100 + "}", "$"),
        ('{"data": [' + "9" * 5000 + "]}", "$"),
        ('{"data": [1e2000000]}', "$"),
        ('{"data": [' + "1," * 10_000 + "1]}", "$.data"),
    ],
    ids=range(13),
)
def test_what_is_no_page_is_refused_with_its_path(text: str, path: str) -> None:
    with pytest.raises(DecodeError) as caught:
        decode_orders_page(text)
    assert caught.value.path == path
    assert len(str(caught.value)) < 200


def test_bytes_that_are_no_text_are_refused() -> None:
    for decode in (decode_orders_page, decode_balances):
        with pytest.raises(DecodeError, match="UTF-8"):
            decode(b'{"data": ["\xff"]}')


def test_the_limits_are_those_of_messages() -> None:
    with pytest.raises(DecodeError, match="json_depth"):
        decode_orders_page('{"data": [{"id": {}}]}', Parser(Limits(json_depth=2)))
    with pytest.raises(DecodeError, match="number_digits"):
        decode_balances('{"cash": [12345678901234567890]}', Parser(Limits(number_digits=5)))


# --- balances -------------------------------------------------------------------------------------------


def test_every_field_of_balances_is_read_exactly() -> None:
    balances = decode_balances(BALANCES)
    [cash], [position] = balances.cash, balances.positions
    [chain] = cash.chains
    assert (cash.token_symbol, cash.total_text, cash.decimals) == ("USDC", "123456789012345678901234567890", 6)
    assert cash.total == Decimal("123456789012345678901234.567890")
    assert (chain.chain_id, chain.token_address, chain.balance_text) == (137, "0x1", "5")
    assert chain.last_synced_at == dt.datetime(2024, 3, 9, 16, 0, 0, 123000, UTC)
    assert (position.venue, position.balance_text) == ("kalshi", "94500000")
    assert balances.problems == ()
    assert balances.raw["cash"][0]["decimals"] == 6


def test_either_half_of_the_balances_may_be_absent() -> None:
    assert decode_balances('{"cash": null, "positions": []}') == Balances()
    assert decode_balances('{"cash": [{"tokenSymbol": "USDC"}]}').cash == (CashBalance(token_symbol="USDC"),)


@pytest.mark.parametrize(("written", "text"), [("12.50", "12.50"), ("12", "12"), ('"x"', "x"), ("null", None)])
def test_a_position_is_kept_as_it_is_written(written: str, text: str | None) -> None:
    [position] = decode_balances(f'{{"positions": [{{"venue": "v", "balance": {written}}}]}}').positions
    assert position.balance_text == text


def test_a_chain_has_a_number_or_a_name() -> None:
    text = '{"cash": [{"tokenSymbol": "USDC", "chains": [{"chainId": "solana"}, {"chainId": 1}, {}]}]}'
    [cash] = decode_balances(text).cash
    assert [chain.chain_id for chain in cash.chains] == ["solana", 1, None]


@pytest.mark.parametrize("decimals", ["null", "-1", "256", "9223372036854775807"])
def test_decimals_that_make_no_sense_give_no_total(decimals: str) -> None:
    text = f'{{"cash": [{{"tokenSymbol": "USDC", "totalRaw": "5", "decimals": {decimals}}}]}}'
    [cash] = decode_balances(text).cash
    assert cash.total is None


def test_a_broken_entry_costs_that_entry_only() -> None:
    balances = decode_balances(
        """{"cash": [{"tokenSymbol": "USDC", "decimals": "6"}, {"tokenSymbol": "A"}, {"chains": []},
            {"tokenSymbol": "B", "chains": [{}, {"balanceRaw": [1]}]}, {"tokenSymbol": "C", "chains": {}}],
        "positions": [{"balance": "1"}, {"venue": "kalshi", "balance": true}, {"venue": "v"}]}"""
    )
    assert [cash.token_symbol for cash in balances.cash] == ["A"]
    assert [position.venue for position in balances.positions] == ["v"]
    assert [problem.path for problem in balances.problems] == [
        "$.cash[0].decimals",
        "$.cash[2].tokenSymbol",
        "$.cash[3].chains[1].balanceRaw",
        "$.cash[4].chains",
        "$.positions[0].venue",
        "$.positions[1].balance",
    ]


@pytest.mark.parametrize("text", ["[]", "{}", '{"error": "no"}', '{"cash": {}}', '{"cash": [], "positions": 1}'])
def test_what_holds_no_balances_is_refused(text: str) -> None:
    with pytest.raises(DecodeError):
        decode_balances(text)


# --- dates ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2024-03-09T16:00:00Z", dt.datetime(2024, 3, 9, 16, 0, 0, 0, UTC)),
        ("2024-03-09T16:00:00.1Z", dt.datetime(2024, 3, 9, 16, 0, 0, 100000, UTC)),
        ("2024-03-09T16:00:00.123Z", dt.datetime(2024, 3, 9, 16, 0, 0, 123000, UTC)),
        ("2024-03-09T16:00:00.123456789Z", dt.datetime(2024, 3, 9, 16, 0, 0, 123456, UTC)),
        ("2024-03-09 18:30:00+02:30", dt.datetime(2024, 3, 9, 16, 0, 0, 0, UTC)),
        ("2024-03-09T11:00:00.5-0500", dt.datetime(2024, 3, 9, 16, 0, 0, 500000, UTC)),
    ],
)
def test_dates_with_a_zone_are_read_in_every_version_of_python(text: str, moment: dt.datetime) -> None:
    read = parse_date(text)
    assert read == moment
    assert read is not None
    assert read.tzinfo is UTC


@pytest.mark.parametrize(
    "value",
    [
        "",
        "yesterday",
        "2024-03-09",
        "2024-03-09T16:00:00",
        "2024-13-09T16:00:00Z",
        "2024-02-30T16:00:00Z",
        "2024-03-09T24:61:00Z",
        "2024-03-09T16:00:00+99:99",
        "0001-01-01T00:00:00+01:00",
        "9999-12-31T23:59:59-01:00",
        "\u0662\u0660\u0662\u0664-03-09T16:00:00Z",
        "2024-03-09T16:00:00Z\n",
        1710000000000,
        Decimal("1.5"),
        True,
        [],
        {},
    ],
)
def test_what_is_no_date_is_none(value: object) -> None:
    assert parse_date(value) is None


def test_what_is_no_date_costs_nothing_else() -> None:
    assert only_order(page_of('{"id": "o", "status": "open", "createdAt": 5, "updatedAt": "soon"}'))


# --- anything -------------------------------------------------------------------------------------------

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
names = st.sampled_from(
    [
        *json.loads(ORDER),
        *("data", "nextCursor", "hasMore", "cash", "positions", "chains", "raw", "problems"),
        *(
            "tokenSymbol",
            "totalRaw",
            "decimals",
            "chainId",
            "balanceRaw",
            "lastSyncedAt",
            "balance",
            "id",
            "label",
        ),
    ]
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=6),
    max_leaves=30,
)
answers = st.fixed_dictionaries({}, optional={"data": values, "cash": values, "positions": values}) | values
pieces = st.text('{}[]":,.-+eE0123456789 \\ud8').map(str.encode) | st.binary(max_size=40)


def survives(data: str | bytes) -> None:
    for decode in (decode_orders_page, decode_balances):
        try:
            record = decode(data)
        except DecodeError as error:
            problems: tuple[DecodeError, ...] = (error,)
        else:
            problems = record.problems
            for cash in getattr(record, "cash", ()):
                assert cash.total is None or cash.total.is_finite()
            for order in getattr(record, "orders", ()):
                assert order.amount_raw is None or order.amount_raw >= 0
            assert pickle.dumps(record)
            repr(record).encode()
        for problem in problems:
            assert str(problem).isprintable()
            assert len(str(problem)) < 300


@given(answers)
def test_any_json_is_a_record_or_an_error_of_ours(value: Any) -> None:
    survives(json.dumps(value))


@given(pieces, st.integers(0, 400), st.integers(0, 8))
@example(b'"\\ud83d"', 19, 0)
def test_any_bytes_are_a_record_or_an_error_of_ours(piece: bytes, at: int, cut: int) -> None:
    survives(piece)
    for text in (f'{{"data": [{ORDER}]}}'.encode(), BALANCES.encode()):
        survives(text[:at] + piece + text[at + cut :])
