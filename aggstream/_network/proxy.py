"""Chooses the proxy between this machine and the service, and parses its URL."""

from __future__ import annotations

import importlib.util
import ipaddress
import os
from collections.abc import Mapping
from typing import Literal
from urllib.parse import unquote, urlsplit

import attrs

from aggstream._base.checks import is_loopback
from aggstream._base.secret import Secret
from aggstream.errors import ConfigurationError

ENVIRONMENT: Literal["environment"] = "environment"

_DEFAULT_PORTS = {"http": 80, "socks5": 1080, "socks5h": 1080}
# The least similarity, from 0 to 1, of a mistyped word and the word that the user meant.
_SIMILARITY = 0.7
# For each scheme of a URL, the environment variables that may name a proxy. The first one that is set is used.
_VARIABLES = {
    "wss": ("wss_proxy", "https_proxy", "all_proxy"),
    "ws": ("ws_proxy", "http_proxy", "all_proxy"),
    "https": ("https_proxy", "all_proxy"),
    "http": ("http_proxy", "all_proxy"),
}


@attrs.frozen
class Proxy:
    """A proxy. Its `repr` does not show the user and the password."""

    scheme: str
    host: str
    port: int
    user: Secret | None = None
    password: Secret | None = None

    @property
    def is_socks(self) -> bool:
        """True for SOCKS5, False for HTTP CONNECT."""
        return self.scheme != "http"

    @property
    def looks_up_names(self) -> bool:
        """True if the proxy takes the service's host name, False if the proxy takes only an IP address."""
        return self.scheme != "socks5"


def choose_proxy(option: str | None, url: str) -> Proxy | None:
    """Return the proxy for a URL.

    Args:
        option: the URL of a proxy; None: use no proxy; "environment": read the environment variables now.
        url: the URL to connect to.

    Returns:
        The proxy; None if the connection needs no proxy.

    Raises:
        ConfigurationError: the option or the variable is not a proxy's URL, or aggstream does not support the
            kind of proxy.
    """
    if option is None:
        return None
    if option != ENVIRONMENT:
        _refuse_without_scheme(option)
        return parse_proxy(option, "proxy")
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme in ("wss", "https") else 80)
    no_proxy = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    if is_loopback(host) or is_exempt(host, port, no_proxy):
        return None
    for name in _VARIABLES[parts.scheme]:
        found = _variable(name, os.environ)
        if found is not None:
            return parse_proxy(found[1], found[0])
    return None


def _refuse_without_scheme(option: object) -> None:
    """Refuse a URL without a scheme. An environment variable may omit the scheme, but the option may not.

    Without this check, a mistyped "environment" would be used as the name of a host.

    Raises:
        ConfigurationError: the option is a text without `scheme://`. The error does not show the text.
    """
    if isinstance(option, str) and "://" not in option:
        import difflib  # noqa: PLC0415  (hardly ever needed)

        meant = difflib.get_close_matches(option.strip().lower(), [ENVIRONMENT], n=1, cutoff=_SIMILARITY)
        hint = '; did you mean "environment"?' if meant else ', "environment" or None'
        raise ConfigurationError(f"proxy must be a proxy's URL with its scheme, like http://host:3128{hint}")


def _variable(name: str, environ: Mapping[str, str]) -> tuple[str, str] | None:
    """Return the name and the value of an environment variable, in lower or upper case; None if it is not set."""
    if environ.get(name):
        return name, environ[name]
    upper = name.upper()
    # A web server gives the request header `Proxy` to a CGI program as HTTP_PROXY, and any visitor can send it.
    if environ.get(upper) and not (upper == "HTTP_PROXY" and "REQUEST_METHOD" in environ):
        return upper, environ[upper]
    return None


def parse_proxy(text: object, name: str) -> Proxy:
    """Return the proxy that a URL names.

    Args:
        text: the URL. A URL without a scheme means an HTTP proxy.
        name: the name of the option or the variable, for the error. The error does not show the URL, because the
            URL may hold a password.

    Raises:
        ConfigurationError: the text is not a proxy's URL, or aggstream does not support the kind of proxy.
    """
    if not isinstance(text, str) or not text.isascii() or not text.isprintable():
        raise ConfigurationError(f"{name} must be a proxy's URL, like http://host:3128, or None")
    try:
        parts = urlsplit(text if "://" in text else f"http://{text}")
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ConfigurationError(f"{name} is not a URL") from None
    if parts.scheme not in _DEFAULT_PORTS:
        raise ConfigurationError(f"{name}: a proxy's URL begins with http://, socks5:// or socks5h://")
    if not host:
        raise ConfigurationError(f"{name}: the proxy's URL names no host")
    if parts.scheme != "http" and importlib.util.find_spec("python_socks") is None:
        raise ConfigurationError(f"{name}: a SOCKS proxy needs python-socks: pip install 'aggstream[socks]'")
    user = None if parts.username is None else _credential(parts.username, name)
    password = _credential(parts.password or "", name) if user is not None else None
    return Proxy(parts.scheme, host, port or _DEFAULT_PORTS[parts.scheme], user, password)


def _credential(quoted: str, name: str) -> Secret:
    text = unquote(quoted)
    if not text.isprintable():
        raise ConfigurationError(f"{name}: the proxy's user and password must be printable, on one line")
    return Secret(text)


def is_exempt(host: str, port: int, no_proxy: str) -> bool:
    """Return True if a connection to a host must not use a proxy.

    Args:
        host: the host's name or IP address.
        port: the host's port.
        no_proxy: a list with commas between its entries. An entry is a name, an IP address or a network, and may
            end with a port. A name also means its subdomains, and `*` means every host.
    """
    host = host.lower().rstrip(".")
    return any(_matches(host, port, entry.strip().lower()) for entry in no_proxy.split(",") if entry.strip())


def _matches(host: str, port: int, entry: str) -> bool:
    if entry == "*":
        return True
    name, _, last = entry.rpartition(":")
    # An IPv6 address has colons, so it has a port only if it stands in brackets.
    if last.isascii() and last.isdigit() and (name.startswith("[") or ":" not in name):
        if int(last) != port:
            return False
        entry = name
    entry = entry.strip("[]")
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        domain = entry.removeprefix("*").removeprefix(".").rstrip(".")
        return bool(domain) and (host == domain or host.endswith(f".{domain}"))
    try:
        return address in ipaddress.ip_network(entry, strict=False)
    except ValueError:
        return False
