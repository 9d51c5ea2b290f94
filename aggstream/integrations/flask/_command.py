"""`flask aggstream`."""

from __future__ import annotations

import sys
from collections.abc import Callable

import click
from flask import Flask
from flask.cli import AppGroup, ScriptInfo

from aggstream.errors import ConfigurationError, JournalError
from aggstream.integrations import _logging
from aggstream.integrations._accounts import the_account
from aggstream.integrations._service import FAILED, Service
from aggstream.integrations.flask import _config
from aggstream.integrations.flask._run import JournalTurn

group = AppGroup("aggstream", help="The AGG user stream.")


@group.command("run", with_appcontext=False)
@click.pass_obj
@click.option("--account", metavar="NAME", help="Which of AGGSTREAM_ACCOUNTS; default: the only one.")
@click.option("--reload", is_flag=True, help="Begin anew when code changes; for development.")
@click.option(
    "--log-format",
    type=click.Choice(_logging.FORMATS),
    help="Write each record of the log to stderr as one line; default: as the application has set it, or plain.",
)
@click.option(
    "--drain",
    type=click.FloatRange(min=0),
    default=10.0,
    metavar="SECONDS",
    help="How long handlers may take to finish at the end; default: 10.",
)
def run(info: ScriptInfo, account: str | None, log_format: str | None, drain: float, *, reload: bool) -> None:
    """Run one account's stream in the foreground, until SIGTERM or Ctrl-C, which let the handlers finish.

    Of several of these processes on this host, one runs the stream and the others stand by. The exit code is 0 if
    everything was done when the end was asked for, and 1 if the stream has failed.
    """
    _logging.set_up(log_format)
    app = info.load_app()

    def serve(run: Callable[[Service], int]) -> None:
        try:
            code = run(_service(app, account, drain))
        except (ConfigurationError, JournalError) as error:
            # Shown here, and not raised, because beside the reloader nobody would catch it.
            click.ClickException(str(error)).show()
            code = FAILED
        if code:
            sys.exit(code)

    if reload:
        # It has no public name; what `flask run` does is to call it, too.
        from werkzeug._reloader import run_with_reloader  # noqa: PLC0415  (and nothing else depends on it)

        run_with_reloader(lambda: serve(Service.run_beside_reloader))
    else:
        serve(Service.run)


def _service(app: Flask, account: str | None, drain: float) -> Service:
    name = the_account(_config.account_configs(app), account, _config.ACCOUNTS)
    found = _config.account(app, name)
    _config.user_id_function(app)  # the web workers' alone, but here is somebody to be told
    found.client(None)  # a process that could not run the stream is not to stand by
    handlers = app.extensions["aggstream"].handlers
    return Service(name, lambda: JournalTurn(app, found, handlers), drain=drain)
