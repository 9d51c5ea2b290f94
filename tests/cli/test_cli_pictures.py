"""What the command shows of events: lines, and the demo's board. No process, no socket."""

from __future__ import annotations

import io
import json
import time
from decimal import Decimal

import attrs
import pytest
from rich.console import Console

from aggstream import Balances, CashBalance, Limits, VenueBalance
from aggstream._protocol.codec import Codec
from aggstream.cli._dashboard import Dashboard, Summary
from aggstream.cli._event_format import as_json, as_line
from aggstream.cli._render import picture, summary_table
from aggstream.errors import ConnectionLost, DecodeError, JournalFull, RestError
from aggstream.events import (
    Authenticated,
    BalancesCoalesced,
    DecodeFailed,
    Disconnected,
    Event,
    Gap,
    JournalFailed,
    OrderEvent,
    ReadingPaused,
    ReadingResumed,
    Reconciled,
    Reconnecting,
    Resumed,
    Stopped,
    TokenRefreshed,
)
from aggstream.rest._snapshot import make_snapshot

LOST = ConnectionLost("the server closed the connection", code=1001, initiated_by="server")
SECOND = 1_000_000_000


def received(kind: str, **fields: object) -> Event:
    return Codec(Limits()).decode(json.dumps({"type": kind, "timestamp": 1, **fields}), received_ns=time.time_ns())


def submitted(order_id: str = "ord_1") -> Event:
    return received(
        "order_submitted", orderId=order_id, venue="kalshi", side="buy", price=0.5, size=8, outcomeId="v"
    )


def order_event(event: str, order_id: str = "ord_1", **fields: object) -> OrderEvent:
    made = received("order_event", event=event, orderId=order_id, venue="kalshi", **fields)
    assert isinstance(made, OrderEvent)
    return made


def board_of(*events: Event) -> Dashboard:
    board = Dashboard()
    for event in events:
        board.apply(event)
    return board


def drawn(board: Dashboard, *, columns: int = 80, lines: int = 24, now_ns: int = 0) -> list[str]:
    out = io.StringIO()
    console = Console(file=out, width=columns, height=lines)
    console.print(picture(board, title="demo", elapsed=1.0, size=(columns, lines), now_ns=now_ns))
    return out.getvalue().splitlines()


@pytest.mark.parametrize(
    ("event", "words"),
    [
        (submitted(), "order_submitted   ord_1  kalshi  buy 8 at 0.5"),
        (
            order_event("step_retrying", stepType="approve", attempt=2, errorReason="late"),
            "step_retrying     ord_1  kalshi  approve  attempt 2  late",
        ),
        (
            order_event("filled", filledAmountRaw="8000000", remainingAmountRaw="0"),
            "filled            ord_1  kalshi  filled 8000000  remaining 0",
        ),
        (
            received("balance_update", venue="kalshi", tradingBalanceCents=94500, walletBalanceCents=100000),
            "balance_update    kalshi  trading $945.00  wallet $1,000.00",
        ),
        (received("connected", appId="app"), "connected         to the app app"),
        (received("authenticated", userId="usr"), "authenticated     as usr"),
        (received("error", message="no", code=7), "error             no (7)"),
        (received("brand_new", x=1), 'brand_new         {"type": "brand_new", "timestamp": 1, "x": 1}'),
        (Disconnected(error=LOST), "disconnected      the server closed the connection"),
        (Reconnecting(attempt=2, delay=1.25, error=LOST), "attempt 2 in 1.2 s: the server closed"),
        (Gap(number=1, started_ns=0, ended_ns=2 * SECOND), "gap               2.0 s: events of this time"),
        (Resumed(attempts=1, downtime=2.0), "resumed           live again after 2.0 s"),
        (TokenRefreshed(user_id="usr", expires_at=None), "token_refreshed   the service accepted a new token"),
        (ReadingPaused(waiting=10_000), "reading_paused    the handlers are behind by 10,000 events"),
        (ReadingResumed(paused_for=2.0), "reading_resumed   the handlers have caught up after 2.0 s"),
        (BalancesCoalesced(venue="kalshi", count=3), "kalshi  3 older balances were not shown"),
        (DecodeFailed(text="{", error=DecodeError("not JSON")), "decode_failed     $: not JSON in '{'"),
        (Stopped(), "stopped"),
        (
            Reconciled(resolved=True, orders=1, took=0.25),
            "reconciled        nothing is missing: 1 order read from REST in 0.2 s",
        ),
        (Reconciled(resolved=False, gaps=(1,)), "something may be missing: there is no REST API to ask"),
        (Reconciled(resolved=False, error=RestError("HTTP 503")), "something may be missing: HTTP 503"),
        (
            JournalFailed(error=JournalFull("no room", path="x")),
            "journal_failed    events are no longer stored: no room",
        ),
        (
            make_snapshot(
                Balances(
                    cash=(CashBalance(token_symbol="USDC", total_text="1234500000", decimals=6),),
                    positions=(VenueBalance(venue="kalshi", balance_text="7"),),
                ),
                SECOND,
            ),
            "balance_snapshot  USDC 1,234.500000  kalshi 7  [from REST]",
        ),
        (
            attrs.evolve(order_event("filled"), source="reconcile", redelivered=True),
            "filled            ord_1  kalshi  [from REST, delivered again]",
        ),
    ],
)
def test_each_event_has_a_line(event: Event, words: str) -> None:
    assert words in str(as_line(event))
    assert json.loads(as_json(event))["type"] == event.type


