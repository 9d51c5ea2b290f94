"""Handlers of many accounts share the threads: in order for each order, and none takes all."""

from __future__ import annotations

import collections
import threading
import time
from typing import Any

import pytest
from fleets import MakeFleet
from waiting import DEADLINE, Until

import aggstream
from aggstream import Event, OrderEvent
from aggstream.simulator import Simulator


def test_events_of_one_order_are_handled_one_by_one_and_in_order(
    simulator: Simulator, fleet_of: MakeFleet, until: Until
) -> None:
    fleet = fleet_of(accounts=["alice", "bob", "carol"], workers=8)
    seen: dict[tuple[str, str], list[int]] = collections.defaultdict(list)
    busy: collections.Counter[tuple[str, str]] = collections.Counter()
    overlaps: list[Event] = []
    lock = threading.Lock()

    @fleet.on(OrderEvent)
    def handle(event: OrderEvent) -> None:
        key = (event.account, event.order_id)
        with lock:
            busy[key] += 1
            if busy[key] > 1:
                overlaps.append(event)
        time.sleep(0)  # let the other threads run
        with lock:
            seen[key].append(event.received_ns)
            busy[key] -= 1

    with fleet:
        fleet.wait_until_live(DEADLINE)
        placed = {name: [simulator.place_order(f"usr_{name}") for _ in range(20)] for name in fleet.accounts}
        for name, orders in placed.items():
            for order_id in orders:
                assert fleet.account(name).track(order_id).wait(DEADLINE).is_known
    assert overlaps == []
    assert set(seen) == {(name, order_id) for name, orders in placed.items() for order_id in orders}
    assert all(times == sorted(times) for times in seen.values())


def test_an_account_whose_handlers_hang_in_many_orders_does_not_stop_the_others(
    simulator: Simulator, fleet_of: MakeFleet, until: Until
) -> None:
    fleet = fleet_of(accounts=["hangs", "bob"], workers=4, slow_handler_duration=0.05)
    release, hanging, done = threading.Event(), threading.Semaphore(0), threading.Semaphore(0)

    @fleet.on("order_submitted")
    def handle(event: Event) -> None:
        if event.account == "hangs":
            hanging.release()
            release.wait(DEADLINE)
        else:
            done.release()

    with fleet:
        fleet.wait_until_live(DEADLINE)
        for _ in range(20):
            simulator.place_order("usr_hangs")
        assert hanging.acquire(timeout=DEADLINE)
        for _ in range(20):
            simulator.place_order("usr_bob")
        for _ in range(20):
            assert done.acquire(timeout=DEADLINE)
        assert not hanging.acquire(blocking=False)  # it keeps one of four threads, and no other
        until(lambda: any("for the account 'hangs'" in problem for problem in fleet.health().problems))
        [(account, handler)] = fleet.health().running
        assert (account, handler.rpartition(".")[2]) == ("hangs", "handle")
        release.set()


def test_a_handler_that_hangs_holds_up_its_own_order_only(
    simulator: Simulator, fleet_of: MakeFleet, until: Until
) -> None:
    fleet = fleet_of(accounts=["alice"], workers=8)
    release = threading.Event()
    first: list[str] = []

    @fleet.on("order_submitted")
    def handle(event: Any) -> None:
        if not first:
            first.append(event.order_id)
            release.wait(DEADLINE)

    ended: set[str] = set()

    @fleet.on(OrderEvent)
    def note(event: OrderEvent) -> None:
        if event.is_terminal:
            ended.add(event.order_id)

    with fleet:
        fleet.wait_until_live(DEADLINE)
        placed = {simulator.place_order("usr_alice") for _ in range(40)}
        until(lambda: len(ended) == 39)
        assert placed - ended == set(first)
        release.set()
        until(lambda: ended == placed)


def test_as_many_accounts_that_hang_as_it_takes_are_named(
    simulator: Simulator, fleet_of: MakeFleet, until: Until
) -> None:
    names = [f"hangs-{number}" for number in range(4)]
    fleet = fleet_of(accounts=[*names, "bob"], workers=4, slow_handler_duration=0.05)
    release = threading.Event()
    fleet.on("order_submitted")(lambda event: release.wait(DEADLINE))
    with fleet:
        fleet.wait_until_live(DEADLINE)
        for name in names:
            simulator.place_order(f"usr_{name}")
        until(lambda: {account for account, _ in fleet.health().running} == set(names))
        until(lambda: all(any(repr(name) in it for it in fleet.health().problems) for name in names))
        release.set()


def test_stopping_reports_what_is_left_of_all_accounts(
    simulator: Simulator, fleet_of: MakeFleet, caplog: pytest.LogCaptureFixture
) -> None:
    fleet = fleet_of(accounts=["alice", "bob"], workers=8)
    release, hanging = threading.Event(), threading.Semaphore(0)

    @fleet.on("order_submitted")
    def hang(event: Event) -> None:
        hanging.release()
        release.wait(DEADLINE)

    fleet.start()
    fleet.wait_until_live(DEADLINE)
    for name in ("alice", "bob"):
        simulator.place_order(f"usr_{name}")
        assert hanging.acquire(timeout=DEADLINE)
    began = time.monotonic()
    report = fleet.stop(timeout=0.5)
    assert time.monotonic() - began < DEADLINE
    assert len(report.running) == 2
    assert report.undelivered > 2
    assert "stopped" in caplog.text
    release.set()
    assert fleet.stop().undelivered == report.undelivered
    assert fleet.wait(DEADLINE)


def test_only_the_newest_balance_of_a_venue_waits(simulator: Simulator, fleet_of: MakeFleet, until: Until) -> None:
    fleet = fleet_of(accounts=["alice"], workers=4, coalesce_balances=True)
    release, entered = threading.Event(), threading.Event()
    replaced: list[Any] = []

    @fleet.on("balance_update")
    def handle(event: Event) -> None:
        entered.set()
        release.wait(DEADLINE)

    fleet.on("balances_coalesced")(replaced.append)
    with fleet:
        fleet.wait_until_live(DEADLINE)
        alice = fleet.account("alice")
        for _ in range(60):
            simulator.place_order("usr_alice")
        assert entered.wait(DEADLINE)
        until(lambda: alice.health().coalesced > 10)
        release.set()
        until(lambda: sum(event.count for event in replaced) == alice.health().coalesced)
        until(lambda: alice.health().queue_depth == 0)
    assert {event.account for event in replaced} == {"alice"}
    assert aggstream.__version__
