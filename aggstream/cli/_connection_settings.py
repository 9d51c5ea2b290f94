"""The options of the commands that connect, and the settings that follow from them."""

from __future__ import annotations

import argparse
import os
import ssl
from pathlib import Path
from typing import Any, Literal

import attrs

from aggstream._base.service_checks import DEFAULT_URL
from aggstream.cli._exit_codes import USAGE, Failure
from aggstream.cli._token_pair_file import TokenPairFile
from aggstream.client import Client
from aggstream.errors import AggStreamError, TokenUnavailable, WaitTimeout
from aggstream.health import Continuity
from aggstream.rest._client import RestClient
from aggstream.rest._options import RestOptions
from aggstream.tokens._file import FileToken
from aggstream.tokens._refreshing import RefreshingToken
from aggstream.typing import TokenSource

ENVIRONMENT = """\
In the environment: AGGSTREAM_APP_ID, AGGSTREAM_ORIGIN, AGGSTREAM_TOKEN, AGGSTREAM_URL, AGGSTREAM_REST_URL,
AGGSTREAM_API_KEY."""


def add_connection_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that `ConnectionSettings.from_args` reads."""
    settings = parser.add_argument_group("settings")
    settings.add_argument("--app-id", metavar="ID", help="the app's id")
    settings.add_argument("--origin", metavar="URL", help="one of the app's allowed origins, like https://host")
    token = settings.add_mutually_exclusive_group()
    token.add_argument(
        "--token",
        metavar="JWT",
        help="the user's access token; other users of this machine can read it on the command line, "
        "so the variable or --token-file is safer",
    )
    token.add_argument(
        "--token-file",
        metavar="FILE",
        type=Path,
        help="a file with the token; it is read again for each connection",
    )
    token.add_argument(
        "--refresh-token-file",
        metavar="FILE",
        type=Path,
        help='a file with {"access_token": "…", "refresh_token": "…"}; each refresh rewrites it',
    )
    settings.add_argument("--url", help="the URL of the stream; default: the public service")
    settings.add_argument(
        "--rest-url",
        metavar="URL",
        help="the URL of the REST API, which has what the stream may have missed; default: the public API "
        "for the public stream, otherwise none",
    )
    settings.add_argument(
        "--status-name",
        metavar="WORD=NAME",
        type=_status_name,
        action="append",
        default=[],
        help="take a status that aggstream does not know for one that it knows, like settled=filled; "
        "may be repeated",
    )
    settings.add_argument(
        "--amounts-in-one-unit",
        action="store_true",
        help="compare the two amounts that the REST API tells of an order: they have the same unit",
    )
    settings.add_argument("--ca-file", metavar="FILE", help="trust the certificate authorities in this file only")
    settings.add_argument(
        "--auth",
        choices=("message", "query"),
        default="message",
        help="send the token as a message, or in the query of the URL, which servers often log; default: message",
    )
    settings.add_argument(
        "--allow-insecure", action="store_true", help="allow ws:// and http:// to another machine, unencrypted"
    )


@attrs.frozen(kw_only=True)
class ConnectionSettings:
    """The settings for connecting, from the options of a command."""

    app_id: str | None
    origin: str | None
    token: TokenSource | None = attrs.field(repr=False)
    url: str | None
    rest_url: str | None
    """None: `AGGSTREAM_REST_URL`, or the public API if the stream is the public one."""
    auth: Literal["message", "query"]
    ssl_context: ssl.SSLContext | None
    allow_insecure: bool
    rest_options: RestOptions

    @classmethod
    def from_args(cls, args: argparse.Namespace, *, needs_origin: bool = True) -> ConnectionSettings:
        """Make the settings from the options of a command.

        Raises:
            Failure: a setting is missing, or a file cannot be read.
            ConfigurationError: a setting is not valid.
        """
        _require_settings(args, needs_origin=needs_origin)
        ssl_context = _ssl_context(args.ca_file)
        token: TokenSource | None = args.token
        if args.token_file is not None:
            token = _token_from_file(args.token_file)
        elif args.refresh_token_file is not None:
            token = _refreshing_token(args, ssl_context)
        return cls(
            app_id=args.app_id,
            origin=args.origin,
            token=token,
            url=args.url,
            rest_url=args.rest_url,
            auth=args.auth,
            ssl_context=ssl_context,
            allow_insecure=args.allow_insecure,
            rest_options=RestOptions(
                status_names=dict(args.status_name), amounts_in_one_unit=args.amounts_in_one_unit
            ),
        )

    @property
    def has_rest(self) -> bool:
        """True if the settings name a REST API, or the public one is used."""
        return _has_rest(self.url, self.rest_url)

    def client(self, **options: Any) -> Client:
        """Make a client of the stream. `options` are further arguments of `Client`."""
        return Client(
            app_id=self.app_id,
            origin=self.origin,
            token=self.token,
            url=self.url,
            rest_url=self.rest_url,
            rest=self.rest_options,
            auth=self.auth,
            ssl_context=self.ssl_context,
            allow_insecure=self.allow_insecure,
            **options,
        )

    def rest(self, needed_by: str) -> RestClient:
        """Make a client of the REST API.

        Args:
            needed_by: the option that needs the REST API, for the error.

        Raises:
            Failure: there is no REST API. The public one is not used for another stream, because it would get the
                token of another service.
        """
        if not self.has_rest:
            raise _missing_rest(needed_by)
        return RestClient(
            app_id=self.app_id,
            token=self.token,
            rest_url=self.rest_url,
            options=self.rest_options,
            ssl_context=self.ssl_context,
            allow_insecure=self.allow_insecure,
        )


def _status_name(text: str) -> tuple[str, str]:
    """Return the two words of `--status-name`.

    Raises:
        ArgumentTypeError: the text is not two words with `=` between them.
    """
    word, equals, name = text.partition("=")
    if not (word and equals and name):
        raise argparse.ArgumentTypeError(f"must be WORD=NAME, like settled=filled, got {text!a}")
    return word, name


def _require_settings(args: argparse.Namespace, *, needs_origin: bool) -> None:
    """Check that all needed settings are given.

    Raises:
        Failure: settings are missing. The text names all of them, as options and variables.
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


