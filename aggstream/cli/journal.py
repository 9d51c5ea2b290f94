"""Read a journal of events, and have events delivered again, also while a stream uses the journal."""

from __future__ import annotations

import argparse
import datetime as dt
import json
import sys
from typing import Any

import attrs

from aggstream._base.json_text import to_json
from aggstream._base.times import moment_of_ns
from aggstream.cli._argument_types import positive_int
from aggstream.cli._exit_codes import OK, USAGE, Failure
from aggstream.cli._order_format import moment
from aggstream.cli._std_streams import print_note, write_line
from aggstream.cli._table import Column, TableRow, table_lines
from aggstream.cli._terminal import is_interactive, painter, width
from aggstream.journal import JournalCounts, JournalReader, StoredAccount, StoredEvent, replay, retry

HELP = "read a journal, and have events delivered again"
EPILOG = """\
  aggstream journal list events.db --state dead
  aggstream journal accounts events.db
  aggstream journal show events.db 17
  aggstream journal retry events.db --all-dead
  aggstream journal replay events.db --since 2026-01-31T09:30:00Z
  aggstream journal export events.db | gzip > events.jsonl.gz

Exit codes: 0 success; 1 there is no such journal or event, or the journal is
damaged or locked; 2 wrong usage.
"""

_DEFAULT_LIMIT = 100
_ID_LENGTH = 24
_STATE_STYLES = {"pending": "yellow", "done": "green", "dead": "bold red"}
_COLUMNS = (
    Column("seq", right=True),
    Column("state"),
    Column("event"),
    Column("account", rank=1),
    Column("order", rank=1),
    Column("received", rank=2),
    Column("source", rank=3),
    Column("failed", rank=3, right=True),
    Column("error", is_note=True),
)
_ACCOUNT_COLUMNS = (
    Column("account"),
    Column("user", rank=1),
    Column("pending", right=True),
    Column("done", right=True),
    Column("dead", right=True),
    Column("last event", rank=2),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the subcommands of this command."""
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def add_command(name: str, run: Any, summary: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.")
        added.add_argument("path", metavar="PATH", help="the file of the journal")
        added.set_defaults(run_journal=run)
        return added

    list_parser = add_command("list", _list, "list events, the oldest first")
    list_parser.add_argument(
        "--state", choices=("pending", "done", "dead"), help="list only events with this state"
    )
    _add_account(list_parser)
    list_parser.add_argument("--order", metavar="ID", help="list only events of this order")
    list_parser.add_argument("--type", metavar="TYPE", help="list only events of this type, like order_event")
    list_parser.add_argument(
        "--after", metavar="SEQ", type=int, default=0, help="list only events that were stored after this one"
    )
    list_parser.add_argument(
        "--limit",
        metavar="N",
        type=positive_int,
        default=_DEFAULT_LIMIT,
        help=f"list at most N events; default: {_DEFAULT_LIMIT}",
    )
    show_parser = add_command("show", _show, "show all data of one event, as JSON")
    show_parser.add_argument("event", metavar="SEQ-or-ID", type=seq_or_id, help="the event's number or id")
    add_command("accounts", _accounts, "list the accounts of a fleet's journal, and how many events each has")
    add_command("export", _export, "write all events as JSON, one object a line, the oldest first")
    retry_parser = add_command("retry", _retry, "have dead events delivered again, as if they had not failed")
    retry_parser.add_argument("seqs", metavar="SEQ", type=int, nargs="*", help="the numbers of the events")
    _add_account(retry_parser)
    retry_parser.add_argument("--all-dead", action="store_true", help="all dead events")
    replay_parser = add_command(
        "replay", _replay, "have done events delivered again, if all given options match them"
    )
    _add_account(replay_parser)
    replay_parser.add_argument("--order", metavar="ID", help="only events of this order")
    replay_parser.add_argument("--first", metavar="SEQ", type=int, help="only events from this number on")
    replay_parser.add_argument("--last", metavar="SEQ", type=int, help="only events up to this number")
    replay_parser.add_argument(
        "--since",
        metavar="TIME",
        type=_time,
        help="only events received at this time or later, like 2026-01-31T09:30:00Z; without a zone: local time",
    )


def _add_account(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--account", metavar="NAME", help="only events of this account of a fleet")


def run(args: argparse.Namespace) -> int:
    """Run the chosen subcommand; return the exit code."""
    args.run_journal(args)
    return OK


def _list(args: argparse.Namespace) -> None:
    with JournalReader(args.path) as reader:
        events = reader.find(
            state=args.state,
            order_id=args.order,
            of_type=args.type,
            account=args.account,
            after=args.after,
            limit=args.limit,
        )
        counts = reader.counts()
    if not is_interactive():
        for stored in events:
            write_line(to_json(stored.as_dict()))
        return
    paint = painter()
    now = dt.datetime.now(dt.timezone.utc)
    if events:
        for line in table_lines(_COLUMNS, [_table_row(stored, now) for stored in events], width()):
            paint(line)
    else:
        paint([("no such events", "dim")])
    paint([(_counts_text(counts), "dim")])
    if len(events) == args.limit:
        paint([(f"there may be more events: --after {events[-1].seq} lists them", "dim")])


def _accounts(args: argparse.Namespace) -> None:
    with JournalReader(args.path) as reader:
        accounts = reader.accounts()
    if not is_interactive():
        for account in accounts:
            write_line(to_json(attrs.asdict(account)))
        return
    paint = painter()
    now = dt.datetime.now(dt.timezone.utc)
    for line in table_lines(_ACCOUNT_COLUMNS, [_account_row(account, now) for account in accounts], width()):
        paint(line)


def _account_row(account: StoredAccount, now: dt.datetime) -> TableRow:
    received_ns = account.last_received_ns
    return (
        (account.name or "(a single client)", "bold"),
        (account.user_id or "", ""),
        (f"{account.pending:,}", _STATE_STYLES["pending"]),
        (f"{account.done:,}", _STATE_STYLES["done"]),
        (f"{account.dead:,}", _STATE_STYLES["dead"] if account.dead else ""),
        ("" if received_ns is None else moment(moment_of_ns(received_ns), now), "dim"),
    )


def _table_row(stored: StoredEvent, now: dt.datetime) -> TableRow:
    return (
        (str(stored.seq), "bold"),
        (stored.state, _STATE_STYLES[stored.state]),
        (stored.sub_event or stored.type, ""),
        (stored.account, ""),
        (stored.order_id or "", ""),
        (moment(stored.received_at, now), "dim"),
        ("REST" if stored.source == "reconcile" else "stream", "dim"),
        (f"{stored.attempts}\N{MULTIPLICATION SIGN}" if stored.attempts else "", "yellow"),
        (stored.last_error or "" if stored.state != "done" else "", "red"),
    )


def _counts_text(counts: JournalCounts) -> str:
    size = f"{counts.size / 1024:,.0f} KiB"
    return f"total: {counts.pending:,} pending, {counts.done:,} done, {counts.dead:,} dead, {size}"


def _show(args: argparse.Namespace) -> None:
    with JournalReader(args.path) as reader:
        stored = reader.show(args.event)
    if stored is None:
        raise Failure(f"no event {args.event} in {args.path}")
    write_line(_indented_json(stored.as_dict()))


def _indented_json(value: Any, indent: str = "") -> str:
    """Return JSON with indents, and with numbers as `to_json` writes them."""
    deeper = f"{indent}  "
    if isinstance(value, dict) and value:
        inner = [f"{deeper}{json.dumps(key)}: {_indented_json(item, deeper)}" for key, item in value.items()]
        return "{\n" + ",\n".join(inner) + f"\n{indent}}}"
    if isinstance(value, (list, tuple)) and value:
        return "[\n" + ",\n".join(deeper + _indented_json(item, deeper) for item in value) + f"\n{indent}]"
    return to_json(value)


def _export(args: argparse.Namespace) -> None:
    with JournalReader(args.path) as reader:
        for stored in reader.export():
            sys.stdout.write(f"{to_json(stored.as_dict())}\n")


def _retry(args: argparse.Namespace) -> None:
    if args.all_dead == bool(args.seqs):
        raise Failure("say which events: give their numbers, or --all-dead", USAGE)
    number = retry(args.path, None if args.all_dead else args.seqs, account=args.account)
    if args.seqs and not number:
        state = "`journal show` tells their state, and `journal replay` is for done events"
        raise Failure(f"none of these events of {args.path} is dead: {state}")
    _print_result(number, "dead")


def _replay(args: argparse.Namespace) -> None:
    given = (args.order, args.first, args.last, args.since)
    if all(value is None for value in given):
        raise Failure("say which events: give --order, --first, --last or --since", USAGE)
    number = replay(
        args.path,
        order_id=args.order,
        first=args.first,
        last=args.last,
        since=args.since,
        account=args.account,
    )
    _print_result(number, "done")


def _print_result(number: int, state: str) -> None:
    words = f"{number:,} {state} event{'' if number == 1 else 's'} made pending"
    if number:
        words += "; they are delivered at the next start of the stream that uses the journal"
    if is_interactive():
        write_line(words)
    else:
        write_line(to_json({"made_pending": number}))
        print_note(words)


def seq_or_id(text: str) -> int | str:
    """Return an event's number for a text of digits that is shorter than an id; otherwise the text, as an id."""
    return int(text) if text.isdecimal() and len(text) < _ID_LENGTH else text


def _time(text: str) -> dt.datetime:
    try:
        # `fromisoformat` of Python 3.10 does not accept Z.
        moment = dt.datetime.fromisoformat(text[:-1] + "+00:00" if text.endswith(("Z", "z")) else text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a time like 2026-01-31T09:30:00Z, got {text!a}") from None
    return moment.astimezone() if moment.tzinfo is None else moment
