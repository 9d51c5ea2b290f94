"""JSON to events: strict, exact, and nothing but DecodeError comes out."""

from __future__ import annotations

import contextlib
import copy
import decimal
import json
import pickle
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any
from unittest import mock

import attrs
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import aggstream
from aggstream import (
    BalanceUpdate,
    DecodeError,
    ErrorMessage,
    Event,
    Gap,
    Heartbeat,
    LifecycleEvent,
    OrderEvent,
    OrderSubmitted,
    Subscribed,
    UnknownEvent,
)
from aggstream._base.field_names import wire_name
from aggstream._base.json_text import _NESTING, Parser, to_json
from aggstream._protocol.codec import Codec, memory_of
from aggstream.events import LIFECYCLE_TYPES

RECEIVED = 1_710_000_000_123_456_789


def codecs(**limits: Any) -> list[Codec]:
    """Return a codec for each quick way: the one of who has installed `aggstream[fast]`, and of who has not."""
    with_msgspec = Codec(aggstream.Limits(**limits))
    with mock.patch.dict(sys.modules, {"aggstream._protocol.codec_msgspec": None}):
        return [with_msgspec, Codec(aggstream.Limits(**limits))]


CODECS = codecs()


def outcome(decode: Callable[[str, int], Event], text: str) -> Event | DecodeError:
    try:
        return decode(text, RECEIVED)
    except DecodeError as error:
        return error


def decode(text: str, received_ns: int) -> Event:
    """Return what a text is by the strict way, having seen that it is the same by every other one."""
    strict = outcome(CODECS[0]._decode_strictly, text)
    for codec in CODECS:
        assert_same(outcome(codec.decode, text), strict)
    if isinstance(strict, DecodeError):
        raise strict
    return attrs.evolve(strict, received_ns=received_ns)


def assert_same(one: Event | DecodeError, other: Event | DecodeError) -> None:
    assert (type(one), str(one)) == (type(other), str(other))
    if isinstance(one, Event) and isinstance(other, Event):
        assert attrs.asdict(one, recurse=False) == attrs.asdict(other, recurse=False)
        assert repr(one) == repr(other)
        assert repr(one.raw) == repr(other.raw)


ORDER_SUBMITTED: dict[str, Any] = {
    "type": "order_submitted",
    "venue": "kalshi",
    "orderId": "ord_abc123",
    "side": "buy",
    "price": 0.55,
    "size": 100,
    "outcomeId": "clv2abc123def456",
    "timestamp": 1710000000000,
}
BALANCE_UPDATE: dict[str, Any] = {
    "type": "balance_update",
    "venue": "kalshi",
    "tradingBalanceCents": 94500,
    "walletBalanceCents": 100000,
    "timestamp": 1710000000000,
}
ORDER_EVENT: dict[str, Any] = {
    "type": "order_event",
    "event": "dag_started",
    "orderId": "ord_abc123",
    "timestamp": 1710000000000,
}
OPTIONAL = {
    "userId": "user_id",
    "venue": "venue",
    "filledAmountRaw": "filled_amount_text",
    "remainingAmountRaw": "remaining_amount_text",
    "errorReason": "error_reason",
    "dagRunId": "dag_run_id",
    "stepId": "step_id",
    "stepType": "step_type",
    "templateName": "template_name",
    "attempt": "attempt",
}
TEMPLATES = {"order_submitted": ORDER_SUBMITTED, "balance_update": BALANCE_UPDATE, "order_event": ORDER_EVENT}


def with_literal(payload: dict[str, Any], field: str, literal: str) -> str:
    """Return the message with one field's value written as given, which need not be what json would write."""
    text = json.dumps({**payload, field: "@here@"})
    return text.replace('"@here@"', literal)


def refused(text: str) -> DecodeError:
    with pytest.raises(DecodeError) as caught:
        decode(text, RECEIVED)
    return caught.value


# --- what is accepted -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("literal", "value"),
    [
        ("0.55", "0.55"),
        ("0.550", "0.550"),
        ("0.1", "0.1"),
        ("1", "1"),
        ("5.5e-1", "0.55"),
        ("0.30000000000000004", "0.30000000000000004"),
        ("0.12345678901234567890123456789", "0.12345678901234567890123456789"),
        ("-0.0", "-0.0"),
    ],
)
def test_a_price_is_the_decimal_that_was_written(literal: str, value: str) -> None:
    event = decode(with_literal(ORDER_SUBMITTED, "price", literal), RECEIVED)
    assert isinstance(event, OrderSubmitted)
    assert isinstance(event.price, Decimal)
    assert str(event.price) == value


