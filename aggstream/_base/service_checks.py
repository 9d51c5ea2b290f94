"""How the service is reached: the addresses of the public one, and the checks of what a program gives instead.

What is checked here goes into a URL, a header or a TLS handshake with a token, so a mistake is refused early.
"""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Mapping
from typing import Literal
from urllib.parse import parse_qsl, urlsplit

from aggstream._base.checks import is_loopback
from aggstream._base.secret import Secret
from aggstream.errors import ConfigurationError

_LONGEST_ACCOUNT = 255
DEFAULT_URL = "wss://ws.agg.market/ws"
DEFAULT_REST_URL = "https://api.agg.market"

_ORIGIN = re.compile(r"https?://(?:[A-Za-z0-9._~-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e]*")
KEY_HEADER = "x-app-api-key"
"""The header with the app's key. Source: the service's reference."""
_KEY_VARIABLE = "AGGSTREAM_API_KEY"
_PATH = re.compile(r"/[!-\"$-~]*")  # printable ASCII without a space or a fragment
_RESERVED_HEADERS = {
    "host": "it follows from url=",
    "origin": "use origin=",
    "upgrade": "the handshake sets it",
    "connection": "the handshake sets it",
    "cookie": "this client sends no cookies",
    "authorization": "the service takes the token by token=",
}


def setting(value: str | None, name: str, *, default: str | None = None) -> str:
    """Return an option that may also come from the environment.

    Args:
        value: what the program gave.
        name: the keyword's name; the variable is `AGGSTREAM_` and the name in capitals.
        default: what counts if neither is given.

    Raises:
        ConfigurationError: it is missing.
    """
    variable = f"AGGSTREAM_{name.upper()}"
    found = value if value is not None else os.environ.get(variable) or default
    if found is None:
        raise ConfigurationError(f"{name} is missing: pass {name}=… or set {variable}")
    return found


def check_app_id(app_id: object) -> str:
    """Return a usable app id.

    Raises:
        ConfigurationError: it is not a text, or empty.
    """
    if not isinstance(app_id, str) or not app_id.strip() or not app_id.isprintable():
        raise ConfigurationError("app_id must be a text on one line that is not empty, as AGG gave it to the app")
    return app_id


def check_account(account: object, *, allow_empty: bool = False) -> str:
    """Return a usable name of an account.

    Raises:
        ConfigurationError: it is no text of 1 to 255 characters on one line.
    """
    is_fit = isinstance(account, str) and account.isprintable() and len(account) <= _LONGEST_ACCOUNT
    if not is_fit or not (account or allow_empty):
        raise ConfigurationError(
            f"the name of an account must be a text of 1 to {_LONGEST_ACCOUNT} characters on one line"
        )
    return str(account)


def app_id_header(app_id: str) -> Secret:
    """Return an app id for a header. A header takes fewer characters than the stream's URL does.

    Raises:
        ConfigurationError: it cannot stand there.
    """
    if not app_id.isascii():
        raise ConfigurationError("app_id must be ASCII, because the REST API takes it in a header")
    return Secret(app_id)


def check_origin(origin: object) -> str:
    """Return an origin that can stand in a header.

    Raises:
        ConfigurationError: it is not of the form `scheme://host[:port]`.
    """
    if not isinstance(origin, str) or not _ORIGIN.fullmatch(origin):
        raise ConfigurationError(
            "origin must read https://host or https://host:port, without a path or a slash at the end, "
            "and be one of the app's allowed origins"
        )
    return origin


def check_url(url: object, name: str, *, plain: str, secure: str, allow_insecure: bool) -> str:
    """Return a URL that is safe to send a token to.

    Args:
        url: the URL.
        name: the option's name, for the error.
        plain: the scheme without TLS, which is for this machine only.
        secure: the scheme with TLS.
        allow_insecure: take the plain scheme for any host.

    Raises:
        ConfigurationError: another scheme, no host, credentials in it, or no TLS to another machine.
    """
    if not isinstance(url, str) or not url.isascii() or not url.isprintable() or " " in url:
        raise ConfigurationError(f"{name} must be an ASCII text without spaces, like {secure}://host/path")
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:  # its words repeat what may be a password
        raise ConfigurationError(f"{name} is not a URL: look at its host and port") from None
    if parts.scheme not in (plain, secure) or not host:
        raise ConfigurationError(f"{name} must begin with {secure}:// and name a host")
    if parts.username is not None:
        raise ConfigurationError(f"{name} must not hold credentials: give the token with token=")
    if {key for key, _ in parse_qsl(parts.query, keep_blank_values=True)} & {"appId", "token"}:
        raise ConfigurationError(f"{name} must not hold appId or token: give them with app_id= and token=")
    if parts.scheme == plain and not allow_insecure and not is_loopback(host):
        raise ConfigurationError(
            f"{name} sends the token unencrypted: use {secure}://, or allow_insecure=True if you must"
        )
    return url


