"""The command `flask aggstream`."""

from __future__ import annotations

import sys
from collections.abc import Callable

import click
from flask import Flask
from flask.cli import AppGroup, ScriptInfo

from aggstream.errors import ConfigurationError, JournalError
from aggstream.integrations import _logging
from aggstream.integrations._accounts import chosen_account
from aggstream.integrations._service import FAILED, Service
from aggstream.integrations.flask import _config
from aggstream.integrations.flask._run import JournalStreamOwner

group = AppGroup("aggstream", help="The AGG user stream.")


@group.command("run", with_appcontext=False)
@click.pass_obj
@click.option("--account", metavar="NAME", help="The account in AGGSTREAM_ACCOUNTS; default: the only account.")
@click.option("--reload", is_flag=True, help="Restart when code changes; for development.")
@click.option(
    "--log-format",
    type=click.Choice(_logging.FORMATS),
    help="Write each log record to stderr as one line; default: the application's own logging, or plain.",
)
@click.option(
    "--drain",
    type=click.FloatRange(min=0),
    default=10.0,
    metavar="SECONDS",
    help="The time that handlers have to finish at the end; default: 10.",
)
def run(info: ScriptInfo, account: str | None, log_format: str | None, drain: float, *, reload: bool) -> None:
    """Run one account's stream in the foreground until SIGTERM or Ctrl-C. Then the handlers finish.

    If several of these processes run on this host, one runs the stream and the others stand by. The exit code is 0
    after SIGTERM or Ctrl-C if all handlers finished, and 1 if the stream failed or a handler did not finish.
    """
    _logging.set_up(log_format)
    app = info.load_app()

    def serve(run: Callable[[Service], int]) -> None:
        try:
            code = run(_service(app, account, drain))
        except (ConfigurationError, JournalError) as error:
            # The error is shown here and not raised, because the reloader does not catch it.
            click.ClickException(str(error)).show()
            code = FAILED
        if code:
            sys.exit(code)

    if reload:
        # The function has no public name, but `flask run` uses it as well.
        from werkzeug._reloader import run_with_reloader  # noqa: PLC0415  (only this option needs it)

        run_with_reloader(lambda: serve(Service.run_beside_reloader))
    else:
        serve(Service.run)


def _service(app: Flask, account: str | None, drain: float) -> Service:
    name = chosen_account(_config.account_configs(app), account, _config.ACCOUNTS)
    found = _config.account(app, name)
    _config.user_id_function(app)  # only web workers use it, but here a person sees the error
    found.client(None)  # a process that cannot run the stream must not stand by
    handlers = app.extensions["aggstream"].handlers
    return Service(name, lambda: JournalStreamOwner(app, found, handlers), drain=drain)
