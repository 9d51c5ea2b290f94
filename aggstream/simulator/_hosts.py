"""The names by which the simulator is addressed. It answers no request for another name.

A web page that a developer has open can let a name of its own stand for 127.0.0.1 (DNS rebinding), and would then
read from the simulator and drive it. Such a request has the page's name in its `Host`.
"""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aiohttp import web

_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::([0-9]{0,5}))?")
_ABSOLUTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://([^/?#]*)")
_USUAL_PORTS = {"http": 80, "https": 443}


class Hosts:
    """The host names and ports that are the simulator's own."""

    def __init__(self, host: str, allowed: Iterable[str]) -> None:
        """Keep the names.

        Args:
            host: the address that the simulator listens on.
            allowed: further names, with a port, or without one for any port.

        Raises:
            ValueError: one of them is not the name of a host.
        """
        self._own = {_normal(name) for name in (host, *_LOOPBACK)}
        self._allowed = set(_parsed(allowed))

    def problem_with(self, request: web.Request) -> tuple[int, str] | None:
        """Return the status and the words with which to refuse a request; None if it is for the simulator."""
        values = request.headers.getall("Host", [])
        if len(values) != 1:
            return 400, "a request must have one Host header"
        # A target that names a host, as for a proxy, counts more than the header.
        target = _ABSOLUTE.match(request.raw_path)
        if all(self._is_own(name, request) for name in (*values, *(target.groups() if target else ()))):
            return None
        return 421, "this Host is not one of the simulator's; its option allowed_hosts takes further ones"

    def _is_own(self, text: str, request: web.Request) -> bool:
        match = _HOST.fullmatch(text)
        if match is None:
            return False
        name = _normal(match[1])
        port = int(match[2] or _USUAL_PORTS[request.scheme])
        if (name, port) in self._allowed or (name, None) in self._allowed:
            return True
        # The address that the client has connected to is one of the simulator's, if it listens on several.
        sockname = None if request.transport is None else request.transport.get_extra_info("sockname")
        if sockname is None:  # the client is gone
            return False
        return port == sockname[1] and (name in self._own or name == _normal(sockname[0]))


def _parsed(allowed: Iterable[str]) -> Iterable[tuple[str, int | None]]:
    if isinstance(allowed, str):
        raise ValueError("allowed_hosts must hold names of hosts, and must not be one text")  # noqa: TRY004
    for name in allowed:
        is_ipv6 = isinstance(name, str) and name.count(":") > 1 and "[" not in name
        match = _HOST.fullmatch(f"[{name}]" if is_ipv6 else name) if isinstance(name, str) else None
        if match is None:
            raise ValueError(f"allowed_hosts must hold names of hosts, like sim.test or sim.test:9000: {name!a}")
        yield _normal(match[1]), int(match[2]) if match[2] else None


def _normal(name: str) -> str:
    name = name.strip("[]").lower().removesuffix(".")
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return name
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).compressed
