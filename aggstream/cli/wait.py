"""Wait until orders have ended, and tell what became of each as it ends."""

from __future__ import annotations

import argparse
import contextlib
import queue
import signal
from collections.abc import Callable, Collection
from typing import TypeAlias

from aggstream._base.deadline import Deadline
from aggstream._base.json_text import to_json
from aggstream._base.signals import caught_signals
from aggstream.cli._connection import ENVIRONMENT, ConnectionSettings, add_connection_arguments, why_not_caught_up
from aggstream.cli._lines import as_line, is_worth_printing
from aggstream.cli._options import rate
from aggstream.cli._outcome import outcome_as_line, outcome_as_object
from aggstream.cli._shell import (
    EXIT_CODES,
    NOT_FILLED,
    OK,
    UNKNOWN,
    abandon_stdout,
    exit_code,
    note,
    write_line,
)
from aggstream.cli._terminal import has_reader, line_printer, print_aside
from aggstream.client import Client
from aggstream.errors import AggStreamError
from aggstream.events import LifecycleEvent, Verdict
from aggstream.orders._order import Outcome
from aggstream.orders._tracked_order import TrackedOrder

HELP = "wait until orders are filled, or have ended otherwise"
EPILOG = f"""\
{EXIT_CODES}

{ENVIRONMENT}

  aggstream wait ord_abc123 --timeout 300 && echo filled
  aggstream wait ord_abc123 ord_def456 | jq -r .verdict
"""

_STOP = 1.0

_Inbox: TypeAlias = "queue.SimpleQueue[Outcome | signal.Signals]"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    parser.add_argument("order_ids", nargs="+", metavar="ORDER_ID", help="an order's id")
    parser.add_argument(
        "--timeout",
        type=rate,
        default=60.0,
        metavar="SECONDS",
        help="for all of them together, connecting included; default: 60",
    )
    add_connection_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Wait for the orders; return the exit code."""
    deadline = Deadline(args.timeout)
    client = ConnectionSettings.of(args).client()
    inbox: _Inbox = queue.SimpleQueue()

    print_line = line_printer() if has_reader() else None

    @client.on(LifecycleEvent)
    def print_event(event: LifecycleEvent) -> None:
        if not is_worth_printing(event):
            return
        if print_line is None:
            print_aside(event)
        else:  # in a terminal it is part of the picture
            print_line(as_line(event))

    with caught_signals(inbox.put):
        client.start()
        try:
            return _wait(client, args.order_ids, inbox, deadline)
        finally:
            with contextlib.suppress(AggStreamError):  # what matters of it is in the outcomes
                client.stop(_STOP)


def _wait(client: Client, order_ids: list[str], inbox: _Inbox, deadline: Deadline) -> int:
    """Show each order's outcome as it comes, or what is known when the time runs out.

    Raises:
        AggStreamError: the stream ended before all of them had.
    """
    show = _printer()
    waiting = {order_id: client.track(order_id) for order_id in order_ids}
    if has_reader():
        orders = order_ids[0] if len(waiting) == 1 else f"{len(waiting)} orders"
        note(f"waiting for {orders}, {deadline.remaining():.0f} s at most")
    for order in waiting.values():
        order.future().add_done_callback(lambda future: inbox.put(future.result()))
    code, failure = OK, None
    while waiting:
        try:
            item = inbox.get(timeout=deadline.remaining())
        except queue.Empty:
            break
        if isinstance(item, signal.Signals):
            return exit_code(item)
        del waiting[item.order_id]
        show(item, item.reason)
        code = max(code, exit_code_of(item))
        failure = failure or item.error
    code = max([code, *_show_unended(client, waiting.values(), show)])
    if failure is not None and code == UNKNOWN:
        raise failure
    return code


def _show_unended(
    client: Client, orders: Collection[TrackedOrder], show: Callable[[Outcome, str], None]
) -> list[int]:
    """Show the orders that have not ended when the time runs out; return their exit codes."""
    doubt = why_not_caught_up(client) if orders else ""
    codes = []
    for order in orders:
        outcome = order.outcome
        show(outcome, f"{outcome.reason}: {doubt}" if doubt and not outcome.is_known else outcome.reason)
        codes.append(exit_code_of(outcome))
    return codes


def exit_code_of(outcome: Outcome) -> int:
    """Return the exit code that an order's outcome comes to."""
    if outcome.verdict is Verdict.FILLED:
        return OK
    # If the word of the end and its amounts disagree, it has ended, and nobody can say that it was filled in full.
    order = outcome.order
    disagree = order is not None and order.amounts_doubt in ("disagree", "confirmed") and not order.is_contradicted
    return NOT_FILLED if outcome.is_known or disagree else UNKNOWN


def _printer() -> Callable[[Outcome, str], None]:
    print_line = line_printer() if has_reader() else None

    def show(outcome: Outcome, reason: str) -> None:
        try:
            if print_line is None:
                write_line(to_json(outcome_as_object(outcome, reason)))
            else:
                print_line(outcome_as_line(outcome, reason))
        except BrokenPipeError:
            # The exit code is the answer, and it must not say "filled" because nobody reads the words.
            abandon_stdout()

    return show