def test_a_tiny_decimal_context_does_not_round_what_was_written() -> None:
    with decimal.localcontext() as context:
        context.prec = 2
        event = decode(with_literal(ORDER_SUBMITTED, "size", "1234567.891"), RECEIVED)
        whole = decode(with_literal(ORDER_SUBMITTED, "size", "123456789"), RECEIVED)
    assert isinstance(event, OrderSubmitted)
    assert isinstance(whole, OrderSubmitted)
    assert str(event.size) == "1234567.891"
    assert str(whole.size) == "123456789"


@pytest.mark.parametrize("literal", ["5", "5.0", "5.00", "5e0", "0.5e1", "50e-1"])
def test_an_integer_is_a_number_without_a_fraction_however_it_is_spelled(literal: str) -> None:
    event = decode(with_literal(BALANCE_UPDATE, "tradingBalanceCents", literal), RECEIVED)
    assert isinstance(event, BalanceUpdate)
    assert event.trading_balance_cents == 5
    assert type(event.trading_balance_cents) is int


@pytest.mark.parametrize("number", [2**63 - 1, -(2**63 - 1), 0, -1])
def test_integers_up_to_64_bits_are_taken(number: int) -> None:
    event = decode(json.dumps({**BALANCE_UPDATE, "walletBalanceCents": number}), RECEIVED)
    assert isinstance(event, BalanceUpdate)
    assert event.wallet_balance_cents == number


@pytest.mark.parametrize("field", OPTIONAL)
def test_an_optional_field_may_be_absent_or_null(field: str) -> None:
    absent = decode(json.dumps(ORDER_EVENT), RECEIVED)
    null = decode(json.dumps({**ORDER_EVENT, field: None}), RECEIVED)
    assert getattr(absent, OPTIONAL[field]) is None
    assert absent == null


def test_every_optional_field_may_be_null_at_once() -> None:
    event = decode(json.dumps({**ORDER_EVENT, **dict.fromkeys(OPTIONAL)}), RECEIVED)
    assert event == decode(json.dumps(ORDER_EVENT), RECEIVED)


@pytest.mark.parametrize("name", TEMPLATES)
def test_an_unknown_key_is_kept_in_raw_and_is_no_error(name: str) -> None:
    event = decode(json.dumps({**TEMPLATES[name], "newKey": {"deep": [1.5, None]}}), RECEIVED)
    assert event.type == name
    assert event.raw["newKey"] == {"deep": [Decimal("1.5"), None]}


def test_raw_and_the_time_of_receipt_are_kept() -> None:
    event = decode(json.dumps(BALANCE_UPDATE), RECEIVED)
    assert event.raw == BALANCE_UPDATE
    assert event.received_ns == RECEIVED


def test_an_unknown_type_keeps_its_whole_payload() -> None:
    payload = {"type": "market_resolved", "outcomeId": "vmo_1", "outcomes": [{"a": 1}], "event": "x"}
    event = decode(json.dumps(payload), RECEIVED)
    assert isinstance(event, UnknownEvent)
    assert (event.type, event.sub_event, event.raw, event.received_ns) == (
        "market_resolved",
        "x",
        payload,
        RECEIVED,
    )


@pytest.mark.parametrize("name", [*LIFECYCLE_TYPES, "*", "", "Order_Submitted", "__class__"])
def test_a_message_never_becomes_an_event_of_the_clients_own(name: str) -> None:
    event = decode(json.dumps({"type": name, "number": 1, "started_ns": 1, "ended_ns": 2}), RECEIVED)
    assert type(event) is UnknownEvent
    assert not isinstance(event, (LifecycleEvent, Gap))
    assert event.type == name


