"""`aggstream wait` and `aggstream orders`, as a shell sees them, against the simulator."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator

import pytest
from journals import happened
from shells import DEADLINE, Shell, one_line, settings_of, without_colour
from waiting import Until

from aggstream.cli._table import Column, table_lines
from aggstream.cli.wait import exit_code_of
from aggstream.events import OrderEvent, Verdict
from aggstream.orders import Outcome
from aggstream.orders._state import OrderState
from aggstream.simulator import SignedIn, Simulator

ID = "ord_0123456789abcdef"


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    with Simulator(heartbeat_interval=0.05) as simulator:
        yield simulator


@pytest.fixture(autouse=True)
def signed_in(simulator: Simulator, shell: Shell) -> SignedIn:
    """A user whose settings are in the shell's environment."""
    signed_in = simulator.sign_in()
    shell.environment |= settings_of(simulator, signed_in)
    return signed_in


# --- wait -----------------------------------------------------------------------------------------------------


def test_an_order_that_was_filled_before_ends_with_0(shell: Shell, simulator: Simulator) -> None:
    order_id = simulator.place_order(scenario="filled", size=5)
    code, [line], errors = shell.run("wait", order_id)
    assert (code, errors) == (0, "")
    outcome = json.loads(line)
    expected = {
        "order_id": order_id,
        "status": "filled",
        "verdict": "filled",
        "source": "reconcile",
        "filled_amount_raw": 5_000_000,
        "remaining_amount_raw": None,  # REST does not tell, and nothing says that its two amounts have one unit
        "error_reason": None,
        "reason": "",
    }
    assert {name: outcome[name] for name in expected} == expected


def test_an_order_is_told_as_soon_as_it_ends(shell: Shell, simulator: Simulator) -> None:
    first, second = (simulator.begin_order(scenario="filled") for _ in range(2))
    command = shell.start("wait", first.order_id, second.order_id, first.order_id)
    assert simulator.wait_for_connections(1, timeout=DEADLINE)
    second.finish()
    outcome = command.event()
    assert (outcome["order_id"], outcome["source"]) == (second.order_id, "stream")
    first.finish()
    assert command.event()["order_id"] == first.order_id
    assert command.end() == (0, [])


@pytest.mark.parametrize("scenario", ["failed", "cancelled", "expired"])
def test_an_order_that_was_not_filled_in_full_ends_with_3(
    shell: Shell, simulator: Simulator, scenario: str
) -> None:
    order_id = simulator.place_order(scenario=scenario)
    code, [line], _ = shell.run("wait", order_id)
    assert code == 3
    assert json.loads(line)["verdict"] in (scenario, "partially_filled")
    assert json.loads(line)["error_reason"] == simulator.orders()[0]["errorMessage"]


@pytest.mark.parametrize(
    ("word", "filled", "remaining"), [("filled", 400, 600), ("FILLED", 0, None), ("cancelled", 1000, 0)]
)
def test_an_end_whose_word_and_amounts_disagree_ends_with_3(
    shell: Shell, simulator: Simulator, word: str, filled: int, remaining: int | None
) -> None:
    command = shell.start("wait", ID, "--timeout", "3")
    assert simulator.wait_for_connections(1, timeout=DEADLINE)
    message = {"type": "order_event", "event": word, "orderId": ID, "filledAmountRaw": str(filled)}
    if remaining is not None:
        message["remainingAmountRaw"] = str(remaining)
    simulator.push(json.dumps(message | {"timestamp": 1_710_000_000_000}))
    outcome = command.event()
    assert (outcome["verdict"], outcome["is_terminal"]) == ("unknown", True)
    assert outcome["amounts_doubt"] == "disagree"
    assert outcome["contradictions"][0]["field"] == "amounts"
    assert command.process.wait(DEADLINE) == 3


def test_orders_are_chosen_by_any_spelling_of_a_status(shell: Shell, simulator: Simulator) -> None:
    order_id = simulator.place_order(scenario="filled")
    for spelling in ("FILLED", "order_filled"):
        code, [line], _ = shell.run("orders", "--no-stream", "--status", spelling)
        assert (code, json.loads(line)["order_id"]) == (0, order_id)


def test_an_end_that_rest_tells_with_amounts_that_disagree_ends_with_3(shell: Shell, simulator: Simulator) -> None:
    order_id = simulator.place_order(scenario="filled")
    simulator.set_order(order_id, status="FILLED", filled_raw=0)
    code, [line], _ = shell.run("wait", order_id)
    outcome = json.loads(line)
    assert (code, outcome["verdict"], outcome["amounts_doubt"]) == (3, "unknown", "disagree")


