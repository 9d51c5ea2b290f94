"""HTTP for the REST API. It uses urllib3, and the same proxies as the stream."""

from __future__ import annotations

import collections
import email.utils
import io
import queue
import socket
import ssl
from collections.abc import Callable, Mapping
from http.client import HTTPException, HTTPResponse, RemoteDisconnected
from typing import Any

import attrs
import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection

from aggstream._base.backoff import retry_after
from aggstream._base.border import bare, interruption_in, raise_interruption_in
from aggstream._base.deadline import Deadline
from aggstream._base.greenlets import is_patched
from aggstream._base.resources import remedy_for
from aggstream._base.secret import Secret
from aggstream._base.signals import without_sigpipe
from aggstream._network.head import HeadEnded, HeadError, read_head
from aggstream._network.proxy import Proxy
from aggstream._network.tls_words import tls_words
from aggstream._network.tunnel import open_tunnel
from aggstream.errors import ConnectFailed, ProxyRejected

_LARGEST_PROXY_ANSWER = 65536
_LARGEST_HEAD = 65536
_PIECE = 65536


@attrs.frozen
class Answer:
    """The answer of the service to one request."""

    status: int
    retry_after: float | None
    """The seconds that the service asks the client to wait; None if the service does not ask."""
    is_compressed: bool
    """True if the body is compressed. No request asks for that, because a few bytes can become gigabytes."""
    body: bytes | None = attrs.field(repr=False)
    """The body; None if the body is too large."""
    date_ms: int | None = None
    """The answer's time by the service's clock, in milliseconds since the epoch; None without a valid `Date`."""


class Http:
    """A connection pool for requests. It is made anew after a request that was interrupted.

    An exception of a signal handler may leave a connection in the middle of an answer, and the pool in any state.
    """

    def __init__(self, make: Callable[[], urllib3.PoolManager]) -> None:
        self._make = make
        self._pool: urllib3.PoolManager | None = None

    def pool(self) -> urllib3.PoolManager:
        """Return the pool for the next request."""
        if (pool := self._pool) is None:
            # Two threads may make one each. Then the connections of one of them are closed a request later.
            pool = self._pool = self._make()
        return pool

    def discard(self, pool: urllib3.PoolManager) -> None:
        """Use a pool no more, and close its connections that no other thread uses."""
        if self._pool is pool:
            self._pool = None
        pool.clear()

    def clear(self) -> None:
        """Close the connections that no request uses."""
        if (pool := self._pool) is not None:
            pool.clear()


def make_http(
    timeout: float, ssl_context: ssl.SSLContext | None, proxy: Proxy | None, *, connections: int = 1
) -> Http:
    """Return a connection pool for requests. The pool repeats no request, and uses neither netrc nor cookies.

    Args:
        timeout: the seconds for connecting, and again for the whole answer, from the request to the last byte.
        ssl_context: the TLS settings; None: trust the system's certificate authorities.
        proxy: the proxy to connect through; None: connect directly. The pool does not read the environment.
        connections: the largest number of connections that the pool keeps open for later requests.
    """
    # If urllib3 was imported before gevent's patch, it makes contexts that block.
    if ssl_context is None and is_patched():
        ssl_context = ssl.create_default_context()
    classes = _pools(proxy, timeout)

    def make() -> urllib3.PoolManager:
        pool = urllib3.PoolManager(
            num_pools=1,
            maxsize=connections,
            retries=False,
            timeout=urllib3.Timeout(timeout),
            ssl_context=ssl_context,
        )
        pool.pool_classes_by_scheme = classes
        return pool

    return Http(make)


def exchange(
    http: Http,
    method: str,
    url: str,
    headers: Mapping[str, Secret],
    *,
    largest: int,
    body: bytes | None = None,
) -> Answer | urllib3.exceptions.HTTPError:
    """Make one request on the calling thread, and block until the answer is there. No redirect is followed.

    Args:
        http: the pool from `make_http`.
        method: the request's method.
        url: the request's URL.
        headers: all headers of the request.
        largest: the largest size of the answer's body, in bytes.
        body: the request's body.

    Returns:
        The answer, or the error if the request failed. The error is returned and not raised, because its
        traceback holds `headers` and `body`, which may be secret. The caller must raise a new error instead.
    """
    pool = http.pool()
    is_whole = False
    try:
        with without_sigpipe():
            answer = _exchange(pool, method, url, headers, largest, body)
            is_whole = True
            return answer
    except Exception as error:
        # A time limit, say, that a signal handler of the program has raised, is no failure of the request.
        interruption = interruption_in(error)
        if interruption is None and isinstance(error, urllib3.exceptions.HTTPError):
            return error
        if interruption is None:  # for example an invalid host name; its traceback holds the same secrets
            return urllib3.exceptions.HTTPError(type(error).__name__)
    finally:
        if not is_whole:
            http.discard(pool)
    raise bare(interruption)


def words_of(error: urllib3.exceptions.HTTPError) -> str:
    """Return a description of an error, without any text from the service."""
    # A proxy error holds no token, and tells the user what to do. Only `exchange` makes the base class itself.
    is_safe = isinstance(error, urllib3.exceptions.ProxyError) or type(error) is urllib3.exceptions.HTTPError
    if is_safe:
        return str(error.args[0])
    cause = error.__cause__ or error.__context__
    if cause is not None and (remedy := remedy_for(cause)) is not None:
        return remedy
    if isinstance(cause, (_NoHead, RemoteDisconnected)):
        return str(cause) if isinstance(cause, _NoHead) else "the server closed the connection without an answer"
    for found in (*error.args[-1:], cause):  # urllib3 has an error of TLS as an argument of its own
        if isinstance(found, ssl.SSLError):
            return tls_words(found)
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror
    return type(error).__name__


