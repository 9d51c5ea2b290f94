"""The command `manage.py aggstream`."""

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
from aggstream.integrations._accounts import chosen_account
from aggstream.integrations._service import Service
from aggstream.integrations.django import _settings
from aggstream.integrations.django._run import DatabaseStreamOwner


class Command(BaseCommand):
    """Runs one account's stream."""

    help = (
        "Runs the AGG user stream in the foreground until SIGTERM or Ctrl-C. Then the handlers finish. "
        "If several of these processes run, on one host or more, one runs the stream and the others stand by. "
        "The exit code is 0 after SIGTERM or Ctrl-C if all handlers finished, and 1 if the stream failed or a "
        "handler did not finish."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the command's options."""
        parser.add_argument(
            "--account", metavar="NAME", help="the account in AGGSTREAM; default: the only account"
        )
        parser.add_argument("--reload", action="store_true", help="restart when code changes; for development")
        parser.add_argument(
            "--log-format",
            choices=_logging.FORMATS,
            help="write each log record to stderr as one line; default: as the setting LOGGING says, or plain",
        )
        parser.add_argument(
            "--drain",
            type=float,
            default=10.0,
            metavar="SECONDS",
            help="the time that handlers have to finish at the end; default: 10",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Run the command."""
        if options["reload"]:
            autoreload.run_with_reloader(self._run, Service.run_beside_reloader, **options)
        else:
            self._run(Service.run, **options)

    def _run(self, run: Callable[[Service], int], **options: Any) -> None:
        _logging.set_up(options["log_format"])
        try:
            name = chosen_account(_settings.account_settings(), options["account"], _settings.SETTING)
            account = _settings.account(name)
            _check_tables(account.database)
            code = run(Service(account.name, lambda: DatabaseStreamOwner(account), drain=options["drain"]))
        except ConfigurationError as error:
            raise CommandError(str(error)) from None
        if code:
            sys.exit(code)


def _check_tables(database: str) -> None:
    """Check that all migrations of the app have run. If the database is not available, check nothing.

    Raises:
        CommandError: a migration has not run.
    """
    try:
        executor = MigrationExecutor(connections[database])
    except DatabaseError:  # the service waits for the database later
        return
    finally:
        connections[database].close()
    leaves = [node for node in executor.loader.graph.leaf_nodes() if node[0] == "aggstream"]
    if executor.migration_plan(leaves):
        raise CommandError(f"the tables in the database {database!a} are not up to date: run `manage.py migrate`")
