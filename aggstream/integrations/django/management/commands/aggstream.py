"""`manage.py aggstream`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DatabaseError, connections
from django.db.migrations.executor import MigrationExecutor
from django.utils import autoreload

from aggstream.errors import ConfigurationError
from aggstream.integrations import _logging
from aggstream.integrations._accounts import the_account
from aggstream.integrations._service import Service
from aggstream.integrations.django import _settings
from aggstream.integrations.django._run import DatabaseTurn


class Command(BaseCommand):
    """Runs one account's stream."""

    help = (
        "Runs the AGG user stream in the foreground, until SIGTERM or Ctrl-C, which let the handlers finish. "
        "Of several of these processes, on whatever hosts, one runs the stream and the others stand by. "
        "The exit code is 0 if everything was done when the end was asked for, and 1 if the stream has failed."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the options."""
        parser.add_argument(
            "--account", metavar="NAME", help="which of AGGSTREAM's accounts; default: the only one"
        )
        parser.add_argument("--reload", action="store_true", help="begin anew when code changes; for development")
        parser.add_argument(
            "--log-format",
            choices=_logging.FORMATS,
            help="write each record of the log to stderr as one line; default: as LOGGING says, or plain",
        )
        parser.add_argument(
            "--drain",
            type=float,
            default=10.0,
            metavar="SECONDS",
            help="how long handlers may take to finish at the end; default: 10",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Run it."""
        if options["reload"]:
            autoreload.run_with_reloader(self._run, Service.run_beside_reloader, **options)
        else:
            self._run(Service.run, **options)

    def _run(self, run: Callable[[Service], int], **options: Any) -> None:
        _logging.set_up(options["log_format"])
        try:
            name = the_account(_settings.account_settings(), options["account"], _settings.SETTING)
            account = _settings.account(name)
            _refuse_old_tables(account.database)
            code = run(Service(account.name, lambda: DatabaseTurn(account), drain=options["drain"]))
        except ConfigurationError as error:
            raise CommandError(str(error)) from None
        if code:
            sys.exit(code)


def _refuse_old_tables(database: str) -> None:
    """See that the tables are there, if the database is.

    Raises:
        CommandError: they are not.
    """
    try:
        executor = MigrationExecutor(connections[database])
    except DatabaseError:  # it is waited for
        return
    finally:
        connections[database].close()
    leaves = [node for node in executor.loader.graph.leaf_nodes() if node[0] == "aggstream"]
    if executor.migration_plan(leaves):
        raise CommandError(f"the tables in the database {database!a} are not up to date: run `manage.py migrate`")
