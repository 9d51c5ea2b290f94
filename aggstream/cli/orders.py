"""The user's orders: the open ones first, then the newest, as REST and the stream tell of them."""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
from collections.abc import Iterable, Sequence

from aggstream._base.json_text import to_json
from aggstream._base.signals import caught_signals
from aggstream._base.text import shown
from aggstream.cli import _outcome
from aggstream.cli._connection import ENVIRONMENT, ConnectionSettings, add_connection_arguments
from aggstream.cli._options import count, rate
from aggstream.cli._shell import EXIT_CODES, OK, UNKNOWN, exit_code, note, write_line
from aggstream.cli._terminal import Column, TableRow, has_reader, lay_out, painter, width
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
_STOP = 1.0
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
    parser.add_argument("--all", action="store_true", help="every order that REST tells of, however old")
    parser.add_argument(
        "--status", metavar="S", action="append", default=[], help="only these, as filled; may be repeated"
    )
    parser.add_argument(
        "--limit", type=count, metavar="N", help=f"show so many at most; default: {_LIMIT}, with --all no limit"
    )
    parser.add_argument("--no-stream", action="store_true", help="ask REST alone, and do not connect")
    parser.add_argument(
        "--timeout",
        type=rate,
        default=15.0,
        metavar="SECONDS",
        help="until everything is known that may have been missed; default: 15",
    )
    add_connection_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Show the orders; return the exit code."""
    connection = ConnectionSettings.of(args, needs_origin=not args.no_stream)
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
                orders.setdefault(record.id, _outcome.order_of(record))
    found = _found(orders.values(), {normal_form(status) for status in args.status})
    limit = args.limit or (len(found) if args.all else _LIMIT)
    _show(found[:limit], len(found), is_known=code == OK)
    return code


def _found(orders: Iterable[Order], statuses: set[str]) -> list[Order]:
    """Return the orders of some statuses, or of all if none is given: open ones first, then by age."""
    found = [o for o in orders if not statuses or o.status in statuses or o.unknown_status in statuses]
    return sorted(found, key=lambda order: (order.is_terminal, -(order.last_timestamp or 0)))


def _from_stream(connection: ConnectionSettings, timeout: float) -> tuple[int, dict[str, Order]]:
    """Return the exit code so far, and what is known once nothing is missing, or the time is up.

    Raises:
        AggStreamError: the stream failed for good.
    """
    client = connection.client()
    code = OK
    with caught_signals(lambda _: _stop(client)) as received:
        client.start()
        try:
            client.wait_until_caught_up(timeout)
        except WaitTimeout as error:
            note(str(error))
            code = UNKNOWN
        except StateError:
            if not received:
                raise
        orders = dict(client.orders)
        _stop(client)
    if received:
        return exit_code(received[0]), {}
    if not connection.has_rest:
        note("there is no REST API to ask, so only what the stream has told just now is known: see --rest-url")
        code = UNKNOWN
    return code, orders


def _stop(client: Client) -> None:
    with contextlib.suppress(AggStreamError):  # all that is known of the orders is here already
        client.stop(_STOP)


def _show(orders: Sequence[Order], found: int, *, is_known: bool) -> None:
    if not has_reader():
        for order in orders:
            write_line(to_json(_outcome.order_as_object(order)))
    elif orders:
        paint = painter()
        for line in lay_out(_COLUMNS, list(map(_row, orders)), width()):
            paint(line)
    if not found and is_known:
        note("no such orders")
    elif found > len(orders):
        note(f"{len(orders)} of {found} orders shown: see --limit and --all")


def _row(order: Order) -> TableRow:
    dim = "dim" if order.is_terminal else ""
    status = order.status or "?"
    doubt = [_outcome.contradiction_in_words(contradiction) for contradiction in order.contradictions]
    unknown = order.unknown_status
    words = [order.error_reason or "", f"{shown(unknown)} is no status that is known" if unknown else "", *doubt]
    filled, remaining = order.filled_amount_raw, order.remaining_amount_raw
    return (
        (order.order_id, ""),
        (f"{status} (!)" if doubt else status, "bold red" if doubt else _outcome.STYLES.get(status, "cyan")),
        (order.side or "", "green" if order.side == "buy" else "magenta"),
        (order.venue or "", dim),
        (_outcome.amount(order), dim),
        ("" if filled is None else str(filled), dim),
        ("" if remaining is None else str(remaining), dim),
        (_outcome.price(order), dim),
        (_outcome.moment(order.last_seen_at, dt.datetime.now(dt.timezone.utc)), dim),
        (_outcome.status_source(order), dim),
        ("; ".join(word for word in words if word), "red"),
    )
