"""Run a simulator and a client, without any settings, and watch orders and balances change.

Meanwhile the connection drops once and the access token expires. The summary shows that no event was lost
without notice. In a pipe the output is one JSON object a line, the summary last.
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
from aggstream.cli._argument_types import positive_int, positive_number
from aggstream.cli._dashboard import Dashboard, Summary
from aggstream.cli._event_format import as_json
from aggstream.cli._exit_codes import OK, Failure, needs_extra, signal_exit_code
from aggstream.cli._std_streams import write_line
from aggstream.client import Client
from aggstream.events import Authenticated, Event, Heartbeat
from aggstream.tokens._refreshing import RefreshingToken

if TYPE_CHECKING:
    from typing_extensions import Self

    from aggstream.simulator import Playback, Simulator

HELP = "watch orders and balances change, without any settings"
EPILOG = "The demo ends after about twenty seconds. Ctrl-C ends it earlier, with the summary."

_USER = "usr_demo"
_DROP_CODE = 1001
_EVENTS_PER_ORDER = 15
# The seconds between two dropped connections in an endless demo.
_DROP_INTERVAL = 20.0
# Parts of the expected duration: when the connection drops, and how long a token is valid. The client refreshes a
# token in the last third of its lifetime, so this happens once, and well before the end.
_DROP_PART = 0.5
_TOKEN_PART = 0.85
# A token with a shorter lifetime could expire before the client uses it.
_MIN_TOKEN_LIFETIME = 3.0
_DRAW_INTERVAL = 1 / 8
# The seconds for the reconnect after the last order, besides the token's lifetime.
_RECOVERY_TIMEOUT = 15.0
_LAST_EVENTS_TIMEOUT = 5.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    length = parser.add_mutually_exclusive_group()
    length.add_argument(
        "--orders", type=positive_int, default=30, metavar="N", help="end after N orders; default: 30"
    )
    length.add_argument("--forever", action="store_true", help="play orders until Ctrl-C")
    parser.add_argument(
        "--rate", type=positive_number, default=20.0, metavar="R", help="the user events per second; default: 20"
    )
    parser.add_argument(
        "--seed", type=int, default=1, metavar="S", help="the seed of the random orders; default: 1"
    )


def run(args: argparse.Namespace) -> int:
    """Run the demo; return the exit code."""
    with needs_extra("demo", "aiohttp", "jwt", "rich"):
        from aggstream.simulator import Simulator  # noqa: PLC0415  (an extra)

        view: View = JsonView()
        if sys.stdout.isatty():
            from aggstream.cli._render import LiveView  # noqa: PLC0415  (an extra)

            view = LiveView("aggstream demo")
    plan = Plan.from_args(args)
    inbox: Inbox = queue.SimpleQueue()
    simulator = Simulator(seed=args.seed, token_lifetime=plan.token_lifetime)
    with caught_signals(inbox.put), simulator, view:
        return Demo(simulator, view, plan, inbox).run()


@attrs.frozen
class Plan:
    """What happens in a run of the demo, and when."""

    orders: int | None
    """The number of orders; None: no limit."""
    rate: float
    drop_after: float
    """The seconds from the first order until the connection drops."""
    token_lifetime: float

    @classmethod
    def from_args(cls, args: argparse.Namespace) -> Plan:
        """Make a plan from the options of the command."""
        duration = _DROP_INTERVAL if args.forever else args.orders * _EVENTS_PER_ORDER / args.rate
        return cls(
            orders=None if args.forever else args.orders,
            rate=args.rate,
            drop_after=duration * _DROP_PART,
            token_lifetime=max(_MIN_TOKEN_LIFETIME, duration * _TOKEN_PART),
        )


class View(Protocol):
    """Shows a run. The main thread calls all its methods."""

    def show_event(self, event: Event) -> None:
        """Show an event."""

    def draw(self, dashboard: Dashboard) -> None:
        """Draw the present state. It is called several times a second."""

    def finish(self, dashboard: Dashboard, summary: Summary) -> None:
        """Show the end state and the summary."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *error: object) -> None: ...


class JsonView(contextlib.AbstractContextManager["JsonView"]):
    """Writes one JSON object a line."""

    def show_event(self, event: Event) -> None:
        """Write the event."""
        write_line(as_json(event))

    def draw(self, dashboard: Dashboard) -> None:
        """Do nothing: events and the summary are all that is written."""

    def finish(self, dashboard: Dashboard, summary: Summary) -> None:
        """Write the summary as the last line."""
        write_line(to_json(summary.as_object()))

    def __exit__(self, *error: object) -> None:
        """Do nothing: there is nothing to close."""