@pytest.mark.parametrize("literal", ["12345678901234567890123", '"12345678901234567890123"'])
def test_a_raw_amount_may_be_a_string_or_an_integer_and_is_exact(literal: str) -> None:
    event = decode(with_literal(ORDER_EVENT, "filledAmountRaw", literal), RECEIVED)
    assert isinstance(event, OrderEvent)
    assert event.filled_amount_text == "12345678901234567890123"
    assert event.filled_amount_raw == 12345678901234567890123


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        ({"type": "heartbeat"}, Heartbeat(ts=0)),
        ({"type": "heartbeat", "ts": 1710000000000}, Heartbeat(ts=1710000000000)),
        ({"type": "error"}, ErrorMessage()),
        ({"type": "error", "message": "no", "code": "E1"}, ErrorMessage(message="no", code="E1")),
        (
            {"type": "error", "message": "no", "code": 7, "channel": "arb"},
            ErrorMessage(message="no", code=7, channel="arb"),
        ),
        (
            {"type": "subscribed", "channel": "orderbook", "outcomeIds": ["a", "b"]},
            Subscribed(channel="orderbook", outcome_ids=("a", "b")),
        ),
    ],
)
def test_control_messages(payload: dict[str, Any], expected: Event) -> None:
    assert decode(json.dumps(payload), RECEIVED) == expected


def test_a_whole_number_code_is_an_integer_however_it_is_spelled() -> None:
    event = decode('{"type": "error", "message": "no", "code": 4001.0}', RECEIVED)
    assert isinstance(event, ErrorMessage)
    assert event.code == 4001


@pytest.mark.parametrize(
    "text",
    [
        '{"type": "error", "message": null}',
        '{"type": "heartbeat", "ts": null}',
        '{"type": "subscribed", "channel": "orderbook", "outcomeIds": null}',
    ],
)
def test_a_control_message_with_null_is_as_one_without_the_field(text: str) -> None:
    payload = {key: value for key, value in json.loads(text).items() if value is not None}
    assert decode(text, RECEIVED) == decode(json.dumps(payload), RECEIVED)


@pytest.mark.parametrize(
    ("text", "raw"),
    [
        ('{"type": "heartbeat"}', {"type": "heartbeat"}),
        ('{"ts": 0, "type": "heartbeat"}', {"type": "heartbeat", "ts": 0}),
        ('{"type": "heartbeat", "ts": 5.0}', {"type": "heartbeat", "ts": Decimal("5.0")}),
        ('{"type": "heartbeat", "ts": 5, "load": 1.5}', {"type": "heartbeat", "ts": 5, "load": Decimal("1.5")}),
        ('{"type": "heartbeat", "TS": 5}', {"type": "heartbeat", "TS": 5}),
    ],
)
def test_a_heartbeat_keeps_what_came(text: str, raw: dict[str, Any]) -> None:
    event = decode(text, RECEIVED)
    assert isinstance(event, Heartbeat)
    assert (event.raw, event.received_ns) == (raw, RECEIVED)
    assert event.ts == raw.get("ts", 0)


@pytest.mark.parametrize("ts", ["true", '"5"', "5.5", "[]", str(2**63)])
def test_the_time_of_a_heartbeat_is_an_integer(ts: str) -> None:
    assert "$.ts" in str(refused(f'{{"type": "heartbeat", "ts": {ts}}}'))


def test_of_a_duplicate_key_the_last_one_counts() -> None:
    event = decode('{"type": "heartbeat", "ts": 1, "ts": 2}', RECEIVED)
    assert event == Heartbeat(ts=2)


# --- half of a surrogate pair ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("escaped", "value"),
    [
        ("no \\ud83d", "no \ufffd"),
        ("\\udc00 no", "\ufffd no"),
        ("\\udc00\\ud83d", "\ufffd\ufffd"),
        ("yes \\ud83d\\ude00", "yes \U0001f600"),
        ("\u00e9", "\u00e9"),
    ],
)
def test_half_of_a_surrogate_pair_becomes_the_replacement_character(escaped: str, value: str) -> None:
    event = decode(with_literal(ORDER_EVENT, "errorReason", f'"{escaped}"'), RECEIVED)
    assert isinstance(event, OrderEvent)
    assert event.error_reason == value
    event.error_reason.encode()


def test_half_of_a_surrogate_pair_in_an_unknown_types_name_is_replaced_too() -> None:
    event = decode('{"type": "new \\ud83d"}', RECEIVED)
    assert event.type == "new \ufffd"


# --- what is refused ------------------------------------------------------------------------------------


