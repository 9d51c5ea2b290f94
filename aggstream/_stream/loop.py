"""The I/O thread: one connection after the other, and everything that has a deadline.

It owns the transport, the session and the backoff. Other threads put a command into its inbox and wake it.
What is decided about one connection stands in `_protocol/session.py`, and about trying again in
`_base/backoff.py`; here is what happens between connections: the token that comes next, the gap that was left, the
pause.
"""

from __future__ import annotations

import collections
import json
import logging
import random
import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING

import attrs

from aggstream._base.blocking_calls import Job, WorkThread
from aggstream._base.deadline import Deadline, nearest
from aggstream._base.fork_and_exit import close_here
from aggstream._base.suspension import SuspensionWatch
from aggstream._base.threads import make_thread
from aggstream._base.times import NS_PER_MS
from aggstream._delivery.dispatcher import Dispatcher
from aggstream._delivery.watchdog import HandlerWatch
from aggstream._network import websocket as wire
from aggstream._network.poller import Poller
from aggstream._network.waiter import Waiter
from aggstream._protocol.commands import Authenticate, Ping
from aggstream._protocol.session import Session
from aggstream._stream.catch_up import Reconciler
from aggstream._stream.connection import Intake
from aggstream._stream.connector import Connector
from aggstream._stream.event_log import Outbox
from aggstream._stream.gaps import Outage
from aggstream._stream.options import Options
from aggstream._stream.recall import recall, take_up
from aggstream.errors import (
    AggStreamError,
    AuthenticationRejected,
    ConnectionLost,
    HandshakeRejected,
    JournalError,
)
from aggstream.events import Authenticated, Disconnected, Gap, ReadingPaused, ReadingResumed, Reconnecting, Stopped
from aggstream.health import Continuity, Counters, Phase
from aggstream.orders._tracker import Tracker
from aggstream.tokens._credentials import Credentials, ask_again_in, provider_failure, refresh_in
from aggstream.tokens._token import Token
from aggstream.typing import TokenProvider

if TYPE_CHECKING:
    from aggstream._stream.rest_reader import Reading
    from aggstream.journal import EventStore, StoredEvent
    from aggstream.rest._calls import Calls

logger = logging.getLogger("aggstream")

_UNAUTHORIZED = 401


class _Stopping(BaseException):
    """Ends whatever the I/O thread is at. No Exception, so that no border takes it for somebody's error."""


class _AnotherUser(BaseException):
    """Ends it as well, to connect at once for another user: no failure, so it is neither judged nor counted."""


@attrs.frozen(eq=False, repr=False)
class _SwitchUser:
    provider: TokenProvider
    epoch: int


@attrs.frozen(eq=False, repr=False)
class _LookUp:
    order_id: str


@attrs.frozen
class _Redeliver:
    stored: Sequence[StoredEvent]


