"""Every error that aggstream raises.

```
AggStreamError
├─ ConfigurationError (also ValueError)      an option, a key or a handler that cannot work
├─ StateError (also RuntimeError)            a call at the wrong time: started twice, waiting inside a handler
├─ WaitTimeout (also TimeoutError)           `wait_for` saw nothing that matched in time
├─ TransportError                            the network; may be retried
│  ├─ ConnectFailed
│  │  ├─ HandshakeRejected(status, retry_after)
│  │  └─ ProxyRejected(status, final, retry_after)
│  ├─ ConnectionLost(code, reason, initiated_by)
│  └─ HeartbeatTimeout
├─ ProtocolError
│  ├─ LocalProtocolError                     our side broke the protocol
│  └─ RemoteProtocolError                    the server did
│     ├─ LimitExceeded(limit)
│     └─ DecodeError(path)
├─ AuthenticationError
│  ├─ TokenUnavailable(retry_after)          may be retried
│  ├─ AuthenticationRejected(final)          fatal once `final`
│  └─ UserMismatch                           fatal: a token of somebody else
├─ ServerError(message, code)                the server said `error`
├─ RestError(status, retry_after)            the REST API gave no answer that can be used; may be retried
├─ JournalError(path)
│  ├─ JournalInUse                           another client, maybe of another process, owns the file
│  ├─ JournalCorrupt                         the file is damaged, or no journal
│  └─ JournalFull                            it cannot be written to: the disk is full, or fails
└─ ReconnectGaveUp(attempts)                 `__cause__` is the last error
```

The class says whose fault it is, the text says what to do. No text, argument or attribute holds a token.
"""

from __future__ import annotations

from typing import Literal

__all__ = [
    "AggStreamError",
    "AuthenticationError",
    "AuthenticationRejected",
    "ConfigurationError",
    "ConnectFailed",
    "ConnectionLost",
    "DecodeError",
    "HandshakeRejected",
    "HeartbeatTimeout",
    "JournalCorrupt",
    "JournalError",
    "JournalFull",
    "JournalInUse",
    "LimitExceeded",
    "LocalProtocolError",
    "ProtocolError",
    "ProxyRejected",
    "ReconnectGaveUp",
    "RemoteProtocolError",
    "RestError",
    "ServerError",
    "StateError",
    "TokenUnavailable",
    "TransportError",
    "UserMismatch",
    "WaitTimeout",
]


class AggStreamError(Exception):
    """The base of every error of this library. Errors can be pickled, so they cross process borders."""

    def __reduce__(self) -> tuple[object, ...]:
        # Exception's own way calls the class with `args` alone, which keyword-only arguments do not survive.
        return _rebuild, (type(self), self.args, self.__dict__)


class ConfigurationError(AggStreamError, ValueError):
    """An option, a key or a handler that cannot work; the text says which one and what would."""


class StateError(AggStreamError, RuntimeError):
    """A call that is not possible now: a client started twice, or a wait that would block its own events."""


class WaitTimeout(AggStreamError, TimeoutError):
    """`Client.wait_for` saw no matching event in time."""


class TransportError(AggStreamError):
    """The network or the peer's end of it failed. Trying again may help."""


class ConnectFailed(TransportError):
    """No connection came about: name look-up, TCP, TLS or the WebSocket handshake failed."""


