"""The client's options, checked when the client is made, so that a mistake shows where it stands."""

from __future__ import annotations

import copy
import math
import ssl
from collections.abc import Mapping
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import attrs

from aggstream._base.backoff import ReconnectPolicy
from aggstream._base.border import border_at_init
from aggstream._base.checks import count, flag, optional_seconds, seconds
from aggstream._base.secret import Secret
from aggstream._base.service_checks import (
    DEFAULT_URL,
    check_account,
    check_app_id,
    check_headers,
    check_no_key,
    check_origin,
    check_ssl_context,
    check_url,
    setting,
)
from aggstream._network.proxy import Proxy, choose_proxy
from aggstream._protocol.options import SessionOptions
from aggstream.errors import ConfigurationError


def _app_id(value: str | None) -> str:
    return check_app_id(setting(value, "app_id"))


def _origin(value: str | None) -> str:
    return check_origin(setting(value, "origin"))


def _url(value: str | None) -> str:
    return setting(value, "url", default=DEFAULT_URL)


def _name(value: str) -> str:
    if not isinstance(value, str) or not value.isprintable() or not value:
        raise ConfigurationError("name must be a text on one line that is not empty")
    return value


def _policy(value: ReconnectPolicy | None) -> ReconnectPolicy:
    if value is not None and not isinstance(value, ReconnectPolicy):
        raise ConfigurationError("reconnect must be a ReconnectPolicy, or None for the default one")
    return value or ReconnectPolicy()


def _lag(value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
        raise ConfigurationError(f"rest_lag must be a number of seconds, 0 or more, got {value!a}")
    return float(value)


@border_at_init
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
    headers: Mapping[str, Secret] = attrs.field(
        converter=check_headers, validator=lambda _, __, it: check_no_key(it)
    )
    ssl_context: ssl.SSLContext | None = attrs.field(converter=check_ssl_context)
    connect_timeout: float = seconds(10.0)
    token_timeout: float = seconds(30.0)
    proxy: str | None = attrs.field(default=None, repr=False)
    route: Proxy | None = attrs.field(init=False, default=None)
    """The proxy that `proxy` names when the client is made; None for none."""
    queue_size: int = count(10_000)
    coalesce_balances: bool = flag(default=False)
    workers: int = count(1)
    slow_handler_duration: float | None = optional_seconds(5.0)
    catch_up_timeout: float = seconds(10.0)
    rest_lag: float = attrs.field(default=10.0, converter=_lag)
    orders_kept: int = count(10_000)
    orders_kept_for: float = seconds(86_400.0)
    reconnect: ReconnectPolicy = attrs.field(converter=_policy)
    session: SessionOptions
    account: str = attrs.field(default="", validator=lambda _, __, it: check_account(it, allow_empty=True))
    name: str = attrs.field(converter=_name)

    def __attrs_post_init__(self) -> None:
        check_url(self.url, "url", plain="ws", secure="wss", allow_insecure=self.allow_insecure)
        object.__setattr__(self, "route", choose_proxy(self.proxy, self.url))
        object.__setattr__(self, "proxy", None)  # it may hold a password

    def for_account(self, account: str) -> Options:
        """Return the same options for an account of many; its name stands in the log lines."""
        options = copy.copy(self)  # not `attrs.evolve`, which would choose the proxy again
        object.__setattr__(options, "account", account)
        object.__setattr__(options, "name", f"{self.name}[{account}]")
        return options

    def connect_url(self, token: Secret) -> Secret:
        """Return the URL to connect to. It holds the token only if that was asked for."""
        parts = urlsplit(self.url)
        query = [*parse_qsl(parts.query, keep_blank_values=True), ("appId", self.app_id)]
        if self.session.token_in_query:
            query.append(("token", token.reveal()))
        return Secret(urlunsplit(parts._replace(query=urlencode(query), fragment="")))
