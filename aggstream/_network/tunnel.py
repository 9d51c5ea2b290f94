"""Asks a proxy for a connection to the service, with HTTP CONNECT, or with SOCKS5 by python-socks.

The caller gives a socket object that does the waiting. So the I/O thread can be interrupted here as well, and its
deadline includes the proxy's answer.
"""

from __future__ import annotations

import base64
from typing import Any, Protocol, cast

from aggstream._base.backoff import retry_after
from aggstream._base.border import raise_interruption_in
from aggstream._network.head import Head, HeadEnded, HeadError, HeadTooLarge, read_head
from aggstream._network.proxy import Proxy
from aggstream._network.websocket import words
from aggstream.errors import ConnectFailed, ProxyRejected

_OK = range(200, 300)
_PROXY_AUTHENTICATION_REQUIRED = 407
# The HTTP statuses, and the SOCKS5 reply code, that stay the same when the client tries again.
_FINAL_STATUSES = frozenset({401, 403, 405, 407})
_NOT_ALLOWED = 2


class Stream(Protocol):
    """A connected socket, or an object that wraps a socket and waits for it in its own way."""

    def recv(self, size: int, /) -> bytes:
        """Return the next bytes; empty once the peer has closed the connection."""
        ...

    def sendall(self, data: bytes, /) -> None:
        """Send all of the data."""
        ...

    def close(self) -> None:
        """Close the socket, or do nothing if the socket's owner closes it."""
        ...


def open_tunnel(stream: Stream, proxy: Proxy, host: str, port: int, *, largest: int) -> None:
    """Ask a proxy to connect to a host. After that, the socket is connected to that host.

    Args:
        stream: the socket, which is connected to the proxy.
        proxy: the proxy.
        host: the host's name if `proxy.looks_up_names` is True, otherwise the host's IP address.
        port: the host's port.
        largest: the largest size of the proxy's answer, in bytes.

    Raises:
        ProxyRejected: the proxy refuses to connect.
        ConnectFailed: the proxy's answer is not valid, or not complete.
    """
    ask = _ask_socks if proxy.is_socks else _ask_http
    try:
        failure = ask(stream, proxy, host, port, largest)
    except OSError as error:
        raise_interruption_in(error)
        failure = ConnectFailed(f"the proxy {proxy.host} did not answer completely: {words(error)}")
    if failure is not None:
        # The error is raised here, because the frames of the inner functions hold the password.
        raise failure


# --- HTTP -----------------------------------------------------------------------------------------------


def _ask_http(stream: Stream, proxy: Proxy, host: str, port: int, largest: int) -> ConnectFailed | None:
    target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}"]
    if proxy.user is not None and proxy.password is not None:
        login = f"{proxy.user.reveal()}:{proxy.password.reveal()}".encode()
        lines.append(f"Proxy-Authorization: Basic {base64.b64encode(login).decode()}")
    stream.sendall("".join(f"{line}\r\n" for line in [*lines, ""]).encode())
    try:
        head = read_head(stream.recv, largest)
    except HeadEnded:
        return ConnectFailed(f"the proxy {proxy.host} closed the connection while it was asked")
    except HeadTooLarge:
        return ConnectFailed(f"the answer of the proxy {proxy.host} is larger than limits.handshake_size")
    except HeadError:
        return ConnectFailed(f"the proxy {proxy.host} does not answer in HTTP: look at proxy")
    return None if head.status in _OK else _rejected(head, proxy)


def _rejected(head: Head, proxy: Proxy) -> ProxyRejected:
    hint = ": look at the user and the password in proxy" if head.status == _PROXY_AUTHENTICATION_REQUIRED else ""
    return ProxyRejected(
        f"the proxy {proxy.host} answered with HTTP status {head.status}{hint}",
        status=head.status,
        final=head.status in _FINAL_STATUSES,
        retry_after=retry_after(head.first("retry-after")),
    )


# --- SOCKS5 ---------------------------------------------------------------------------------------------


class _ConnectedProxy:
    """Gives python-socks our socket. python-socks asks it for a socket as if it were the first of two proxies."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def connect(self, **_: object) -> Stream:
        return self._stream


def _ask_socks(stream: Stream, proxy: Proxy, host: str, port: int, largest: int) -> ConnectFailed | None:
    from python_socks import ProxyError, ProxyType  # noqa: PLC0415  (an extra)
    from python_socks.sync import Proxy as Socks  # noqa: PLC0415

    user, password = (None if text is None else text.reveal() for text in (proxy.user, proxy.password))
    ours = cast("Any", _ConnectedProxy(stream))
    socks = Socks(ProxyType.SOCKS5, proxy.host, proxy.port, user, password, rdns=True, forward=ours)
    try:
        socks.connect(host, port)
    except ProxyError as error:
        is_about_login = "authentication" in str(error).lower()
        hint = ": look at the user and the password in proxy" if is_about_login else ""
        return ProxyRejected(
            f"the proxy {proxy.host} did not connect: {error}{hint}",
            status=error.error_code,
            final=is_about_login or error.error_code == _NOT_ALLOWED,
        )
    except UnicodeDecodeError:  # the name of the address that the proxy connects from
        return ConnectFailed(f"the proxy {proxy.host} did not connect: its answer is not valid")
    except ValueError:  # SOCKS5 cannot carry this host name, user or password
        return ConnectFailed(f"the proxy {proxy.host} cannot be asked for {host} with this user and password")
    return None