WRONG_FOR_INT = ['"5"', "5.9", "true", "false", "[]", "{}", '""', "0.5", "1e-1"]
WRONG_FOR_NUMBER = ['"0.55"', "true", "[]", "{}", '"NaN"']
WRONG_FOR_TEXT = ["5", "5.5", "true", "[]", "{}", '["a"]']


@pytest.mark.parametrize(
    ("template", "field", "literal"),
    [
        *(("balance_update", "tradingBalanceCents", literal) for literal in [*WRONG_FOR_INT, "null"]),
        *(("balance_update", "timestamp", literal) for literal in [*WRONG_FOR_INT, "null"]),
        *(("order_event", "attempt", literal) for literal in WRONG_FOR_INT),
        *(("order_submitted", "price", literal) for literal in [*WRONG_FOR_NUMBER, "null"]),
        *(("order_submitted", "size", literal) for literal in [*WRONG_FOR_NUMBER, "null"]),
        *(("order_submitted", "orderId", literal) for literal in [*WRONG_FOR_TEXT, "null"]),
        *(("order_submitted", "side", literal) for literal in [*WRONG_FOR_TEXT, "null"]),
        *(("order_event", "event", literal) for literal in [*WRONG_FOR_TEXT, "null"]),
        *(("order_event", "errorReason", literal) for literal in WRONG_FOR_TEXT),
        *(("order_event", "filledAmountRaw", literal) for literal in ["true", "[]", "{}"]),
    ],
)
def test_a_wrong_type_names_its_path_and_is_never_converted(template: str, field: str, literal: str) -> None:
    error = refused(with_literal(TEMPLATES[template], field, literal))
    assert error.path == f"$.{field}"
    assert str(error).startswith(f"$.{field}: ")


@pytest.mark.parametrize("literal", ['"abc"', "5", "{}", '["a", 1]', "[null]"])
def test_a_list_of_texts_is_a_list_and_holds_texts(literal: str) -> None:
    text = with_literal({"type": "subscribed"}, "outcomeIds", literal)
    assert refused(text).path == "$.outcomeIds"


@pytest.mark.parametrize(
    ("template", "field"),
    [(name, field) for name, payload in TEMPLATES.items() for field in payload if field != "type"],
)
def test_a_missing_field_is_named(template: str, field: str) -> None:
    payload = {key: value for key, value in TEMPLATES[template].items() if key != field}
    error = refused(json.dumps(payload))
    assert str(error) == f"$.{field}: missing"


@pytest.mark.parametrize("literal", ["9" * 20, str(2**63), "1e19", "1e64", "-" + "9" * 30])
def test_an_integer_over_64_bits_is_refused(literal: str) -> None:
    assert refused(with_literal(BALANCE_UPDATE, "timestamp", literal)).path == "$.timestamp"


@pytest.mark.parametrize("literal", ["1e65", "1e2000000", "1e-2000000", "1e999999999", "9" * 80, "0." + "9" * 80])
@pytest.mark.parametrize("field", ["price", "aKeyThatNobodyKnows"])
def test_a_number_that_is_costly_to_compute_with_is_refused_wherever_it_stands(field: str, literal: str) -> None:
    assert "limits.number_" in str(refused(with_literal(ORDER_SUBMITTED, field, literal)))


def test_a_number_within_the_limits_is_exact() -> None:
    literal = "-0." + "1234567890" * 6 + "1e-63"
    event = decode(with_literal(ORDER_SUBMITTED, "price", literal), RECEIVED)
    assert isinstance(event, OrderSubmitted)
    assert event.price == Decimal(literal)


@pytest.mark.parametrize(
    ("text", "depth"),
    [
        ('{"type": "new", "deep": ' + "[" * 63 + "]" * 63 + "}", 64),
        ('{"type": "new", "deep": ' + '{"a": ' * 63 + "1" + "}" * 63 + "}", 64),
        ('{"type": "new", "text": "' + "[" * 500 + '\\"' + "{" * 500 + '"}', 1),
        ('{"type": "new", "many": [' + ", ".join(["[{}]"] * 500) + "]}", 4),
    ],
    ids=["arrays", "objects", "a text", "many"],
)
def test_depth_is_counted_exactly(text: str, depth: int) -> None:
    assert Codec(aggstream.Limits(json_depth=depth)).decode(text, RECEIVED).type == "new"
    if depth > 1:
        with pytest.raises(DecodeError, match=rf"limits.json_depth \({depth - 1}\)"):
            Codec(aggstream.Limits(json_depth=depth - 1)).decode(text, RECEIVED)