def test_a_long_line_goes_on_below_its_text_without_breaking_a_word() -> None:
    event = attrs.evolve(order_event("failed", "ord_" + "x" * 44, errorReason="so it is " * 8), redelivered=True)
    lines = ["".join(text for text, _ in segments) for segments in as_line(event).wrapped(80)]
    assert len(lines) > 2
    assert max(map(len, lines)) <= 80
    assert all(line.startswith(" " * 32) for line in lines[1:])
    assert " ".join(" ".join(lines).split()) == " ".join(str(as_line(event)).split())
    assert list(as_line(event).wrapped(80))[-1][-1] == ("[delivered again]", "yellow")


def test_a_message_is_written_as_received_unless_it_may_come_again() -> None:
    event = order_event("filled")
    assert json.loads(as_json(event)) == event.raw
    marked = {"source": "stream", "redelivered": False}
    assert marked.items() <= json.loads(as_json(event, journalled=True)).items()


def test_what_a_terminal_would_obey_is_taken_out_of_a_line() -> None:
    event = order_event("failed\x1b[2J", errorReason="a\nb\x1b]0;c\x07")
    assert str(as_line(event)).isprintable()


def test_an_order_moves_through_its_steps() -> None:
    board = board_of(
        submitted(),
        order_event("dag_started"),
        order_event("step_started", stepType="place_order", attempt=1),
        order_event("partially_filled", filledAmountRaw="2000000", remainingAmountRaw="6000000"),
    )
    row = board.orders["ord_1"]
    assert (row.status, row.step, row.attempt, row.filled) == ("partial", "place_order", 1, Decimal(2))
    assert row.share_filled == 0.25
    board.apply(order_event("order_filled", filledAmountRaw="8000000", remainingAmountRaw="0"))
    board.apply(order_event("dag_completed"))
    assert (row.status, row.is_over, row.share_filled) == ("filled", True, 1.0)
    assert board.outcomes == {"filled": 1}


def test_an_order_whose_beginning_was_missed_is_shown_with_what_is_known() -> None:
    board = board_of(order_event("partially_filled", filledAmountRaw="2000000", remainingAmountRaw="6000000"))
    assert board.orders["ord_1"].size == Decimal(8)
    assert any("ord_1" in line and "2/8" in line for line in drawn(board))


def test_what_was_open_in_a_gap_is_not_known_until_its_next_event() -> None:
    gap = Gap(number=1, started_ns=0, ended_ns=SECOND)
    board = board_of(submitted(), submitted("ord_2"), order_event("filled", "ord_2"), gap)
    assert [row.is_certain for row in board.orders.values()] == [False, True]
    [line] = (line for line in drawn(board) if "ord_1" in line)
    assert "not known" in line
    assert "submitted" not in line
    board.apply(order_event("step_started"))
    assert board.orders["ord_1"].is_certain
    assert not any("not known" in line for line in drawn(board))


def test_a_balance_shows_its_last_change() -> None:
    board = board_of(
        *(
            received("balance_update", venue="kalshi", tradingBalanceCents=cents, walletBalanceCents=0)
            for cents in (100_000, 94_550)
        )
    )
    assert any("945.50" in line and "-54.50" in line for line in drawn(board))


