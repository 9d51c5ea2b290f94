"""The options of every command that connects: app, address, token."""

from __future__ import annotations

import argparse
import os
import ssl
from pathlib import Path
from typing import Any, Literal

import attrs

from aggstream._base.service_checks import DEFAULT_URL
from aggstream.cli._pair_file import PairFile
from aggstream.cli._shell import USAGE, Failure
from aggstream.client import Client
from aggstream.errors import AggStreamError, TokenUnavailable, WaitTimeout
from aggstream.rest._client import RestClient
from aggstream.tokens._file import FileToken
from aggstream.tokens._refreshing import RefreshingToken
from aggstream.typing import TokenSource

ENVIRONMENT = """\
In the environment: AGGSTREAM_APP_ID, AGGSTREAM_ORIGIN, AGGSTREAM_TOKEN, AGGSTREAM_URL, AGGSTREAM_REST_URL."""


def add_connection_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of which a `ConnectionSettings` is made."""
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
    token.add_argument(
        "--refresh-token-file",
        metavar="FILE",
        type=Path,
        help='a file with {"access_token": "…", "refresh_token": "…"}; it is rewritten at each refresh',
    )
    settings.add_argument("--url", help="where to connect to; default: the public service")
    settings.add_argument(
        "--rest-url",
        metavar="URL",
        help="the REST API, which tells what the stream may have missed; default: the public one, "
        "if the stream is the public one",
    )
    settings.add_argument("--ca-file", metavar="FILE", help="trust the certificate authorities in this file")
    settings.add_argument(
        "--auth",
        choices=("message", "query"),
        default="message",
        help="send the token after connecting, or in the URL, which servers tend to log; default: message",
    )
    settings.add_argument(
        "--allow-insecure", action="store_true", help="take ws:// and http:// to another machine"
    )


@attrs.frozen(kw_only=True)
class ConnectionSettings:
    """The settings that the options come to."""

    app_id: str | None
    origin: str | None
    token: TokenSource | None = attrs.field(repr=False)
    url: str | None
    rest_url: str | None
    """None: `AGGSTREAM_REST_URL`, or the public one if the stream is the public one."""
    auth: Literal["message", "query"]
    ssl_context: ssl.SSLContext | None
    allow_insecure: bool

    @classmethod
    def of(cls, args: argparse.Namespace, *, needs_origin: bool = True) -> ConnectionSettings:
        """Make one of the command's options.

        Raises:
            Failure: a setting is missing, or a file cannot be read.
            ConfigurationError: a setting cannot work.
        """
        _check_given(args, needs_origin=needs_origin)
        ssl_context = _ssl_context(args.ca_file)
        token: TokenSource | None = args.token
        if args.token_file is not None:
            token = _token_in(args.token_file)
        elif args.refresh_token_file is not None:
            token = _refreshing(args, ssl_context)
        return cls(
            app_id=args.app_id,
            origin=args.origin,
            token=token,
            url=args.url,
            rest_url=args.rest_url,
            auth=args.auth,
            ssl_context=ssl_context,
            allow_insecure=args.allow_insecure,
        )

    @property
    def has_rest(self) -> bool:
        """True if there is a REST API to ask."""
        return _has_rest(self.url, self.rest_url)

    def client(self, **options: Any) -> Client:
        """Make a client of the stream, with further options."""
        return Client(
            app_id=self.app_id,
            origin=self.origin,
            token=self.token,
            url=self.url,
            rest_url=self.rest_url,
            auth=self.auth,
            ssl_context=self.ssl_context,
            allow_insecure=self.allow_insecure,
            **options,
        )

    def rest(self, needed_by: str) -> RestClient:
        """Make a client of the REST API.

        Args:
            needed_by: the option that needs it.

        Raises:
            Failure: there is none. The token of another service's user is not sent to the public one.
        """
        if not self.has_rest:
            raise _no_rest(needed_by)
        return RestClient(
            app_id=self.app_id,
            token=self.token,
            rest_url=self.rest_url,
            ssl_context=self.ssl_context,
            allow_insecure=self.allow_insecure,
        )


def _check_given(args: argparse.Namespace, *, needs_origin: bool) -> None:
    """Name all settings that are missing at once, by the names they have here.

    Raises:
        Failure: there are some.
    """
    given = {
        "app-id": args.app_id,
        **({"origin": args.origin} if needs_origin else {}),
        "token": args.token_file or args.refresh_token_file or args.token,
    }
    missing = {
        option: variable
        for option, value in given.items()
        if value is None and not os.environ.get(variable := "AGGSTREAM_" + option.replace("-", "_").upper())
    }
    if missing:
        named = ", ".join(f"--{option} (or the variable {variable})" for option, variable in missing.items())
        raise Failure(f"not given: {named}", USAGE)


def _has_rest(url: str | None, rest_url: str | None) -> bool:
    is_public = (url or os.environ.get("AGGSTREAM_URL") or DEFAULT_URL) == DEFAULT_URL
    return is_public or bool(rest_url or os.environ.get("AGGSTREAM_REST_URL"))


def _no_rest(needed_by: str) -> Failure:
    return Failure(f"{needed_by} needs --rest-url (or the variable AGGSTREAM_REST_URL) with this --url", USAGE)


def _token_in(path: Path) -> FileToken:
    """Return a provider that reads the token afresh.

    Raises:
        Failure: the file holds none.
    """
    provider = FileToken(path)
    # Later on, a file that cannot be read may be one that is being replaced; now it is a mistake.
    try:
        provider.get_token()
    except TokenUnavailable as error:
        raise Failure(f"--token-file: {error}", USAGE) from None
    return provider


def _refreshing(args: argparse.Namespace, ssl_context: ssl.SSLContext | None) -> RefreshingToken:
    if not _has_rest(args.url, args.rest_url):
        raise _no_rest("--refresh-token-file")
    file = PairFile(args.refresh_token_file)
    try:
        access, refresh = file.read()
    except (OSError, ValueError) as error:
        raise Failure(
            f"--refresh-token-file: cannot read {args.refresh_token_file}: {_why(error)}", USAGE
        ) from None
    return RefreshingToken(
        refresh,
        access_token=access,
        app_id=args.app_id,
        rest_url=args.rest_url,
        save=file.save,
        load=file.load,
        lock=file,
        ssl_context=ssl_context,
        allow_insecure=args.allow_insecure,
    )


def _ssl_context(ca_file: str | None) -> ssl.SSLContext | None:
    if ca_file is None:
        return None
    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError as error:  # an SSLError is one, too
        raise Failure(f"--ca-file: cannot use {ca_file}: {_why(error)}", USAGE) from None


def _why(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def why_not_caught_up(client: Client) -> str:
    """Return in words why a client that runs may have missed something; empty if it has not, or has ended."""
    try:
        client.wait_until_caught_up(timeout=0.0)
    except WaitTimeout as error:
        return str(error).partition(": ")[2]
    except AggStreamError:
        pass
    return ""