@pytest.mark.parametrize("item", ["[]", "{}", "1.5", '{"a": 1.5}', '"ab"', '"\\u00e9\N{FIRE}"', "[[[[{}]]]]"])
def test_the_memory_that_a_message_takes_is_known_before_it_is_taken(item: str) -> None:
    text = f'{{"type": "new", "many": [{", ".join([item] * 20_000)}]}}'
    tracemalloc.start()
    try:
        event = CODECS[0].decode(text, RECEIVED)
        taken = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert event.type == "new"
    assert 0.5 < memory_of(text) / (taken + len(text)) < 10.0


@pytest.mark.parametrize("end", ["", "\\", '"', '"]'], ids=["none", "a backslash", "a quote", "all of it"])
def test_looking_for_the_depth_passes_over_each_character_once(end: str) -> None:
    # In a string without an end each escaped quote could begin another one, which has none either.
    text = "[]" * 65 + '["' + '\\"' * 300_000 + end
    looked_at = sum(len(match[0]) for match in _NESTING.finditer(text))
    assert looked_at >= len(text) - 1
    with pytest.raises(DecodeError):
        decode(text, RECEIVED)


@pytest.mark.parametrize("text", ["[" * 99_999, '{"a":' * 100_000, '"' * 99_999, "[]" * 100_000, '["\\' * 50_000])
def test_what_is_nested_without_an_end_is_refused(text: str) -> None:
    refused(text)


@pytest.mark.parametrize("number", ["12345", "-12345", "1.2345", "-0.12345", "0.0012345"])
def test_a_number_of_as_many_digits_as_the_limit_is_taken_and_of_one_more_is_not(number: str) -> None:
    codec = Parser(aggstream.Limits(number_digits=5, number_exponent=10**6))
    codec.parse(f"[{number}, {number}e3, {number}E-45]")
    for longer in (f"[{number}0]", f"[{number}000]", f"[{number}{'0' * 1000}]"):
        with pytest.raises(DecodeError, match=r"number_digits \(5\)"):
            codec.parse(longer)


def test_the_interpreters_own_limits_are_decode_errors_as_well() -> None:
    for literal in ["[" * 100_000 + "]" * 100_000, "9" * 100_000, "1e999999999999999999999"]:
        for boundless in codecs(json_depth=10**9, number_digits=10**9, number_exponent=10**20):
            with pytest.raises(DecodeError):
                boundless.decode(with_literal(ORDER_SUBMITTED, "more", literal), RECEIVED)


@pytest.mark.parametrize(
    "literal", ["1e99999999999999999999", "-1.5E+99999999999999999999", "1e-99999999999999999999"]
)
@pytest.mark.parametrize("key", ["price", "aKeyThatNobodyKnows"])
def test_an_exponent_that_decimal_itself_refuses_is_a_decode_error(key: str, literal: str) -> None:
    refused(with_literal(ORDER_SUBMITTED, key, literal))


@pytest.mark.parametrize("code", ["9" * 60, str(2**63)])
def test_an_error_code_over_64_bits_is_refused(code: str) -> None:
    assert refused(f'{{"type": "error", "code": {code}}}').path == "$.code"


@pytest.mark.parametrize("constant", ["NaN", "Infinity", "-Infinity"])
@pytest.mark.parametrize("key", ["price", "aKeyThatNobodyKnows"])
def test_nan_and_infinity_are_not_json(key: str, constant: str) -> None:
    assert refused(with_literal(ORDER_SUBMITTED, key, constant)).path == "$"


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "nope",
        "{",
        '{"type": "heartbeat"',
        '{"type": "heartbeat"} {}',
        "{'type': 'heartbeat'}",
        '\ufeff{"type": "heartbeat"}',
        '{"type": "heart\nbeat"}',
        "[" * 200_000,
        '{"type": "x", "a": ' + "[" * 200_000,
        '{"a":' * 200_000,
        '{"type": "x", "a": ' + "9" * 5000 + "}",
        '{"type": "x", "a": -' + "9" * 5000 + "}",
    ],
    ids=lambda text: ascii(text[:20]),
)
def test_what_is_no_usable_json_is_refused_as_a_whole(text: str) -> None:
    assert refused(text).path == "$"