class Runner:
    """Runs the stream.

    `start`, `request_stop`, `fail`, `switch_user`, `look_up` and `redeliver` are for any thread.
    """

    def __init__(
        self,
        options: Options,
        provider: TokenProvider,
        dispatcher: Dispatcher,
        watch: HandlerWatch,
        tracker: Tracker,
        calls: Calls | None,
    ) -> None:
        self.phase: Phase = "idle"
        self.error: BaseException | None = None
        """What ended the stream; None while it runs, or if it was asked to stop."""
        self.trace: TracebackType | None = None
        """Where that came about, if it was nothing that is expected."""
        self.last_error: AggStreamError | None = None
        """What ended the last attempt or connection."""
        self.session: Session | None = None
        self.live_since: float | None = None
        self.user_id: str | None = None
        """Whose events come, by the service's word."""
        self.paused = False
        """True while reading waits for the handlers."""
        self.counters = Counters()
        self.name = f"{options.name}-io"
        """The thread's."""
        self.work = WorkThread(options.name, self.wake)
        self.on_stopping: Callable[[], None] = lambda: None
        """Called on the I/O thread when the stream begins to stop."""
        self.on_turn: Callable[[], None] = lambda: None
        """Called on the I/O thread when the stream has gone live, and when it has ended."""

        self._options = options
        self._credentials = Credentials(provider, self.work)
        self._connector = Connector(options, self.work)
        self._dispatcher = dispatcher
        self._watch = watch
        self._tracker = tracker
        self._inbox: collections.deque[_SwitchUser | _LookUp | _Redeliver] = collections.deque()
        # Made by start(), so that a client which is never started holds no descriptor and can be started in a
        # forked child.
        self._thread: threading.Thread | None = None
        self._poller: Poller
        self._waiter: Waiter
        self._stop_requested = False
        self._fatal: BaseException | None = None

        self._transport: wire.Transport | None = None
        self._token_job: Job[Token] | None = None
        self._token_deadline = Deadline(None)
        # The epoch of the user that the token is for, if it is asked for to switch to them.
        self._switch_to: int | None = None
        # Set while the session ends for the sake of another user.
        self._switched = False
        self._attempts = 0
        self._paused_at = 0.0
        # Whether it was for the handlers' sake.
        self._is_behind = False
        self._outage = Outage()
        self._suspension = SuspensionWatch()
        self.reconciler = Reconciler(
            tracker,
            None if calls is None else calls.options,
            hold_timeout=options.catch_up_timeout,
            most_held=options.queue_size,
            most_held_size=options.session.limits.queued_size,
            jitter=random.random,
        )
        self._intake = Intake(
            dispatcher,
            self.counters,
            self._outage,
            self.reconciler,
            look_every=options.slow_handler_duration,
        )
        self._reading: Reading | None = None
        if calls is not None:
            from aggstream._stream.rest_reader import Reading  # noqa: PLC0415  (with an HTTP client)

            self._reading = Reading(self.reconciler, calls, self._credentials, self.work, name=options.name)
        self.outbox = self._outbox_with(None)

    @property
    def has_rest(self) -> bool:
        """True if there is a REST API to ask."""
        return self._reading is not None

    @property
    def continuity(self) -> Continuity:
        """Whether something may have been missed of the user's orders."""
        return self._tracker.continuity

    @property
    def is_in_the_dark(self) -> bool:
        """True while something may be missing, and REST was asked in vain."""
        is_failing = self.reconciler.last_error is not None and self.continuity is not Continuity.LIVE
        return is_failing or self.continuity is Continuity.UNKNOWN

    @property
    def switching(self) -> bool:
        """True while it is not settled whose events come."""
        session = self.session
        return self._switch_to is not None or (session is not None and session.is_switching())

    # --- for any thread ---------------------------------------------------------------------------------

    def start(self, journal: EventStore | None, failure: JournalError | None) -> None:
        """Start the thread.

        Args:
            journal: what it writes to from now on; None: nothing.
            failure: why that is so, if there should be one.

        Raises:
            RuntimeError: it cannot be started.
        """
        self.outbox = self._outbox_with(journal)
        if failure is not None:
            self.outbox.go_on_without(failure)
        self._poller = Poller()
        self._waiter = Waiter(self._poller, self._obey, self._watch.look)
        self._thread = make_thread(self._main, name=self.name)
        try:
            self._thread.start()
        except RuntimeError:
            self._thread = None
            self._poller.close()
            raise

    def give_up(self, error: BaseException) -> None:
        """The threads cannot be started: end as the thread would have."""
        self._fatal = error
        self._end()

    def _end(self) -> None:
        self.error = self._fatal
        self.trace = None if self.error is None else self.error.__traceback__
        self.on_stopping()
        # Whoever sees the last event may ask at once how it ended.
        self.phase = "stopped"
        self._tracker.stop(self.error)
        self.on_turn()
        self._dispatcher.close(Stopped(error=self.error))

    def wake(self) -> None:
        """Let the thread look at what has changed. Takes no lock."""
        if self._thread is not None:
            self._poller.wake()

    def join(self, timeout: float | None) -> bool:
        """Wait for the thread to end; tell whether it has. One that is not quite started has not."""
        thread = self._thread
        if thread is None or thread.ident is None:
            return self.phase == "stopped"
        thread.join(timeout)
        return not thread.is_alive()

    def is_alive(self) -> bool:
        """Tell whether the thread runs."""
        return self._thread is not None and self._thread.is_alive()

    def is_own_thread(self) -> bool:
        """Tell whether the calling thread is this one, or the work thread."""
        return threading.current_thread() is self._thread or self.work.is_own_thread()

    def after_fork_in_child(self) -> None:
        """Close the child's descriptors of the parent's stream, without a word to the server."""
        if self._thread is not None:
            self._thread = None
            self._poller.close()
            # They may be one and the same, or dropped just before the fork: closing twice does nothing.
            if (sock := self._connector.made) is not None:
                close_here(sock)
            if (transport := self._transport) is not None:
                transport.detach()

    def request_stop(self) -> None:
        """Ask the stream to end. Takes no lock, so a signal handler may call it."""
        self._stop_requested = True
        self.wake()

    def fail(self, error: BaseException) -> None:
        """End the stream with an error."""
        if self._fatal is None:
            self._fatal = error
        self.request_stop()

    def switch_user(self, provider: TokenProvider, epoch: int) -> None:
        """Sign in with another provider's token; events are delivered under `epoch` from then on."""
        self._inbox.append(_SwitchUser(provider, epoch))
        self.wake()

    def look_up(self, order_id: str) -> None:
        """Find out what is known of an order that nothing was heard of."""
        self._inbox.append(_LookUp(order_id))
        self.wake()

    def redeliver(self, stored: Sequence[StoredEvent]) -> None:
        """Give pending events of the store to the handlers."""
        self._inbox.append(_Redeliver(stored))
        self.wake()

    # --- the thread -------------------------------------------------------------------------------------

    def _main(self) -> None:
        try:
            self.outbox.ask(lambda journal: take_up(journal, self._outage, self.reconciler, self._tracker), None)
            self.outbox.redeliver(self._waiter.until)
            self._run()
        except BaseException as error:
            if self._thread is None:  # a greenlet lives on in a forked child, and finds its descriptors closed
                threading.Event().wait()  # for ever: its end would be that of a thread which the child never had
            self._note(error)
        self.phase = "stopping"
        self.live_since = None
        if self._transport is not None:
            self._drop_connection(self._transport)
        self._wind_up()
        self.work.close()
        self._end()
        self._poller.close()
        self.outbox.leave()

    def _note(self, error: BaseException) -> None:
        """Keep what ends the stream, if it is an error."""
        if isinstance(error, AggStreamError):
            _without_traces(error)
            self.fail(error)
            logger.error("%s: the stream ends: %s", self._options.name, error)
        elif not isinstance(error, _Stopping):
            self.fail(error)
            logger.error("%s: the stream ends by an unexpected error", self._options.name, exc_info=error)

    def _outbox_with(self, journal: EventStore | None) -> Outbox:
        return Outbox(
            self._dispatcher,
            self.counters,
            journal,
            self._options.name,
            is_complete=lambda: not self.reconciler.is_behind,
            wake=self.wake,
        )

    def _wind_up(self) -> None:
        """Hand over what is still here when the stream ends, and tell of an outage that goes on."""
        gap = self._outage.unended()
        self.reconciler.stopped(gap)
        if self._reading is not None:
            self._reading.abandon()
            self._reading.close()
        try:
            self.outbox.check()
            self.outbox.put_all([*([] if gap is None else [(gap, 0)]), *self.reconciler.events()])
        except AggStreamError as error:  # it is the journal's, and the stream ends already
            if self._fatal is None:
                self._fatal = error
            logger.error("%s: the last events were not stored: %s", self._options.name, error)  # noqa: TRY400

    def _run(self) -> None:
        loss: AggStreamError | None = None
        while True:
            try:
                self._establish(loss)
            except _AnotherUser:
                loss = None
                continue
            try:
                self._pump(healthy_after=None)
            except AggStreamError as error:
                loss = error
            except _AnotherUser:
                loss = None

    def _establish(self, loss: AggStreamError | None) -> None:
        """Return with a connection that has been live for a healthy while.

        Args:
            loss: what ended the connection before; it counts as the first failure of the outage, so that the
                decision about it and the pause after it are those of any other.
        """
        self._attempts = 0
        failures = [] if loss is None else [loss]

        def attempt() -> None:
            if failures:
                raise failures.pop()
            self._attempts += 1
            self._connect()
            self._pump(healthy_after=self._options.reconnect.healthy_after)

        self._options.reconnect.retrying(
            attempts=lambda: self._attempts, sleep=self._sleep, before_sleep=self._tell_pause
        )(attempt)

    def _tell_pause(self, error: AggStreamError, delay: float) -> None:
        logger.warning("%s: next attempt in %.1f s: %s", self._options.name, delay, error)
        self.last_error = error
        self.outbox.put(Reconnecting(attempt=self._attempts + 1, delay=delay, error=error))

    def _sleep(self, seconds: float) -> None:
        self.phase = "waiting"
        self._waiter.sleep(seconds)

    # --- connecting -------------------------------------------------------------------------------------

    def _connect(self) -> None:
        self.phase = "connecting"
        self._obey()
        token = self._next_token()
        try:
            self._transport = self._connector.connect(token.secret, self._waiter)
        except HandshakeRejected as error:
            if self._options.session.token_in_query and error.status == _UNAUTHORIZED:
                raise self._credentials.judge(AuthenticationRejected(str(error)), token) from error
            raise
        now = time.monotonic()
        self._suspension = SuspensionWatch()
        self.counters.connections += 1
        self.session = Session(self._options.session, token, expected_user=self.user_id)
        self.session.connection_made(now)
        self.session.schedule_refresh(now, refresh_in(token))

    # --- tokens -----------------------------------------------------------------------------------------

    def _next_token(self) -> Token:
        job = self._credentials.ask_for_next()
        try:
            token = self._waiter.job(job, Deadline(self._options.token_timeout))
        except (_Stopping, _AnotherUser):
            raise
        except BaseException as error:
            failure = provider_failure(error)
            raise failure from failure.__cause__
        self._credentials.check(token)
        return token

    def _answer_token_request(self, session: Session) -> None:
        if session.token_request() and self._token_job is None:
            self._begin_to_ask(session.token)
        if self._token_job is None or not (self._token_job.done or self._token_deadline.expired()):
            return
        job, self._token_job = self._token_job, None
        switch_to, self._switch_to = self._switch_to, None
        now = time.monotonic()
        try:
            token = job.result() if job.done else job.abandon()
        except BaseException as error:  # whatever it was, it is the provider's
            failure = provider_failure(error)
            logger.warning("%s: no new token: %s", self._options.name, failure)
            if switch_to is None:
                session.token_failed(failure, now, ask_again_in(failure))
            else:
                self.outbox.epoch = switch_to
                session.connection_lost(failure)
            return
        if switch_to is None:
            session.token_received(token, now, refresh_in(token))
            return
        self.outbox.epoch = switch_to
        if session.is_settled():
            session.switch_user(token, now)
            session.schedule_refresh(now, refresh_in(token))
        else:
            self._connect_anew(session)

    def _begin_to_ask(self, stale: Token | None) -> None:
        self._token_job = self._credentials.ask(stale)
        self._token_deadline = Deadline(self._options.token_timeout)

    def _ask_no_more(self) -> None:
        if self._token_job is not None:
            self._token_job.leave()
            self._token_job = None

    # --- commands ---------------------------------------------------------------------------------------

    def _obey(self, session: Session | None = None) -> None:
        """Take what other threads ask for.

        Raises:
            _Stopping: the stream is to end, and there is no session to close first.
            _AnotherUser: the user is switched, and there is no session to switch.
            JournalError: a dispatch thread could not write to the journal, and the stream is to end then.
        """
        self.outbox.check()
        if self._stop_requested:
            self.phase = "stopping"
            if session is None:
                raise _Stopping
            session.close(time.monotonic())
        while self._inbox:
            command = self._inbox.popleft()
            if isinstance(command, _LookUp):
                self._find_out(command.order_id)
                continue
            if isinstance(command, _Redeliver):
                for entry in command.stored:
                    self.outbox.put_again(entry)
                continue
            self._credentials.use(command.provider)
            self.user_id = None
            self._ask_no_more()
            self._outage.forget()
            self.reconciler.forget()
            if session is not None and session.is_settled():
                self._switch_to = command.epoch
                self._begin_to_ask(None)
                continue
            self.outbox.epoch = command.epoch
            if session is None:
                raise _AnotherUser
            self._connect_anew(session)

    def _find_out(self, order_id: str) -> None:
        if self._tracker.knows(order_id):
            return
        is_recalled = self.outbox.ask(
            lambda journal: journal.knows_order(order_id) and recall(journal, order_id, self._tracker),
            otherwise=False,
        )
        if not is_recalled:
            self.reconciler.look_up(order_id, time.monotonic())

    def _connect_anew(self, session: Session) -> None:
        self._switched = True
        session.connection_lost(ConnectionLost("connecting anew for another user", initiated_by="client"))

    # --- a connection -----------------------------------------------------------------------------------

    def _pump(self, *, healthy_after: float | None) -> None:
        """Run the session until it ends, or has been live for `healthy_after`.

        Raises:
            AggStreamError: what ended it.
            _Stopping: the stream is to end, and the session is closed.
            _AnotherUser: the session was closed to connect anew.
        """
        session, transport = self.session, self._transport
        assert session is not None
        assert transport is not None
        while not session.close_expected():
            now = time.monotonic()
            if (
                healthy_after is not None
                and self.live_since is not None
                and now >= self.live_since + healthy_after
            ):
                return
            self._obey(session)
            if slept := self._suspension.slept(now):
                logger.info("%s: the machine was suspended for %.0f s", self._options.name, slept)
                session.slept(slept)
            self._answer_token_request(session)
            self._drain(session, transport)
            self._reconcile(session, now)
            self._pause_or_resume(session, now)
            if session.close_expected():
                break
            until = self._next_deadline(session, healthy_after)
            if self.paused:
                self._intake.wait(session, transport, self._poller, until, read=False)
            else:
                self._intake.take(session, transport, self.outbox, self._poller, until)
            # Only now, and only what was due before: nobody is blamed for silence whose words wait to be read.
            session.handle_deadline(now)
            self._drain(session, transport)
        self._end_session(session, transport)

    def _next_deadline(self, session: Session, healthy_after: float | None) -> float | None:
        return nearest(
            session.next_deadline(),
            self.reconciler.next_deadline(),
            self.outbox.tidy_at,
            self._token_deadline.at if self._token_job is not None else None,
            None if healthy_after is None or self.live_since is None else self.live_since + healthy_after,
            self._watch.look(),
        )

    def _reconcile(self, session: Session, now: float) -> None:
        """Let what is read from REST, and what waits for it, go on."""
        self.outbox.tidy(now)
        if self._reading is not None:
            self._reading.step(session.token)
            self.reconciler.handle_deadline(time.monotonic())
            # Ask at once for what the answer or the deadline has made necessary.
            self._reading.step(session.token)
            self.outbox.follow(self.reconciler.found())
            self.outbox.note_history(self.reconciler.history_until)
            self.outbox.put_all(self.reconciler.events())

    def _pause_or_resume(self, session: Session, now: float) -> None:
        is_behind = self._dispatcher.is_full()
        # While the stream stops as well: a server that goes on sending must not fill the memory.
        pause = is_behind or self.reconciler.is_full()
        if pause == self.paused:
            return
        if pause:
            self.paused = True
            self.counters.pauses += 1
            self._is_behind = is_behind
            logger.warning("%s: reading pauses: %d events wait", self._options.name, self._dispatcher.depth)
            self._paused_at = now
            session.pause(now)
            self.outbox.put(ReadingPaused(waiting=self._dispatcher.depth))
        else:
            session.resume(now)
            self._tell_resumed(now)
            if self._is_behind:
                self.reconciler.overflowed(now)

    def _tell_resumed(self, now: float) -> None:
        self.paused = False
        self.outbox.put(ReadingResumed(paused_for=now - self._paused_at))

    def _drain(self, session: Session, transport: wire.Transport) -> None:
        if session.sign_in_received():
            self._sign_in(session)
        self._intake.pass_on(session, self.outbox)
        commands = session.data_to_send()
        if not (commands or transport.wants_write):
            return
        try:
            for command in commands:
                if isinstance(command, Authenticate):
                    transport.queue_text(json.dumps({"action": "authenticate", "token": command.token.reveal()}))
                elif isinstance(command, Ping):
                    transport.queue_ping()
                else:
                    transport.queue_close(command.code, command.reason)
            transport.flush()
        except AggStreamError as error:
            session.connection_lost(error)

    def _sign_in(self, session: Session) -> None:
        """Deliver events. What follows an acknowledged token may have to wait for what REST says."""
        events = session.sized_events_received()
        while events:
            signed_in = (at for at, (event, _) in enumerate(events, 1) if isinstance(event, Authenticated))
            count = next(signed_in, len(events))
            some, events = events[:count], events[count:]
            self.reconciler.receive(some, time.monotonic())
            is_signed_in = isinstance(some[-1][0], Authenticated)
            if is_signed_in:
                self._accept(session)
            self.outbox.put_all(self.reconciler.events())
            if is_signed_in:
                self._tell_continuity(session)

    def _accept(self, session: Session) -> None:
        """The service has signed the user in. Whoever sees that finds the stream live."""
        self.user_id = session.user_id
        user_id = self.user_id
        if user_id is not None:
            self.outbox.ask(lambda journal: journal.belongs_to(user_id), None)
        if self.live_since is None:
            self.live_since = time.monotonic()
            self.phase = "live"
            self.on_turn()
            self._credentials.accepted()
            logger.info("%s: live as %s", self._options.name, session.shown(str(session.user_id)))

    def _tell_continuity(self, session: Session) -> None:
        """Tell what may have been missed, once the user is signed in, and begin to find out."""
        now = time.monotonic()
        if not self.reconciler.is_connected:  # else it is the same user's next token
            told = self._outage.resumed(session, now, self._attempts)
            self.outbox.put_all([(event, 0) for event in told])
            gap = next((event for event in told if isinstance(event, Gap)), None)
            if gap is not None and not self.has_rest:
                logger.warning(
                    "%s: what was missed until now is not found out: set rest_url, or AGGSTREAM_REST_URL",
                    self._options.name,
                )
            self.reconciler.connected(now, time.time_ns() // NS_PER_MS, gap)
            self.outbox.put_all(self.reconciler.events())
        self._outage.signed_in(session)

    def _end_session(self, session: Session, transport: wire.Transport) -> None:
        if session.error is not None or not self._stop_requested:
            self._outage.lost(time.monotonic())
        self.reconciler.disconnected()
        self.outbox.put_all(self.reconciler.events())
        if self._reading is not None:
            self._reading.abandon()
        if self._switch_to is not None:  # the connection ended before it could be switched
            self.outbox.epoch = self._switch_to
        self._ask_no_more()
        self.live_since = self.session = self._switch_to = None
        if self.paused:
            self._tell_resumed(time.monotonic())
        self.counters.foreign += session.dropped
        self._drop_connection(transport)
        error = session.error or ConnectionLost("closed on request", code=1000, initiated_by="client")
        if isinstance(error, AuthenticationRejected):
            error = self._credentials.judge(error, session.refused)
        self.last_error = session.error and error
        self.outbox.put(Disconnected(error=error, code=session.close_code, initiated_by=session.ended_by))
        switched, self._switched = self._switched, False
        if self._stop_requested:
            raise _Stopping
        if switched:
            raise _AnotherUser
        raise error

    def _drop_connection(self, transport: wire.Transport) -> None:
        try:
            transport.flush()
        except AggStreamError:
            logger.debug("%s: the connection was gone before the close frame", self._options.name)
        self._poller.forget()
        transport.abort()
        self._transport = None


def _without_traces(error: BaseException | None) -> None:
    """Forget where expected errors came about: their words say all, and frames keep what they hold alive."""
    seen: set[int] = set()  # a user's error may be its own cause
    while isinstance(error, AggStreamError) and id(error) not in seen:
        seen.add(id(error))
        error.__traceback__ = None
        error.__suppress_context__ = True
        error = error.__cause__
