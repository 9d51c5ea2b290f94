"""HTTP for the REST API: by urllib3, through the same proxies as the stream."""

from __future__ import annotations

import socket
import ssl
from typing import Any

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection

from aggstream._deadline import Deadline
from aggstream._proxy import Proxy
from aggstream._tunnel import open_tunnel
from aggstream.errors import ConnectFailed

_LARGEST_PROXY_ANSWER = 65536


def make_http(timeout: float, ssl_context: ssl.SSLContext | None, proxy: Proxy | None) -> urllib3.PoolManager:
    """Make what requests are made with: nothing is repeated, and neither netrc nor cookies are used.

    Args:
        timeout: seconds for connecting, and for each wait for data.
        ssl_context: for TLS; None for the system's authorities.
        proxy: through which to connect; None for none. The environment is not looked at.
    """
    http = urllib3.PoolManager(
        num_pools=1, retries=False, timeout=urllib3.Timeout(timeout), ssl_context=ssl_context
    )
    if proxy is not None:
        http.pool_classes_by_scheme = _pools_through(proxy, timeout)
    return http


def _pools_through(proxy: Proxy, timeout: float) -> dict[str, Any]:
    """Return urllib3's classes with the one step replaced that connects, as its own module for SOCKS does."""

    class Plain(HTTPConnection):
        def _new_conn(self) -> socket.socket:
            return _connect(proxy, self._dns_host, self.port, timeout)

    class Secure(HTTPSConnection):
        def _new_conn(self) -> socket.socket:
            return _connect(proxy, self._dns_host, self.port, timeout)

    class PlainPool(urllib3.HTTPConnectionPool):
        ConnectionCls = Plain

    class SecurePool(urllib3.HTTPSConnectionPool):
        ConnectionCls = Secure

    return {"http": PlainPool, "https": SecurePool}


class _TimedSocket:
    """A blocking socket under one deadline, where its own timeout would hold for each piece."""

    def __init__(self, sock: socket.socket, deadline: Deadline) -> None:
        self._sock = sock
        self._deadline = deadline

    def recv(self, size: int) -> bytes:
        self._set_timeout()
        return self._sock.recv(size)

    def sendall(self, data: bytes) -> None:
        self._set_timeout()
        self._sock.sendall(data)

    def close(self) -> None:
        """Leave it to the owner of the socket."""

    def _set_timeout(self) -> None:
        if self._deadline.expired():
            raise TimeoutError
        self._sock.settimeout(self._deadline.remaining())


def _connect(proxy: Proxy, host: str, port: int, timeout: float) -> socket.socket:
    deadline = Deadline(timeout)
    try:
        target = host if proxy.looks_up_names else str(socket.getaddrinfo(host, port)[0][4][0])
        sock = socket.create_connection((proxy.host, proxy.port), timeout)
    except OSError as error:
        raise urllib3.exceptions.ProxyError(f"no connection to the proxy {proxy.host}", error) from error
    try:
        open_tunnel(_TimedSocket(sock, deadline), proxy, target, port, largest=_LARGEST_PROXY_ANSWER)
    except ConnectFailed as error:
        sock.close()
        raise urllib3.exceptions.ProxyError(str(error), error) from error
    sock.settimeout(timeout)
    return sock