@pytest.mark.parametrize("text", ["null", "true", "5", "5.5", '"heartbeat"', "[]", '[{"type": "heartbeat"}]'])
def test_a_message_must_be_an_object(text: str) -> None:
    assert str(refused(text)).startswith("$: expected an object, got ")


@pytest.mark.parametrize(
    "text", ["{}", '{"type": null}', '{"type": 5}', '{"type": ["heartbeat"]}', '{"type": true}']
)
def test_a_message_must_have_a_type_that_is_a_text(text: str) -> None:
    assert refused(text).path == "$.type"


@pytest.mark.parametrize(
    ("template", "field", "literal"),
    [
        ("balance_update", "tradingBalanceCents", '"SECRET-VALUE"'),
        ("order_submitted", "price", '"SECRET-VALUE"'),
        ("order_event", "event", '["SECRET-VALUE"]'),
        ("order_event", "attempt", '{"SECRET-VALUE": "SECRET-VALUE"}'),
        ("order_event", "filledAmountRaw", '["SECRET-VALUE"]'),
        ("order_event", "event", "SECRET-VALUE"),
    ],
)
def test_an_errors_text_never_holds_the_value(template: str, field: str, literal: str) -> None:
    error = refused(with_literal(TEMPLATES[template], field, literal))
    assert "SECRET" not in str(error)
    assert "SECRET" not in repr(error)
    assert error.__cause__ is None
    assert error.__suppress_context__


# --- whatever comes -------------------------------------------------------------------------------------


unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.text("a\ud83d\ude00"),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
known_keys = st.sampled_from(sorted({key for payload in TEMPLATES.values() for key in payload} | set(OPTIONAL)))
types = st.sampled_from([*TEMPLATES, "connected", "authenticated", "error", "heartbeat", "subscribed", "gap"])


@unhurried
@given(types, st.dictionaries(known_keys | st.sampled_from(["code", "message", "ts", "outcomeIds"]), json_values))
def test_any_json_in_any_field_gives_an_event_or_a_decode_error(name: str, fields: dict[str, Any]) -> None:
    payload = {**TEMPLATES.get(name, {}), **fields, "type": name}
    try:
        event = decode(json.dumps(payload), RECEIVED)
    except DecodeError as caught:
        error = caught
    else:
        assert event.type == name
        assert repr(event)
        return
    assert error.path.startswith("$")


@unhurried
@given(st.text() | st.text('{}[]":,.-+eE0123456789 \\unltrfas'))
def test_any_text_gives_an_event_or_a_decode_error(text: str) -> None:
    with contextlib.suppress(DecodeError):
        assert isinstance(decode(text, RECEIVED), Event)


@unhurried
@given(st.from_regex(r"-?(0|[1-9][0-9]{0,40})(\.[0-9]{1,30})?([eE][+-]?[0-9]{1,30})?", fullmatch=True))
def test_any_json_number_is_exact_or_a_decode_error(literal: str) -> None:
    try:
        event = decode(with_literal(ORDER_SUBMITTED, "size", literal), RECEIVED)
    except DecodeError:
        return
    assert isinstance(event, OrderSubmitted)
    assert event.size == Decimal(literal)


# --- to_json --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Decimal("0.550"), "0.550"),
        (Decimal("1E+3"), "1E+3"),
        (12345678901234567890123, "12345678901234567890123"),
        ({"a": [Decimal("0.1"), None, True, "x\ny"]}, '{"a": [0.1, null, true, "x\\ny"]}'),
        ({}, "{}"),
        ((), "[]"),
        ({1: "a"}, '{"1": "a"}'),
        ('"\u00e9\ud800', '"\\"\\u00e9\\ud800"'),
    ],
)
def test_to_json_writes_values_exactly_on_one_line(value: Any, text: str) -> None:
    assert to_json(value) == text


@pytest.mark.parametrize("value", [{1, 2}, b"bytes", {"a": object()}, [1j]])
def test_to_json_refuses_what_has_no_json_form(value: Any) -> None:
    with pytest.raises(TypeError):
        to_json(value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), Decimal("NaN"), {"a": [Decimal("-Infinity")]}])
