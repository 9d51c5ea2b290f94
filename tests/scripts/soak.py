"""Run one client for minutes against a server and a network that misbehave at random, and balance the books.

    python tests/scripts/soak.py [--minutes 5] [--seed 1] [--tls]

All randomness comes from the seed. Places orders, floods, drops, stalls, swallows, drips, resets, expires tokens,
refuses refreshes, and slows a handler. Prints a summary as JSON; the exit code is 1 if an event was lost that lies
in no gap that was told, if memory, threads or descriptors grow, or if the stream does not end cleanly.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import pathlib
import random
import ssl
import sys
import threading
import time
from collections.abc import Callable

import attrs
import trustme

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "support"))

from ledger import Ledger, UntoldLoss

import aggstream
from aggstream.simulator import Playback, Simulator
from aggstream.testing import ChaosProxy

USER = "usr_1"
PATIENCE = 60.0
# What the ledger keeps of an event on both sides.
LEDGER_BYTES_AN_EVENT = 256
GROWTH_BYTES = 64 << 20


class Soak:
    """One long run. Everything but the handler is on the main thread."""

    def __init__(self, stack: contextlib.ExitStack, *, seed: int, tls: bool) -> None:
        self.chance = random.Random(seed)
        self.faults: dict[str, int] = {}
        self.handler_pause = 0.0
        self.floods: list[Playback] = []
        self.ledger = Ledger()
        serving, trusting = contexts() if tls else (None, None)
        stack.enter_context(self.ledger.watching())
        self.simulator = stack.enter_context(
            Simulator(
                allowed_hosts=["127.0.0.1"],
                seed=seed,
                ssl_context=serving,
                heartbeat_interval=0.5,
                token_lifetime=20.0,
            )
        )
        self.proxy = stack.enter_context(ChaosProxy.for_url(self.simulator.url, seed=seed))
        session = self.simulator.sign_in(USER)
        self.client = aggstream.Client(
            app_id=self.simulator.app_id,
            origin=self.simulator.origin,
            token=aggstream.RefreshingToken(
                session.refresh_token,
                access_token=session.access_token,
                app_id=self.simulator.app_id,
                rest_url=self.simulator.rest_url,
                ssl_context=trusting,
            ),
            url=self.proxy.url_for(self.simulator.url),
            ssl_context=trusting,
            connect_timeout=2.0,
            auth_timeout=2.0,
            ping_interval=0.5,
            pong_timeout=1.0,
            idle_timeout=3.0,
            limits=aggstream.Limits(message_timeout=2.0),
            queue_size=1000,
            reconnect=aggstream.ReconnectPolicy(initial=0.05, maximum=1.0, healthy_after=0.5),
        )
        self.client.on("*")(lambda event: time.sleep(self.handler_pause))
        self.ledger.watch(self.client)

    def run(self, minutes: float) -> None:
        """Do one thing after the other, each followed by a while in which it has its effect."""
        end = time.monotonic() + minutes * 60
        while time.monotonic() < end:
            self.until(lambda: self.client.health().phase == "live")
            self.trade()
            if self.chance.random() < 0.7:
                name, fault = self.chance.choice(list(self.kinds().items()))
                self.faults[name] = self.faults.get(name, 0) + 1
                fault()
                self.trade()
                time.sleep(self.chance.uniform(0.0, 1.5))
                self.heal()

    def kinds(self) -> dict[str, Callable[[], object]]:
        """Return what can go wrong, by name."""
        pick = self.chance
        faults = pick.choice([self.proxy.upstream, self.proxy.downstream])

        def set_(name: str, value: float) -> Callable[[], None]:
            return lambda: setattr(faults, name, value)

        return {
            "close": lambda: self.simulator.drop(code=pick.choice([1000, 1001, 1011, 1012])),
            "abort": lambda: self.simulator.drop(abort=True),
            "hang": self.simulator.stall,
            "no heartbeats": self.simulator.stall_heartbeats,
            "expire": self.simulator.expire_tokens,
            "refuse refresh": self.refuse_refresh,
            "refuse handshake": self.refuse_handshakes,
            "flood": self.flood,
            "slow handler": self.slow_down,
            "reset": self.proxy.reset,
            "reset later": set_("reset_after", pick.randrange(1, 20_000)),
            "half-close": set_("half_close_after", pick.randrange(1, 20_000)),
            "black hole": set_("blackhole", True),
            "stall": set_("stalled", True),
            "slice": set_("slice_size", pick.randrange(1, 20)),
            "delay": set_("latency", pick.uniform(0.0, 1.0)),
            "drip": set_("rate", 200.0),
            "refuse": self.refuse,
        }

    def trade(self) -> None:
        for _ in range(self.chance.randrange(5)):
            self.simulator.place_order(USER)

    def refuse_refresh(self) -> None:
        self.simulator.refuse_refreshes(1)
        self.simulator.expire_tokens()

    def refuse_handshakes(self) -> None:
        self.simulator.refuse_connections(2)
        self.proxy.reset()

    def refuse(self) -> None:
        self.proxy.refusing = True
        self.proxy.reset()

    def slow_down(self) -> None:
        self.handler_pause = 0.002
        self.flood()

    def flood(self) -> None:
        self.floods.append(self.simulator.play(USER, orders=300))

    def heal(self) -> None:
        self.handler_pause = 0.0
        self.proxy.heal()
        self.simulator.stall(stalled=False)
        self.simulator.stall_heartbeats(stalled=False)

    def abandon(self) -> None:
        with contextlib.suppress(aggstream.AggStreamError):
            self.client.stop()

    def settle(self) -> None:
        """Go on until the last thing that was emitted is handled."""
        self.heal()
        for playback in self.floods:
            playback.wait(PATIENCE)
        self.until(self.is_through)

    def is_through(self) -> bool:
        if self.client.health().phase == "live":
            # Its connection may be one that is about to be found dead: then the next one.
            self.simulator.place_order(USER, scenario="filled")
            time.sleep(0.5)
        return self.ledger.has_delivered(max(numbers[-1] for numbers in self.ledger.sent.values()))

    def until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            if time.monotonic() > deadline:
                raise UntoldLoss(f"it does not come back: {self.client.health()}")
            time.sleep(0.02)


def contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    authority = trustme.CA()
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1", "localhost").configure_cert(serving)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    return serving, trusting


def resources() -> dict[str, int]:
    """Return what this process holds now; Linux only."""
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
    return {
        "rss": pages * os.sysconf("SC_PAGE_SIZE"),
        "threads": threading.active_count(),
        "descriptors": len(os.listdir("/proc/self/fd")),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description="Run a client for minutes against faults at random.")
    parser.add_argument("--minutes", type=float, default=5.0, help="how long, about (default: 5)")
    parser.add_argument("--seed", type=int, default=1, help="what goes wrong follows from it (default: 1)")
    parser.add_argument("--tls", action="store_true", help="over TLS (default: plain TCP)")
    options = parser.parse_args()
    logging.getLogger("aggstream").setLevel(logging.CRITICAL)
    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        soak = Soak(stack, seed=options.seed, tls=options.tls)
        soak.client.start()
        stack.callback(soak.abandon)
        soak.run(options.minutes * 0.2)
        warm, known = resources(), len(soak.ledger.received)
        soak.run(options.minutes * 0.8)
        soak.settle()
        last, kept = resources(), len(soak.ledger.received) - known
        report = soak.client.stop(PATIENCE)
        balance = soak.ledger.balance()
    counters = soak.client.health().counters
    problems = [
        f"{name} grew from {warm[name]} to {last[name]}"
        for name in ("threads", "descriptors")
        if last[name] > warm[name] + 20
    ]
    if last["rss"] - warm["rss"] > GROWTH_BYTES + kept * LEDGER_BYTES_AN_EVENT:
        problems.append(f"memory grew from {warm['rss']} to {last['rss']} bytes")
    if not report:
        problems.append(f"something was left undone: {report}")
    if (counters.gaps, counters.user_events) != (balance.gaps, balance.delivered):
        problems.append(f"the counters do not agree with the handlers: {counters}")
    summary = {
        "seed": options.seed,
        "tls": options.tls,
        "minutes": round((time.monotonic() - began) / 60, 1),
        "faults": dict(sorted(soak.faults.items())),
        "connections": counters.connections,
        "reconnects": counters.reconnects,
        "refreshes": counters.refreshes,
        "pauses": counters.pauses,
        **attrs.asdict(balance),
        "untold_losses": 0,
        "at_20_percent": warm,
        "at_the_end": last,
        "problems": problems,
    }
    sys.stdout.write(json.dumps(summary) + "\n")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
