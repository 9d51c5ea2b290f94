"""The live stream: pretty in a terminal, one JSON object a line in a pipe or a file."""

from __future__ import annotations

import argparse
from collections.abc import Callable

import attrs

from aggstream._delivery.registry import Key, key_of
from aggstream.cli._connection import ENVIRONMENT, ConnectionSettings, add_connection_arguments
from aggstream.cli._lines import as_json, as_line, is_worth_printing
from aggstream.cli._shell import note, write_line
from aggstream.cli._terminal import has_reader, line_printer, print_aside
from aggstream.events import LIFECYCLE_TYPES, WIRE_TYPES, Event, Heartbeat
from aggstream.journal import JournalOptions

HELP = "show the live stream of your user"
EPILOG = f"""\
{ENVIRONMENT}

  aggstream listen --type order_event --event filled --event failed
  aggstream listen --order ord_abc123 | jq -r .event
  aggstream listen --journal events.db >> events.jsonl

With a journal each event is on disk before it is shown, and what was not shown
when the command ended is shown at the next start, marked. What the filters
leave out counts as shown.
"""

# The command ends when it cannot print, whatever the event; that must not set events aside as hopeless.
_NEVER_DEAD = 2**31


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    add_connection_arguments(parser)
    filters = parser.add_argument_group(
        "filters", "Each may be repeated: any of its values will do. Different filters must all match."
    )
    filters.add_argument("--type", metavar="TYPE", action="append", default=[], help="as order_submitted, gap")
    filters.add_argument("--event", metavar="NAME", action="append", default=[], help="of order_event, as filled")
    filters.add_argument("--order", metavar="ID", action="append", default=[], help="an order's id")
    journal = parser.add_argument_group("journal")
    journal.add_argument("--journal", metavar="FILE", help="store each event in this file before it is shown")
    journal.add_argument(
        "--journal-synchronous",
        choices=("full", "normal"),
        default="full",
        help="survive a loss of power, or only the death of the process, which is faster; default: full",
    )


def run(args: argparse.Namespace) -> int:
    """Show the stream until it ends; return the exit code."""
    connection = ConnectionSettings.of(args)
    filters = Filters.of(args)
    client = connection.client(journal=_journal(args))
    show = _printer(journalled=args.journal is not None)
    # Beside JSON for a program, a person's notes go to stderr; in a terminal they are part of the picture.
    aside = show if has_reader() else print_aside
    failures: list[Exception] = []

    @client.on(Event)
    def handle(event: Event) -> None:
        if failures:  # what cannot be shown any more must not count as handled: it stays in the journal
            raise failures[0]
        try:
            if filters.match(event) and (args.verbose or filters.types or not isinstance(event, Heartbeat)):
                show(event)
            elif is_worth_printing(event):
                aside(event)
        except Exception as error:  # a pipe that nobody reads any more, most often: it ends the command
            failures.append(error)
            client.stop()
            raise

    code = client.run()
    if failures:
        raise failures[0]
    return code


def _journal(args: argparse.Namespace) -> JournalOptions | None:
    if args.journal is None:
        return None
    return JournalOptions(path=args.journal, synchronous=args.journal_synchronous, max_attempts=_NEVER_DEAD)


@attrs.frozen
class Filters:
    """Which events are asked for."""

    types: tuple[Key, ...]
    """The events that --type and --event ask for; empty: any."""
    orders: frozenset[str]

    @classmethod
    def of(cls, args: argparse.Namespace) -> Filters:
        """Make them of the command's options.

        Raises:
            ConfigurationError: they can never match.
        """
        names = args.type or (["order_event"] if args.event else [])
        for name in args.type:
            if name not in WIRE_TYPES and name not in LIFECYCLE_TYPES:
                note(f"no event type {name} is known, but if it comes it is shown; {_known()}")
        return cls(tuple(key_of(name, tuple(args.event)) for name in names), frozenset(args.order))

    def match(self, event: Event) -> bool:
        """Return True if an event is asked for."""
        if self.types and not any(key.matches(event) for key in self.types):
            return False
        return not self.orders or event.raw.get("orderId") in self.orders


def _known() -> str:
    return "known: " + ", ".join(sorted([*WIRE_TYPES, *LIFECYCLE_TYPES]))


def _printer(*, journalled: bool) -> Callable[[Event], None]:
    if not has_reader():
        return lambda event: write_line(as_json(event, journalled=journalled))
    show = line_printer()
    return lambda event: show(as_line(event))