def test_to_json_refuses_numbers_that_json_does_not_have(value: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        to_json(value)


@unhurried
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text() | st.decimals(allow_nan=False, allow_infinity=False),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
        max_leaves=12,
    )
)
def test_what_to_json_writes_is_read_back_unchanged(value: Any) -> None:
    assert Parser(aggstream.Limits()).parse(to_json(value)) == value


@pytest.mark.parametrize(
    ("field", "name"),
    [
        ("order_id", "orderId"),
        ("venue", "venue"),
        ("trading_balance_cents", "tradingBalanceCents"),
        ("filled_amount_text", "filledAmountRaw"),
        ("remaining_amount_text", "remainingAmountRaw"),
    ],
)
def test_wire_names(field: str, name: str) -> None:
    assert wire_name(field) == name


# --- the quick way and the strict one --------------------------------------------------------------------

_NUMBERS = ["0", "-0", "1", "5.0", "0.55", "1E2", "1e400", "-1e-400", "0e99", "9" * 18, "9" * 19, "9" * 80]
_NUMBERS += ["0.10", "1." + "0" * 70, "0." + "0" * 60 + "1", "00", "1.", "NaN", "-Infinity", "0x1"]
_VALUES = st.one_of(
    st.sampled_from([*_NUMBERS, "null", "true", "{}", "[]", '{"a": [1, {"b": 2.50}]}', "[" * 70 + "]" * 70]),
    st.text(st.characters(), max_size=8).map(json.dumps),
    st.text(st.characters(), max_size=8).map(lambda text: json.dumps(text, ensure_ascii=False)),
    st.sampled_from(['"\\ud800"', '"\\u0041"', '"a\tb"', '"a\nb"', '"kalshi"', '"buy"', '""', '"', "'a'"]),
)
_FULL = {**ORDER_EVENT, "userId": "usr_1", "filledAmountRaw": "1", "attempt": 0, "errorReason": None}
_MESSAGES = [ORDER_SUBMITTED, BALANCE_UPDATE, ORDER_EVENT, _FULL]
_compact = json.JSONEncoder(separators=(",", ":")).encode
_KEYS = sorted({key for message in _MESSAGES for key in message})


@st.composite
def nearly_in_order(draw: st.DrawFn) -> str:
    """A user event's text, some of whose values are others, missing, doubled, or new."""
    fields = draw(st.sampled_from(_MESSAGES)).items()
    parts = {key: json.dumps(value) for key, value in fields if draw(st.integers(0, 9))}
    parts |= draw(st.dictionaries(st.sampled_from([*_KEYS, "new", "raw", "text", "source"]), _VALUES, max_size=3))
    # Of a key that is there twice, the last one counts.
    doubled = draw(st.dictionaries(st.sampled_from(_KEYS), st.just("0"), max_size=1))
    space, end = draw(st.sampled_from(["", " "])), draw(st.sampled_from(["", "", "", " ", "\n", "x", "{}"]))
    items = [f'"{key}":{space}{value}' for key, value in (*doubled.items(), *parts.items())]
    return "{" + f",{space}".join(items) + "}" + end


@given(nearly_in_order())
@settings(max_examples=2000, deadline=None)
def test_the_quick_ways_say_nothing_but_what_the_strict_one_says(text: str) -> None:
    event = outcome(decode, text)
    if isinstance(event, Event):
        for codec in CODECS:
            with pytest.raises(attrs.exceptions.FrozenInstanceError):
                codec.decode(text, RECEIVED).received_ns = 0  # type: ignore[misc]


# Messages that are values only together, or several.
_PIECES = ['{"a":[{}', "{}]}", "{},{}", "[1", "2]", "1,2", '"', '","', "", " ", ",", "[", "]", "null", '"\\"', "é"]


@given(
    st.lists(st.one_of(st.sampled_from([*_PIECES, *map(json.dumps, _MESSAGES)]), nearly_in_order()), max_size=6)
)
@example(['{"a":[{}', "{}]}", ",".join([json.dumps(BALANCE_UPDATE)] * 3)])
@settings(max_examples=2000, deadline=None)
def test_messages_that_come_together_are_what_each_is_alone(texts: list[str]) -> None:
    alone = [outcome(CODECS[0]._decode_strictly, text) for text in texts]
    for codec in CODECS:
        for together, one in zip(codec.decode_all(texts, RECEIVED), alone, strict=True):
            assert_same(together, one)