def _missing_rest(needed_by: str) -> Failure:
    return Failure(f"{needed_by} needs --rest-url (or the variable AGGSTREAM_REST_URL) with this --url", USAGE)


def _token_from_file(path: Path) -> FileToken:
    """Return a token provider that reads the file again for each token.

    Raises:
        Failure: the file cannot be read, or has no token.
    """
    provider = FileToken(path)
    # At the start, an unreadable file is a mistake. Later, it may be in the middle of being replaced.
    try:
        provider.get_token()
    except TokenUnavailable as error:
        raise Failure(f"--token-file: {error}", USAGE) from None
    return provider


def _refreshing_token(args: argparse.Namespace, ssl_context: ssl.SSLContext | None) -> RefreshingToken:
    if not _has_rest(args.url, args.rest_url):
        raise _missing_rest("--refresh-token-file")
    file = TokenPairFile(args.refresh_token_file)
    try:
        access, refresh = file.read()
    except (OSError, ValueError) as error:
        raise Failure(
            f"--refresh-token-file: cannot read {args.refresh_token_file}: {_cause_of(error)}", USAGE
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
    except OSError as error:  # SSLError is a subclass
        raise Failure(f"--ca-file: cannot use {ca_file}: {_cause_of(error)}", USAGE) from None


def _cause_of(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def has_rest_failed(client: Client) -> bool:
    """Return True if the stream works, and the REST API does not tell what was missed."""
    return client.health().phase == "live" and client.continuity is Continuity.UNKNOWN


def why_not_caught_up(client: Client) -> str:
    """Return why a running client may have missed events; "" if it has missed none, or if it has ended."""
    try:
        client.wait_until_caught_up(timeout=0.0)
    except WaitTimeout as error:
        return str(error).partition(": ")[2]
    except AggStreamError:
        pass
    return ""
