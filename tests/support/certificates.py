"""TLS for servers of the tests."""

from __future__ import annotations

import select
import ssl
import threading
from collections.abc import Callable
from typing import Any, TypeVar

import trustme

T = TypeVar("T")


def serving(authority: trustme.CA) -> ssl.SSLContext:
    """Return a server's context with a certificate for this machine. `websockets` may use it from two threads."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost", "127.0.0.1").configure_cert(context)
    context.sslsocket_class = TwoThreadSocket
    return context


class TwoThreadSocket(ssl.SSLSocket):
    """A TLS socket that one thread reads and another writes, as `websockets.sync` does.

    OpenSSL allows one thread in a connection at a time. CPython before 3.13.6 does not see to that, and the
    connection then fails with "internal error", or hangs. Here the threads wait outside OpenSSL, and enter it in
    turn.
    """

    def recv(self, buflen: int = 1024, flags: int = 0) -> bytes:
        return self._in_turn(lambda: super(TwoThreadSocket, self).recv(buflen, flags))

    def send(self, data: Any, flags: int = 0) -> int:
        return self._in_turn(lambda: super(TwoThreadSocket, self).send(data, flags))

    def _in_turn(self, call: Callable[[], T]) -> T:
        while True:
            with _TURN:
                timeout = self.gettimeout()
                self.settimeout(0)
                try:
                    return call()
                except (ssl.SSLWantReadError, ssl.SSLWantWriteError) as error:
                    reads = isinstance(error, ssl.SSLWantReadError)
                finally:
                    if self.fileno() >= 0:
                        self.settimeout(timeout)
            try:
                ready = select.select([self] * reads, [self] * (not reads), [], timeout)
            except ValueError:
                raise ConnectionAbortedError("the socket was closed by another thread") from None
            if not any(ready):
                raise TimeoutError("timed out")


# One for all sockets: nobody waits while holding it.
_TURN = threading.Lock()
