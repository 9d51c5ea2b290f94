"""A local simulator of the service in the foreground, until Ctrl-C.

It prints what a client needs to connect: its URLs, the app id, the origin, and tokens of a user.
"""

from __future__ import annotations

import argparse
import queue
import shlex
import signal
from typing import TYPE_CHECKING

from aggstream._base.json_text import to_json
from aggstream._base.signals import caught_signals
from aggstream.cli._options import port, rate
from aggstream.cli._shell import USAGE, Failure, exit_code, extra, note, write_line

if TYPE_CHECKING:
    from aggstream.simulator import SignedIn, Simulator

HELP = "run a local simulator of the service"
EPILOG = "Paste what it prints into another terminal, and run `aggstream listen` there."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    parser.add_argument("--host", default="127.0.0.1", help="where to listen; default: 127.0.0.1")
    parser.add_argument("--port", type=port, default=0, help="default: 0, any free one")
    parser.add_argument(
        "--allow-remote", action="store_true", help="take a --host that other machines can reach, unencrypted"
    )
    parser.add_argument(
        "--allowed-host",
        action="append",
        default=[],
        metavar="NAME",
        help="a further name by which clients address it, like sim or sim:9000; may be given several times",
    )
    parser.add_argument("--user", default="usr_demo", metavar="ID", help="whose tokens; default: usr_demo")
    parser.add_argument(
        "--token-lifetime",
        type=rate,
        default=3600.0,
        metavar="SECONDS",
        help="until an access token expires; default: 3600",
    )
    parser.add_argument("--play", action="store_true", help="place orders of the user all the time")
    parser.add_argument(
        "--rate", type=rate, default=5.0, metavar="R", help="with --play: user events a second; default: 5"
    )
    parser.add_argument("--seed", type=int, default=1, metavar="S", help="other orders; default: 1")


def run(args: argparse.Namespace) -> int:
    """Run the simulator until a signal comes; return the exit code."""
    with extra("simulator", "aiohttp", "jwt"):
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
                note("no orders are placed; --play places them all the time")
            return exit_code(inbox.get())
        finally:
            simulator.stop()


def _settings(simulator: Simulator, signed_in: SignedIn) -> list[str]:
    """Return what a client needs, to read and to paste."""
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
        "To see tokens being refreshed, then also:",
        "",
        f"(umask 077; echo {shlex.quote(to_json(pair))} > aggstream-tokens.json)",
        "aggstream listen --refresh-token-file aggstream-tokens.json",
    ]
