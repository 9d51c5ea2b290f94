"""List your orders, from REST and the stream: open orders first, and new orders before old ones."""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
from collections.abc import Iterable, Sequence

from aggstream._base.json_text import to_json
from aggstream._base.signals import caught_signals
from aggstream._base.text import shown
from aggstream.cli import _order_format
from aggstream.cli._argument_types import positive_int, positive_number
from aggstream.cli._connection_settings import (
    ENVIRONMENT,
    ConnectionSettings,
    add_connection_arguments,
    has_rest_failed,
)
from aggstream.cli._exit_codes import EXIT_CODES, FAILED, OK, UNKNOWN, signal_exit_code
from aggstream.cli._std_streams import print_note, write_line
from aggstream.cli._table import Column, TableRow, table_lines
from aggstream.cli._terminal import is_interactive, painter, width
from aggstream.client import Client
from aggstream.errors import AggStreamError, StateError, WaitTimeout
from aggstream.events import normal_form
from aggstream.orders._order import Order

HELP = "list open and recent orders"
EPILOG = f"""\
{EXIT_CODES}

{ENVIRONMENT}

  aggstream orders --status partially_filled --status submitted
  aggstream orders --all | jq -r 'select(.verdict == "failed") | .order_id'
"""

_LIMIT = 50
_STOP_TIMEOUT = 1.0
_COLUMNS = (
    Column("order"),
    Column("status"),
    Column("side", rank=1),
    Column("venue", rank=1),
    Column("amount", rank=2, right=True),
    Column("filled", rank=2, right=True),
    Column("remaining", rank=2, right=True),
    Column("price", rank=1, right=True),
    Column("updated", rank=1),
    Column("source", rank=2),
    Column("error", is_note=True),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    parser.add_argument("--all", action="store_true", help="list all orders that REST has, also old ones")
    parser.add_argument(
        "--status",
        metavar="S",
        action="append",
        default=[],
        help="list only orders with this status, like filled; may be repeated",
    )
    parser.add_argument(
        "--limit",
        type=positive_int,
        metavar="N",
        help=f"list at most N orders; default: {_LIMIT}, with --all no limit",
    )
    parser.add_argument("--no-stream", action="store_true", help="ask only REST, and do not connect to the stream")
    parser.add_argument(
        "--timeout",
        type=positive_number,
        default=15.0,
        metavar="SECONDS",
        help="wait at most this long until nothing is missing; default: 15",
    )
    add_connection_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Print the orders; return the exit code."""
    connection = ConnectionSettings.from_args(args, needs_origin=not args.no_stream)
    code = OK
    orders: dict[str, Order] = {}
    if not args.no_stream:
        code, orders = _from_stream(connection, args.timeout)
        if code not in (OK, UNKNOWN):
            return code
    if args.no_stream or (args.all and code == OK):
        option = "--no-stream" if args.no_stream else "--all"
        with connection.rest(option) as rest:
            for record in rest.orders(max_pages=None if args.all else 1):
                orders.setdefault(record.id, _order_format.order_of(record))
    selected = _select(orders.values(), {normal_form(status) for status in args.status})
    limit = args.limit or (len(selected) if args.all else _LIMIT)
    _show(selected[:limit], len(selected), is_known=code == OK)
    return code


def _select(orders: Iterable[Order], statuses: set[str]) -> list[Order]:
    """Return the orders with one of the statuses, or all if there are none: open orders first, then the newest."""
    selected = [o for o in orders if not statuses or o.status in statuses or o.unknown_status in statuses]
    return sorted(selected, key=lambda order: (order.is_terminal, -(order.last_timestamp or 0)))


def _from_stream(connection: ConnectionSettings, timeout: float) -> tuple[int, dict[str, Order]]:
    """Return the exit code so far, and the known orders, once nothing is missing or the time has run out.

    Raises:
        AggStreamError: the stream has failed.
    """
    client = connection.client()
    code = OK
    with caught_signals(lambda _: _stop(client)) as received:
        client.start()
        try:
            client.wait_until_caught_up(timeout)
        except WaitTimeout as error:
            print_note(str(error))
            has_failed = connection.has_rest and has_rest_failed(client) and not client.orders
            code = FAILED if has_failed else UNKNOWN
        except StateError:
            if not received:
                raise
        orders = dict(client.orders)
        _stop(client)
    if received:
        return signal_exit_code(received[0]), {}
    if not connection.has_rest:
        print_note(
            "there is no REST API to ask, so only orders that the stream has just told are known: see --rest-url"
        )
        code = UNKNOWN
    return code, orders


def _stop(client: Client) -> None:
    with contextlib.suppress(AggStreamError):  # `orders` has all known orders already
        client.stop(_STOP_TIMEOUT)


def _show(orders: Sequence[Order], total: int, *, is_known: bool) -> None:
    if not is_interactive():
        for order in orders:
            write_line(to_json(_order_format.order_as_object(order)))
    elif orders:
        paint = painter()
        for line in table_lines(_COLUMNS, list(map(_table_row, orders)), width()):
            paint(line)
    if not total and is_known:
        print_note("no such orders")
    elif total > len(orders):
        print_note(f"{len(orders)} of {total} orders shown: see --limit and --all")


def _table_row(order: Order) -> TableRow:
    dim = "dim" if order.is_terminal else ""
    status = order.status or "?"
    doubt = [_order_format.describe_contradiction(contradiction) for contradiction in order.contradictions]
    unknown = order.unknown_status
    words = [order.error_reason or "", f"the status {shown(unknown)} is not known" if unknown else "", *doubt]
    filled, remaining = order.filled_amount_raw, order.remaining_amount_raw
    return (
        (order.order_id, ""),
        (f"{status} (!)" if doubt else status, "bold red" if doubt else _order_format.STYLES.get(status, "cyan")),
        (order.side or "", "green" if order.side == "buy" else "magenta"),
        (order.venue or "", dim),
        (_order_format.amount(order), dim),
        ("" if filled is None else str(filled), dim),
        ("" if remaining is None else str(remaining), dim),
        (_order_format.price(order), dim),
        (_order_format.moment(order.last_seen_at, dt.datetime.now(dt.timezone.utc)), dim),
        (_order_format.status_source(order), dim),
        ("; ".join(word for word in words if word), "red"),
    )