@pytest.mark.parametrize(
    ("confirmed", "verdict"), [(None, Verdict.UNKNOWN), (400, Verdict.PARTIALLY_FILLED)], ids=["open", "settled"]
)
def test_an_end_whose_word_and_amounts_disagree_has_one_exit_code_before_and_after_rest_settles_it(
    confirmed: int | None, verdict: Verdict
) -> None:
    state = OrderState(ID)
    state.fold_event(happened(ID, "filled", filled="400", remaining="600"))
    state.confirm_amounts(confirmed)
    order = state.snapshot()
    assert (order.verdict, [c.field for c in order.contradictions]) == (verdict, ["amounts"])
    assert exit_code_of(Outcome(order_id=ID, verdict=order.verdict, order=order)) == 3


@pytest.mark.parametrize(
    "events",
    [
        [happened(ID, "filled", filled="400", remaining="600"), happened(ID, "cancelled")],
        [happened(ID, "failed", filled="four hundred")],
        [happened(ID, "filled", filled="400"), happened(ID, "expired")],
        [happened(ID, "routing", filled="400")],
    ],
    ids=["two ends, one in doubt", "unreadable", "two ends", "no status"],
)
def test_an_end_that_is_unknown_for_another_reason_ends_with_4(events: list[OrderEvent]) -> None:
    state = OrderState(ID)
    for event in events:
        state.fold_event(event)
    order = state.snapshot()
    assert order.verdict is Verdict.UNKNOWN
    assert exit_code_of(Outcome(order_id=ID, verdict=order.verdict, order=order)) == 4


def test_an_order_that_nobody_has_heard_of_ends_with_4_when_the_time_is_up(shell: Shell) -> None:
    code, [line], errors = shell.run("wait", ID, "--timeout", "0.5")
    assert (code, errors) == (4, "")
    outcome = json.loads(line)
    assert (outcome["verdict"], outcome["status"], outcome["reason"]) == (
        "unknown",
        None,
        "nothing was heard of it",
    )


def test_the_worst_of_several_outcomes_is_the_exit_code(shell: Shell, simulator: Simulator) -> None:
    filled, failed = (simulator.place_order(scenario=scenario) for scenario in ("filled", "failed"))
    code, lines, _ = shell.run("wait", filled, failed)
    assert code == 3
    assert {json.loads(line)["verdict"] for line in lines} == {"filled", "failed"}
    code, lines, _ = shell.run("wait", filled, failed, ID, "--timeout", "1")
    assert code == 4
    assert len(lines) == 3


@pytest.mark.parametrize("status", [401, 403, 500])
def test_what_rest_refuses_to_tell_ends_with_1_and_the_reason(
    shell: Shell, simulator: Simulator, status: int
) -> None:
    order_id = simulator.place_order(scenario="filled")
    simulator.refuse_rest(None, status=status)
    code, [line], errors = shell.run("wait", order_id, "--timeout", "1")
    assert code == 1
    assert shell.run("orders", "--timeout", "1")[:2] == (1, [])
    outcome = json.loads(line)
    assert outcome["verdict"] == "unknown"
    assert "REST" in outcome["reason"]
    assert "reconciled: something may be missing" in errors


def test_a_refused_token_ends_with_1_and_no_verdict(
    shell: Shell, simulator: Simulator, signed_in: SignedIn
) -> None:
    shell.environment["AGGSTREAM_TOKEN"] = signed_in.access_token[:-4] + "AAAA"
    code, [line], errors = shell.run("wait", ID)
    assert code == 1
    assert json.loads(line)["verdict"] == "unknown"
    assert "refused" in errors.splitlines()[-1]
    assert signed_in.access_token[:-4] not in errors + line


def test_what_the_stream_tells_while_rest_fails_is_not_known_to_be_all_and_ends_with_4(
    shell: Shell, simulator: Simulator
) -> None:
    simulator.refuse_rest(None, status=403)
    order = simulator.begin_order(scenario="partial")
    command = shell.start("wait", order.order_id, "--timeout", "2")
    assert simulator.wait_for_connections(1, timeout=DEADLINE)
    order.advance(3)
    assert command.event()["verdict"] == "unknown"
    assert command.end() == (4, [])


