"""A simulator and a client, with nothing configured: orders and balances move before your eyes.

On the way the connection drops and the access token ends, and the summary shows what became of it. In a pipe
it is one JSON object a line, the summary last.
"""

from __future__ import annotations

import argparse
import contextlib
import queue
import signal
import sys
import time
from typing import TYPE_CHECKING, Protocol

import attrs

from aggstream._base.backoff import ReconnectPolicy
from aggstream._base.json_text import to_json
from aggstream._base.signals import caught_signals
from aggstream.cli._board import Board, Summary
from aggstream.cli._lines import as_json
from aggstream.cli._options import count, rate
from aggstream.cli._shell import OK, Failure, exit_code, extra, write_line
from aggstream.client import Client
from aggstream.events import Authenticated, Event, Heartbeat
from aggstream.tokens._refreshing import RefreshingToken

if TYPE_CHECKING:
    from typing_extensions import Self

    from aggstream.simulator import Playback, Simulator

HELP = "watch orders and balances move, with nothing configured"
EPILOG = "It ends by itself after some twenty seconds; Ctrl-C ends it earlier, with the summary."

_USER = "usr_demo"
_DROP_CODE = 1001
_EVENTS_PER_ORDER = 15
# An endless demo shows its disturbances again and again, about so many seconds apart.
_CYCLE = 20.0
# Parts of the expected duration: the connection drops halfway; the client gets its next token in the last
# third of the first one's life, so that happens once, and well before the end.
_DROP_AT = 0.5
_TOKEN_LIFE = 0.85
# Shorter ones would end while they are on their way.
_SHORTEST_TOKEN_LIFE = 3.0
_FRAME = 1 / 8
# For what comes after the last order: the rest of the token's life, and a reconnect.
_PATIENCE = 15.0
_LAST_EVENTS = 5.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--orders", type=count, default=30, metavar="N", help="end after N orders; default: 30")
    length.add_argument("--forever", action="store_true", help="go on until Ctrl-C")
    parser.add_argument("--rate", type=rate, default=20.0, metavar="R", help="user events a second; default: 20")
    parser.add_argument("--seed", type=int, default=1, metavar="S", help="other orders; default: 1")


def run(args: argparse.Namespace) -> int:
    """Run the demo; return the exit code."""
    with extra("demo", "aiohttp", "jwt", "rich"):
        from aggstream.simulator import Simulator  # noqa: PLC0415  (an extra)

        view: View = JsonView()
        if sys.stdout.isatty():
            from aggstream.cli._render import LiveView  # noqa: PLC0415  (an extra)

            view = LiveView("aggstream demo")
    plan = Plan.of(args)
    inbox: Inbox = queue.SimpleQueue()
    simulator = Simulator(seed=args.seed, token_lifetime=plan.token_life)
    with caught_signals(inbox.put), simulator, view:
        return Demo(simulator, view, plan, inbox).run()


@attrs.frozen
class Plan:
    """The view of a run: what is printed, and when."""

    orders: int | None
    """None: without end."""
    rate: float
    drop_every: float
    """Seconds before the connection drops, and in an endless run before it drops again."""
    token_life: float

    @classmethod
    def of(cls, args: argparse.Namespace) -> Plan:
        """Make one of the command's options."""
        duration = _CYCLE if args.forever else args.orders * _EVENTS_PER_ORDER / args.rate
        return cls(
            orders=None if args.forever else args.orders,
            rate=args.rate,
            drop_every=duration * _DROP_AT,
            token_life=max(_SHORTEST_TOKEN_LIFE, duration * _TOKEN_LIFE),
        )


