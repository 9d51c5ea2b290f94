"""The live stream: pretty in a terminal, one JSON object a line in a pipe or a file."""

from __future__ import annotations

import argparse
import os
import shutil
import ssl
import sys
from collections.abc import Callable
from pathlib import Path

import attrs

from aggstream._registry import Key, key_of
from aggstream.cli._lines import as_json, as_line
from aggstream.cli._shell import USAGE, Failure, note, write_line
from aggstream.client import Client
from aggstream.events import (
    LIFECYCLE_TYPES,
    WIRE_TYPES,
    DecodeFailed,
    Event,
    Gap,
    Heartbeat,
    Reconnecting,
    Resumed,
)
from aggstream.typing import TokenSource

HELP = "show the live stream of your user"
EPILOG = """\
In the environment: AGGSTREAM_APP_ID, AGGSTREAM_ORIGIN, AGGSTREAM_TOKEN, AGGSTREAM_URL.

  aggstream listen --type order_event --event filled --event failed
  aggstream listen --order ord_abc123 | jq -r .event
"""

# What a reader must know to judge the events that a filter lets through. A lost connection is in Reconnecting.
_TRUST = (Reconnecting, Gap, Resumed, DecodeFailed)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    settings = parser.add_argument_group("settings")
    settings.add_argument("--app-id", metavar="ID", help="the app's id")
    settings.add_argument("--origin", metavar="URL", help="one of the app's allowed origins, as https://host")
    token = settings.add_mutually_exclusive_group()
    token.add_argument(
        "--token",
        metavar="JWT",
        help="the user's access token; other users of this machine can read command lines, "
        "so prefer the variable or --token-file",
    )
    token.add_argument(
        "--token-file", metavar="FILE", type=Path, help="a file with the token; read again for each connection"
    )
    settings.add_argument("--url", help="where to connect to; default: the public service")
    settings.add_argument("--ca-file", metavar="FILE", help="trust the certificate authorities in this file")
    settings.add_argument(
        "--auth",
        choices=("message", "query"),
        default="message",
        help="send the token after connecting, or in the URL, which servers tend to log; default: message",
    )
    settings.add_argument("--allow-insecure", action="store_true", help="take ws:// to another machine")
    filters = parser.add_argument_group(
        "filters", "Each may be repeated: any of its values will do. Different filters must all match."
    )
    filters.add_argument("--type", metavar="TYPE", action="append", default=[], help="as order_submitted, gap")
    filters.add_argument("--event", metavar="NAME", action="append", default=[], help="of order_event, as filled")
    filters.add_argument("--order", metavar="ID", action="append", default=[], help="an order's id")


def run(args: argparse.Namespace) -> int:
    """Show the stream until it ends; return the exit code."""
    _check_given(args)
    filters = Filters.of(args)
    client = Client(
        app_id=args.app_id,
        origin=args.origin,
        token=args.token if args.token_file is None else _token_in(args.token_file),
        url=args.url,
        auth=args.auth,
        ssl_context=_ssl_context(args.ca_file),
        allow_insecure=args.allow_insecure,
    )
    show = _printer()
    # Beside JSON for a program, a person's notes go to stderr; in a terminal they are part of the picture.
    aside = show if sys.stdout.isatty() else _print_note
    failures: list[Exception] = []

    @client.on(Event)
    def handle(event: Event) -> None:
        try:
            if filters.match(event) and (args.verbose or filters.types or not isinstance(event, Heartbeat)):
                show(event)
            elif isinstance(event, _TRUST):
                aside(event)
        except Exception as error:  # a pipe that nobody reads any more, most often: it ends the command
            failures.append(error)
            client.stop()

    code = client.run()
    if failures:
        raise failures[0]
    return code


@attrs.frozen
class Filters:
    """Which events are asked for."""

    types: tuple[Key, ...]
    """What --type and --event ask for; empty: any."""
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
        """Tell whether an event is asked for."""
        if self.types and not any(key.matches(event) for key in self.types):
            return False
        return not self.orders or event.raw.get("orderId") in self.orders


def _known() -> str:
    return "known: " + ", ".join(sorted([*WIRE_TYPES, *LIFECYCLE_TYPES]))


def _check_given(args: argparse.Namespace) -> None:
    """Name all settings that are missing at once, by the names they have here.

    Raises:
        Failure: there are some.
    """
    given = {"app-id": args.app_id, "origin": args.origin, "token": args.token_file or args.token}
    missing = {
        option: variable
        for option, value in given.items()
        if value is None and not os.environ.get(variable := "AGGSTREAM_" + option.replace("-", "_").upper())
    }
    if missing:
        named = ", ".join(f"--{option} (or the variable {variable})" for option, variable in missing.items())
        raise Failure(f"not given: {named}", USAGE)


def _token_in(path: Path) -> TokenSource:
    """Return a function that reads the token afresh.

    Raises:
        Failure: the file holds none.
    """

    def read() -> str:
        return path.read_text().strip()

    # Later on, a file that cannot be read may be one that is being replaced; now it is a mistake.
    try:
        if not read():
            raise Failure(f"--token-file: {path} is empty", USAGE)
    except (OSError, UnicodeError) as error:
        raise Failure(f"--token-file: cannot read {path}: {_why(error)}", USAGE) from None
    return read


def _ssl_context(ca_file: str | None) -> ssl.SSLContext | None:
    if ca_file is None:
        return None
    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError as error:  # an SSLError is one, too
        raise Failure(f"--ca-file: cannot use {ca_file}: {_why(error)}", USAGE) from None


def _why(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def _printer() -> Callable[[Event], None]:
    if not sys.stdout.isatty():
        return _print_json
    try:
        from aggstream.cli._render import print_line  # noqa: PLC0415  (an extra)
    except ModuleNotFoundError:  # rich is an extra
        return _print_plain
    return print_line


def _print_json(event: Event) -> None:
    write_line(as_json(event))


def _print_plain(event: Event) -> None:
    write_line(as_line(event).within(shutil.get_terminal_size().columns))


def _print_note(event: Event) -> None:
    line = as_line(event)
    note(f"{line.label}: {line.text}")
