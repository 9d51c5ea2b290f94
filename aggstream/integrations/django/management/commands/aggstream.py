"""`manage.py aggstream`."""

from __future__ import annotations

import atexit
import signal
import sys
import threading
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DatabaseError, connections
from django.db.migrations.executor import MigrationExecutor
from django.utils import autoreload

from aggstream._signals import caught_signals
from aggstream.errors import ConfigurationError
from aggstream.integrations.django import _logs, _settings
from aggstream.integrations.django._service import Service

_AT_RELOAD = 3.0


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
            choices=_logs.FORMATS,
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
            autoreload.run_with_reloader(self._run_until_reload, **options)
        else:
            self._run(self._service(options))

    def _service(self, options: dict[str, Any]) -> Service:
        _logs.set_up(options["log_format"])
        try:
            account = _settings.account(_the_account(options["account"]))
        except ConfigurationError as error:
            raise CommandError(str(error)) from None
        _refuse_old_tables(account.database)
        return Service(account, drain=options["drain"])

    def _run(self, service: Service) -> None:
        try:
            with caught_signals(service.inbox.put):
                code = service.run()
        except ConfigurationError as error:
            raise CommandError(str(error)) from None
        except KeyboardInterrupt:  # asked for twice
            code = 128 + signal.SIGINT
        if code:
            sys.exit(code)

    def _run_until_reload(self, **options: Any) -> None:
        """Run in the thread that the reloader gives us, which ends with the main one."""
        service, is_done = self._service(options), threading.Event()

        def end() -> None:
            service.inbox.put(signal.SIGTERM)
            is_done.wait(_AT_RELOAD)

        atexit.register(end)
        try:
            self._run(service)
        finally:
            is_done.set()


def _the_account(name: str | None) -> str:
    """Return the account that is meant.

    Raises:
        CommandError: there are several.
        ConfigurationError: the setting cannot work.
    """
    names = list(_settings.account_settings())
    if name is None and len(names) != 1:
        raise CommandError(f"AGGSTREAM has {len(names)} accounts; say which: --account {' | '.join(names)}")
    return names[0] if name is None else name


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
