"""HTTP for the REST API: by urllib3, through the same proxies as the stream."""

from __future__ import annotations

import email.utils
import io
import socket
import ssl
from collections.abc import Mapping
from http.client import HTTPException, HTTPResponse
from typing import Any

import attrs
import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection

from aggstream._base.backoff import retry_after
from aggstream._base.deadline import Deadline
from aggstream._base.greenlets import is_patched
from aggstream._base.secret import Secret
from aggstream._network.proxy import Proxy
from aggstream._network.tunnel import open_tunnel
from aggstream.errors import ConnectFailed, ProxyRejected

_LARGEST_PROXY_ANSWER = 65536
_PIECE = 65536


@attrs.frozen
class Answer:
    """An answer of the service."""

    status: int
    retry_after: float | None
    """The seconds that the service asks to wait; None if it does not."""
    is_compressed: bool
    """True if the body is compressed. Nobody asked for that, and a few compressed bytes can be gigabytes."""
    body: bytes | None = attrs.field(repr=False)
    """The body; None if it is too large."""
    date_ms: int | None = None
    """The service's clock when it answered, in milliseconds since the epoch; None if no `Date` tells it."""


def make_http(
    timeout: float, ssl_context: ssl.SSLContext | None, proxy: Proxy | None, *, connections: int = 1
) -> urllib3.PoolManager:
    """Make the pool that requests are made with: it repeats nothing, and uses neither netrc nor cookies.

    Args:
        timeout: seconds for connecting, and then for all of the answer, from the request to its last byte.
        ssl_context: for TLS; None for the system's authorities.
        proxy: through which to connect; None for none. The environment is not looked at.
        connections: how many are kept open for the next request, at most.
    """
    if ssl_context is None and is_patched():  # urllib3 makes what blocks, if it was imported before
        ssl_context = ssl.create_default_context()
    http = urllib3.PoolManager(
        num_pools=1,
        maxsize=connections,
        retries=False,
        timeout=urllib3.Timeout(timeout),
        ssl_context=ssl_context,
    )
    http.pool_classes_by_scheme = _pools(proxy, timeout)
    return http


def exchange(
    http: urllib3.PoolManager,
    method: str,
    url: str,
    headers: Mapping[str, Secret],
    *,
    largest: int,
    body: bytes | None = None,
) -> Answer | urllib3.exceptions.HTTPError:
    """Make one request, and follow no redirect. Blocks; runs on the calling thread.

    Args:
        http: from `make_http`.
        method: of the request.
        url: where to.
        headers: all of them.
        largest: how many bytes of the answer's body are taken.
        body: of the request.

    Returns:
        The answer, or what went wrong: returned, because the frames that it was raised in hold what `headers`
        and `body` do. Raise something else in its place.
    """
    try:
        return _exchange(http, method, url, headers, largest, body)
    except urllib3.exceptions.HTTPError as error:
        return error
    except Exception as error:  # a name that is none, say; whatever it is, its frames hold the same
        return urllib3.exceptions.HTTPError(type(error).__name__)


def words_of(error: urllib3.exceptions.HTTPError) -> str:
    """Return in words what went wrong, without anything that the service said."""
    # A proxy's words hold no token, and say what to do; the base class itself comes from `exchange` only.
    is_in_words = isinstance(error, urllib3.exceptions.ProxyError) or type(error) is urllib3.exceptions.HTTPError
    if is_in_words:
        return str(error.args[0])
    cause = error.__cause__ or error.__context__
    if isinstance(cause, OSError) and not isinstance(cause, ssl.SSLError) and cause.strerror:
        return cause.strerror
    return type(error).__name__


def _exchange(
    http: urllib3.PoolManager,
    method: str,
    url: str,
    headers: Mapping[str, Secret],
    largest: int,
    body: bytes | None,
) -> Answer:
    revealed = {name: value.reveal() for name, value in headers.items()}
    response = http.request(method, url, body=body, headers=revealed, preload_content=False, redirect=False)
    try:
        data = bytearray()
        while len(data) <= largest and (piece := response.read1(_PIECE, decode_content=False)):
            data += piece
        return Answer(
            status=response.status,
            retry_after=retry_after(response.headers.get("retry-after")),
            is_compressed=response.headers.get("content-encoding", "").strip().lower() not in ("", "identity"),
            body=bytes(data) if len(data) <= largest else None,
            date_ms=_date_ms(response.headers.get("date")),
        )
    finally:
        response.close()  # it has given its connection back already, if it was read to its end


