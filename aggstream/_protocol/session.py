"""One connection's protocol, without I/O: no socket, no clock, no randomness, no lock.

Give it what happens, each time with `now` (seconds on any monotonic clock), then drain what follows from it:
`events_received()`, `data_to_send()`, `token_request()`, and call `handle_deadline()` at `next_deadline()`.
A session lives as long as its connection; `error` says why it ended. Its states stand in `states.py`, and what is
known of tokens and of the user in `sign_in.py`.

What the service is assumed to do, because nothing public says:
- An `error` without a `channel`, while an `authenticate` waits for its answer, is the answer.
- A close code in `auth_close_codes` says that the token is refused or has expired.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar, Literal, cast

from aggstream._base.deadline import nearest
from aggstream._protocol.codec import PER_CHARACTER, SHORT, Codec, memory_of
from aggstream._protocol.commands import CloseFrame, Command, Ping
from aggstream._protocol.keepalive import Keepalive
from aggstream._protocol.options import SessionOptions
from aggstream._protocol.sign_in import SignIn, Verdict
from aggstream._protocol.states import TRANSITIONS, Signal, State
from aggstream._protocol.timers import Timers
from aggstream.errors import (
    AggStreamError,
    AuthenticationRejected,
    ConnectFailed,
    ConnectionLost,
    DecodeError,
    HeartbeatTimeout,
    LimitExceeded,
    LocalProtocolError,
    RemoteProtocolError,
    ServerError,
    UserMismatch,
)
from aggstream.events import (
    WIRE_TYPES,
    Authenticated,
    Connected,
    ControlMessage,
    DecodeFailed,
    ErrorMessage,
    Event,
    OrderEvent,
    TokenRefreshed,
    UserEvent,
    normal_form,
)
from aggstream.tokens._token import Token

__all__ = ["Session"]

# More than a service in order sends before it answers `authenticate`.
_MOST_HELD = 10_000

# An event is completed here before anybody has seen it, below attrs' guard against assignment.
_set_user_id: Callable[[UserEvent, str | None], None] = UserEvent.user_id.__set__  # type: ignore[union-attr]
_set_named_as: Callable[[OrderEvent, str], None] = OrderEvent.named_as.__set__  # type: ignore[attr-defined]


class Session:
    """The protocol of one connection. Not thread-safe: it belongs to the thread that does the I/O."""

    def __init__(self, options: SessionOptions, token: Token, *, expected_user: str | None = None) -> None:
        """Make a session for a connection that is about to be opened.

        Args:
            options: deadlines and assumptions.
            token: what to sign in with.
            expected_user: the user that the stream belongs to so far; another one ends the session.
        """
        self.state = State.IDLE
        self.error: AggStreamError | None = None
        """The error that ended it; None while it has not ended, or if this side closed it."""
        self.ended_by: Literal["server", "client", "network"] = "client"
        """The side that ended it, once it has ended."""
        self.close_code: int | None = None
        """The code of the peer's close frame, if one came."""
        self.dropped = 0
        """How many events were not delivered, because they came for a user who is not accepted."""
        self.has_doubt = False
        """True if a user message came that was not understood, or that names another user: see `take_doubt`."""
        self._foreign = 0
        self.foreign_user: str | None = None
        """The user whom the last message names that is not delivered for it."""

        self._options = options
        self._limits = options.limits
        self._codec = Codec(options.limits)
        self._decode_quickly = self._codec.quick.decode_all
        self._timers = Timers()
        self._keepalive = Keepalive(options)
        self.last_heard = 0.0
        """When anything last came from the peer, by the `now` of the call that told it."""
        self._events: list[tuple[Event, int]] = []
        self._commands: list[Command] = []
        self._has_sign_in = False
        self._held: list[tuple[Event, int]] = []
        self._held_size = 0
        # Of the message that is looked at; it goes with whatever becomes of it.
        self._size = 0
        # The number of the message that has come in part.
        self._partial: int | None = None
        self._token_wanted = False
        self._sign_in = SignIn(token, expected_user=expected_user)
        # True once events may be another user's: they are dropped.
        self._muted = False

    @property
    def token(self) -> Token:
        """The token in use."""
        return self._sign_in.token

    @property
    def refused(self) -> Token:
        """The token that the service refused, if `error` is an AuthenticationRejected."""
        return self._sign_in.refused

    @property
    def user_id(self) -> str | None:
        """The user who is signed in, by the service's word; before that, the one who is expected."""
        return self._sign_in.user_id

    # --- in ---------------------------------------------------------------------------------------------

    def connection_made(self, now: float) -> None:
        """Begin: the WebSocket handshake is done."""
        self._move(Signal.OPENED)
        self._heard(now, is_message=True)
        self._keepalive.begin()
        self._timers.set("greeting", self._timers.time(now) + self._options.greeting_timeout)

    def receive_text(self, text: str, now: float, received_ns: int) -> None:
        """Take a text message; its events are drained by `events_received`."""
        if self._hears(now):
            self._receive_texts((text,), now, received_ns)

    def receive_texts(self, texts: Sequence[str], now: float, received_ns: int) -> list[tuple[Event, int]]:
        """Take text messages; return the events that are ready, as `sized_events_received` does.

        Args:
            texts: the messages, in order.
            now: monotonic seconds.
            received_ns: the wall clock's nanoseconds since the epoch, for the events.
        """
        if self._hears(now):
            self._receive_texts(texts, now, received_ns)
        events, self._events = self._events, []
        return events

    def _receive_texts(self, texts: Sequence[str], now: float, received_ns: int) -> None:
        emits_all = self._emits_all_user_events()
        user_id, names = self._sign_in.user_id, self._options.status_names
        quick = self._decode_quickly(texts, received_ns)
        events = (
            cast("list[Event | DecodeError]", quick)
            if all(quick)
            else self._codec.complete(quick, texts, received_ns)
        )
        for text, event in zip(texts, events, strict=True):
            # A call of memory_of() for each short message would be a fiftieth of all the time that it takes.
            self._size = len(text) * PER_CHARACTER if len(text) < SHORT else memory_of(text)
            if isinstance(event, UserEvent):
                if names and isinstance(event, OrderEvent) and (name := names.get(normal_form(event.event))):
                    _set_named_as(event, name)
                if not emits_all:
                    self._user_event(event, now)
                elif event.user_id is None:
                    _set_user_id(event, user_id)
                    self._events.append((event, self._size))
                elif event.user_id == user_id or self._is_ours(event):
                    self._events.append((event, self._size))
            elif isinstance(event, DecodeError):
                self.receive_undecodable(text, event, now, received_ns)
            else:
                # A service may echo a token when it refuses it.
                self._other_message(self._sign_in.mask(event) if self._sign_in.is_echoed(text) else event, now)
                if self.state is State.CLOSED:
                    return
                emits_all = self._emits_all_user_events()
                user_id = self._sign_in.user_id

    def _other_message(self, event: Event, now: float) -> None:
        if isinstance(event, ControlMessage):
            self._control(event, now)
        elif self._muted:
            self.dropped += 1
        elif self._names_our_user(event.raw.get("userId")):
            self._emit(event)

    def receive_undecodable(self, text: str, error: DecodeError, now: float, received_ns: int) -> None:
        """Take a message that is not understood: it becomes a `DecodeFailed`, and costs nothing else."""
        if not self._hears(now):
            return
        if self._muted:
            self.dropped += 1
            return
        self.has_doubt = self.has_doubt or _may_be_users(error)
        self._size = text.__sizeof__()
        text = self._redacted(text)
        # It is handed out, and its frames and what it came from hold the text as it was.
        error.__traceback__ = error.__context__ = None
        self._emit(DecodeFailed(text=text, error=error, received_ns=received_ns))

    def receive_control_frame(self, now: float) -> None:
        """Take a ping or a pong: the peer lives, even if it has nothing to say."""
        self._heard(now, is_message=False)

    def receive_partial(self, number: int | None, now: float) -> None:
        """Note that a part of a message came, and the rest did not.

        Args:
            number: tells the message from the next one; None: all that came is whole.
            now: monotonic seconds.
        """
        if number == self._partial or self.state in (State.IDLE, State.CLOSING, State.CLOSED):
            return
        self._partial = number
        self._timers.cancel("message")
        if number is not None:
            self._timers.set("message", self._timers.time(now) + self._limits.message_timeout)

    def receive_close(self, code: int, reason: str, now: float) -> None:
        """Take the peer's close frame. Nothing follows it."""
        if self.state is State.CLOSED:
            return
        self._heard(now, is_message=False)
        self.close_code = code
        reason = self._redacted(reason)
        said = f"the server closed the connection with code {code}"
        if reason:
            said += f": {self._limits.shown(reason)}"
        error: AggStreamError
        if code in self._options.auth_close_codes and self._authentication_is_at_stake():
            error = AuthenticationRejected(said)
            self._sign_in.refuse()
        elif code in self._options.auth_close_codes:
            error = ServerError(f"{said}; it seems to refuse the app id or the origin", code=str(code))
        else:
            error = ConnectionLost(said, code=code, reason=reason, initiated_by="server")
        self._end(error, "server")

    def connection_lost(self, error: AggStreamError) -> None:
        """End: the connection is gone without a close frame, or had to be given up."""
        self._end(error, error.initiated_by if isinstance(error, ConnectionLost) else "client")

    def token_received(self, token: Token, now: float, refresh_in: float | None) -> None:
        """Authenticate with another token on the open connection.

        Args:
            token: the token; the one in use is not sent again.
            now: monotonic seconds.
            refresh_in: seconds until the next one should be asked for; None: never.
        """
        if self.state is not State.LIVE:
            return
        self.schedule_refresh(now, refresh_in)
        if token.secret != self.token.secret:
            self._authenticate(token, now)

    def token_failed(self, error: AggStreamError, now: float, retry_in: float | None) -> None:
        """Note that no other token could be had.

        Args:
            error: why.
            now: monotonic seconds.
            retry_in: seconds until it should be asked for again; None: it is useless, the session ends.
        """
        if self.state is not State.LIVE:
            return
        if retry_in is None:
            self._fail(error, now)
        else:
            self.schedule_refresh(now, retry_in)

    def schedule_refresh(self, now: float, refresh_in: float | None) -> None:
        """Set when `token_request()` becomes true; None: never."""
        self._timers.cancel("refresh")
        if refresh_in is not None and self.state not in (State.CLOSING, State.CLOSED):
            self._timers.set_steady("refresh", now + refresh_in)

    def pause(self, now: float) -> None:
        """Note that this side stops reading: from here on silence says nothing about the peer."""
        self._timers.pause(now)

    def resume(self, now: float) -> None:
        """Note that this side reads again."""
        self._timers.resume(now)

    def slept(self, seconds: float) -> None:
        """Note that the machine was suspended, which `now` does not show: the peer must prove that it is there."""
        self._keepalive.slept(seconds)
        self._timers.bring_forward(seconds)

    def close(self, now: float, code: int = 1000, reason: str = "") -> None:
        """Begin to close. Events that the peer sent before its close frame are still delivered."""
        if self.state is State.IDLE:
            self._keepalive.end()
            self._timers.clear()
            self._move(Signal.ENDED)
        elif self.state not in (State.CLOSING, State.CLOSED):
            self._muted = self._muted or self.state is not State.LIVE
            self._held.clear()
            self._move(Signal.CLOSE_SENT)
            self.ended_by = "client"
            self._commands.append(CloseFrame(code, reason))
            self._keepalive.end()
            self._timers.clear()
            # Steady: it must come to its end also if this side does not read, and so sees no close frame.
            self._timers.set_steady("close", now + self._options.close_timeout)
            self._token_wanted = False

    def handle_deadline(self, now: float) -> None:
        """Act on every deadline that has come."""
        while (name := self._take_due(now)) is not None:
            self._WHEN_DUE[name](self, now)

    # --- out --------------------------------------------------------------------------------------------

    def events_received(self) -> list[Event]:
        """Return the events since the last call, in order. Deliver them."""
        return [event for event, _ in self.sized_events_received()]

    def sized_events_received(self) -> list[tuple[Event, int]]:
        """Return the same, each with the bytes that its message takes in memory, about."""
        events, self._events = self._events, []
        return events

    def wants_nothing(self) -> bool:
        """Return True if it is live, and has only events for the handlers: its owner need not do anything else."""
        return (
            self.state is State.LIVE
            and not (self._commands or self._token_wanted or self._has_sign_in or self.has_doubt)
            and self._partial is None
        )

    def sign_in_received(self) -> bool:
        """Return True, once, if there is an `Authenticated` among the events since the last call."""
        has_sign_in, self._has_sign_in = self._has_sign_in, False
        return has_sign_in

    def take_doubt(self) -> int:
        """Return how many messages named another user since the last call, and were not delivered for it."""
        foreign, self._foreign = self._foreign, 0
        self.has_doubt = False
        return foreign

    def data_to_send(self) -> list[Command]:
        """Return the commands since the last call, in order. Put them on the wire."""
        commands, self._commands = self._commands, []
        return commands

    def token_request(self) -> bool:
        """Return True, once, if another token than `token` should be asked for."""
        wanted, self._token_wanted = self._token_wanted, False
        return wanted

    def next_deadline(self) -> float | None:
        """Return when `handle_deadline` should be called, if nothing happens before; None: no need."""
        at = None if self._timers.is_paused else self._keepalive.next()
        return nearest(self._timers.next(), None if at is None else at + self._timers.paused_for)

    def shown(self, text: str) -> str:
        """Return the server's words as one short line, with the tokens in it masked."""
        return self._limits.shown(self._redacted(text))

    def close_expected(self) -> bool:
        """Return True if the connection should be dropped now, and not be read from any more."""
        return self.state is State.CLOSED

    # --- messages ---------------------------------------------------------------------------------------

    def _emit(self, event: Event) -> None:
        self._events.append((event, self._size))
        self._has_sign_in = self._has_sign_in or isinstance(event, Authenticated)

    def _emits_all_user_events(self) -> bool:
        return self.state is State.LIVE and not self._muted

    def _is_ours(self, event: UserEvent) -> bool:
        """Return True if an event is the signed-in user's; complete it with the user's id. Else count it."""
        if event.user_id is None:
            _set_user_id(event, self.user_id)
        return self._names_our_user(event.user_id)

    def _names_our_user(self, user_id: object) -> bool:
        """Return True unless both sides name a user, and not the same one: then the message is counted."""
        ours = self.user_id
        if not isinstance(user_id, str) or ours in (None, user_id) or not self._options.check_user_id:
            return True
        self._foreign += 1
        self.foreign_user = user_id
        self.has_doubt = True
        return False

    def _user_event(self, event: UserEvent, now: float) -> None:
        if self._muted:
            self.dropped += 1
        elif self.state in (State.CONNECTING, State.AUTHENTICATING):
            # It is certain only once the service has named the user whose events they are.
            self._held.append((event, self._size))
            self._held_size += self._size
            if len(self._held) > _MOST_HELD or self._held_size > self._limits.queued_size:
                self._fail(RemoteProtocolError("the server sends events without ever saying 'authenticated'"), now)
        elif self._is_ours(event):
            self._emit(event)

    def _control(self, event: ControlMessage, now: float) -> None:
        if isinstance(event, ErrorMessage):
            self._server_error(event, now)
        elif isinstance(event, Authenticated):
            self._authenticated(event, now)
        else:
            self._emit(event)
            if isinstance(event, Connected):
                self._greeted(event, now)

    def _greeted(self, event: Connected, now: float) -> None:
        if self.state is not State.CONNECTING:
            self._move(Signal.GREETED)
            return
        self._timers.cancel("greeting")
        if not self._options.token_in_query:
            self._move(Signal.GREETED)
            self._authenticate(self.token, now)
        elif event.user_id is None:
            self._fail(AuthenticationRejected("the service did not take the token in the query"), now)
        else:
            self._signed_in(Authenticated(user_id=event.user_id, received_ns=event.received_ns), now)

    def _authenticated(self, event: Authenticated, now: float) -> None:
        if self.state is State.CLOSING:
            return
        self._timers.cancel("auth", "greeting")
        if self.state is not State.LIVE:
            self._signed_in(event, now)
            return
        verdict = self._accepted(event.user_id, now)
        if verdict is Verdict.WRONG_USER:
            return
        if verdict is not Verdict.PROVEN:  # a proof of life is no news
            self._emit(event)
        if verdict is Verdict.RENEWED:
            expires = self.token.expires_at
            self._emit(TokenRefreshed(user_id=event.user_id, expires_at=expires, received_ns=event.received_ns))
        queued = self._sign_in.next_token()
        if queued is not None:
            self._authenticate(queued, now)

    def _signed_in(self, event: Authenticated, now: float) -> None:
        if self._accepted(event.user_id, now) is Verdict.WRONG_USER:
            return
        self._move(Signal.AUTHENTICATED)
        self._emit(event)
        self._keepalive.begin_service(self._timers.time(now))
        held, self._held = self._held, []
        self._events.extend(entry for entry in held if self._is_ours(cast("UserEvent", entry[0])))

    def _accepted(self, user_id: str | None, now: float) -> Verdict:
        verdict = self._sign_in.accepted(user_id)
        if verdict is Verdict.WRONG_USER:
            new, old = self.shown(str(user_id)), self.shown(str(self.user_id))
            who = f"the token signs in {new}, but the stream belongs to {old}"
            self._fail(UserMismatch(f"{who}; call switch_user() to change users"), now)
        return verdict

    def _server_error(self, event: ErrorMessage, now: float) -> None:
        self._emit(event)
        said = self._limits.shown(event.message)
        if event.channel is not None or self.state is State.CLOSING:
            return
        if self.state is State.AUTHENTICATING or self._sign_in.is_pending:
            self._sign_in.refuse()
            self._fail(AuthenticationRejected(f"the service refused the token: {said}"), now)
        elif self.state is State.CONNECTING and self._options.token_in_query:
            self._fail(AuthenticationRejected(f"the service refused the connection: {said}"), now)
        elif self.state is State.CONNECTING:
            code = None if event.code is None else self.shown(str(event.code))[1:-1]  # without the quotes
            self._fail(ServerError(f"the service refused the connection: {said}", code=code), now)

    # --- steps ------------------------------------------------------------------------------------------

    def _authenticate(self, token: Token, now: float) -> None:
        command = self._sign_in.send(token)
        if command is None:
            return
        self._commands.append(command)
        self._timers.set("auth", self._timers.time(now) + self._options.auth_timeout)

    def _authentication_is_at_stake(self) -> bool:
        return self.state in (State.AUTHENTICATING, State.LIVE) or self._options.token_in_query

    def _fail(self, error: AggStreamError, now: float) -> None:
        # Events that come while an unaccepted user is turned away are not this stream's.
        self._muted = self._muted or isinstance(error, UserMismatch)
        self.error = error
        self.close(now)

    def _end(self, error: AggStreamError, by: Literal["server", "client", "network"]) -> None:
        # Once this side is closing, why it closes is the reason; what the network says after it is not news.
        if self.state not in (State.CLOSING, State.CLOSED):
            self.error = error
            self.ended_by = by
        self._held.clear()
        self._commands.clear()
        self._keepalive.end()
        self._timers.clear()
        self._token_wanted = False
        self._move(Signal.ENDED)

    def _move(self, signal: Signal) -> None:
        try:
            self.state = TRANSITIONS[self.state][signal]
        except KeyError:
            raise LocalProtocolError(f"not possible while {self.state.value}: {signal.value}") from None

    def _redacted(self, text: str) -> str:
        return self._sign_in.redact(text)

    def _hears(self, now: float) -> bool:
        if self.state is State.IDLE:
            raise LocalProtocolError("nothing can be received before connection_made()")
        if self.state is State.CLOSED:
            return False
        self._heard(now, is_message=True)
        return True

    def _heard(self, now: float, *, is_message: bool) -> None:
        self.last_heard = now
        timers, keepalive = self._timers, self._keepalive
        # Not `timers.time(now)` where it is not needed: this is done for each message.
        keepalive.heard_at = timers.time(now) if timers.is_paused else now - timers.paused_for
        if is_message:
            keepalive.message_at = keepalive.heard_at

    def _take_due(self, now: float) -> str | None:
        name = self._timers.take_due(now)
        if name is None and not self._timers.is_paused:
            return self._keepalive.take_due(self._timers.time(now))
        return name

    # --- deadlines --------------------------------------------------------------------------------------

    def _on_greeting(self, now: float) -> None:
        self._fail(ConnectFailed("the service did not say 'connected' in time (connect_timeout)"), now)

    def _on_auth(self, now: float) -> None:
        self._fail(HeartbeatTimeout("the service did not acknowledge 'authenticate' in time (auth_timeout)"), now)

    def _on_ping(self, now: float) -> None:
        self._commands.append(Ping())

    def _on_pong(self, now: float) -> None:
        self._fail(HeartbeatTimeout("the server did not answer a ping in time (pong_timeout)"), now)

    def _on_idle(self, now: float) -> None:
        if not self._sign_in.is_pending:
            self._authenticate(self.token, now)

    def _on_message(self, now: float) -> None:
        timeout = self._limits.message_timeout
        what = "a message that began and did not end within the time"
        self._fail(LimitExceeded(what, limit="message_timeout", value=timeout), now)

    def _on_refresh(self, now: float) -> None:
        self._token_wanted = True

    def _on_close(self, now: float) -> None:
        self._end(ConnectionLost("the server did not answer the close frame"), "network")

    _WHEN_DUE: ClassVar[dict[str, Callable[[Session, float], None]]] = {
        "greeting": _on_greeting,
        "auth": _on_auth,
        "ping": _on_ping,
        "pong": _on_pong,
        "idle": _on_idle,
        "message": _on_message,
        "refresh": _on_refresh,
        "close": _on_close,
    }


def _may_be_users(error: DecodeError) -> bool:
    """Return True if the message that was not understood may have been about the user's orders or balances."""
    cls = None if error.message_type is None else WIRE_TYPES.get(error.message_type)
    return cls is None or issubclass(cls, UserEvent)
