"""The host names that the simulator answers to. It refuses requests for other names.

A web page in a developer's browser can make its own host name resolve to 127.0.0.1 (DNS rebinding). It could then
read from the simulator and control it. Such a request has the page's host name in its `Host` header.
"""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aiohttp import web

_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_HOST_AND_PORT = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::([0-9]{0,5}))?")
_ABSOLUTE_TARGET = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://([^/?#]*)")
_DEFAULT_PORTS = {"http": 80, "https": 443}


class AllowedHosts:
    """Knows the host names and ports that requests may name."""

    def __init__(self, host: str, allowed: Iterable[str]) -> None:
        """Check and keep the names.

        Args:
            host: the address that the simulator listens on.
            allowed: further names. A name without a port is allowed with every port.

        Raises:
            ValueError: one of the names is not a host name.
        """
        self._own = {_normalized(name) for name in (host, *_LOOPBACK)}
        self._allowed = set(_parse_names(allowed))

    def refusal_of(self, request: web.Request) -> tuple[int, str] | None:
        """Return the status and the text for refusing a request; None if the simulator should answer it."""
        values = request.headers.getall("Host", [])
        if len(values) != 1:
            return 400, "a request must have one Host header"
        # The target of a request may also name a host, as requests to a proxy do. Then both names must be allowed.
        target = _ABSOLUTE_TARGET.match(request.raw_path)
        if all(self._is_own(name, request) for name in (*values, *(target.groups() if target else ()))):
            return None
        return 421, "the simulator does not answer to this Host; add it to the option allowed_hosts"

    def _is_own(self, text: str, request: web.Request) -> bool:
        match = _HOST_AND_PORT.fullmatch(text)
        if match is None:
            return False
        name = _normalized(match[1])
        port = int(match[2] or _DEFAULT_PORTS[request.scheme])
        if (name, port) in self._allowed or (name, None) in self._allowed:
            return True
        # The simulator may listen on several addresses. The one that the client has connected to is allowed.
        sockname = None if request.transport is None else request.transport.get_extra_info("sockname")
        if sockname is None:  # the client has left
            return False
        return port == sockname[1] and (name in self._own or name == _normalized(sockname[0]))


def _parse_names(allowed: Iterable[str]) -> Iterable[tuple[str, int | None]]:
    if isinstance(allowed, str):
        raise ValueError("allowed_hosts must be a list of host names, not one text")  # noqa: TRY004
    for name in allowed:
        is_ipv6 = isinstance(name, str) and name.count(":") > 1 and "[" not in name
        match = _HOST_AND_PORT.fullmatch(f"[{name}]" if is_ipv6 else name) if isinstance(name, str) else None
        if match is None:
            raise ValueError(f"allowed_hosts must hold host names, like sim.test or sim.test:9000, got {name!a}")
        yield _normalized(match[1]), int(match[2]) if match[2] else None


def _normalized(name: str) -> str:
    name = name.strip("[]").lower().removesuffix(".")
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return name
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).compressed
