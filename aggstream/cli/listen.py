"""Show the live stream of your user: as text in a terminal, otherwise as one JSON object a line."""

from __future__ import annotations

import argparse
from collections.abc import Callable

import attrs

from aggstream._delivery.registry import Key, key_of
from aggstream.cli._connection_settings import ENVIRONMENT, ConnectionSettings, add_connection_arguments
from aggstream.cli._event_format import as_json, as_line, is_shown_always
from aggstream.cli._std_streams import print_note, write_line
from aggstream.cli._terminal import is_interactive, line_printer, print_note_of
from aggstream.events import LIFECYCLE_TYPES, WIRE_TYPES, Event, Heartbeat
from aggstream.journal import JournalOptions

HELP = "show the live stream of your user"
EPILOG = f"""\
{ENVIRONMENT}

  aggstream listen --type order_event --event filled --event failed
  aggstream listen --order ord_abc123 | jq -r .event
  aggstream listen --journal events.db >> events.jsonl

With a journal, each event is on disk before it is shown. The next start shows,
marked, the events that were not shown before the command ended. Events that
the filters leave out count as shown.
"""

# If the command cannot print, it ends. The event has no fault then, and must never be set aside as dead.
_MAX_ATTEMPTS = 2**31


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    add_connection_arguments(parser)
    filters = parser.add_argument_group(
        "filters", "Each option may be repeated; then one of its values must match. All given options must match."
    )
    filters.add_argument(
        "--type", metavar="TYPE", action="append", default=[], help="show this type, like order_submitted or gap"
    )
    filters.add_argument(
        "--event", metavar="NAME", action="append", default=[], help="show this event of order_event, like filled"
    )
    filters.add_argument(
        "--order", metavar="ID", action="append", default=[], help="show events of the order with this id"
    )
    journal = parser.add_argument_group("journal")
    journal.add_argument("--journal", metavar="FILE", help="store each event in this file before it is shown")
    journal.add_argument(
        "--journal-synchronous",
        choices=("full", "normal"),
        default="full",
        help="full: events survive a power failure; normal: only a crash, but faster; default: full",
    )


def run(args: argparse.Namespace) -> int:
    """Show the stream until it ends; return the exit code."""
    connection = ConnectionSettings.from_args(args)
    filters = Filters.from_args(args)
    client = connection.client(journal=_journal_options(args))
    show = _event_printer(journalled=args.journal is not None)
    # If a program reads stdout, notes for people go to stderr. In a terminal they go to stdout, like events.
    show_note = show if is_interactive() else print_note_of
    failures: list[Exception] = []

    @client.on(Event)
    def handle(event: Event) -> None:
        if failures:  # events that cannot be shown must not count as handled, so that they stay in the journal
            raise failures[0]
        try:
            if filters.match(event) and (args.verbose or filters.types or not isinstance(event, Heartbeat)):
                show(event)
            elif is_shown_always(event):
                show_note(event)
        except Exception as error:  # usually the reader of the pipe has left; this ends the command
            failures.append(error)
            client.stop()
            raise

    code = client.run()
    if failures:
        raise failures[0]
    return code


def _journal_options(args: argparse.Namespace) -> JournalOptions | None:
    if args.journal is None:
        return None
    return JournalOptions(path=args.journal, synchronous=args.journal_synchronous, max_attempts=_MAX_ATTEMPTS)


@attrs.frozen
class Filters:
    """The events that the options ask for."""

    types: tuple[Key, ...]
    """The events that --type and --event ask for; empty: all."""
    orders: frozenset[str]

    @classmethod
    def from_args(cls, args: argparse.Namespace) -> Filters:
        """Make the filters from the options of the command.

        Raises:
            ConfigurationError: no event can ever match.
        """
        names = args.type or (["order_event"] if args.event else [])
        for name in args.type:
            if name not in WIRE_TYPES and name not in LIFECYCLE_TYPES:
                print_note(f"the event type {name} is not known; it is shown if it comes; {_known_types()}")
        return cls(tuple(key_of(name, tuple(args.event)) for name in names), frozenset(args.order))

    def match(self, event: Event) -> bool:
        """Return True if the options ask for the event."""
        if self.types and not any(key.matches(event) for key in self.types):
            return False
        return not self.orders or event.raw.get("orderId") in self.orders


def _known_types() -> str:
    return "known types: " + ", ".join(sorted([*WIRE_TYPES, *LIFECYCLE_TYPES]))


def _event_printer(*, journalled: bool) -> Callable[[Event], None]:
    if not is_interactive():
        return lambda event: write_line(as_json(event, journalled=journalled))
    show = line_printer()
    return lambda event: show(as_line(event))
