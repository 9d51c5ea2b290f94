"""Run a local simulator of the service until Ctrl-C.

The command prints what a client needs to connect: the URLs, the app id, the origin, and tokens of a user.
"""

from __future__ import annotations

import argparse
import queue
import shlex
import signal
from typing import TYPE_CHECKING

from aggstream._base.json_text import to_json
from aggstream._base.signals import caught_signals
from aggstream.cli._argument_types import port, positive_number
from aggstream.cli._exit_codes import USAGE, Failure, needs_extra, signal_exit_code
from aggstream.cli._std_streams import print_note, write_line

if TYPE_CHECKING:
    from aggstream.simulator import SignedIn, Simulator

HELP = "run a local simulator of the service"
EPILOG = "Paste the printed `export` lines into another terminal, and run `aggstream listen` there."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on; default: 127.0.0.1")
    parser.add_argument("--port", type=port, default=0, help="the port to listen on; default: 0, a free port")
    parser.add_argument(
        "--allow-remote", action="store_true", help="allow a --host that other machines can reach, unencrypted"
    )
    parser.add_argument(
        "--allowed-host",
        action="append",
        default=[],
        metavar="NAME",
        help="a further host name that clients may use, like sim or sim:9000; may be repeated",
    )
    parser.add_argument(
        "--user", default="usr_demo", metavar="ID", help="the user whose tokens are printed; default: usr_demo"
    )
    parser.add_argument(
        "--token-lifetime",
        type=positive_number,
        default=3600.0,
        metavar="SECONDS",
        help="the time until an access token expires; default: 3600",
    )
    parser.add_argument("--play", action="store_true", help="place orders of the user without end")
    parser.add_argument(
        "--rate",
        type=positive_number,
        default=5.0,
        metavar="R",
        help="with --play: the user events per second; default: 5",
    )
    parser.add_argument(
        "--seed", type=int, default=1, metavar="S", help="the seed of the random orders; default: 1"
    )


def run(args: argparse.Namespace) -> int:
    """Run the simulator until a signal comes; return the exit code."""
    with needs_extra("simulator", "aiohttp", "jwt"):
        from aggstream.simulator import Simulator  # noqa: PLC0415  (an extra)
    inbox: queue.SimpleQueue[signal.Signals] = queue.SimpleQueue()
    with caught_signals(inbox.put):
        try:
            simulator = Simulator(
                host=args.host,
                port=args.port,
                seed=args.seed,
                token_lifetime=args.token_lifetime,
                allow_remote=args.allow_remote,
                allowed_hosts=args.allowed_host,
            )
            signed_in = simulator.sign_in(args.user)
            simulator.start()
        except ValueError as error:
            words = str(error).replace("allow_remote=True", "--allow-remote")
            raise Failure(words.replace("allowed_hosts", "--allowed-host"), USAGE) from None
        except OSError as error:
            raise Failure(f"cannot listen on {args.host} port {args.port}: {error.strerror or error}") from None
        try:
            for line in _settings(simulator, signed_in):
                write_line(line)
            if args.play:
                simulator.play(args.user, orders=None, rate=args.rate)
            else:
                print_note("no orders are placed; --play places orders without end")
            return signal_exit_code(inbox.get())
        finally:
            simulator.stop()


def _settings(simulator: Simulator, signed_in: SignedIn) -> list[str]:
    """Return the lines with what a client needs, for people and to paste into a shell."""
    named = {
        "URL": simulator.url,
        "REST_URL": simulator.rest_url,
        "APP_ID": simulator.app_id,
        "ORIGIN": simulator.origin,
        "TOKEN": signed_in.access_token,
    }
    pair = {"access_token": signed_in.access_token, "refresh_token": signed_in.refresh_token}
    shown = {
        "URL": simulator.url,
        "REST URL": simulator.rest_url,
        "app id": simulator.app_id,
        "origin": simulator.origin,
        "user": signed_in.user_id,
        "access token": signed_in.access_token,
        "refresh token": signed_in.refresh_token,
    }
    return [
        "The simulator is running; Ctrl-C ends it.",
        "",
        *(f"{name:<14} {value}" for name, value in shown.items()),
        "",
        "To paste into another terminal, for `aggstream listen`, `wait` and `orders`:",
        "",
        *(f"export AGGSTREAM_{name}={shlex.quote(value)}" for name, value in named.items()),
        "",
        "To see how tokens are refreshed, paste these lines too:",
        "",
        f"(umask 077; echo {shlex.quote(to_json(pair))} > aggstream-tokens.json)",
        "aggstream listen --refresh-token-file aggstream-tokens.json",
    ]