def _date_ms(text: str | None) -> int | None:
    # A date without a zone is none: HTTP's always says GMT.
    parsed = None if text is None else email.utils.parsedate_tz(text)
    if parsed is None or parsed[9] is None:
        return None
    try:
        return email.utils.mktime_tz(parsed) * 1000
    except (ValueError, OverflowError):
        return None


def _pools(proxy: Proxy | None, timeout: float) -> dict[str, Any]:
    """Return urllib3's classes with their connecting and reading replaced, as its own module for SOCKS does."""

    class Plain(HTTPConnection):
        response_class = _TimedResponse

        def _new_conn(self) -> socket.socket:
            return super()._new_conn() if proxy is None else _connect(proxy, self._dns_host, self.port, timeout)

    class Secure(HTTPSConnection):
        response_class = _TimedResponse

        def _new_conn(self) -> socket.socket:
            return super()._new_conn() if proxy is None else _connect(proxy, self._dns_host, self.port, timeout)

    class PlainPool(urllib3.HTTPConnectionPool):
        ConnectionCls = Plain

    class SecurePool(urllib3.HTTPSConnectionPool):
        ConnectionCls = Secure

    return {"http": PlainPool, "https": SecurePool}


class _TimedReader(io.RawIOBase):
    """Reads from a socket under one deadline, where its own timeout would hold for each piece."""

    def __init__(self, stream: io.RawIOBase, sock: socket.socket) -> None:
        self._stream = stream
        self._sock = sock
        self._deadline = Deadline(sock.gettimeout())
        self.is_at_end = False
        """True once the peer is known to have nothing more to say."""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int | None:
        _set_timeout(self._sock, self._deadline)
        size = self._stream.readinto(buffer)
        self.is_at_end = size == 0
        return size

    def close(self) -> None:
        self._stream.close()
        super().close()


class _TimedResponse(HTTPResponse):
    """An answer that is read from its first byte to its last within the socket's timeout."""

    def __init__(self, sock: socket.socket, *args: Any, **options: Any) -> None:
        super().__init__(sock, *args, **options)
        self._reader = _TimedReader(self.fp.detach(), sock)
        self.fp: io.BufferedReader = io.BufferedReader(self._reader)

    def begin(self) -> None:
        """Read status and headers.

        Raises:
            HTTPException: they make no sense, or end before their end.
        """
        super().begin()
        # Else urllib3 logs lines that are no headers, word by word, and they may be the request with its token.
        if self._reader.is_at_end or self.msg.defects or self.msg.get_payload():
            raise HTTPException("the headers make no sense")


def _set_timeout(sock: socket.socket, deadline: Deadline) -> None:
    left = deadline.remaining()
    if left == 0:
        raise TimeoutError
    sock.settimeout(left)


class _TimedSocket:
    """A blocking socket under one deadline, where its own timeout would hold for each piece."""

    def __init__(self, sock: socket.socket, deadline: Deadline) -> None:
        self._sock = sock
        self._deadline = deadline

    def recv(self, size: int) -> bytes:
        _set_timeout(self._sock, self._deadline)
        return self._sock.recv(size)

    def sendall(self, data: bytes) -> None:
        _set_timeout(self._sock, self._deadline)
        self._sock.sendall(data)

    def close(self) -> None:
        """Do nothing: the owner of the socket closes it."""


def _connect(proxy: Proxy, host: str, port: int, timeout: float) -> socket.socket:
    deadline = Deadline(timeout)
    problem: ConnectFailed | None = None
    try:
        hosts = [host]
        if not proxy.looks_up_names:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            hosts = [str(address[0]) for *_, address in found]
        for target in hosts:
            if isinstance(problem, ProxyRejected) and problem.final:
                break
            sock = socket.create_connection((proxy.host, proxy.port), deadline.remaining())
            problem = _ask(sock, proxy, target, port, deadline)
            if problem is None:
                sock.settimeout(timeout)
                return sock
    except (OSError, UnicodeError) as error:
        raise urllib3.exceptions.ProxyError(f"no connection to the proxy {proxy.host}", error) from error
    assert problem is not None  # a name that has no address is an OSError
    raise urllib3.exceptions.ProxyError(str(problem), problem) from problem


def _ask(sock: socket.socket, proxy: Proxy, host: str, port: int, deadline: Deadline) -> ConnectFailed | None:
    """Ask a proxy for a connection to a host; return why there is none."""
    try:
        open_tunnel(_TimedSocket(sock, deadline), proxy, host, port, largest=_LARGEST_PROXY_ANSWER)
    except ConnectFailed as error:
        sock.close()
        return error
    except BaseException:
        sock.close()
        raise
    return None
