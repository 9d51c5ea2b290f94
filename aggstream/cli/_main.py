"""The entry point: it parses the arguments, runs a command, and turns errors into exit codes."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
from collections.abc import Sequence
from typing import Any

from aggstream import __version__
from aggstream.cli import demo, journal, listen, orders, simulate, wait
from aggstream.cli._exit_codes import EXIT_CODES, FAILED, OK, USAGE, Failure, signal_exit_code
from aggstream.cli._std_streams import abandon_stdout, prepare_streams, print_note
from aggstream.errors import AggStreamError, ConfigurationError


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: the arguments without the program's name; None: the arguments of the process.

    Returns:
        The exit code, as `EXIT_CODES` lists them.

    Raises:
        SystemExit: the arguments are wrong, or argparse has printed the help or the version.
    """
    prepare_streams()
    parser = _parser()
    args = parser.parse_args(argv)
    if args.run is None:
        parser.print_help(sys.stderr)
        return USAGE
    _set_up_logging(verbose=args.verbose)
    code: int
    try:
        code = args.run(args)
        sys.stdout.flush()
    except Failure as failure:
        print_note(str(failure))
        code = failure.code
    except ConfigurationError as error:
        print_note(str(error).replace("allow_insecure=True", "--allow-insecure"))
        code = USAGE
    except AggStreamError as error:
        print_note(str(error))
        code = FAILED
    except BrokenPipeError:
        # The reader has read enough, for example `| head`.
        abandon_stdout()
        code = OK
    except OSError as error:
        # Writing to stdout failed, for example on a full disk. Errors of the network are `AggStreamError`.
        abandon_stdout()
        print_note(f"cannot write: {error.strerror or error}")
        code = FAILED
    except KeyboardInterrupt:
        code = signal_exit_code(signal.SIGINT)
    return code


_COMMANDS: dict[str, Any] = {
    "demo": demo,
    "listen": listen,
    "wait": wait,
    "orders": orders,
    "journal": journal,
    "simulate": simulate,
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="aggstream",
        description="Shows your AGG user stream: what happens to your orders and balances.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"aggstream {__version__}")
    parser.set_defaults(run=None, verbose=False)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for name, module in _COMMANDS.items():
        assert module.__doc__
        summary = module.__doc__.partition("\n")[0]
        command = commands.add_parser(
            name,
            help=module.HELP,
            description=summary,
            epilog=module.EPILOG,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.add_argument("-v", "--verbose", action="store_true", help="write the library's log to stderr")
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    return parser


def _set_up_logging(*, verbose: bool) -> None:
    # Without --verbose there is no log: the events and the last line on stderr say the same already.
    logger = logging.getLogger("aggstream")
    logger.propagate = False
    handler: logging.Handler = logging.NullHandler()
    if verbose:
        logger.setLevel(logging.DEBUG)
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(message)s"))
    logger.addHandler(handler)