class HandshakeRejected(ConnectFailed):
    """The server answered the WebSocket handshake with another HTTP status than 101.

    Attributes:
        status: the HTTP status.
        retry_after: seconds that the server asks to wait, or None.
    """

    def __init__(self, message: str, *, status: int, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after


class ProxyRejected(ConnectFailed):
    """The proxy did not connect to the service.

    Attributes:
        status: the HTTP status, or the reply code of SOCKS5, or None.
        final: True if trying again is useless: the proxy knows neither user nor password, or does not allow it.
        retry_after: seconds that the proxy asks to wait, or None.
    """

    def __init__(self, message: str, *, status: int | None, final: bool, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.final = final
        self.retry_after = retry_after


class ConnectionLost(TransportError):
    """An established connection ended.

    Attributes:
        code: the WebSocket close code; 1006 if the connection ended without a close frame.
        reason: the peer's words.
        initiated_by: who ended it: "server", "client", or "network".
    """

    def __init__(
        self,
        message: str,
        *,
        code: int = 1006,
        reason: str = "",
        initiated_by: Literal["server", "client", "network"] = "network",
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.initiated_by = initiated_by


class HeartbeatTimeout(TransportError):
    """The connection looked open, but the peer gave no proof of life within its deadline."""


class ProtocolError(AggStreamError):
    """One side broke the protocol."""


class LocalProtocolError(ProtocolError):
    """This side asked for something that the protocol does not allow in its present state."""


class RemoteProtocolError(ProtocolError):
    """The server sent what the protocol does not allow."""


class LimitExceeded(RemoteProtocolError):
    """The server asked for more than `Limits` allows. It costs the connection.

    Attributes:
        limit: the name of the limit, as in `Limits`.
    """

    def __init__(self, what: str, *, limit: str, value: float) -> None:
        super().__init__(f"the server sent {what}, which is above limits.{limit} ({value})")
        self.limit = limit


class DecodeError(RemoteProtocolError):
    """One message could not be understood. It costs that message only.

    Attributes:
        path: where in the message, as in `$.price`; `$` is the whole message.
        message_type: the message's `type`, if that much was understood; else None.
    """

    def __init__(self, problem: str, *, path: str = "$", message_type: str | None = None) -> None:
        super().__init__(f"{path}: {problem}")
        self.path = path
        self.message_type = message_type


class AuthenticationError(AggStreamError):
    """Signing in did not work."""


class TokenUnavailable(AuthenticationError):
    """The token provider gave no token this time. Trying again may help.

    Attributes:
        retry_after: seconds that the server asks to wait, or None.
    """

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class AuthenticationRejected(AuthenticationError):
    """The server refused the token, or the refresh of it.

    Attributes:
        final: True once another attempt is useless: the user must sign in again.
    """

    def __init__(self, message: str, *, final: bool = False) -> None:
        super().__init__(message)
        self.final = final


class UserMismatch(AuthenticationError):
    """The token belongs to another user than the stream; `Client.switch_user` is how to change users."""


class ServerError(AggStreamError):
    """The server sent an `error` message that ends what was being done.

    Attributes:
        message: the server's words.
        code: the server's code, or None.
    """

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message if code is None else f"{message} ({code})")
        self.message = message
        self.code = code


class RestError(AggStreamError):
    """The REST API gave no answer that can be used. Whether trying again may help, `status` tells.

    Attributes:
        status: the HTTP status, 200 if the answer is not understood; None if none came, or not all of it.
        retry_after: seconds that the server asks to wait, or None.
    """

    def __init__(self, message: str, *, status: int | None = None, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after


class JournalError(AggStreamError):
    """The journal cannot do its work. Nothing that is stored in it is lost by this.

    Attributes:
        path: the journal's file, or what else the events are kept in.
    """

    def __init__(self, message: str, *, path: str) -> None:
        super().__init__(message)
        self.path = path


class JournalInUse(JournalError):
    """Another client owns the journal, in this process or another one: one journal, one stream."""


class JournalCorrupt(JournalError):
    """The file is damaged, or is no journal of this library's. It is left as it is."""


class JournalFull(JournalError):
    """The journal cannot be written to: the disk is full, or it fails."""


class ReconnectGaveUp(AggStreamError):
    """The limit of the reconnect policy was reached. `__cause__` is the last error.

    Attributes:
        attempts: how often connecting was tried in this outage.
    """

    def __init__(self, message: str, *, attempts: int) -> None:
        super().__init__(message)
        self.attempts = attempts


def _rebuild(cls: type[AggStreamError], args: tuple[object, ...], state: dict[str, object]) -> AggStreamError:
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(state)
    return error
