"""Whatever the network and the server do, in whatever order: nothing is lost that is not told.

`tests/scripts/chaos.py` runs the same machine for longer.
"""

from __future__ import annotations

import contextlib
import ssl
import threading
import time
from typing import Any, ClassVar

import attrs
import hypothesis
import trustme
from clients import BRISK
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test
from ledger import Balance, Ledger
from waiting import DEADLINE

import aggstream
from aggstream.simulator import Simulator
from aggstream.testing import ChaosProxy, Faults

_USER = "usr_1"
_directions = st.sampled_from(["upstream", "downstream"])


class Chaos(RuleBasedStateMachine):
    """One client, a proxy that is not to be trusted, and a server with moods."""

    tls: ClassVar[bool] = False
    authority: ClassVar[trustme.CA]
    tally: ClassVar[dict[str, int]] = {}
    """What happened in all examples together."""

    def __init__(self) -> None:
        super().__init__()
        self.stack = contextlib.ExitStack()
        self.ledger = Ledger()
        self.may_handle = threading.Event()
        self.may_handle.set()

    @initialize(seed=st.integers(0, 2**32))
    def begin(self, seed: int) -> None:
        serving, trusting = None, None
        if self.tls:
            serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.authority.issue_cert("127.0.0.1", "localhost").configure_cert(serving)
            trusting = ssl.create_default_context()
            self.authority.configure_trust(trusting)
        self.stack.enter_context(self.ledger.watching())
        self.simulator = self.stack.enter_context(
            Simulator(allowed_hosts=["127.0.0.1"], seed=seed, ssl_context=serving, heartbeat_interval=0.2)
        )
        self.proxy = self.stack.enter_context(ChaosProxy.for_url(self.simulator.url, seed=seed))
        self.client = aggstream.Client(
            app_id=self.simulator.app_id,
            origin=self.simulator.origin,
            token=lambda: self.simulator.sign_in(_USER).access_token,
            url=self.proxy.url_for(self.simulator.url),
            ssl_context=trusting,
            connect_timeout=0.5,
            auth_timeout=0.5,
            ping_interval=0.1,
            pong_timeout=0.2,
            idle_timeout=0.5,
            close_timeout=0.1,
            limits=aggstream.Limits(message_timeout=0.5),
            queue_size=50,
            # A certificate that a flipped bit has spoilt, or a token that was refused twice, is not for ever here.
            reconnect=attrs.evolve(BRISK, decide=lambda error: True),
        )
        self.client.on("*")(self._wait_for_leave)
        self.ledger.watch(self.client)
        self.stack.callback(self._let_go)
        self.client.start()
        self._until_live()

    def _let_go(self) -> None:
        self.may_handle.set()
        with contextlib.suppress(aggstream.AggStreamError):
            self.client.stop(DEADLINE)

    def _wait_for_leave(self, event: aggstream.Event) -> None:
        self.may_handle.wait(DEADLINE)

    # --- what programs do -------------------------------------------------------------------------------

    @rule(orders=st.integers(1, 3))
    def place_orders(self, orders: int) -> None:
        for _ in range(orders):
            self.simulator.place_order(_USER)

    @rule()
    def hold_the_handlers(self) -> None:
        self.may_handle.clear()

    @rule()
    def let_the_handlers_go(self) -> None:
        self.may_handle.set()

    # --- what networks do -------------------------------------------------------------------------------

    @rule()
    def reset(self) -> None:
        self._count("reset")
        self.proxy.reset()

    @rule(direction=_directions, size=st.integers(1, 2000))
    def reset_after(self, direction: str, size: int) -> None:
        self._set(direction, reset_after=size)

    @rule(direction=_directions, size=st.integers(1, 2000))
    def half_close_after(self, direction: str, size: int) -> None:
        self._set(direction, half_close_after=size)

    @rule(direction=_directions)
    def blackhole(self, direction: str) -> None:
        self._set(direction, blackhole=True)

    @rule(direction=_directions)
    def stall(self, direction: str) -> None:
        self._set(direction, stalled=True)

    @rule(direction=_directions, size=st.integers(1, 50))
    def slice(self, direction: str, size: int) -> None:
        self._set(direction, slice_size=size)

    @rule(direction=_directions, seconds=st.sampled_from([0.01, 0.05, 0.3]))
    def delay(self, direction: str, seconds: float) -> None:
        self._set(direction, latency=seconds)

    @rule(direction=_directions)
    def drip(self, direction: str) -> None:
        self._set(direction, rate=200.0)

    @precondition(lambda self: self.tls)  # TCP's own check does not find it, and neither can anybody else
    @rule(direction=_directions)
    def corrupt(self, direction: str) -> None:
        self._set(direction, corrupt=0.001)

    @rule()
    def refuse(self) -> None:
        self._count("refuse")
        self.proxy.refusing = True

    # --- what servers do --------------------------------------------------------------------------------

    @rule(code=st.sampled_from([1000, 1001, 1011, 1012, 1013, 4401]))
    def close(self, code: int) -> None:
        self._count("close")
        self.simulator.drop(code=code)

    @rule()
    def abort(self) -> None:
        self._count("abort")
        self.simulator.drop(abort=True)

    @rule()
    def hang(self) -> None:
        self._count("hang")
        self.simulator.stall()

    @rule()
    def stop_heartbeats(self) -> None:
        self._count("no heartbeats")
        self.simulator.stall_heartbeats()

    @rule()
    def expire_tokens(self) -> None:
        self._count("expire")
        self.simulator.expire_tokens()

    @rule()
    def refuse_a_token(self) -> None:
        self._count("refuse token")
        self.simulator.refuse_tokens(1)

    @rule(status=st.sampled_from([500, 503, 429]))
    def refuse_a_handshake(self, status: int) -> None:
        self._count("refuse handshake")
        self.simulator.refuse_connections(1, status)

    # --- and then ---------------------------------------------------------------------------------------

    @rule()
    def recover(self) -> None:
        self._heal()
        self._until_live()

    @rule(seconds=st.sampled_from([0.05, 0.2, 0.6]))
    def let_time_pass(self, seconds: float) -> None:
        """Long enough for some deadlines, and not for others."""
        self.may_handle.wait(seconds)
        threading.Event().wait(seconds)

    def teardown(self) -> None:
        with self.stack:
            if hasattr(self, "client"):
                self._end()

    def _end(self) -> None:
        self._heal()
        # The connection may be one that is about to be found dead, so one order may not be enough.
        deadline = time.monotonic() + DEADLINE
        while not self._reaches_the_handlers():
            assert time.monotonic() < deadline, self.client.health()
        assert self.client.stop(DEADLINE)
        balance = self.ledger.balance()
        counters = self.client.health().counters
        seen = [type(event) for event in self.ledger.received]
        # A connection may be lost just when the client is stopped: then that gap has no other end.
        assert counters.gaps == balance.gaps
        assert balance.gaps - seen.count(aggstream.Resumed) in (0, 1)
        assert counters.user_events == balance.delivered
        assert counters.decode_failures == seen.count(aggstream.DecodeFailed) == 0
        assert seen.count(aggstream.ReadingPaused) == counters.pauses
        assert seen[-1] is aggstream.Stopped
        self._add(balance)

    def _reaches_the_handlers(self) -> bool:
        """Place an order, and tell whether its end is handled soon."""
        self._until_live()
        self.simulator.place_order(_USER, scenario="filled")
        last = max((numbers[-1] for numbers in self.ledger.sent.values()), default=None)

        return last is not None and self._comes_true(lambda: self.ledger.has_delivered(last), 2.0)

    def _heal(self) -> None:
        self.may_handle.set()
        self.proxy.heal()
        self.simulator.stall(stalled=False)
        self.simulator.stall_heartbeats(stalled=False)

    def _until_live(self) -> None:
        assert self._comes_true(lambda: self.client.health().phase == "live", DEADLINE), self.client.health()

    def _comes_true(self, condition: Any, timeout: float) -> bool:
        deadline = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > deadline:
                return False
            threading.Event().wait(0.005)
        return True

    def _set(self, direction: str, **faults: Any) -> None:
        [name] = faults
        self._count(name)
        target: Faults = getattr(self.proxy, direction)
        setattr(target, name, faults[name])
        self.proxy.sync()

    def _count(self, what: str, number: int = 1) -> None:
        self.tally[what] = self.tally.get(what, 0) + number

    def _add(self, balance: Balance) -> None:
        for name in ("sent", "delivered", "lost_in_gaps", "gaps"):
            self._count(name, getattr(balance, name))
        self._count("examples")


def run(authority: trustme.CA, *, tls: bool, settings: settings, seed: int | None = None) -> dict[str, int]:
    """Play many examples; return what happened in them."""
    tally: dict[str, int] = {}

    class Machine(Chaos):
        pass

    Machine.tls, Machine.authority, Machine.tally = tls, authority, tally
    patient = hypothesis.settings(settings, suppress_health_check=list(HealthCheck), deadline=None)
    machine = Machine if seed is None else hypothesis.seed(seed)(Machine)
    run_state_machine_as_test(machine, settings=patient)
    return tally
