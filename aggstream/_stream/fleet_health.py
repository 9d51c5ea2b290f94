"""Looking at a running fleet from outside, in the same time for any number of accounts."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from aggstream._delivery.handler_calls import Running
from aggstream._stream.account_list import AccountList
from aggstream._stream.engine import Engine
from aggstream._stream.health_check import check_up
from aggstream._stream.options import Options
from aggstream._stream.pace import Pace
from aggstream._stream.roster import Roster
from aggstream.health import FleetHealth, Phase

_SHOWN = 5


def check_up_fleet(
    roster: Roster, engine: Engine, account_list: AccountList, pace: Pace, options: Options, *, details: bool
) -> FleetHealth:
    """Return how a fleet is at this moment; from any thread."""
    members = roster.members
    threads = engine.workers.threads()
    threads[engine.name] = engine.is_alive()
    running = engine.workers.running()
    phases = roster.phases
    return FleetHealth(
        phase=roster.phase,
        accounts=len(members),
        phases=phases,
        problems=tuple(_problems(roster, account_list, phases, threads, running, options)),
        must_sign_in=roster.resting("must sign in again"),
        failed=roster.resting("failed"),
        running={(it.account, it.handler): it.seconds for it in running},
        threads=threads,
        waiting_to_connect=pace.waiting,
        details={
            name: check_up(member.parts.stream, member.parts.dispatcher, member.parts.options)
            for name, member in members.items()
        }
        if details
        else {},
    )


def _problems(
    roster: Roster,
    account_list: AccountList,
    phases: Mapping[Phase, int],
    threads: Mapping[str, bool],
    running: Sequence[Running],
    options: Options,
) -> Iterator[str]:
    if roster.phase != "live":
        yield f"not live, but {roster.phase}"
    if roster.phase not in ("idle", "stopped"):
        yield from (f"the thread {name} is not alive" for name, alive in threads.items() if not alive)
    if account_list.problem is not None:
        yield f"the list of accounts is not up to date: {account_list.problem}"
    yield from _problems_of_accounts(roster, phases)
    slow = math.inf if options.slow_handler_duration is None else options.slow_handler_duration
    for it in running:
        if it.seconds >= slow:
            yield f"the handler {it.handler} has run for {it.seconds:.0f} s, for the account {it.account!a}"


def _problems_of_accounts(roster: Roster, phases: Mapping[Phase, int]) -> Iterator[str]:
    for phase in ("idle", "connecting", "waiting"):
        if number := phases.get(phase, 0):
            yield f"{number} accounts are not live, but {phase}"
    if roster.unbegun and roster.capacity is not None:
        yield (
            f"{roster.unbegun} accounts wait, because this process may open {roster.capacity} connections: "
            "raise its limit of file descriptors (ulimit -n, or LimitNOFILE= of systemd)"
        )
    if number := phases.get("must sign in again", 0):
        yield f"{number} accounts must sign in again: {_some(roster.resting('must sign in again'), number)}"
    if number := phases.get("failed", 0):
        yield f"{number} accounts are refused: {_some(roster.resting('failed'), number)}"


def _some(names: Sequence[str], number: int) -> str:
    shown = ", ".join(map(ascii, names[:_SHOWN]))
    return shown if number <= _SHOWN else f"{shown} and {number - _SHOWN} more"