class View(Protocol):
    """How a run is shown. All of it happens on the main thread."""

    def take(self, event: Event) -> None:
        """An event came."""

    def draw(self, board: Board) -> None:
        """Some time has passed."""

    def finish(self, board: Board, summary: Summary) -> None:
        """Nothing more will come."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *error: object) -> None: ...


class JsonView(contextlib.AbstractContextManager["JsonView"]):
    """One JSON object a line."""

    def take(self, event: Event) -> None:
        """Write the event."""
        write_line(as_json(event))

    def draw(self, board: Board) -> None:
        """Time is not for pipes."""

    def finish(self, board: Board, summary: Summary) -> None:
        """Write the summary: the last line."""
        write_line(to_json(summary.as_object()))

    def __exit__(self, *error: object) -> None:
        """Leave nothing behind."""


Inbox = queue.SimpleQueue["Event | signal.Signals"]


class Demo:
    """One run, on the main thread.

    Events from the client's thread and signals come through one inbox, so everything else here has one owner.
    """

    def __init__(self, simulator: Simulator, view: View, plan: Plan, inbox: Inbox) -> None:
        self._simulator = simulator
        self._view = view
        self._plan = plan
        self._inbox = inbox
        self._board = Board()
        self._playback: Playback | None = None
        self._signal: signal.Signals | None = None
        self._drops = 0
        self._next_drop = 0.0

    def run(self) -> int:
        """Show everything, and sum it up; return the exit code.

        Raises:
            AggStreamError: what ended the stream.
            Failure: the two sides' books do not agree, or the disturbances were not survived.
        """
        with self._client():
            self._play()
            self._wait_for_last_events()
        # Stopping has its events, too.
        while self._take_next(timeout=0.0):
            pass
        summary = self._summary()
        self._view.finish(self._board, summary)
        self._check(summary)
        return OK if self._signal is None else exit_code(self._signal)

    def _client(self) -> Client:
        simulator = self._simulator
        signed_in = simulator.sign_in(_USER, lifetime=self._plan.token_life)
        token = RefreshingToken(
            signed_in.refresh_token,
            access_token=signed_in.access_token,
            app_id=simulator.app_id,
            rest_url=simulator.rest_url,
        )
        client = Client(
            app_id=simulator.app_id,
            origin=simulator.origin,
            url=simulator.url,
            token=token,
            reconnect=ReconnectPolicy(initial=0.5, maximum=5.0, healthy_after=2.0),
        )
        client.on(Event)(self._inbox.put)
        return client

    def _play(self) -> None:
        """Let things happen until all has been shown, or someone has seen enough."""
        gives_up = None
        while self._signal is None and self._board.state != "stopped" and not self._all_shown():
            self._take_next(timeout=_FRAME)
            self._disturb()
            self._view.draw(self._board)
            if self._playback is not None and self._playback.done:
                gives_up = gives_up or time.monotonic() + self._plan.token_life + _PATIENCE
                if time.monotonic() > gives_up:
                    break

    def _all_shown(self) -> bool:
        return self._playback is not None and self._playback.done and self._is_survived()

    def _is_survived(self) -> bool:
        return self._board.tally.reconnects >= self._drops > 0 and self._board.tally.refreshes > 0

    def _disturb(self) -> None:
        """Drop the connection when it is time, and at the latest when nothing else happens any more."""
        if self._playback is None or self._board.state != "live":
            return
        is_due = time.monotonic() >= self._next_drop or self._playback.done
        if is_due and (self._drops == 0 or self._plan.orders is None):
            # The first attempt to come back fails, so that the outage lasts long enough to be seen.
            self._simulator.refuse_connections(1)
            self._simulator.drop(code=_DROP_CODE)
            self._drops += 1
            self._next_drop = time.monotonic() + _CYCLE

    def _wait_for_last_events(self) -> None:
        if self._playback is not None:
            self._playback.cancel()
        deadline = time.monotonic() + _LAST_EVENTS
        while not self._summary().adds_up and self._board.state != "stopped" and time.monotonic() < deadline:
            self._take_next(timeout=_FRAME)

    def _take_next(self, *, timeout: float) -> bool:
        """Take what comes next; return True if something came in time."""
        try:
            item = self._inbox.get(timeout=timeout)
        except queue.Empty:
            return False
        if isinstance(item, signal.Signals):
            self._signal = item
            return True
        self._board.take(item)
        if not isinstance(item, Heartbeat):
            self._view.take(item)
        if isinstance(item, Authenticated) and self._playback is None:
            # Not earlier: what happens before anyone is signed in would be missed by design.
            self._playback = self._simulator.play(_USER, orders=self._plan.orders, rate=self._plan.rate)
            self._next_drop = time.monotonic() + self._plan.drop_every
        return True

    def _summary(self) -> Summary:
        books, tally = self._simulator.books(_USER), self._board.tally
        return Summary(sent=books.emitted, missed=books.missed, **attrs.asdict(tally))

    def _check(self, summary: Summary) -> None:
        if not summary.adds_up:
            raise Failure("the books do not add up: what happened is not what was received and missed")
        if self._signal is None and not self._is_survived():
            raise Failure("the dropped connection, or the end of the token, was not survived in time")