Inbox = queue.SimpleQueue["Event | signal.Signals"]


class Demo:
    """One run of the demo, on the main thread.

    Events from the client's thread, and signals, come through one inbox. All else is used by the main thread only.
    """

    def __init__(self, simulator: Simulator, view: View, plan: Plan, inbox: Inbox) -> None:
        self._simulator = simulator
        self._view = view
        self._plan = plan
        self._inbox = inbox
        self._dashboard = Dashboard()
        self._playback: Playback | None = None
        self._signal: signal.Signals | None = None
        self._drop_count = 0
        self._next_drop = 0.0

    def run(self) -> int:
        """Run the demo until its end or a signal; return the exit code.

        Raises:
            AggStreamError: the stream has failed.
            Failure: the numbers of events do not add up, or the client has not recovered from the faults in time.
        """
        with self._client():
            self._run_orders()
            self._wait_for_last_events()
        # Stopping the client gives events, too.
        while self._take_next(timeout=0.0):
            pass
        summary = self._summary()
        self._view.finish(self._dashboard, summary)
        self._check_summary(summary)
        return OK if self._signal is None else signal_exit_code(self._signal)

    def _client(self) -> Client:
        simulator = self._simulator
        signed_in = simulator.sign_in(_USER, lifetime=self._plan.token_lifetime)
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

    def _run_orders(self) -> None:
        """Play orders until the run is complete, a signal comes, the stream ends, or the time runs out."""
        deadline = None
        while self._signal is None and self._dashboard.state != "stopped" and not self._is_complete():
            self._take_next(timeout=_DRAW_INTERVAL)
            self._drop_if_due()
            self._view.draw(self._dashboard)
            if self._playback is not None and self._playback.done:
                deadline = deadline or time.monotonic() + self._plan.token_lifetime + _RECOVERY_TIMEOUT
                if time.monotonic() > deadline:
                    break

    def _is_complete(self) -> bool:
        return self._playback is not None and self._playback.done and self._has_recovered()

    def _has_recovered(self) -> bool:
        return self._dashboard.counts.reconnects >= self._drop_count > 0 and self._dashboard.counts.refreshes > 0

    def _drop_if_due(self) -> None:
        """Drop the connection when it is time, and at the latest after the last order."""
        if self._playback is None or self._dashboard.state != "live":
            return
        is_due = time.monotonic() >= self._next_drop or self._playback.done
        if is_due and (self._drop_count == 0 or self._plan.orders is None):
            # The first attempt to reconnect fails, so that people can see the outage.
            self._simulator.refuse_connections(1)
            self._simulator.drop(code=_DROP_CODE)
            self._drop_count += 1
            self._next_drop = time.monotonic() + _DROP_INTERVAL

    def _wait_for_last_events(self) -> None:
        if self._playback is not None:
            self._playback.cancel()
        deadline = time.monotonic() + _LAST_EVENTS_TIMEOUT
        while (
            not self._summary().is_balanced and self._dashboard.state != "stopped" and time.monotonic() < deadline
        ):
            self._take_next(timeout=_DRAW_INTERVAL)

    def _take_next(self, *, timeout: float) -> bool:
        """Handle the next event or signal; return True if one came in time."""
        try:
            item = self._inbox.get(timeout=timeout)
        except queue.Empty:
            return False
        if isinstance(item, signal.Signals):
            self._signal = item
            return True
        self._dashboard.apply(item)
        if not isinstance(item, Heartbeat):
            self._view.show_event(item)
        if isinstance(item, Authenticated) and self._playback is None:
            # Orders begin only now, because earlier events would be missed: nobody is signed in.
            self._playback = self._simulator.play(_USER, orders=self._plan.orders, rate=self._plan.rate)
            self._next_drop = time.monotonic() + self._plan.drop_after
        return True

    def _summary(self) -> Summary:
        books, counts = self._simulator.books(_USER), self._dashboard.counts
        return Summary(sent=books.emitted, missed=books.missed, **attrs.asdict(counts))

    def _check_summary(self, summary: Summary) -> None:
        if not summary.is_balanced:
            raise Failure(
                "the numbers of events do not add up: those that happened are not those received and missed"
            )
        if self._signal is None and not self._has_recovered():
            raise Failure("the client did not reconnect, or did not refresh the token, in time")
