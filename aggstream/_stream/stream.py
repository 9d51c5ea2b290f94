"""One user's stream: a state machine that the I/O thread steps, and that never blocks it.

It goes through these states, each a method that does what is due in it:

    _take_up ─► _wait ─► _ask ─► _await_connection ─► _serve ─► (ended)
                  ▲                      │               │
                  └──────────────────────┴───────────────┘  an error that may pass

What it waits for wakes it: the socket of the connection, another thread, the end of a blocking call, and the next
deadline, which `next_deadline` computes.

Each step is decided elsewhere: what is said on a connection in `_protocol/session.py`, when to try again in
`_base/backoff.py`, what a refused token means in `tokens/_credentials.py`, where events go in `pipeline.py`.
"""

from __future__ import annotations

import logging
import math
import random
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Literal, TypeAlias

import attrs

from aggstream._base.backoff import Attempts
from aggstream._base.blocking_calls import BlockingCalls, Interrupted
from aggstream._base.border import bare
from aggstream._base.deadline import nearest
from aggstream._base.stacks import trail_of
from aggstream._delivery.dispatcher import Dispatcher
from aggstream._delivery.queue_items import SizedEvent
from aggstream._delivery.watchdog import HandlerWatch
from aggstream._network.websocket import Transport
from aggstream._protocol.session import Session
from aggstream._stream.attempt import Attempt
from aggstream._stream.backpressure import BackPressure
from aggstream._stream.connection import Connection
from aggstream._stream.connector import Connector
from aggstream._stream.engine import Engine
from aggstream._stream.options import Options
from aggstream._stream.outage import Outage
from aggstream._stream.pace import Pace, Turn
from aggstream._stream.patience import Patience
from aggstream._stream.pipeline import Pipeline
from aggstream.errors import (
    AggStreamError,
    AuthenticationError,
    AuthenticationRejected,
    ConnectionLost,
    HandshakeRejected,
    JournalError,
    TransportError,
    UserMismatch,
)
from aggstream.events import Authenticated, Disconnected, Reconnecting, Resting, Stopped
from aggstream.health import Continuity, Counters, Phase
from aggstream.orders._tracker import Tracker
from aggstream.tokens._credentials import Credentials, refresh_in
from aggstream.tokens._token import Token
from aggstream.typing import TokenProvider

if TYPE_CHECKING:
    from aggstream.journal import EventStore, StoredEvent
    from aggstream.rest._calls import Calls

logger = logging.getLogger("aggstream.stream")


class _Stopping(Interrupted):
    """The stream is to end."""


class _UserSwitched(Interrupted):
    """The stream is to connect at once for another user. It is no failure, so it is neither judged nor counted."""


@attrs.frozen(eq=False, repr=False)
class _SwitchUser:
    provider: TokenProvider
    epoch: int


@attrs.frozen(eq=False, repr=False)
class _UseProvider:
    provider: TokenProvider


@attrs.frozen(eq=False, repr=False)
class _FindOut:
    order_id: str


@attrs.frozen
class _Redeliver:
    stored: Sequence[StoredEvent]


_Command: TypeAlias = "_SwitchUser | _UseProvider | _FindOut | _Redeliver"