def check_path(path: object, name: str) -> str:
    """Return a path of the REST API.

    Args:
        path: the path; it may have a query.
        name: the option's name, for the error.

    Raises:
        ConfigurationError: it cannot follow a host in a URL.
    """
    if not isinstance(path, str) or not _PATH.fullmatch(path):
        raise ConfigurationError(f"{name} must be a path of the REST API, like /auth/token/refresh")
    return path


def check_headers(headers: Mapping[str, str] | None) -> dict[str, Secret]:
    """Return extra headers for the handshake, checked. Their values may be keys, so they are secrets.

    Raises:
        ConfigurationError: a name or a value cannot stand in a header, or has an option of its own.
    """
    checked: dict[str, Secret] = {}
    if headers is not None and not isinstance(headers, Mapping):
        raise ConfigurationError("headers must be a mapping of names to values")
    for name, value in (headers or {}).items():
        if not isinstance(name, str) or not _HEADER_NAME.fullmatch(name):
            raise ConfigurationError("headers: a name that cannot be a header's; is it the value?")
        if not isinstance(value, str) or not _HEADER_VALUE.fullmatch(value):
            raise ConfigurationError(f"headers: the value of {name} must be printable ASCII on one line")
        lower = name.lower()
        if lower in _RESERVED_HEADERS or lower.startswith("sec-websocket-"):
            why = _RESERVED_HEADERS.get(lower, "the handshake sets it")
            raise ConfigurationError(f"headers: {name} cannot be given here: {why}")
        checked[name] = Secret(value)
    return checked


def key_headers(api_key: str | None, headers: Mapping[str, Secret], where: str) -> dict[str, Secret]:
    """Return the header with the app's key for the REST API; empty if there is no key.

    Args:
        api_key: the key; None: the environment variable `AGGSTREAM_API_KEY`, if it is set.
        headers: the further headers that the user gave.
        where: their name, for the error.

    Raises:
        ConfigurationError: the key cannot stand in a header, or the headers have one as well.
    """
    given = api_key if api_key is not None else os.environ.get(_KEY_VARIABLE) or None
    if given is None:
        return {}
    if not isinstance(given, str) or not given or not _HEADER_VALUE.fullmatch(given) or " " in given:
        raise ConfigurationError("api_key must be a text of printable ASCII without spaces")
    if any(name.lower() == KEY_HEADER for name in headers):
        raise ConfigurationError(
            f"the app's key is given twice: leave {KEY_HEADER} out of {where}, or api_key and {_KEY_VARIABLE}"
        )
    return {KEY_HEADER: Secret(given)}


KEY_REFUSED = "the service wants another key of the app: look at api_key, or AGGSTREAM_API_KEY"
"""For errors."""


def is_about_key(body: bytes | None) -> bool:
    """Return True if an answer with status 401 is about the app's key, and not about the user's token.

    The service says so in words: "This app requires x-app-api-key for all requests." Source: its reference.
    """
    return body is not None and KEY_HEADER.encode() in body.lower()


def check_no_key(headers: Mapping[str, Secret]) -> None:
    """Refuse the app's key in the headers of the WebSocket: only the REST API is given it.

    Raises:
        ConfigurationError: the headers hold it.
    """
    if any(name.lower() == KEY_HEADER for name in headers):
        raise ConfigurationError(
            f"headers: {KEY_HEADER} cannot be given here: use api_key=, for the REST API alone"
        )


def check_ssl_context(context: object) -> ssl.SSLContext | None:
    """Return a context that can make client connections, or None.

    Raises:
        ConfigurationError: it is something else.
    """
    if context is None:
        return None
    if not isinstance(context, ssl.SSLContext) or context.protocol == ssl.PROTOCOL_TLS_SERVER:
        raise ConfigurationError(
            "ssl_context must be a client's, as ssl.create_default_context() makes it, or None "
            "(under gevent: made after monkey.patch_all())"
        )
    return context


def check_auth(auth: object) -> Literal["message", "query"]:
    """Return the way of signing in.

    Raises:
        ConfigurationError: it is neither of the two.
    """
    if auth == "message":
        return "message"
    if auth == "query":
        return "query"
    raise ConfigurationError('auth must be "message" or "query"; the token itself goes into token=')
