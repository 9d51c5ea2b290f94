"""Look into a journal of events, and put events back into it, also while a stream owns it."""

from __future__ import annotations

import argparse
import datetime as dt
import json
import sys
from typing import Any

from aggstream._base.json_text import to_json
from aggstream.cli._options import count
from aggstream.cli._outcome import moment
from aggstream.cli._shell import OK, USAGE, Failure, note, write_line
from aggstream.cli._terminal import Column, TableRow, has_reader, lay_out, painter, width
from aggstream.journal import JournalCounts, JournalReader, StoredEvent, replay, retry

HELP = "look into a journal, and have events delivered again"
EPILOG = """\
  aggstream journal list events.db --state dead
  aggstream journal show events.db 17
  aggstream journal retry events.db --all-dead
  aggstream journal replay events.db --since 2026-01-31T09:30:00Z
  aggstream journal export events.db | gzip > events.jsonl.gz

Exit codes: 0; 1 there is no such journal or event, or the journal is damaged or
locked; 2 wrong usage.
"""

_LIMIT = 100
_DIGITS_OF_AN_ID = 24
_STATE_STYLES = {"pending": "yellow", "done": "green", "dead": "bold red"}
_COLUMNS = (
    Column("seq", right=True),
    Column("state"),
    Column("event"),
    Column("order", rank=1),
    Column("received", rank=2),
    Column("source", rank=3),
    Column("failed", rank=3, right=True),
    Column("error", is_note=True),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's own commands."""
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def command(name: str, run: Any, summary: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.")
        added.add_argument("path", metavar="PATH", help="the journal's file")
        added.set_defaults(run_journal=run)
        return added

    found = command("list", _list, "list events, the oldest first")
    found.add_argument("--state", choices=("pending", "done", "dead"), help="only with this state")
    found.add_argument("--order", metavar="ID", help="only of this order")
    found.add_argument("--type", metavar="TYPE", help="only of this type, as order_event")
    found.add_argument("--after", metavar="SEQ", type=int, default=0, help="only those stored after this one")
    found.add_argument("--limit", metavar="N", type=count, default=_LIMIT, help=f"default: {_LIMIT}")
    one = command("show", _show, "show one event with all that is known of it, as JSON")
    one.add_argument("event", metavar="SEQ-or-ID", type=seq_or_id, help="its number, or its id")
    command("export", _export, "write all events, one JSON object a line, the oldest first")
    again = command("retry", _retry, "have dead events delivered again, as if they had never failed")
    again.add_argument("seqs", metavar="SEQ", type=int, nargs="*", help="their numbers")
    again.add_argument("--all-dead", action="store_true", help="all of them")
    back = command("replay", _replay, "have done events delivered again: those for which all that is given holds")
    back.add_argument("--order", metavar="ID", help="of this order")
    back.add_argument("--first", metavar="SEQ", type=int, help="from this number on")
    back.add_argument("--last", metavar="SEQ", type=int, help="up to this number")
    back.add_argument(
        "--since",
        metavar="TIME",
        type=_time,
        help="received then or later, as 2026-01-31T09:30:00Z; without a zone: the local time",
    )


def run(args: argparse.Namespace) -> int:
    """Do what is asked; return the exit code."""
    args.run_journal(args)
    return OK


def _list(args: argparse.Namespace) -> None:
    with JournalReader(args.path) as reader:
        events = reader.find(
            state=args.state, order_id=args.order, of_type=args.type, after=args.after, limit=args.limit
        )
        counts = reader.counts()
    if not has_reader():
        for stored in events:
            write_line(to_json(stored.as_dict()))
        return
    paint = painter()
    now = dt.datetime.now(dt.timezone.utc)
    if events:
        for line in lay_out(_COLUMNS, [_row(stored, now) for stored in events], width()):
            paint(line)
    else:
        paint([("no such events", "dim")])
    paint([(_in_words(counts), "dim")])
    if len(events) == args.limit:
        paint([(f"there may be more: --after {events[-1].seq} goes on", "dim")])


def _row(stored: StoredEvent, now: dt.datetime) -> TableRow:
    return (
        (str(stored.seq), "bold"),
        (stored.state, _STATE_STYLES[stored.state]),
        (stored.sub_event or stored.type, ""),
        (stored.order_id or "", ""),
        (moment(stored.received_at, now), "dim"),
        ("REST" if stored.source == "reconcile" else "stream", "dim"),
        (f"{stored.attempts}\N{MULTIPLICATION SIGN}" if stored.attempts else "", "yellow"),
        (stored.last_error or "" if stored.state != "done" else "", "red"),
    )


def _in_words(counts: JournalCounts) -> str:
    size = f"{counts.size / 1024:,.0f} KiB"
    return f"in all: {counts.pending:,} pending, {counts.done:,} done, {counts.dead:,} dead, {size}"


def _show(args: argparse.Namespace) -> None:
    with JournalReader(args.path) as reader:
        stored = reader.show(args.event)
    if stored is None:
        raise Failure(f"no event {args.event} in {args.path}")
    write_line(_pretty(stored.as_dict()))


def _pretty(value: Any, indent: str = "") -> str:
    """Return JSON on many lines, with numbers as they were written."""
    deeper = f"{indent}  "
    if isinstance(value, dict) and value:
        inner = [f"{deeper}{json.dumps(key)}: {_pretty(item, deeper)}" for key, item in value.items()]
        return "{\n" + ",\n".join(inner) + f"\n{indent}}}"
    if isinstance(value, (list, tuple)) and value:
        return "[\n" + ",\n".join(deeper + _pretty(item, deeper) for item in value) + f"\n{indent}]"
    return to_json(value)


def _export(args: argparse.Namespace) -> None:
    with JournalReader(args.path) as reader:
        for stored in reader.export():
            sys.stdout.write(f"{to_json(stored.as_dict())}\n")


def _retry(args: argparse.Namespace) -> None:
    if args.all_dead == bool(args.seqs):
        raise Failure("say which events: their numbers, or --all-dead", USAGE)
    number = retry(args.path, None if args.all_dead else args.seqs)
    if args.seqs and not number:
        raise Failure(f"none of these events of {args.path} is dead: see journal show, and replay for done ones")
    _print_result(number, "dead")


def _replay(args: argparse.Namespace) -> None:
    given = (args.order, args.first, args.last, args.since)
    if all(value is None for value in given):
        raise Failure("say which events: --order, --first, --last or --since", USAGE)
    number = replay(args.path, order_id=args.order, first=args.first, last=args.last, since=args.since)
    _print_result(number, "done")


def _print_result(number: int, state: str) -> None:
    words = f"{number:,} {state} event{'' if number == 1 else 's'} made pending"
    if number:
        words += "; delivered at the next start of the stream that owns the journal"
    if has_reader():
        write_line(words)
    else:
        write_line(to_json({"made_pending": number}))
        note(words)


def seq_or_id(text: str) -> int | str:
    """Return what an event is found by: a short number is its `seq`, all else its id."""
    return int(text) if text.isdecimal() and len(text) < _DIGITS_OF_AN_ID else text


def _time(text: str) -> dt.datetime:
    try:
        # Python 3.10 does not know the Z.
        moment = dt.datetime.fromisoformat(text[:-1] + "+00:00" if text.endswith(("Z", "z")) else text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"not a time as 2026-01-31T09:30:00Z: {text!a}") from None
    return moment.astimezone() if moment.tzinfo is None else moment