def test_statuses_can_be_named_and_amounts_compared(shell: Shell, simulator: Simulator) -> None:
    order_id = simulator.place_order(scenario="filled", size=5)
    simulator.set_order(order_id, status="settled")
    code, [line], _ = shell.run("wait", order_id, "--status-name", "settled=filled", "--amounts-in-one-unit")
    outcome = json.loads(line)
    assert (code, outcome["verdict"], outcome["remaining_amount_raw"]) == (0, "filled", 0)
    named = ("--status-name", "Settled=filled", "--status-name", "odd=open")
    for more in ((), ("--no-stream",)):
        code, [line], _ = shell.run("orders", *named, *more)
        assert (code, json.loads(line)["status"]) == (0, "filled")


@pytest.mark.parametrize("text", ["settled", "=filled", "settled=", "settled=fillled", "filled=failed"])
def test_a_status_name_that_cannot_work_is_a_mistake_in_usage(shell: Shell, text: str) -> None:
    for command in (["wait", ID], ["orders"], ["listen"]):
        code, _, errors = shell.run(*command, "--status-name", text)
        assert code == 2
        assert "status" in errors


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_waiting(shell: Shell, simulator: Simulator, number: signal.Signals) -> None:
    command = shell.start("wait", ID)
    assert simulator.wait_for_connections(1, timeout=DEADLINE)
    assert command.end(number) == (128 + number, [])
    assert command.stderr == ""


def test_a_reader_that_goes_changes_nothing_about_the_exit_code(shell: Shell, simulator: Simulator) -> None:
    order = simulator.begin_order(scenario="failed")
    command = shell.start("wait", order.order_id)
    assert simulator.wait_for_connections(1, timeout=DEADLINE)
    command.close_stdout()
    order.finish()
    assert (command.process.wait(DEADLINE), command.stderr) == (3, "")


@pytest.mark.parametrize("arguments", [[], [ID, "--timeout", "0"]])
def test_waiting_for_nothing_is_a_mistake_in_usage(shell: Shell, arguments: list[str]) -> None:
    code, lines, errors = shell.run("wait", *arguments)
    assert (code, lines) == (2, [])
    assert "usage: aggstream wait" in errors


@pytest.mark.parametrize("without", ["", "rich"])
def test_in_a_terminal_an_outcome_is_a_line_in_words(shell: Shell, simulator: Simulator, without: str) -> None:
    filled, failed = (simulator.place_order(scenario=scenario, size=5) for scenario in ("filled", "failed"))
    reason = simulator.orders()[0]["errorMessage"]
    command = shell.start("wait", filled, failed, without=without, size=(80, 24))
    command.screen_until(filled)
    screen = without_colour(command.screen_until(reason))
    assert any("filled            " + filled in line for line in screen)
    assert any("failed            " + failed in line for line in screen)
    assert max(map(len, screen)) <= 80
    assert command.process.wait(DEADLINE) == 3
    assert command.stderr == "aggstream: waiting for 2 orders, 60 s at most\n"


def test_an_outage_while_waiting_is_told_beside_the_outcome(shell: Shell, simulator: Simulator) -> None:
    order = simulator.begin_order(scenario="filled")
    order.advance()
    command = shell.start("wait", order.order_id)
    assert simulator.wait_for_connections(1, timeout=DEADLINE)
    simulator.refuse_connections(1)
    simulator.drop(code=1001)
    order.finish()
    code, [line] = command.end()
    assert code == 0
    assert json.loads(line)["source"] == "reconcile"
    assert "aggstream: reconnecting: " in command.stderr
    assert "1001" in command.stderr


# --- orders ---------------------------------------------------------------------------------------------------


def test_orders_are_one_json_object_a_line_the_open_ones_first_then_the_newest(
    shell: Shell, simulator: Simulator
) -> None:
    opened = simulator.begin_order(size=5)
    opened.advance(3)
    placed = [simulator.place_order(scenario=scenario) for scenario in ("filled", "failed", "cancelled")]
    code, lines, errors = shell.run("orders")
    assert (code, errors) == (0, "")
    orders = [json.loads(line) for line in lines]
    assert [order["is_terminal"] for order in orders] == [False, True, True, True]
    assert orders[0]["order_id"] == opened.order_id
    assert orders[0]["amount_raw"] == 5_000_000
    assert {order["order_id"] for order in orders[1:]} == set(placed)
    assert [order["updated_at"] for order in orders[1:]] == sorted(
        (order["updated_at"] for order in orders[1:]), reverse=True
    )
    assert {order["source"] for order in orders} == {"reconcile"}