@pytest.mark.parametrize("message", _MESSAGES)
@pytest.mark.parametrize("new", ["", ', "new": 1', ', "new": "a"', ', "new": 0.10', ', "new": null'])
def test_what_is_in_order_goes_a_quick_way(
    message: dict[str, Any], new: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def another(*arguments: object) -> None:
        raise AssertionError("another way was taken")

    line = f"{_compact(message).removesuffix('}')}{new}}}"
    expected = decode(line, RECEIVED)
    monkeypatch.setattr(Codec, "_decode_strictly", another)
    if not new:  # a field that nobody knows is for the scanner
        monkeypatch.setattr(CODECS[0].quick, "_otherwise", None)
    for codec in CODECS:
        assert_same(codec.decode(line, RECEIVED), expected)
        assert codec.decode_all([line, line], RECEIVED) == [expected, expected]


def test_raw_of_a_user_event_is_made_once_and_survives_copies() -> None:
    event = CODECS[0].decode(json.dumps(ORDER_SUBMITTED), RECEIVED)
    again = pickle.loads(pickle.dumps(event))  # noqa: S301  (our own)
    assert event.raw is event.raw
    assert again.raw == attrs.evolve(event).raw == copy.copy(event).raw == event.raw
    assert attrs.evolve(event, raw={}).raw == {}


_DEEP = """
import sys, threading
import aggstream
from aggstream._protocol.codec import Codec
codec = Codec(aggstream.Limits())
def decode():
    for text in (
        "[" * 4000 + "1",
        '{"a":' * 800,
        '{"type":"order_event","a":' * 150,
        '{"type":"order_submitted","price":' * 110,
        '{"type":"order_submitted","price":' + "[" * 4000,
    ):
        assert not any(isinstance(event, aggstream.Event) for event in codec.decode_all([text] * 16, 1))
        assert not any(isinstance(event, aggstream.Event) for event in codec.decode_all([text], 1))
sys.setrecursionlimit(20_000)
threading.stack_size(1 << 18)
thread = threading.Thread(target=decode)
thread.start()
thread.join()
print("alive")
"""


@pytest.mark.parametrize("installed", ["", 'import sys; sys.modules["msgspec"] = None'])
def test_what_nests_deep_does_not_reach_the_end_of_a_small_stack(installed: str) -> None:
    run = subprocess.run([sys.executable, "-c", installed + _DEEP], check=True, capture_output=True, text=True)
    assert run.stdout == "alive\n", run.stderr
    assert not run.stderr


_OTHER_MSGSPEC = {
    "too old": """
Struct, Meta, defstruct = object, dict, lambda *_, **__: int
class json:
    class Decoder:
        def __init__(self, type): pass
""",
    "broken": "raise OSError('no such shared object')",
    "another package": "",
}


@pytest.mark.parametrize("what", _OTHER_MSGSPEC)
def test_a_msgspec_that_cannot_be_used_is_as_none(what: str, tmp_path: Path) -> None:
    """Who did not ask for `aggstream[fast]` may have it for something else, in whatever version."""
    (tmp_path / "msgspec.py").write_text(_OTHER_MSGSPEC[what])
    program = f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
import aggstream
from aggstream._protocol.codec import Codec
print(Codec(aggstream.Limits()).decode({json.dumps(BALANCE_UPDATE)!r}, 1).type)
"""
    run = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True)
    assert run.stdout == "balance_update\n", run.stderr


@pytest.mark.parametrize("digits", [1, 5, 18, 19, 30])
def test_a_limit_of_digits_holds_however_a_message_is_spelt(digits: int) -> None:
    for number in ("1" * digits, "1" * (digits + 1)):
        message = {**BALANCE_UPDATE, "timestamp": 1, "walletBalanceCents": 1}
        text = with_literal(message, "tradingBalanceCents", number)
        for codec in codecs(number_digits=digits):
            spelt = [outcome(codec.decode, one) for one in (text, text.replace("kalshi", "kalsh\\u0069"))]
            assert [type(one) for one in spelt] == [type(spelt[0])] * 2
            assert isinstance(spelt[0], DecodeError) is (len(number) > digits or int(number) >= 2**63)
