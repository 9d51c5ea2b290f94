"""The comparison in tests/benchmarks: its arithmetic, table and failures, and the subjects that need no peer."""

from __future__ import annotations

import itertools
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from benchmarks import compare, environments, report, table
from benchmarks.environments import ENVIRONMENTS, InstallFailed, environment_for
from benchmarks.measurement import Figures, Measurement, Plan, Quantity
from benchmarks.measurements import MEASUREMENTS, idle
from benchmarks.messages import BLOB, EXAMPLES, Messages, frame, stamped, texts
from benchmarks.pairs import Pair, take_turns
from benchmarks.processes import SubjectFailed, run_subject
from benchmarks.programs import AGGSTREAM, JOURNAL_FULL, JOURNAL_NORMAL, PEERS, PROGRAMS

SPEED = Quantity("speed", "/s", "more")
FEW = 20


def measurement(
    *pairs: tuple[str, str | None], in_one_process: bool = False, is_steady: bool = False
) -> Measurement:
    return Measurement(
        name="speed",
        title="How fast",
        notes="Of nothing.",
        quantities=(SPEED,),
        pairs=pairs,
        measure=lambda subject, plan: {},
        count=2,
        quick_count=1,
        in_one_process=in_one_process,
        is_steady=is_steady,
    )


class Machine:
    """Measures nothing: it gets slower with each call, and `a` is always twice as fast as the others."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, ...]] = []

    def __call__(self, subjects: Sequence[str]) -> list[Figures]:
        self.calls.append(tuple(subjects))
        return [{"speed": (2.0 if name == "a" else 1.0) / len(self.calls)} for name in subjects]


# --- turns and ratios -----------------------------------------------------------------------------------


def test_a_pair_is_measured_in_turns_before_the_next_one() -> None:
    machine = Machine()
    take_turns(measurement(("a", "b"), ("a", "c")), machine, 2)
    assert machine.calls == [("a",), ("b",), ("a",), ("b",), ("a",), ("c",), ("a",), ("c",)]


def test_in_one_process_a_turn_is_one_call() -> None:
    machine = Machine()
    [pair] = take_turns(measurement(("a", "b"), in_one_process=True), machine, 3)
    assert machine.calls == [("a", "b")] * 3
    assert pair.ratios("speed") == [2.0] * 3


def test_what_is_steady_is_measured_once_for_all_pairs_of_a_turn() -> None:
    machine = Machine()
    pairs = take_turns(measurement(("a", "b"), ("a", "c"), is_steady=True), machine, 2)
    assert machine.calls == [("a",), ("b",), ("c",)] * 2
    assert [len(pair.turns) for pair in pairs] == [2, 2]


def test_what_has_no_peer_is_measured_alone() -> None:
    machine = Machine()
    [pair] = take_turns(measurement(("a", None)), machine, 2)
    assert machine.calls == [("a",), ("a",)]
    assert pair.medians("speed") == (1.5, 1.5)


def test_a_ratio_is_of_neighbours_and_not_of_medians() -> None:
    turns = [
        ({"speed": 2.0}, {"speed": 1.0}),
        ({"speed": 30.0}, {"speed": 10.0}),
        ({"speed": 4.0}, {"speed": 4.0}),
    ]
    pair = Pair("a", "b", turns)
    assert pair.ratios("speed") == [2.0, 3.0, 1.0]
    assert pair.ratio("speed") == 2.0
    assert pair.medians("speed") == (4.0, 4.0)


def test_nothing_is_divided_by_nothing() -> None:
    pair = Pair("a", "b", [({"speed": 2.0}, {"speed": 0.0})])
    assert pair.ratio("speed") is None


# --- the table and the report ---------------------------------------------------------------------------


def test_the_table_aligns_medians_and_ratios() -> None:
    pairs = [
        Pair("ours", "theirs", [({"speed": 1234.0}, {"speed": 617.0}), ({"speed": 1234.0}, {"speed": 1234.0})]),
        Pair("ours", "another", [({"speed": 1.5}, {"speed": 0.0})]),
        Pair("ours", None, [({"speed": 12.34}, {"speed": 12.34})]),
    ]
    assert table.render(measurement(), pairs) == (
        "How fast\n"
        "Of nothing.\n"
        "            better  ours         beside         ratio  from    to\n"
        "speed (/s)  more    ours  1,234  theirs    926   1.50  1.00  2.00\n"
        "speed (/s)  more    ours   1.50  another  0.00\n"
        "speed (/s)  more    ours   12.3\n"
    )


def test_the_report_is_json_and_tells_each_ratio() -> None:
    quantity = MEASUREMENTS["imports"].quantities[0].name
    pair = Pair(AGGSTREAM, "b", [({quantity: 3.0}, {quantity: 2.0})])
    told = json.loads(json.dumps(report.of({"imports": [pair]})))
    assert told["measurements"]["imports"][0]["quantities"][quantity]["ratios"] == [1.5]


# --- what fails -----------------------------------------------------------------------------------------


@pytest.fixture
def one_that_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Let the command know a measurement that its subjects know nothing of, and install nothing."""
    monkeypatch.setattr(compare, "MEASUREMENTS", {"speed": measurement((AGGSTREAM, "b"))})
    monkeypatch.setattr(environments, "prepare", lambda names: dict.fromkeys(names, Path(sys.executable)))
    monkeypatch.setattr(environments, "ROOT", tmp_path)
    monkeypatch.setattr(sys, "argv", ["compare.py", "--quick"])