@pytest.mark.parametrize("without", ["", "rich"])
@pytest.mark.parametrize("columns", [50, 80, 120])
def test_a_terminal_gets_a_table_that_fits_with_whole_ids(
    shell: Shell, simulator: Simulator, columns: int, without: str
) -> None:
    scenarios = ("filled", "partial", "failed", "cancelled")
    placed = [simulator.place_order(scenario=scenario, venue="hyperliquid") for scenario in scenarios]
    command = shell.start("orders", without=without, size=(columns, 40))
    for order_id in placed:
        command.screen_until(order_id)
    assert command.process.wait(DEADLINE) == 0
    screen = without_colour(command.screen_until(placed[-1]))
    assert max(map(len, screen)) <= columns
    assert screen[0].split()[:2] == ["order", "status"] or columns < 60
    assert any(placed[0] in line for line in screen)


def test_a_contradiction_is_marked(shell: Shell, simulator: Simulator, until: Until) -> None:
    order = simulator.begin_order(scenario="filled")
    order.advance()
    simulator.set_order(order.order_id, status="cancelled")
    simulator.stall_rest()
    piped, shown = shell.start("orders"), shell.start("orders", size=(80, 24))
    assert simulator.wait_for_connections(2, timeout=DEADLINE)
    until(lambda: simulator.counts.rest_calls >= 2)
    order.finish()
    simulator.stall_rest(stalled=False)
    [contradiction] = [c for c in piped.event()["contradictions"] if c["field"] == "status"]
    assert {contradiction["kept"], contradiction["refused"]} == {"filled", "cancelled"}
    assert " (!)" in shown.screen_until("contradicted: status ")


def test_a_status_that_nobody_knows_is_shown_and_can_be_asked_for(shell: Shell, simulator: Simulator) -> None:
    order = simulator.begin_order(scenario="partial", size=5)
    order.advance()
    simulator.set_order(order.order_id, status="Re-Routing", filled_raw=7)
    simulator.place_order(scenario="filled")
    for status, is_found in (("RE_ROUTING", True), ("partially_filled", False), ("open", False)):
        code, lines, _ = shell.run("orders", "--no-stream", "--status", status)
        assert (code, bool(lines)) == (0, is_found)
    [line] = shell.run("orders", "--no-stream", "--status", "re routing")[1]
    shown = json.loads(line)
    assert (shown["status"], shown["unknown_status"]) == ("re_routing", "re_routing")
    assert (shown["filled_amount_raw"], shown["verdict"], shown["is_terminal"]) == (7, "unknown", False)
    command = shell.start("orders", "--no-stream", size=(120, 40))
    command.screen_until("the status 're_routing' is not known")
    assert command.process.wait(DEADLINE) == 0


def test_a_word_that_nobody_knows_is_shown_beside_the_status_that_is_known(
    shell: Shell, simulator: Simulator, until: Until
) -> None:
    simulator.stall_rest()
    piped, asked = shell.start("orders"), shell.start("orders", "--status", "ROUTING")
    shown = shell.start("orders", size=(120, 40))
    assert simulator.wait_for_connections(3, timeout=DEADLINE)
    until(lambda: simulator.counts.rest_calls >= 3)
    for moment, word in enumerate(("partially_filled", "Routing")):
        message = {"type": "order_event", "event": word, "orderId": ID, "filledAmountRaw": "4e2"}
        simulator.push(message | {"timestamp": 1_710_000_000_000 + moment})
    simulator.stall_rest(stalled=False)
    order = piped.event()
    assert (order["status"], order["unknown_status"]) == ("partially_filled", "routing")
    assert order["filled_amount_raw"] == 400
    assert asked.event() == order
    shown.screen_until("the status 'routing' is not known")


def test_a_filter_a_limit_and_what_they_leave_out(shell: Shell, simulator: Simulator) -> None:
    for scenario in ("filled", "failed", "filled", "filled"):
        simulator.place_order(scenario=scenario)
    code, lines, errors = shell.run("orders", "--status", "FAILED", "--status", "cancelled")
    assert (code, errors) == (0, "")
    assert [json.loads(line)["status"] for line in lines] == ["failed"]
    code, lines, errors = shell.run("orders", "--limit", "3")
    assert (code, len(lines)) == (0, 3)
    assert errors == "aggstream: 3 of 4 orders shown: see --limit and --all\n"