def test_balances_that_do_not_fit_are_counted() -> None:
    balances = [
        received("balance_update", venue=f"venue{n}", tradingBalanceCents=-123_456_789, walletBalanceCents=0)
        for n in range(8)
    ]
    assert any(" +3 more " in line for line in drawn(board_of(*balances)))
    assert not any("more" in line for line in drawn(board_of(*balances), columns=120, lines=40))


def test_a_reason_of_failure_stands_in_a_column_that_says_so() -> None:
    board = board_of(order_event("failed", errorReason="price_moved"))
    titles, row = (next(line for line in drawn(board) if text in line) for text in ("venue ", "price_moved"))
    assert titles.index("step or reason") == row.index("price_moved")


@pytest.mark.parametrize(
    ("columns", "shown"), [(80, "ord_01234… "), (85, "ord_0123456789… "), (90, "ord_0123456789abcdef ")]
)
def test_an_orders_id_takes_the_room_that_there_is(columns: int, shown: str) -> None:
    assert any(shown in line for line in drawn(board_of(submitted("ord_0123456789abcdef")), columns=columns))


def test_the_header_tells_the_connection() -> None:
    board = board_of(Authenticated(user_id="usr"))
    assert "live" in drawn(board)[0]
    board.apply(Disconnected(error=LOST, code=1001, initiated_by="server"))
    assert "connection lost" in drawn(board)[0]
    board.apply(Reconnecting(attempt=1, delay=2.0, error=LOST, received_ns=SECOND))
    assert "reconnecting in 1.5 s" in drawn(board, now_ns=SECOND + SECOND // 2)[0]
    board.apply(Stopped())
    assert "stopped" in drawn(board)[0]


@pytest.mark.parametrize(("columns", "lines"), [(80, 24), (100, 30), (132, 43), (200, 60)])
def test_the_picture_fits_the_terminal(columns: int, lines: int) -> None:
    orders = [submitted(f"ord_{number:016x}") for number in range(300)]
    gaps = [Gap(number=n, started_ns=0, ended_ns=SECOND) for n in range(30)]
    balances = [
        received("balance_update", venue=f"hyperliquid{n}", tradingBalanceCents=-123_456_789, walletBalanceCents=0)
        for n in range(20)
    ]
    for board in (board_of(), board_of(*orders, *gaps, *balances)):
        shown = drawn(board, columns=columns, lines=lines)
        assert len(shown) < lines
        assert max(map(len, shown)) <= columns


def test_a_long_run_keeps_the_newest_orders_only() -> None:
    board = board_of(*(submitted(f"ord_{number}") for number in range(1000)))
    assert board.seen_orders == 1000
    assert len(board.orders) < 1000
    assert list(board.orders)[-1] == "ord_999"


@pytest.mark.parametrize(
    ("received", "shown"), [(9, "10 happened = 9 received + 1 missed"), (8, "10 happened ≠ 8 received + 1 missed")]
)
def test_the_summary_tells_whether_it_adds_up(received: int, shown: str) -> None:
    summary = Summary(sent=10, received=received, missed=1, gaps=1, reconnects=1, refreshes=1, decode_failures=1)
    out = io.StringIO()
    Console(file=out, width=80).print(summary_table(board_of(order_event("filled")), summary))
    assert shown in out.getvalue()
    assert "1 filled" in out.getvalue()


def test_the_summary_tells_what_is_not_known_and_why() -> None:
    gap = Gap(number=1, started_ns=0, ended_ns=SECOND)
    board = board_of(
        submitted("ord_1"), submitted("ord_2"), gap, submitted("ord_3"), order_event("filled", "ord_2")
    )
    summary = Summary(sent=4, received=4, missed=0, gaps=1, reconnects=1, refreshes=1, decode_failures=0)
    out = io.StringIO()
    Console(file=out, width=80).print(summary_table(board, summary))
    assert "3: 1 filled, 1 still running, 1 not known: ended in a gap" in out.getvalue()


@pytest.mark.parametrize("columns", [80, 120])
def test_a_line_breaks_between_words_only_and_goes_on_below_its_text(columns: int) -> None:
    words = [f"word{number}-and-more" for number in range(20)]
    line = as_line(order_event("failed", errorReason=" ".join(words)))
    first, *others = ("".join(text for text, _ in segments) for segments in line.wrapped(columns))
    assert others
    assert all(len(row) <= columns for row in (first, *others))
    assert " ".join(" ".join((first, *others)).split()).endswith(" ".join(words))
    indent = first.index("ord_1")
    assert all(row[:indent].isspace() and not row[indent].isspace() for row in others)