class Stream:
    """One user's stream. The methods of the first part are for any thread, the others for the I/O thread."""

    __slots__ = (
        "_attempt",
        "_broken",
        "_credentials",
        "_dispatcher",
        "_fatal",
        "_inbox",
        "_on_phase",
        "_on_stopping",
        "_on_turn",
        "_options",
        "_outage_attempts",
        "_phase",
        "_resting",
        "_rests",
        "_state",
        "_tracker",
        "_tried",
        "_turn",
        "_user_switched",
        "_wait_until",
        "account",
        "connection",
        "counters",
        "engine",
        "error",
        "is_ended",
        "is_woken",
        "last_error",
        "live_since",
        "outage",
        "patience",
        "pipeline",
        "pressure",
        "stop_requested",
        "trace",
        "user_id",
        "wake_at",
    )

    def __init__(
        self,
        options: Options,
        engine: Engine,
        connector: Connector,
        provider: TokenProvider,
        dispatcher: Dispatcher,
        watch: HandlerWatch,
        tracker: Tracker,
        calls: Calls | None,
        *,
        on_stopping: Callable[[], None],
        on_turn: Callable[[], None],
        account: str = "",
        expected_user: str | None = None,
        rests: bool = False,
        pace: Pace | None = None,
        rest_pace: Pace | None = None,
        on_phase: Callable[[Stream, Phase, Phase], None] | None = None,
    ) -> None:
        """Make a stream that is not started, and holds no descriptor.

        Args:
            options: the client's.
            engine: steps it.
            connector: knows how to connect.
            provider: returns tokens.
            dispatcher: takes the events.
            watch: looks after the handlers.
            tracker: what is known of each order.
            calls: how REST is asked; None: not at all.
            on_stopping: called on the I/O thread when the stream begins to stop.
            on_turn: called on the I/O thread when the stream has gone live, and when it has ended.
            account: the name of the account whose stream it is; empty if it has none.
            expected_user: the user who is to be signed in; None: the first one who is.
            rests: True: the stream does not end when it is refused for good, but rests, and is tried again.
            pace: gives turns to connect; None: it connects at any time.
            rest_pace: gives turns to ask REST; None: it is asked at any time.
            on_phase: called on the I/O thread with the stream, the phase before and the phase that it is in now.
        """
        self.account = account
        self._phase: Phase = "idle"
        self._on_phase = on_phase
        self._rests = rests
        # To connect.
        self._turn = Turn(pace, self.wake)
        # The phase in which a refused stream rests until it is live again; None if it is not refused.
        self._resting: Literal["must sign in again", "failed"] | None = None
        self.error: BaseException | None = None
        """The error that ended the stream; None while it runs, or if it was asked to stop."""
        self.trace: TracebackType | None = None
        """Where that error came about, if it is one that nobody expected."""
        self.last_error: AggStreamError | None = None
        """The error that ended the last attempt or connection."""
        self.connection: Connection | None = None
        self.live_since: float | None = None
        """When the present connection went live, in monotonic seconds; None if it has not."""
        self.user_id = expected_user
        """The user whose events come, by the service's word, or by the program's until the service says it."""
        self.counters = Counters()
        self.engine = engine
        self.stop_requested = False
        """True once the stream is to end."""
        self.wake_at: float | None = None
        self.is_woken = False
        self.is_ended = False
        self._inbox: list[_Command] = []
        # The error that ends the stream; None if there is none, or it was asked to stop.
        self._fatal: BaseException | None = None
        self._broken: BaseException | None = None
        self._options = options
        self._dispatcher = dispatcher
        self._tracker = tracker
        self._on_stopping = on_stopping
        self._on_turn = on_turn
        blocking = BlockingCalls(engine.lanes, self.wake)
        self._credentials = Credentials(provider, blocking.tokens, timeout=options.token_timeout)
        self._attempt = Attempt(options, self._credentials, connector, blocking.openings)
        self.pipeline = Pipeline(
            options,
            tracker,
            dispatcher,
            watch,
            self.counters,
            calls=calls,
            credentials=self._credentials,
            rest_calls=blocking.rest,
            wake=self.wake,
            account=account,
            rest_turn=Turn(rest_pace, self.wake),
        )
        self.patience = Patience(options.reconnect.fatal_after)
        """Whether a refusal may pass."""
        self.outage = Outage(options.name, options.reconnect.healthy_after)
        """What lasts while there is no live connection."""
        self.pressure = BackPressure(dispatcher, self.pipeline, self.counters, options.name)
        self._state: Callable[[float], bool] = self._take_up
        # The attempts of the present outage, which ends when a connection was live for a healthy while.
        self._outage_attempts: Attempts | None = None
        self._tried = 0
        self._wait_until = 0.0
        # True while the connection ends for the sake of another user.
        self._user_switched = False

    @property
    def phase(self) -> Phase:
        """What the stream is doing."""
        return self._phase

    @phase.setter
    def phase(self, phase: Phase) -> None:
        before, self._phase = self._phase, phase
        if self._on_phase is not None and phase != before:
            self._on_phase(self, before, phase)

    @property
    def continuity(self) -> Continuity:
        """Whether something may have been missed of the user's orders."""
        return self._tracker.continuity

    @property
    def unknown_statuses(self) -> tuple[str, ...]:
        """The words that the service has told as an order's status, and that nobody knows."""
        return self._tracker.unknown_statuses

    @property
    def is_switching(self) -> bool:
        """True while another user was asked for, and the connection of the one before is not ended yet."""
        return self._dispatcher.calls.epoch != self.pipeline.epoch

    # --- for any thread ---------------------------------------------------------------------------------

    def write_to(self, store: EventStore | None, failure: JournalError | None) -> None:
        """Say where events are written first, before the stream is started.

        Args:
            store: the store; None: nowhere.
            failure: why there is no store, although there should be one.
        """
        self.pipeline.write_to(store, failure)

    def reset(self) -> None:
        """Be as if the start had never been tried."""
        self.pipeline.write_to(None, None)
        self.stop_requested = False

    def wake(self) -> None:
        """Let the stream look at what has changed. Takes no lock."""
        self.engine.wake(self)

    def request_stop(self) -> None:
        """Ask the stream to end. Takes no lock, so a signal handler may call it."""
        self.stop_requested = True
        self.wake()

    def fail(self, error: BaseException) -> None:
        """End the stream with an error, unless another one ends it already."""
        if self._fatal is None:
            self._fatal = error
        self.request_stop()

    def after_fork_in_child(self) -> None:
        """Close the child's descriptors of the parent's stream, without a word to the server."""
        if self.engine.is_made:
            # They may be one and the same, or dropped just before the fork: closing twice does nothing.
            self._attempt.after_fork_in_child()
            if (connection := self.connection) is not None:
                connection.detach()

    def store_failed(self, error: JournalError) -> None:
        """Note that a dispatch thread could not write to the store."""
        self.pipeline.log.store_failed(error)

    def switch_user(self, provider: TokenProvider, epoch: int) -> None:
        """Connect anew with another provider's token; events are delivered under `epoch` from then on."""
        self._ask_for(_SwitchUser(provider, epoch))

    def use(self, provider: TokenProvider) -> None:
        """Take the tokens of the same user from another provider, from now on. A stream that rests goes on."""
        self._ask_for(_UseProvider(provider))

    def find_out(self, order_id: str) -> None:
        """Find out what is known of an order that nothing was heard of."""
        self._ask_for(_FindOut(order_id))

    def redeliver(self, stored: Sequence[StoredEvent]) -> None:
        """Give pending events of the store to the handlers."""
        self._ask_for(_Redeliver(stored))

    def _ask_for(self, command: _Command) -> None:
        self._inbox.append(command)
        self.wake()

    # --- the state machine ------------------------------------------------------------------------------

    def step(self, polled_at: float) -> float | None:
        """Do what is due, and return the next deadline; see `Driven`."""
        if self._broken is not None:
            self._end(self._broken)
            return None
        try:
            while self._advance(polled_at):
                pass
        except BaseException as error:
            self._end(error)
        return None if self.is_ended else self.next_deadline()

    def broken(self, error: BaseException) -> None:
        """Take an error that came about while the socket was read."""
        self._broken = error

    def _advance(self, polled_at: float) -> bool:
        """Do what is due in the present state; return True if the next state has something to do at once."""
        try:
            connection = self.connection
            if connection is None:
                self._obey()
            else:
                # Before the commands, which may be to switch the user: these events are the present user's.
                self._take(connection.session, connection.take_received())
            return self._state(polled_at)
        except JournalError:
            raise
        except AggStreamError as error:
            self._failed(error)
        except _UserSwitched:
            self._connect_anew()
        return True

    def next_deadline(self) -> float | None:
        """Return when the stream is to be stepped at the latest, in monotonic seconds; None: no need."""
        connection = self.connection
        if connection is None:
            is_waiting = self._state == self._wait and not self._turn.is_awaited
            waiting = self._wait_until if is_waiting else None
            return nearest(self._attempt.next_deadline(), waiting)
        until = nearest(
            connection.session.next_deadline(),
            self.pipeline.next_deadline(),
            self._credentials.next_deadline(),
            None
            if self._outage_attempts is None or self.live_since is None
            else self.live_since + self._healthy_after,
        )
        now = time.monotonic()
        # Half of the way there the deadlines are computed anew, if something comes: it puts off most of them.
        connection.step_at = math.inf if until is None else now + (until - now) / 2
        return until

    # --- the end ----------------------------------------------------------------------------------------

    def _end(self, error: BaseException) -> None:
        """End the stream, by an error or because that was asked for."""
        self._note(error)
        self.phase = "stopping"
        self.live_since = None
        self._attempt.give_up()
        self._turn.leave()
        self._drop_connection()
        self._end_pipeline()
        self.error = self._fatal
        self.trace = None if self.error is None else self.error.__traceback__
        self._on_stopping()
        # A program that sees the last event may ask at once how the stream has ended.
        self.phase = "stopped"
        self._tracker.stop(self.error)
        self._on_turn()
        self._dispatcher.close(Stopped(error=self.error, account=self.account))
        self.pipeline.log.leave()
        self.is_ended = True

    def _note(self, error: BaseException) -> None:
        """Keep what ends the stream, if it is an error."""
        if isinstance(error, AggStreamError):
            _without_traces(error)
            self.fail(error)
            logger.error("%s: the stream ends: %s", self._options.name, error)
        elif not isinstance(error, _Stopping):
            self.fail(error)
            # Without the frames, which hold what error reporters must not show.
            text = "%s: the stream ends by an unexpected error, %s, that came about in these calls:\n%s"
            logger.error(text, self._options.name, type(error).__name__, trail_of(error))
            bare(error)

    def _end_pipeline(self) -> None:
        try:
            self.pipeline.end()
        except AggStreamError as error:  # it is the journal's, and the stream ends already
            self._fatal = self._fatal or error
            logger.error("%s: the last events were not stored: %s", self._options.name, error)  # noqa: TRY400

    # --- connecting -------------------------------------------------------------------------------------

    def _take_up(self, _: float) -> bool:
        """Take up where an earlier process has ended, before the first connection."""
        if not self.pipeline.has_taken_up():
            return False  # the handlers are behind, and wake it
        self._state = self._wait
        return True

    def _connect_anew(self) -> None:
        """Begin another attempt at once, as after a start."""
        self._attempt.give_up()
        self._outage_attempts = None
        self._wait_until = 0.0
        self._state = self._wait

    def _ask(self, _: float) -> bool:
        """Begin an attempt."""
        if self._resting is None:
            self.phase = "connecting"
        if self._outage_attempts is None:
            self._begin_outage()
        self._tried += 1
        self._attempt.begin()
        self._state = self._await_connection
        return True

    def _await_connection(self, _: float) -> bool:
        insists = self.patience.has_signed_in and self._resting is None
        # Again, because the token may have taken its time.
        opened = self._attempt.opened(insists=insists, may_open=self._turn.use)
        if opened is None:
            return False
        self._made(*opened)
        self._state = self._serve
        return True

    def _made(self, transport: Transport, token: Token) -> None:
        """Begin the conversation on a connection that was just opened."""
        self.counters.connections += 1
        try:
            session = Session(self._options.session, token, expected_user=self.user_id)
        except BaseException:
            transport.abort()
            raise
        self.connection = Connection(
            session, transport, self, self.engine, self.pipeline, self.counters, name=self._options.name
        )
        session.schedule_refresh(time.monotonic(), refresh_in(token))

    # --- attempts and pauses ----------------------------------------------------------------------------

    @property
    def _healthy_after(self) -> float:
        return self._options.reconnect.healthy_after

    def _begin_outage(self) -> Attempts:
        self._tried = 0
        self._outage_attempts = attempts = self._options.reconnect.outage(
            attempts=lambda: self._tried, may_pass=lambda error: self.patience.has_for(error, time.monotonic())
        )
        return attempts

    def _failed(self, error: AggStreamError) -> None:
        """Wait before the next attempt: one has failed, or a connection was lost.

        A loss counts as the first failure of its outage, so that the decision about it and the pause after it are
        those of any other.

        Raises:
            AggStreamError: there is no next attempt.
        """
        self._attempt.give_up()
        if (
            connection := self.connection
        ) is not None:  # the error is of this side, and the connection is still there
            self._let_go(connection)
        attempts = self._outage_attempts or self._begin_outage()
        if isinstance(error, HandshakeRejected):
            self._turn.hold(error)
        try:
            delay = attempts.failed(error)
        except AggStreamError as fatal:
            if not self._rests:
                raise
            self._rest(fatal)
            return
        _without_traces(error)  # it is handed out, and its frames hold what the server has sent
        now = time.monotonic()
        self.outage.failed(error, delay, now)
        self.last_error = error
        self.pipeline.put(Reconnecting(attempt=self._tried + 1, delay=delay, error=error))
        self.phase = self._resting or "waiting"
        self._wait_until = now + delay
        self._state = self._wait

    def _rest(self, error: AggStreamError) -> None:
        """Rest until the account has another token, or for the longest pause, if it is not the token's fault."""
        _without_traces(error)
        must_sign_in = isinstance(error, AuthenticationError) and not isinstance(error, UserMismatch)
        state: Literal["must sign in again", "failed"] = "must sign in again" if must_sign_in else "failed"
        is_news = state != self._resting
        self._resting = state
        self.last_error = error
        self._outage_attempts = None
        # The token function is asked after each pause, and the service only once it returns another token.
        self._wait_until = time.monotonic() + self._options.reconnect.maximum * random.uniform(0.75, 1.0)
        self._state = self._wait
        self.phase = state
        if is_news:
            logger.error("%s: %s: %s", self._options.name, state, error)
            self.pipeline.put(Resting(state=state, error=error))

    def _wait(self, _: float) -> bool:
        if time.monotonic() < self._wait_until:
            return False
        if not self._turn.is_now():
            return False
        self._state = self._ask
        return True

    # --- commands ---------------------------------------------------------------------------------------

    def _obey(self, session: Session | None = None) -> None:
        """Take what other threads ask for.

        Raises:
            _Stopping: the stream is to end, and there is no session to close first.
            _UserSwitched: the user is switched, and there is no session to end first.
            JournalError: a dispatch thread could not write to the journal, and the stream is to end then.
        """
        self.pipeline.log.check()
        if self.stop_requested:
            self.phase = "stopping"
            if session is None:
                raise _Stopping
            session.close(time.monotonic())
        while self._inbox:
            command = self._inbox.pop(0)
            if isinstance(command, _FindOut):
                self.pipeline.find_out(command.order_id, time.monotonic())
            elif isinstance(command, _Redeliver):
                for entry in command.stored:
                    self.pipeline.redeliver(entry)
            elif isinstance(command, _UseProvider):
                self._use(command.provider, session)
            else:
                self._switch_user(command, session)

    def _use(self, provider: TokenProvider, session: Session | None) -> None:
        self._credentials.use(provider)
        if session is not None:
            self._credentials.request(session.token)
        elif self._state != self._take_up:
            self._connect_anew()

    def _switch_user(self, command: _SwitchUser, session: Session | None) -> None:
        """End the connection of the user before: on an open one their late messages could not be told apart."""
        self._credentials.use(command.provider)
        self.patience.forget()
        self.user_id = None
        self.pipeline.forget(command.epoch)
        if session is None:
            raise _UserSwitched
        self._user_switched = True
        session.connection_lost(ConnectionLost("connecting anew for another user", initiated_by="client"))

    # --- a connection -----------------------------------------------------------------------------------

    def _serve(self, polled_at: float) -> bool:
        """Do what is due on the connection. Its events are handed on by `Connection.ready`.

        Raises:
            AggStreamError: the error that ended it.
            _Stopping: the stream is to end, and the session is closed.
            _UserSwitched: the session was ended to connect anew.
        """
        connection = self.connection
        assert connection is not None
        session, now = connection.session, time.monotonic()
        # Only deadlines that had passed before the socket was read: silence is not blamed on a server whose
        # messages wait to be read.
        session.handle_deadline(polled_at)
        self._note_health(now)
        self._obey(session)
        connection.note_suspension(now)
        self._renew_token(session, now)
        self._drain(connection)
        self.pipeline.step(session.token, now)
        self.pressure.update(session, now)
        self._drain(connection)
        if session.close_expected():
            self._end_connection(connection)
        connection.watch(read=not self.pressure.paused)
        return False

    def _note_health(self, now: float) -> None:
        """End the outage if the connection has been live for a healthy while."""
        if self._outage_attempts is None or self.live_since is None or now < self.live_since + self._healthy_after:
            return
        self._outage_attempts = None
        self.patience.succeeded()

    def _renew_token(self, session: Session, now: float) -> None:
        if session.token_request():
            self._credentials.request(session.token)
        answer = self._credentials.answer()
        if isinstance(answer, Token):
            self.patience.succeeded()
            session.token_received(answer, now, refresh_in(answer))
        elif answer is not None:
            logger.warning("%s: no new token: %s", self._options.name, answer)
            may_pass = self.patience.has_for(answer, now)
            session.token_failed(answer, now, self._credentials.ask_again_in(answer, may_pass=may_pass))

    def _drain(self, connection: Connection) -> None:
        self._take(connection.session, connection.session.sized_events_received())
        connection.send()

    def _take(self, session: Session, events: Sequence[SizedEvent]) -> None:
        """Take events from the session. Those behind a sign-in may have to wait for what REST says."""
        if session.has_doubt:
            self._note_doubt(session)
        if not session.sign_in_received():
            if events:
                self.pipeline.take(events, session.last_heard)
            return
        while events:
            sign_ins = (at for at, (event, _) in enumerate(events, 1) if isinstance(event, Authenticated))
            count = next(sign_ins, len(events))
            some, events = events[:count], events[count:]
            is_signed_in = isinstance(some[-1][0], Authenticated)
            if is_signed_in:
                self._accept(session)
            self.pipeline.take(some, time.monotonic())
            if is_signed_in:
                self.pipeline.connected(session.token, session.user_id, time.monotonic(), self._tried)

    def _note_doubt(self, session: Session) -> None:
        """Have REST asked about what a message has not told: it was not understood, or names another user."""
        foreign = session.take_doubt()
        if foreign:
            if not self.counters.foreign_events:
                who = session.shown(session.foreign_user or "")
                logger.error(
                    "%s: a message names the user %s, who is not signed in: it is not delivered (check_user_id)",
                    self._options.name,
                    who,
                )
            self.counters.foreign_events += foreign
        if self.live_since is not None:
            self.pipeline.raise_doubt()

    def _accept(self, session: Session) -> None:
        """Note that the service has signed the user in, before anybody sees the event that tells of it."""
        user_id = session.user_id
        if user_id is not None:
            # Raises if the store holds another user's events. Nothing of this one is stored then.
            self.pipeline.log.ask(lambda store: store.belongs_to(user_id), None)
        self.user_id = user_id
        if self.live_since is None:
            self.live_since = time.monotonic()
            self._resting = None
            self.phase = "live"
            self._on_turn()
            self._credentials.accepted()
            self.patience.has_signed_in = True
            self.outage.ended()
            logger.info("%s: live as %s", self._options.name, session.shown(str(session.user_id)))

    def _end_connection(self, connection: Connection) -> None:
        session = connection.session
        self._let_go(connection)
        error = session.error or ConnectionLost("closed on request", code=1000, initiated_by="client")
        if isinstance(error, AuthenticationRejected):
            error = self._credentials.judge(error, session.refused)
        self.last_error = session.error and error
        self.pipeline.put(Disconnected(error=error, code=session.close_code, initiated_by=session.ended_by))
        user_switched, self._user_switched = self._user_switched, False
        if self.stop_requested:
            raise _Stopping
        if user_switched:
            raise _UserSwitched
        raise error

    def _let_go(self, connection: Connection) -> None:
        """Drop a connection. A gap begins, unless the stream was asked to stop."""
        session, now = connection.session, time.monotonic()
        is_wanted = session.error is None and self.stop_requested
        self.pipeline.disconnected(now, session.last_heard, is_wanted=is_wanted)
        self._credentials.cancel()
        self.live_since = None
        self.pressure.end(now)
        self.counters.foreign += session.dropped
        self._drop_connection()

    def _drop_connection(self) -> None:
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.drop()


def _without_traces(error: BaseException | None) -> None:
    """Forget where expected errors came about: their words say all, and frames keep what they hold alive."""
    seen: set[int] = set()  # a user's error may be its own cause
    while isinstance(error, AggStreamError) and id(error) not in seen:
        seen.add(id(error))
        error.__traceback__ = None
        error.__context__ = error.__cause__
        is_ours = isinstance(error, TransportError)
        error = error.__cause__
        if is_ours and error is not None:  # the network's; a token function's error is its owner's
            error.__traceback__ = error.__context__ = None
