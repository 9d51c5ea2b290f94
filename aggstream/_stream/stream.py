"""One user's stream, on the I/O thread: one connection after the other, and everything that has a deadline.

It waits for one of these: the socket of the connection (or of the one that is being opened), a wake-up by another
thread, the end of a blocking call (which wakes it), and the next deadline. `_serve` shows what it does
when one of them comes, and `_next_deadline` which deadlines there are.

Each step is decided elsewhere: what is said on a connection in `_protocol/session.py`, when to try again in
`_base/backoff.py`, what a refused token means in `tokens/_credentials.py`, where events go in `pipeline.py`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, TypeAlias

import attrs

from aggstream._base.blocking_calls import BlockingCalls, Interrupted
from aggstream._base.border import bare
from aggstream._base.deadline import nearest
from aggstream._base.fork_and_exit import close_here
from aggstream._base.resources import remedy_for, why_no_descriptors
from aggstream._base.stacks import trail_of
from aggstream._base.threads import Gate
from aggstream._delivery.dispatcher import Dispatcher
from aggstream._delivery.queue_items import SizedEvent
from aggstream._delivery.watchdog import HandlerWatch
from aggstream._network.waiter import Waiter
from aggstream._protocol.session import Session
from aggstream._stream.backpressure import BackPressure
from aggstream._stream.connection import Connection
from aggstream._stream.connector import Connector
from aggstream._stream.loop import Loop
from aggstream._stream.options import Options
from aggstream._stream.outage import Outage
from aggstream._stream.patience import Patience
from aggstream._stream.pipeline import Pipeline
from aggstream.errors import (
    AggStreamError,
    AuthenticationRejected,
    ConnectFailed,
    ConnectionLost,
    HandshakeRejected,
    JournalError,
)
from aggstream.events import Authenticated, Disconnected, Reconnecting, Stopped
from aggstream.health import Continuity, Counters, Phase
from aggstream.orders._tracker import Tracker
from aggstream.tokens._credentials import Credentials, refresh_in
from aggstream.tokens._token import Token
from aggstream.typing import TokenProvider

if TYPE_CHECKING:
    from aggstream.journal import EventStore, StoredEvent
    from aggstream.rest._calls import Calls

logger = logging.getLogger("aggstream.stream")

_UNAUTHORIZED = 401


class _Stopping(Interrupted):
    """The stream is to end."""


class _UserSwitched(Interrupted):
    """The stream is to connect at once for another user. It is no failure, so it is neither judged nor counted."""


@attrs.frozen(eq=False, repr=False)
class _SwitchUser:
    provider: TokenProvider
    epoch: int


@attrs.frozen(eq=False, repr=False)
class _FindOut:
    order_id: str


@attrs.frozen
class _Redeliver:
    stored: Sequence[StoredEvent]


_Command: TypeAlias = "_SwitchUser | _FindOut | _Redeliver"


class Stream:
    """Runs the stream.

    `start`, `join`, `switch_user`, `find_out`, `redeliver` and `store_failed` are for any thread.
    """

    def __init__(
        self,
        options: Options,
        provider: TokenProvider,
        dispatcher: Dispatcher,
        watch: HandlerWatch,
        tracker: Tracker,
        calls: Calls | None,
        *,
        on_stopping: Callable[[], None],
        on_turn: Callable[[], None],
    ) -> None:
        """Make a stream that is not started, and holds no descriptor.

        Args:
            options: the client's.
            provider: returns tokens.
            dispatcher: takes the events.
            watch: looks after the handlers.
            tracker: what is known of each order.
            calls: how REST is asked; None: not at all.
            on_stopping: called on the I/O thread when the stream begins to stop.
            on_turn: called on the I/O thread when the stream has gone live, and when it has ended.
        """
        self.phase: Phase = "idle"
        self.error: BaseException | None = None
        """The error that ended the stream; None while it runs, or if it was asked to stop."""
        self.trace: TracebackType | None = None
        """Where that error came about, if it is one that nobody expected."""
        self.last_error: AggStreamError | None = None
        """The error that ended the last attempt or connection."""
        self.connection: Connection | None = None
        self.live_since: float | None = None
        """When the present connection went live, in monotonic seconds; None if it has not."""
        self.user_id: str | None = None
        """The user whose events come, by the service's word."""
        self.counters = Counters()
        self.loop: Loop[_Command] = Loop(f"{options.name}-io")
        """The thread that it runs on."""
        self.blocking = BlockingCalls(options.name, self.loop.wake)
        self._options = options
        self._dispatcher = dispatcher
        self._watch = watch
        self._tracker = tracker
        self._on_stopping = on_stopping
        self._on_turn = on_turn
        self._credentials = Credentials(provider, self.blocking.tokens, timeout=options.token_timeout)
        self._connector = Connector(options, self.blocking.look_ups)
        self.pipeline = Pipeline(
            options,
            tracker,
            dispatcher,
            self.counters,
            calls=calls,
            credentials=self._credentials,
            lane=self.blocking.rest,
            wake=self.loop.wake,
        )
        self.patience = Patience(options.reconnect.fatal_after)
        """Whether a refusal may pass."""
        self.outage = Outage(options.name, options.reconnect.healthy_after)
        """What lasts while there is no live connection."""
        self.pressure = BackPressure(dispatcher, self.pipeline, self.counters, options.name)
        self._waiter: Waiter
        self._attempts = 0
        # True while the connection ends for the sake of another user.
        self._user_switched = False

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

    def start(self, gate: Gate, store: EventStore | None, failure: JournalError | None) -> None:
        """Start the thread.

        Args:
            gate: where it waits until all threads of the client are there.
            store: where events are written first from now on; None: nowhere.
            failure: why there is no store, although there should be one.

        Raises:
            RuntimeError: the thread cannot be started.
            OSError: there are no descriptors left for it.
        """
        self.blocking.set_masks()
        self.loop.start(gate, self._main)
        self.pipeline.write_to(store, failure)

    def reset(self) -> None:
        """Wait for the thread to end, whose gate was cancelled; then it is as if it had never been started."""
        self.loop.reset()
        self.pipeline.write_to(None, None)

    def join(self, timeout: float | None) -> bool:
        """Wait for the thread to end; return True if it has. One that is not quite started has not."""
        has_ended = self.loop.join(timeout)
        return self.phase == "stopped" if has_ended is None else has_ended

    def is_own_thread(self) -> bool:
        """Return True if the calling thread is the stream's, or makes a blocking call for it."""
        return self.loop.is_own_thread() or self.blocking.is_own_thread()

    def after_fork_in_child(self) -> None:
        """Close the child's descriptors of the parent's stream, without a word to the server."""
        if self.loop.is_made:
            self.loop.after_fork_in_child()
            # They may be one and the same, or dropped just before the fork: closing twice does nothing.
            if (sock := self._connector.made) is not None:
                close_here(sock)
            if (connection := self.connection) is not None:
                connection.detach()

    def store_failed(self, error: JournalError) -> None:
        """Note that a dispatch thread could not write to the store."""
        self.pipeline.log.store_failed(error)

    def switch_user(self, provider: TokenProvider, epoch: int) -> None:
        """Connect anew with another provider's token; events are delivered under `epoch` from then on."""
        self.loop.ask(_SwitchUser(provider, epoch))

    def find_out(self, order_id: str) -> None:
        """Find out what is known of an order that nothing was heard of."""
        self.loop.ask(_FindOut(order_id))

    def redeliver(self, stored: Sequence[StoredEvent]) -> None:
        """Give pending events of the store to the handlers."""
        self.loop.ask(_Redeliver(stored))

    # --- the thread -------------------------------------------------------------------------------------

    def _main(self) -> None:
        self._waiter = Waiter(self.loop.poller, self._obey, self._watch.poll)
        try:
            self.pipeline.resume_from_journal(self._waiter.until)
            self._run()
        except BaseException as error:
            if not self.loop.is_made:  # a greenlet lives on in a forked child, and finds its descriptors closed
                threading.Event().wait()  # for ever: its end would be that of a thread which the child never had
            self._note(error)
        self.phase = "stopping"
        self.live_since = None
        self._drop_connection()
        self._end_pipeline()
        self.blocking.close()
        self._end()
        self.loop.poller.close()
        self.pipeline.log.leave()

    def _note(self, error: BaseException) -> None:
        """Keep what ends the stream, if it is an error."""
        if isinstance(error, AggStreamError):
            _without_traces(error)
            self.loop.fail(error)
            logger.error("%s: the stream ends: %s", self._options.name, error)
        elif not isinstance(error, _Stopping):
            self.loop.fail(error)
            # Without the frames, which hold what error reporters must not show.
            text = "%s: the stream ends by an unexpected error, %s, that came about in these calls:\n%s"
            logger.error(text, self._options.name, type(error).__name__, trail_of(error))
            bare(error)

    def _end_pipeline(self) -> None:
        try:
            self.pipeline.end()
        except AggStreamError as error:  # it is the journal's, and the stream ends already
            self.loop.fatal = self.loop.fatal or error
            logger.error("%s: the last events were not stored: %s", self._options.name, error)  # noqa: TRY400

    def _end(self) -> None:
        self.error = self.loop.fatal
        self.trace = None if self.error is None else self.error.__traceback__
        self._on_stopping()
        # A program that sees the last event may ask at once how the stream has ended.
        self.phase = "stopped"
        self._tracker.stop(self.error)
        self._on_turn()
        self._dispatcher.close(Stopped(error=self.error))

    def _run(self) -> None:
        loss: AggStreamError | None = None
        while True:
            try:
                connection = self._establish(loss)
            except _UserSwitched:
                loss = None
                continue
            try:
                self._serve(connection, healthy_after=None)
            except AggStreamError as error:
                loss = error
            except _UserSwitched:
                loss = None

    # --- connecting -------------------------------------------------------------------------------------

    def _establish(self, loss: AggStreamError | None) -> Connection:
        """Return a connection that has been live for a healthy while.

        Args:
            loss: the error that ended the connection before. It counts as the first failure of the outage, so that
                the decision about it and the pause after it are those of any other.
        """
        self._attempts = 0
        failures = [] if loss is None else [loss]

        def attempt() -> Connection:
            if failures:
                raise failures.pop()
            self._attempts += 1
            connection = self._connect()
            self._serve(connection, healthy_after=self._options.reconnect.healthy_after)
            return connection

        connection: Connection = self._options.reconnect.retrying(
            attempts=lambda: self._attempts,
            sleep=self._sleep,
            before_sleep=self._note_pause,
            may_pass=lambda error: self.patience.has_for(error, time.monotonic()),
        )(attempt)
        self.patience.succeeded()
        return connection

    def _note_pause(self, error: AggStreamError, delay: float) -> None:
        _without_traces(error)  # it is handed out, and its frames hold what the server has sent
        self.outage.failed(error, delay, time.monotonic())
        self.last_error = error
        self.pipeline.put(Reconnecting(attempt=self._attempts + 1, delay=delay, error=error))

    def _sleep(self, seconds: float) -> None:
        self.phase = "waiting"
        self._waiter.sleep(seconds)

    def _connect(self) -> Connection:
        self.phase = "connecting"
        self._obey()
        try:
            return self._open()
        except (ImportError, LookupError, MemoryError, OSError) as error:
            # Modules, codecs and sockets are made of what the system may refuse. That passes.
            why = remedy_for(error) or why_no_descriptors()
            if why is None or isinstance(error, AggStreamError):
                raise
            raise ConnectFailed(f"no connection: {why}") from error

    def _open(self) -> Connection:
        token = self._credentials.next_token(self._waiter.job, insists=self.patience.has_signed_in)
        try:
            transport = self._connector.connect(token.secret, self._waiter)
        except HandshakeRejected as error:
            if self._options.session.token_in_query and error.status == _UNAUTHORIZED:
                raise self._credentials.judge(AuthenticationRejected(str(error)), token) from error
            raise
        self.counters.connections += 1
        try:
            session = Session(self._options.session, token, expected_user=self.user_id)
        except BaseException:
            transport.abort()
            raise
        self.connection = Connection(
            session,
            transport,
            self.loop.poller,
            self.pipeline,
            self.counters,
            name=self._options.name,
            watch_every=self._options.slow_handler_duration,
        )
        session.schedule_refresh(time.monotonic(), refresh_in(token))
        return self.connection

    # --- commands ---------------------------------------------------------------------------------------

    def _obey(self, session: Session | None = None) -> None:
        """Take what other threads ask for.

        Raises:
            _Stopping: the stream is to end, and there is no session to close first.
            _UserSwitched: the user is switched, and there is no session to end first.
            JournalError: a dispatch thread could not write to the journal, and the stream is to end then.
        """
        self.pipeline.log.check()
        if self.loop.stop_requested:
            self.phase = "stopping"
            if session is None:
                raise _Stopping
            session.close(time.monotonic())
        for command in self.loop.commands():
            if isinstance(command, _FindOut):
                self.pipeline.find_out(command.order_id, time.monotonic())
            elif isinstance(command, _Redeliver):
                for entry in command.stored:
                    self.pipeline.redeliver(entry)
            else:
                self._switch_user(command, session)

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

    def _serve(self, connection: Connection, *, healthy_after: float | None) -> None:
        """Serve a connection until it ends, or has been live for `healthy_after`.

        Raises:
            AggStreamError: the error that ended it.
            _Stopping: the stream is to end, and the session is closed.
            _UserSwitched: the session was ended to connect anew.
        """
        session = connection.session
        while not session.close_expected():
            now = time.monotonic()
            if self._is_healthy(now, healthy_after):
                return
            # Do what is due.
            self._obey(session)
            connection.note_suspension(now)
            self._renew_token(session, now)
            self._drain(connection)
            self.pipeline.step(session.token, now)
            self.pressure.update(session, now)
            if session.close_expected():
                break
            # Wait, and take what comes.
            until = self._next_deadline(session, healthy_after)
            if self.pressure.paused:
                connection.wait(until, read=False)
            else:
                self._take(session, connection.pump(until))
            # Only now, and only deadlines that had passed before: silence is not blamed on a server whose messages
            # wait to be read.
            session.handle_deadline(now)
            self._drain(connection)
        self._end_connection(connection)

    def _next_deadline(self, session: Session, healthy_after: float | None) -> float | None:
        return nearest(
            session.next_deadline(),
            self.pipeline.next_deadline(),
            self._credentials.next_deadline(),
            None if healthy_after is None or self.live_since is None else self.live_since + healthy_after,
            self._watch.poll(),
        )

    def _is_healthy(self, now: float, healthy_after: float | None) -> bool:
        if healthy_after is None or self.live_since is None:
            return False
        return now >= self.live_since + healthy_after

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
                self.pipeline.connected(session.token, session.user_id, time.monotonic(), self._attempts)

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
        self.user_id = user_id = session.user_id
        if user_id is not None:
            self.pipeline.log.ask(lambda store: store.belongs_to(user_id), None)
        if self.live_since is None:
            self.live_since = time.monotonic()
            self.phase = "live"
            self._on_turn()
            self._credentials.accepted()
            self.patience.has_signed_in = True
            self.outage.ended()
            logger.info("%s: live as %s", self._options.name, session.shown(str(session.user_id)))

    def _end_connection(self, connection: Connection) -> None:
        session, now = connection.session, time.monotonic()
        is_wanted = session.error is None and self.loop.stop_requested
        self.pipeline.disconnected(now, session.last_heard, is_wanted=is_wanted)
        self._credentials.cancel()
        self.live_since = None
        self.pressure.end(now)
        self.counters.foreign += session.dropped
        self._drop_connection()
        error = session.error or ConnectionLost("closed on request", code=1000, initiated_by="client")
        if isinstance(error, AuthenticationRejected):
            error = self._credentials.judge(error, session.refused)
        self.last_error = session.error and error
        self.pipeline.put(Disconnected(error=error, code=session.close_code, initiated_by=session.ended_by))
        user_switched, self._user_switched = self._user_switched, False
        if self.loop.stop_requested:
            raise _Stopping
        if user_switched:
            raise _UserSwitched
        raise error

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
        error = error.__cause__