@pytest.mark.usefixtures("one_that_fails")
def test_a_subject_that_fails_makes_the_command_fail_with_its_words(capsys: pytest.CaptureFixture[str]) -> None:
    assert compare.main() == 1
    assert "KeyError: 'speed'" in capsys.readouterr().err


@pytest.mark.usefixtures("one_that_fails")
def test_a_peer_that_cannot_be_installed_makes_the_command_fail(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def prepare(names: set[str]) -> dict[str, Path]:
        environments._run(sys.executable, "-c", "raise SystemExit('no such peer')")
        return {}

    monkeypatch.setattr(environments, "prepare", prepare)
    assert compare.main() == 1
    assert "no such peer" in capsys.readouterr().err


def test_a_failed_installation_tells_the_command() -> None:
    with pytest.raises(InstallFailed, match="-c import nothing_of_this_name"):
        environments._run(sys.executable, "-c", "import nothing_of_this_name")


def test_a_peer_without_its_package_fails(tmp_path: Path) -> None:
    with pytest.raises(SubjectFailed, match="receive nobody"):
        run_subject(Path(sys.executable), "receive", ["nobody"], Plan(FEW), tmp_path)


# --- the subjects ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "subject"),
    [
        *((name, AGGSTREAM) for name in MEASUREMENTS if name not in ("idle", "journal", "memory", "burst")),
        ("journal", JOURNAL_NORMAL),
        ("journal", JOURNAL_FULL),
        ("decode", "json.loads"),
        ("hand_off", "queue.Queue"),
    ],
)
def test_a_subject_that_needs_no_peer_tells_all_quantities(name: str, subject: str, tmp_path: Path) -> None:
    count = 1 if name == "imports" else FEW
    [figures] = run_subject(Path(sys.executable), name, [subject], Plan(count), tmp_path)
    assert set(figures) == {quantity.name for quantity in MEASUREMENTS[name].quantities}
    assert all(figure >= 0 for figure in figures.values())


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="only Linux tells it there")
@pytest.mark.parametrize("name", ["memory", "burst"])
def test_memory_is_measured(name: str, tmp_path: Path) -> None:
    [figures] = run_subject(Path(sys.executable), name, [AGGSTREAM], Plan(FEW), tmp_path)
    assert set(figures) == {quantity.name for quantity in MEASUREMENTS[name].quantities}


def test_idleness_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idle, "SETTLE", 0.0)
    monkeypatch.setattr(idle, "RATE", 1000.0)
    figures = idle.measure(AGGSTREAM, Plan(1))
    assert set(figures) == {quantity.name for quantity in idle.MEASUREMENT.quantities}


@pytest.mark.parametrize("messages", ["examples", "orders"])
def test_messages_of_both_kinds_reach_the_users_function(messages: Messages, tmp_path: Path) -> None:
    [figures] = run_subject(
        Path(sys.executable), "throughput", [AGGSTREAM], Plan(2 * BLOB // 10, messages), tmp_path
    )
    assert figures["events"] > 0


def test_every_subject_has_an_environment_and_every_peer_a_program() -> None:
    needed = compare.needed(list(MEASUREMENTS.values()), plot=True)
    assert needed == set(ENVIRONMENTS)
    assert set(PEERS) < set(PROGRAMS)
    assert {environment_for(peer, "peers") for peer in PEERS} == {"peers", "coinbase"}


# --- what is sent ---------------------------------------------------------------------------------------


def test_the_examples_rotate_and_fill_blobs_evenly() -> None:
    sent = [json.loads(text) for text in itertools.islice(texts("examples"), 6)]
    assert sent == [*EXAMPLES, *EXAMPLES]
    assert BLOB % len(EXAMPLES) == 0


def test_an_order_has_an_id_of_its_own_and_ends_filled() -> None:
    sent = [json.loads(text) for text in itertools.islice(texts("orders"), 14)]
    orders = [message["orderId"] for message in sent if message["type"] == "order_submitted"]
    assert len(set(orders)) == 2
    assert [message.get("event") for message in sent if message.get("orderId") == orders[0]][-1] == "filled"


@pytest.mark.parametrize("messages", ["examples", "orders"])
def test_a_stamp_takes_the_place_of_the_timestamp_alone(messages: Messages) -> None:
    for text in itertools.islice(texts(messages), 7):
        assert json.loads(stamped(text, 42)) == {**json.loads(text), "timestamp": 42}


@pytest.mark.parametrize("length", [0, 125, 126, 300])
def test_a_frame_tells_its_length(length: int) -> None:
    sent = frame(b"x" * length)
    assert sent.endswith(b"x" * length)
    assert len(sent) == length + (2 if length < 126 else 4)