def retry_after_of(error: urllib3.exceptions.HTTPError) -> float | None:
    """Return the seconds that a proxy asks the client to wait; None if no proxy asks."""
    cause = error.args[-1] if error.args else None
    return cause.retry_after if isinstance(cause, ProxyRejected) else None


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
            retry_after=retry_after(next(iter(response.headers.getlist("retry-after")), None)),
            is_compressed=response.headers.get("content-encoding", "").strip().lower() not in ("", "identity"),
            body=bytes(data) if len(data) <= largest else None,
            date_ms=_date_ms(response.headers.get("date")),
        )
    finally:
        response.close()  # if the body was read completely, the connection is back in the pool already


def _date_ms(text: str | None) -> int | None:
    # A date without a time zone is not valid: a date in HTTP always says GMT.
    parsed = None if text is None else email.utils.parsedate_tz(text)
    if parsed is None or parsed[9] is None:
        return None
    try:
        return email.utils.mktime_tz(parsed) * 1000
    except (ValueError, OverflowError) as error:
        raise_interruption_in(error)
        return None


def _pools(proxy: Proxy | None, timeout: float) -> dict[str, Any]:
    """Return urllib3 pool classes that connect and read in our way. urllib3's SOCKS module does it likewise."""

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
        QueueCls: Any = _IdleConnections

    class SecurePool(urllib3.HTTPSConnectionPool):
        ConnectionCls = Secure
        QueueCls: Any = _IdleConnections

    return {"http": PlainPool, "https": SecurePool}


class _IdleConnections:
    """A `LifoQueue` without a lock, with the methods that urllib3 calls.

    An exception of a signal handler may leave a lock held. Then the next request would wait for ever, and so would
    the garbage collector when it closes the connections.
    """

    def __init__(self, maxsize: int) -> None:
        self._most = maxsize
        self._connections: collections.deque[Any] = collections.deque()  # whose methods are atomic

    def put(self, connection: Any, block: bool = True) -> None:
        """Keep a connection.

        Raises:
            Full: as many as wanted are kept already.
        """
        if len(self._connections) >= self._most:
            raise queue.Full
        self._connections.append(connection)

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Take the connection that was kept last.

        Raises:
            Empty: there is none.
        """
        try:
            return self._connections.pop()
        except IndexError:
            raise queue.Empty from None

    def qsize(self) -> int:
        """Return how many connections are kept."""
        return len(self._connections)


class _TimedReader(io.RawIOBase):
    """Reads from a socket with one deadline for all reads. The socket's own timeout is for each read alone."""

    def __init__(self, stream: io.RawIOBase, sock: socket.socket) -> None:
        self._stream = stream
        self._sock = sock
        self._deadline = Deadline(sock.gettimeout())

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int | None:
        _set_timeout(self._sock, self._deadline)
        return self._stream.readinto(buffer)

    def close(self) -> None:
        self._stream.close()
        super().close()


class _NoHead(HTTPException):
    """The answer has no usable head. The text holds nothing of what the server sent."""


class _TimedResponse(HTTPResponse):
    """An HTTP response that must arrive, from the first byte to the last, within the socket's timeout."""

    def __init__(self, sock: socket.socket, *args: Any, **options: Any) -> None:
        super().__init__(sock, *args, **options)
        self._reader = _TimedReader(self.fp.detach(), sock)
        self.fp: io.BufferedReader = io.BufferedReader(self._reader)

    def begin(self) -> None:
        """Read the status and the headers.

        Raises:
            HTTPException: the headers are not valid, or the connection ended before the headers did.
        """
        # The standard library takes 102 and 103 for the answer itself, and a line that is no header for the end of
        # the headers. urllib3 logs such lines as they are, and a server may echo the token in them.
        problem = None
        try:
            head = read_head(self.fp.read, _LARGEST_HEAD).as_bytes()
        except HeadEnded as error:
            if not error.is_empty:
                problem = str(error)
            head = b""  # then the standard library raises its error for an answer that did not come
        except HeadError as error:
            problem = str(error)
        if problem is not None:
            raise _NoHead(problem)
        body, self.fp = self.fp, io.BufferedReader(io.BytesIO(head))
        try:
            super().begin()
        except RemoteDisconnected:
            raise
        except HTTPException as error:  # it counts the headers, and takes 100
            raise_interruption_in(error)
            problem = "the answer has too many headers"
        finally:
            self.fp = body
        if problem is not None:
            raise _NoHead(problem)


def _set_timeout(sock: socket.socket, deadline: Deadline) -> None:
    left = deadline.remaining()
    if left == 0:
        raise TimeoutError
    sock.settimeout(left)


class _TimedSocket:
    """A blocking socket with one deadline for all calls. The socket's own timeout is for each call alone."""

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
    assert problem is not None  # there is at least one host: a host name without an address raises OSError
    raise urllib3.exceptions.ProxyError(str(problem), problem) from problem


def _ask(sock: socket.socket, proxy: Proxy, host: str, port: int, deadline: Deadline) -> ConnectFailed | None:
    """Ask a proxy to connect to a host; return the error if the proxy did not connect, otherwise None."""
    try:
        open_tunnel(_TimedSocket(sock, deadline), proxy, host, port, largest=_LARGEST_PROXY_ANSWER)
    except ConnectFailed as error:
        sock.close()
        raise_interruption_in(error)
        return error
    except BaseException:
        sock.close()
        raise
    return None