def test_without_the_stream_nothing_is_connected_and_no_origin_needed(shell: Shell, simulator: Simulator) -> None:
    simulator.place_orders("usr_demo", 120, scenario="filled")
    del shell.environment["AGGSTREAM_ORIGIN"], shell.environment["AGGSTREAM_URL"]
    code, lines, errors = shell.run("orders", "--no-stream", "--limit", "1000")
    assert (code, len(lines), errors) == (0, 100, "")
    assert simulator.counts.authentications == 0


def test_all_orders_are_all_pages(shell: Shell, simulator: Simulator) -> None:
    placed = simulator.place_orders("usr_demo", 120, scenario="filled")
    for arguments in (["--all"], ["--all", "--no-stream"]):
        code, lines, errors = shell.run("orders", *arguments)
        assert (code, errors) == (0, "")
        assert {json.loads(line)["order_id"] for line in lines} == set(placed)
        assert len(lines) == 120


def test_what_is_not_caught_up_ends_with_4_and_the_reason(shell: Shell, simulator: Simulator) -> None:
    simulator.stall_rest()
    code, lines, errors = shell.run("orders", "--timeout", "1")
    assert (code, lines) == (4, [])
    assert errors.startswith("aggstream: not caught up within 1.0 s: ")


def test_without_a_rest_api_it_says_what_is_missing(shell: Shell) -> None:
    del shell.environment["AGGSTREAM_REST_URL"]
    code, lines, errors = shell.run("orders")
    assert (code, lines) == (4, [])
    assert "--rest-url" in errors
    code, _, errors = shell.run("orders", "--no-stream")
    assert code == 2
    assert one_line(errors)
    assert "--rest-url" in errors


def test_no_orders_are_said_to_be_none(shell: Shell) -> None:
    assert shell.run("orders") == (0, [], "aggstream: no such orders\n")


def test_a_rest_api_that_refuses_ends_with_1(shell: Shell, simulator: Simulator) -> None:
    simulator.refuse_rest(None, status=403)
    code, lines, errors = shell.run("orders", "--no-stream")
    assert (code, lines) == (1, [])
    assert one_line(errors)
    assert "403" in errors


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_list(shell: Shell, simulator: Simulator, until: Until, number: signal.Signals) -> None:
    simulator.stall_rest()
    command = shell.start("orders")
    until(lambda: simulator.counts.rest_calls)
    assert command.end(number) == (128 + number, [])
    assert command.stderr == ""


def test_a_list_whose_reader_goes_ends_quietly(shell: Shell, simulator: Simulator, until: Until) -> None:
    simulator.place_order()
    simulator.stall_rest()
    command = shell.start("orders")
    until(lambda: simulator.counts.rest_calls)
    command.close_stdout()
    simulator.stall_rest(stalled=False)
    assert (command.process.wait(DEADLINE), command.stderr) == (0, "")


# --- the table itself -----------------------------------------------------------------------------------------

COLUMNS = (
    Column("order"),
    Column("status", rank=1),
    Column("amount", rank=2, right=True),
    Column("nothing", rank=2),
    Column("error", is_note=True),
)


def drawn(*rows: tuple[str, ...], most: int) -> list[str]:
    laid = table_lines(COLUMNS, [[(text, "") for text in row] for row in rows], most)
    return ["".join(text for text, _ in segments).rstrip() for segments in laid]


def test_a_wide_id_is_never_cut_but_moves_the_others_below() -> None:
    wide = "ord_" + "x" * 90
    assert drawn((wide, "filled", "5", "", ""), ("ord_2", "failed", "7", "", "no luck"), most=80) == [
        "order",
        wide,
        "    status filled  amount 5",
        "ord_2",
        "    status failed  amount 7  no luck",
    ]


def test_a_table_drops_the_columns_that_say_nothing_and_aligns_numbers() -> None:
    assert drawn(("ord_1", "filled", "5", "", ""), ("ord_2", "failed", "700000", "", ""), most=80) == [
        "order  status  amount",
        "ord_1  filled       5",
        "ord_2  failed  700000",
    ]


def test_a_long_note_is_wrapped_between_words_only() -> None:
    words = [f"word{number}" for number in range(40)]
    lines = drawn(("ord_1", "failed", "5", "", " ".join(words)), most=40)
    assert max(map(len, lines)) <= 40
    assert " ".join(" ".join(lines[2:]).split()) == " ".join(words)


def test_what_a_terminal_would_obey_is_taken_out_of_a_table() -> None:
    assert all(line.isprintable() for line in drawn(("ord\x1b[2J", "a\nb", "5", "", "\x07"), most=80))
