"""Wait until orders have ended, and print the outcome of each one as soon as it ends."""

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
from aggstream.cli._argument_types import positive_number
from aggstream.cli._connection_settings import (
    ENVIRONMENT,
    ConnectionSettings,
    add_connection_arguments,
    has_rest_failed,
    why_not_caught_up,
)
from aggstream.cli._event_format import as_line, is_shown_always
from aggstream.cli._exit_codes import EXIT_CODES, FAILED, NOT_FILLED, OK, UNKNOWN, signal_exit_code
from aggstream.cli._order_format import outcome_as_line, outcome_as_object
from aggstream.cli._std_streams import abandon_stdout, print_note, write_line
from aggstream.cli._terminal import is_interactive, line_printer, print_note_of
from aggstream.client import Client
from aggstream.errors import AggStreamError
from aggstream.events import LifecycleEvent, Verdict
from aggstream.orders._order import Outcome
from aggstream.orders._tracked_order import TrackedOrder

HELP = "wait until orders are filled, or end in another way"
EPILOG = f"""\
{EXIT_CODES}

{ENVIRONMENT}

  aggstream wait ord_abc123 --timeout 300 && echo filled
  aggstream wait ord_abc123 ord_def456 | jq -r .verdict
"""

_STOP_TIMEOUT = 1.0

_Inbox: TypeAlias = "queue.SimpleQueue[Outcome | signal.Signals]"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    parser.add_argument("order_ids", nargs="+", metavar="ORDER_ID", help="the id of an order")
    parser.add_argument(
        "--timeout",
        type=positive_number,
        default=60.0,
        metavar="SECONDS",
        help="wait at most this long for all orders together, with connecting; default: 60",
    )
    add_connection_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Wait for the orders; return the exit code."""
    deadline = Deadline(args.timeout)
    connection = ConnectionSettings.from_args(args)
    client = connection.client()
    inbox: _Inbox = queue.SimpleQueue()

    print_line = line_printer() if is_interactive() else None

    @client.on(LifecycleEvent)
    def print_event(event: LifecycleEvent) -> None:
        if not is_shown_always(event):
            return
        if print_line is None:
            print_note_of(event)
        else:  # in a terminal, events and outcomes go to stdout together
            print_line(as_line(event))

    with caught_signals(inbox.put):
        client.start()
        try:
            code = _wait(client, args.order_ids, inbox, deadline)
            is_nothing_known = client.orders.keys().isdisjoint(args.order_ids)
            if code == UNKNOWN and is_nothing_known and connection.has_rest and has_rest_failed(client):
                return FAILED
            return code
        finally:
            with contextlib.suppress(AggStreamError):  # the outcomes have the errors that matter
                client.stop(_STOP_TIMEOUT)


def _wait(client: Client, order_ids: list[str], inbox: _Inbox, deadline: Deadline) -> int:
    """Print each order's outcome when the order ends, or its state when the time runs out.

    Raises:
        AggStreamError: the stream ended before all orders did.
    """
    show = _outcome_printer()
    waiting = {order_id: client.track(order_id) for order_id in order_ids}
    if is_interactive():
        orders = order_ids[0] if len(waiting) == 1 else f"{len(waiting)} orders"
        print_note(f"waiting for {orders}, {deadline.remaining():.0f} s at most")
    for order in waiting.values():
        order.future().add_done_callback(lambda future: inbox.put(future.result()))
    code, failure = OK, None
    while waiting:
        try:
            item = inbox.get(timeout=deadline.remaining())
        except queue.Empty:
            break
        if isinstance(item, signal.Signals):
            return signal_exit_code(item)
        del waiting[item.order_id]
        show(item, item.reason)
        code = max(code, exit_code_of(item))
        failure = failure or item.error
    code = max([code, *_show_open_orders(client, waiting.values(), show)])
    if failure is not None and code == UNKNOWN:
        raise failure
    return code


def _show_open_orders(
    client: Client, orders: Collection[TrackedOrder], show: Callable[[Outcome, str], None]
) -> list[int]:
    """Print the orders that have not ended when the time runs out; return their exit codes."""
    doubt = why_not_caught_up(client) if orders else ""
    codes = []
    for order in orders:
        outcome = order.outcome
        show(outcome, f"{outcome.reason}: {doubt}" if doubt and not outcome.is_known else outcome.reason)
        codes.append(exit_code_of(outcome))
    return codes


def exit_code_of(outcome: Outcome) -> int:
    """Return the exit code for the outcome of an order."""
    if outcome.verdict is Verdict.FILLED:
        return OK
    # If the last status and the amounts disagree, the order has ended, but it is not known to be filled in full.
    order = outcome.order
    disagree = order is not None and order.amounts_doubt in ("disagree", "confirmed") and not order.is_contradicted
    return NOT_FILLED if outcome.is_known or disagree else UNKNOWN


def _outcome_printer() -> Callable[[Outcome, str], None]:
    print_line = line_printer() if is_interactive() else None

    def show(outcome: Outcome, reason: str) -> None:
        try:
            if print_line is None:
                write_line(to_json(outcome_as_object(outcome, reason)))
            else:
                print_line(outcome_as_line(outcome, reason))
        except BrokenPipeError:
            # Nobody reads stdout any more, but the exit code must still be that of the outcome.
            abandon_stdout()

    return show
