"""The client's options, checked when the client is made, so that a mistake shows where it stands."""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Iterable, Mapping
from typing import Literal
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import attrs

from aggstream._backoff import ReconnectPolicy
from aggstream._checks import count, flag, is_loopback, optional_seconds, seconds, without_frames
from aggstream._limits import Limits
from aggstream._proxy import Proxy, choose_proxy
from aggstream._secret import Secret
from aggstream.errors import ConfigurationError

DEFAULT_URL = "wss://ws.agg.market/ws"
DEFAULT_REST_URL = "https://api.agg.market"

_ORIGIN = re.compile(r"https?://(?:[A-Za-z0-9._~-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e]*")
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


def app_id_header(app_id: str) -> Secret:
    """Return an app id for a header, which takes less than the URL of the stream does.

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
    """Return extra headers for the handshake that break neither it nor the ones after them; one may be a key.

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


def _app_id(value: str | None) -> str:
    return check_app_id(setting(value, "app_id"))


def _origin(value: str | None) -> str:
    return check_origin(setting(value, "origin"))


def _url(value: str | None) -> str:
    return setting(value, "url", default=DEFAULT_URL)


def _codes(value: Iterable[int]) -> frozenset[int]:
    codes = frozenset(value) if isinstance(value, Iterable) else None
    if codes is not None and all(type(code) is int for code in codes):
        return codes
    raise ConfigurationError("auth_close_codes must be WebSocket close codes, like {4401, 4403}")


def _name(value: str) -> str:
    if not isinstance(value, str) or not value.isprintable() or not value:
        raise ConfigurationError("name must be a text on one line that is not empty")
    return value


def _policy(value: ReconnectPolicy | None) -> ReconnectPolicy:
    if value is not None and not isinstance(value, ReconnectPolicy):
        raise ConfigurationError("reconnect must be a ReconnectPolicy, or None for the default one")
    return value or ReconnectPolicy()


def check_limits(value: Limits | None) -> Limits:
    """Return limits; None stands for the default ones.

    Raises:
        ConfigurationError: it is something else.
    """
    if value is not None and not isinstance(value, Limits):
        raise ConfigurationError("limits must be a Limits, or None for the default ones")
    return value or Limits()


AUTH_CLOSE_CODES = frozenset({1008, 3000, 3003, 4001, 4003, 4401, 4403})
"""Assumed: the service's close codes are not public."""


@without_frames
@attrs.frozen(kw_only=True)
class SessionOptions:
    """What a session needs to know. Times are in seconds.

    Raises:
        ConfigurationError: a time is not above 0.
    """

    token_in_query: bool = False
    """The token came with the connect, so no `authenticate` is sent at first."""
    greeting_timeout: float = seconds(10.0)
    """From the open WebSocket to the service's `connected`."""
    auth_timeout: float = seconds(10.0)
    """From an `authenticate` to its `authenticated`."""
    ping_interval: float = seconds(25.0)
    """Silence after which a ping is sent."""
    pong_timeout: float = seconds(10.0)
    """From a ping to any sign of life."""
    idle_timeout: float | None = optional_seconds(120.0)
    """Time without a message of the service after which it must acknowledge an `authenticate`; None: never."""
    close_timeout: float = seconds(0.5)
    """From our close frame to the peer's."""
    auth_close_codes: frozenset[int] = attrs.field(default=AUTH_CLOSE_CODES, converter=_codes)
    """Close codes that say that the token is refused or has expired."""
    limits: Limits = attrs.field(default=None, converter=check_limits)
    """How much the server may ask of this side."""


@without_frames
@attrs.frozen(kw_only=True)
class Options:
    """Everything that is set when a client is made, checked. `Client` documents each.

    Raises:
        ConfigurationError: an option is missing or cannot work.
    """

    app_id: str = attrs.field(converter=_app_id)
    origin: str = attrs.field(converter=_origin)
    url: str = attrs.field(converter=_url)
    allow_insecure: bool
    headers: Mapping[str, Secret] = attrs.field(converter=check_headers)
    ssl_context: ssl.SSLContext | None = attrs.field(converter=check_ssl_context)
    connect_timeout: float = seconds(10.0)
    token_timeout: float = seconds(30.0)
    proxy: str | None = attrs.field(default=None, repr=False)
    route: Proxy | None = attrs.field(init=False, default=None)
    """What `proxy` comes to when the client is made."""
    queue_size: int = count(10_000)
    coalesce_balances: bool = flag(default=False)
    workers: int = count(1)
    slow_handler_duration: float | None = optional_seconds(5.0)
    catch_up_timeout: float = seconds(30.0)
    orders_kept: int = count(10_000)
    orders_kept_for: float = seconds(86_400.0)
    reconnect: ReconnectPolicy = attrs.field(converter=_policy)
    session: SessionOptions
    name: str = attrs.field(converter=_name)

    def __attrs_post_init__(self) -> None:
        check_url(self.url, "url", plain="ws", secure="wss", allow_insecure=self.allow_insecure)
        object.__setattr__(self, "route", choose_proxy(self.proxy, self.url))
        object.__setattr__(self, "proxy", None)  # it may hold a password

    def connect_url(self, token: Secret) -> Secret:
        """Return the URL to connect to. It holds the token only if that was asked for."""
        parts = urlsplit(self.url)
        query = [*parse_qsl(parts.query, keep_blank_values=True), ("appId", self.app_id)]
        if self.session.token_in_query:
            query.append(("token", token.reveal()))
        return Secret(urlunsplit(parts._replace(query=urlencode(query), fragment="")))
