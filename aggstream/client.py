"""The client: what a program uses."""

from __future__ import annotations

import importlib
import os
import ssl
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, NoReturn, TypeVar, overload

from aggstream._base.backoff import ReconnectPolicy
from aggstream._base.border import border
from aggstream._base.checks import check_seconds
from aggstream._base.deadline import Deadline
from aggstream._base.fork_and_exit import call_in_child
from aggstream._base.limits import Limits
from aggstream._base.service_checks import check_auth, setting
from aggstream._delivery.dispatcher import Dispatcher
from aggstream._delivery.expectation import Expectation
from aggstream._delivery.handler_calls import ErrorHandler
from aggstream._delivery.pull import EventIterator
from aggstream._delivery.registrar import Registrar
from aggstream._delivery.registry import check_handler, key_of
from aggstream._delivery.waiting import Waiting
from aggstream._delivery.watchdog import HandlerWatch
from aggstream._delivery.workers import Workers
from aggstream._protocol.codec import Codec
from aggstream._protocol.options import AUTH_CLOSE_CODES, SessionOptions
from aggstream._stream.connector import Connector
from aggstream._stream.engine import Engine
from aggstream._stream.health_check import check_up
from aggstream._stream.lifetime import Lifetime
from aggstream._stream.options import Options
from aggstream._stream.rest_choice import choose_rest
from aggstream._stream.stream import Stream
from aggstream.errors import ConfigurationError, StateError, WaitTimeout
from aggstream.events import BalanceUpdate, Event, OrderEvent, OrderSubmitted
from aggstream.health import Continuity, Health, StopReport
from aggstream.orders import Order
from aggstream.orders._tracked_order import TrackedOrder
from aggstream.orders._tracker import Tracker
from aggstream.rest._options import RestOptions
from aggstream.tokens._providers import as_provider
from aggstream.typing import TokenSource

if TYPE_CHECKING:
    from typing_extensions import Self

    from aggstream.journal import OpensStore, StoredEvent

__all__ = ["Client"]

E = TypeVar("E", bound=Event)
OnError = TypeVar("OnError", bound=ErrorHandler)

_STOP_TIMEOUT = 5.0
_SIGNAL_EXIT = 128
_LOOK = 0.5


class Client(Registrar):
    """The stream of one user's orders and balances.

    Register handlers with `on`, then `start()` it in the background, use it in a `with` statement, or give it
    the main thread with `run()`. One client runs once; make another to begin again.

    Handlers run on the thread `<name>-dispatch`, one at a time (with `workers` above 1: one at a time for each
    order id). Every method may be called from any thread, and from handlers unless it says otherwise.
    """

    @border
    def __init__(
        self,
        *,
        app_id: str | None = None,
        origin: str | None = None,
        token: TokenSource | None = None,
        api_key: str | None = None,
        url: str | None = None,
        auth: Literal["message", "query"] = "message",
        headers: Mapping[str, str] | None = None,
        ssl_context: ssl.SSLContext | None = None,
        allow_insecure: bool = False,
        proxy: str | None = "environment",
        connect_timeout: float = 10.0,
        auth_timeout: float = 10.0,
        token_timeout: float = 30.0,
        ping_interval: float = 25.0,
        pong_timeout: float = 10.0,
        idle_timeout: float | None = 120.0,
        close_timeout: float = 0.5,
        auth_close_codes: Iterable[int] = AUTH_CLOSE_CODES,
        limits: Limits | None = None,
        reconnect: ReconnectPolicy | None = None,
        queue_size: int = 10_000,
        coalesce_balances: bool = False,
        workers: int = 1,
        slow_handler_duration: float | None = 5.0,
        rest_url: str | None = None,
        rest: RestOptions | None = RestOptions(),  # noqa: B008  (it is immutable)
        catch_up_timeout: float = 10.0,
        rest_lag: float = 10.0,
        check_user_id: bool = True,
        orders_kept: int = 10_000,
        orders_kept_for: float = 86_400.0,
        journal: str | os.PathLike[str] | OpensStore | None = None,
        on_error: ErrorHandler | None = None,
        name: str = "aggstream",
    ) -> None:
        """Make a client. Nothing is connected, and no thread started, before `start()`.

        Args:
            app_id: the app's id; None: the environment variable `AGGSTREAM_APP_ID`.
            origin: one of the app's allowed origins, as `https://host`; None: `AGGSTREAM_ORIGIN`.
            token: the user's access token, a function that returns one, or a `TokenProvider` such as
                `RefreshingToken`; None: `AGGSTREAM_TOKEN`. A function is called on a thread of ours, afresh
                for each connection and each refresh.
            api_key: the app's key, for the REST API alone: it is never sent on the WebSocket; None:
                `AGGSTREAM_API_KEY`, if it is set. Only some apps need one.
            url: where to connect to; None: `AGGSTREAM_URL`, or the public service.
            auth: "message" sends the token after connecting; "query" puts it into the URL, which proxies and
                servers tend to log.
            headers: further headers for the handshake.
            ssl_context: for a private certificate authority; None: the system's authorities.
            allow_insecure: take a `ws://` URL of another machine; the token is then sent for all to read.
            proxy: `http://[user:password@]host:port` (CONNECT), `socks5://…` or, if it is to look up the
                service's name as well, `socks5h://…` (both need the extra `socks`); None for none;
                "environment" for what `https_proxy`, `all_proxy` and `no_proxy` say when the client is made.
            connect_timeout: seconds for the name look-up, TCP, TLS and the handshake together, and then again
                for the service's `connected`.
            auth_timeout: seconds from `authenticate` to its acknowledgement.
            token_timeout: seconds that the token function may take.
            ping_interval: seconds of silence after which a ping is sent; none is where the server pings every 20,
                as many do.
            pong_timeout: seconds from that ping to any sign of life.
            idle_timeout: seconds without a message of the service, its heartbeats included, after which it
                must acknowledge an `authenticate` as a proof that it still serves us; None: never.
            close_timeout: seconds that the server may take to answer our close frame.
            auth_close_codes: WebSocket close codes that mean "token refused or expired" (assumed).
            limits: how much the server may ask of this side; None: the defaults of `Limits`.
            reconnect: when to try again, and when to give up; None: for ever, with growing pauses.
            queue_size: events that may wait for handlers; at this number reading from the server pauses.
            coalesce_balances: let a newer `balance_update` take the place of one of its venue that still waits for
                its handlers; `BalancesCoalesced` tells how many were replaced. Order events are never dropped.
            workers: threads that run handlers.
            slow_handler_duration: seconds after which a handler that still runs is logged, with the place where
                it is, and again each time it has taken twice as long; None: never.
            rest_url: the base of the REST API, which is asked after each gap; None: `AGGSTREAM_REST_URL`, or the
                public one if `url` is the public service. Without one a gap stays a gap.
            rest: how it is spoken to; None: not at all.
            catch_up_timeout: seconds for which live events wait, after a gap, for what REST says, at most.
            rest_lag: seconds by which REST trails the stream at most (assumed). A gap is resolved by what REST
                says so long after it; 0 if a program must know at once, and takes the risk that REST does not yet.
            check_user_id: drop events that name another user than the one who is signed in (assumed: the service
                writes a user's id in events as in `authenticated`).
            orders_kept: how many orders that have ended are remembered in `orders`.
            orders_kept_for: for how many seconds.
            journal: a file, `JournalOptions`, or whatever else opens an `EventStore`: each user event is stored
                there before its handlers run, so that none is lost if the process dies; None: none. It is opened
                by `start`.
            on_error: called with the exception of a handler and the event; see `on_error`.
            name: begins the threads' names and the log lines.

        Raises:
            ConfigurationError: an option is missing or cannot work; says which and what would.
        """
        self._options = Options(
            app_id=app_id,
            origin=origin,
            url=url,
            allow_insecure=allow_insecure,
            headers=headers,
            ssl_context=ssl_context,
            proxy=proxy,
            connect_timeout=connect_timeout,
            token_timeout=token_timeout,
            queue_size=queue_size,
            coalesce_balances=coalesce_balances,
            workers=workers,
            slow_handler_duration=slow_handler_duration,
            catch_up_timeout=catch_up_timeout,
            rest_lag=rest_lag,
            orders_kept=orders_kept,
            orders_kept_for=orders_kept_for,
            reconnect=reconnect,
            session=SessionOptions(
                token_in_query=check_auth(auth) == "query",
                greeting_timeout=check_seconds(connect_timeout, "connect_timeout"),
                auth_timeout=auth_timeout,
                ping_interval=ping_interval,
                pong_timeout=pong_timeout,
                idle_timeout=idle_timeout,
                close_timeout=close_timeout,
                auth_close_codes=auth_close_codes,
                check_user_id=check_user_id,
                status_names=rest.status_names if isinstance(rest, RestOptions) else {},
                limits=limits,
            ),
            name=name,
        )
        # Here, and not by a thread of ours: a fork meanwhile would leave the child with a module that is locked.
        Codec(self._options.session.limits)
        for module in ("email.utils", "encodings.idna"):
            importlib.import_module(module)
        provider = as_provider(setting(None, "token") if token is None else token)
        calls = choose_rest(rest, rest_url, self._options, api_key=api_key, proxy=proxy)
        opens_store: OpensStore | None = None
        if journal is not None:
            from aggstream.journal import as_store  # noqa: PLC0415  (most streams have none)

            opens_store = as_store(journal)
        self._has_journal = opens_store is not None
        super().__init__()
        self._tracker = Tracker(
            kept=self._options.orders_kept, kept_for=self._options.orders_kept_for, name=self._options.name
        )
        # Guards what `on_error` and `switch_user` change. It is never held while something is waited for or user
        # code runs.
        self._lock = threading.Lock()
        queued_size = self._options.session.limits.queued_size
        pool = Workers(self._options.workers, name)
        self._dispatcher = Dispatcher(
            self._registry,
            pool,
            queue_size=self._options.queue_size,
            queued_size=queued_size,
            coalesce_balances=self._options.coalesce_balances,
            name=name,
            shown=self._options.session.limits.shown,
            on_low_water=self._wake,
            on_fatal=self._fail,
            on_end=self._handlers_ended,
        )
        self._waiting = Waiting(
            self._dispatcher.calls, length=self._options.queue_size, size=queued_size, name=name
        )
        engine = Engine(name, pool)
        watch = HandlerWatch(self._dispatcher, self._options.slow_handler_duration, name, engine.schedule)
        self._stream = Stream(
            self._options,
            engine,
            Connector(self._options),
            provider,
            self._dispatcher,
            watch,
            self._tracker,
            calls,
            on_stopping=self._waiting.buffer.stop_waiting,
            on_turn=self._turn,
        )
        engine.add(self._stream)
        self._lifetime = Lifetime(
            engine,
            self._stream,
            self._dispatcher,
            watch,
            name=name,
            opens_store=opens_store,
            on_end=self._waiting.end,
        )
        if on_error is not None:
            self.on_error(on_error)
        call_in_child(self, Client._let_go)

    def __repr__(self) -> str:
        if not hasattr(self, "_lifetime"):  # its constructor refused an option
            return "<aggstream.Client, not made>"
        phase = self._stream.phase if self._lifetime.is_in_own_process() else "another process's"
        return f"<aggstream.Client {self._options.name!r} of app {self._options.app_id!a}: {phase}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a client cannot be pickled: make one in the process that uses it")

    # --- running ----------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin in the background, and return at once. `wait`, `run` and `stop` raise an error that comes later.

        Raises:
            StateError: it was started before, even if it has ended since: make another client. Or gevent has
                patched the standard library after the client was made, or in part, or eventlet has.
            JournalError: the journal cannot be opened, and the stream is not to go on without it. The client can
                be started once that is mended.
            RuntimeError: the system has no more threads.
        """
        self._lifetime.start()

    def stop(self, timeout: float = _STOP_TIMEOUT) -> StopReport:
        """End the stream: close the connection, let the handlers finish what is queued, end the threads.

        May be called twice, before `start`, and from a handler or a signal handler. From a handler it only
        asks for the end, because the handler itself is part of what must finish; under gevent from a signal
        handler as well, because that keeps everything else from going on. Then the report counts what is still
        to be delivered.

        Events that are queued by then still reach their handlers, for as long as the time lasts. A handler that
        must do nothing more after it has called `stop` needs a flag of its own.

        Args:
            timeout: seconds after which it returns all the same.

        Returns:
            What was left undone, if the time ran out; nothing of it is delivered later. A later call returns the
            same number of events.

        Raises:
            AggStreamError: what ended the stream before, if something did.
            StateError: this is a forked child of the process that has started it.
        """
        return self._lifetime.stop(timeout)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the stream has ended and its handlers are done.

        Args:
            timeout: seconds; None: for ever.

        Returns:
            True if it has ended, False if the time ran out first.

        Raises:
            StateError: it was not started, or this is a thread of the client's own, which would wait for itself.
            AggStreamError: what ended the stream, if it was not `stop`.
        """
        return self._lifetime.wait(timeout)

    def run(self, *, stop_timeout: float = _STOP_TIMEOUT) -> int:
        """Run the stream until it is stopped, SIGINT (Ctrl-C) or SIGTERM comes, or it fails.

        Starts the client if need be. In the main thread the two signals are handled while it runs, and put
        back after it. One that comes more than a second after the first raises KeyboardInterrupt; until then it
        is taken for the same wish, because some supervisors signal a process and then its group.

        Args:
            stop_timeout: seconds that the handlers have after a signal to finish what is queued.

        Returns:
            The exit code that a shell expects: 0 after `stop()`, 130 after SIGINT, 143 after SIGTERM.
            `sys.exit(client.run())` passes it on.

        Raises:
            StateError: this is a thread of the client's own.
            AggStreamError: what ended the stream.
            SystemExit: a handler called `sys.exit()`.
        """
        return self._lifetime.run(self.start, stop_timeout)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.stop()
        except BaseException:
            # The program's own exception is the news; the stream's error is in the log.
            if error is None:
                raise

    # --- waiting for events -----------------------------------------------------------------------------

    @overload
    def events(self, *, timeout: float | None = None) -> EventIterator[Event]: ...
    @overload
    def events(self, key: type[E], /, *sub_events: str, timeout: float | None = None) -> EventIterator[E]: ...
    @overload
    def events(self, key: str, /, *sub_events: str, timeout: float | None = None) -> EventIterator[Any]: ...
    def events(self, *key: str | type[Event], timeout: float | None = None) -> EventIterator[Any]:
        """Return an iterator over the events, for a program that pulls instead of being called.

        Events are kept from the first call on, in one buffer for all calls, so nothing is lost between two
        loops; call it before `start` to miss nothing. A program that opens it must pull: when it holds
        `queue_size` events, the stream waits. `close()` on the iterator ends that.

        Args:
            key: which events are wanted, as for `on`, with their sub-events; none: all. The others are skipped,
                so use the same for all calls.
            timeout: seconds without a wanted event after which a loop ends; None: when the stream ends. During
                an outage, too, a loop ends so, as if nothing had happened: `health()` tells the two apart, and
                a `Gap` comes once the stream is live again. Time in which events wait for REST is no silence.

        Returns:
            An iterator; it raises what ended the stream, after the last event.

        Raises:
            ConfigurationError: the key can never match.
            StateError: when iterated on a dispatch thread, which would wait for itself.
        """
        wanted = key_of(key[0] if key else "*", key[1:])
        self._refuse_other_process()
        self._waiting.open_buffer()
        return EventIterator(
            self._waiting.buffer,
            wanted,
            timeout,
            guard=lambda: self._lifetime.refuse_own_thread("events()"),
            at_end=self._lifetime.raise_error,
            refuse=self._refuse_other_process,
            held_for_at_most=lambda: self._stream.pipeline.held_for_at_most,
        )

    # fmt: off
    @overload
    def wait_for(
        self, key: type[E], /, *, event: str | None = None, timeout: float | None = None, **fields: object
    ) -> E: ...
    @overload
    def wait_for(
        self, key: Literal["order_submitted"], /, *, event: None = None, timeout: float | None = None,
        **fields: object
    ) -> OrderSubmitted: ...
    @overload
    def wait_for(
        self, key: Literal["balance_update"], /, *, event: None = None, timeout: float | None = None,
        **fields: object
    ) -> BalanceUpdate: ...
    @overload
    def wait_for(
        self, key: Literal["order_event"], /, *, event: str | None = None, timeout: float | None = None,
        **fields: object
    ) -> OrderEvent: ...
    @overload
    def wait_for(
        self, key: str, /, *, event: str | None = None, timeout: float | None = None, **fields: object
    ) -> Any: ...
    # fmt: on
    def wait_for(
        self,
        key: str | type[Event],
        /,
        *,
        event: str | None = None,
        timeout: float | None = None,
        **fields: object,
    ) -> Event:
        """Wait for an event that is handled after this call. Handlers are called all the same.

        Args:
            key: a type's name, an event class, or `"*"`, as for `on`.
            event: the sub-event of an `order_event`.
            timeout: seconds; None: until the stream ends. An outage does not end the wait, and what happens in
                it never comes.
            fields: values that the event's fields must have: `order_id="ord_abc123"`.

        Raises:
            WaitTimeout: none came in time; says so if the stream is not live.
            ConfigurationError: the key, or a field's name, can never match.
            StateError: the stream has ended or is not started, or this is a thread of the client's own.
            AggStreamError: what ended the stream meanwhile.
        """
        expectation = Expectation(key_of(key, () if event is None else (event,)), fields)
        self._lifetime.refuse_own_thread("waiting for an event")
        self._waiting.wait_for(expectation, Deadline(timeout), self._lifetime.is_running)
        if expectation.event is None:
            self._lifetime.raise_error()
            if not self._lifetime.is_running():
                raise StateError("the stream does not run: there is nothing to wait for")
            why = "" if self._is_live() else f", and the stream is not live: {self._why_not_live()}"
            if held := self._stream.pipeline.catch_up.held:
                why += f", and {held} events wait for what the REST API says of a gap"
            raise WaitTimeout(f"no {expectation} within {timeout} s{why}")
        return expectation.event

    def wait_until_live(self, timeout: float | None = None) -> None:
        """Wait until the user is signed in; return at once if that is so already. It waits for no handler.

        Args:
            timeout: seconds; None: until the stream is live, or ends.

        Raises:
            WaitTimeout: it was not live in time.
            StateError: the stream has ended or is not started, or this is a thread of the client's own.
            AggStreamError: what ended the stream meanwhile.
        """
        self._lifetime.refuse_own_thread("wait_until_live()")
        was_live = self._waiting.wait_until_live(Deadline(timeout), self._is_live, self._lifetime.is_going)
        if was_live is False:
            raise WaitTimeout(f"not live within {timeout} s: {self._why_not_live()}")
        if was_live is None:
            self._lifetime.raise_error()
            raise StateError("the stream does not run: there is nothing to wait for")

    def _is_live(self) -> bool:
        return self._stream.phase == "live"

    def _why_not_live(self) -> str:
        return str(self._stream.last_error or self._stream.phase)

    # --- orders -----------------------------------------------------------------------------------------

    @property
    def orders(self) -> Mapping[str, Order]:
        """The orders that are known, by their ids: a live mapping of immutable snapshots.

        Orders that have ended are forgotten by age and number: see `orders_kept` and `orders_kept_for`.
        """
        self._refuse_other_process()
        return self._tracker.orders()

    @property
    def continuity(self) -> Continuity:
        """Whether something may have been missed of the user's orders."""
        self._refuse_other_process()
        return self._tracker.continuity

    def track(self, order_id: str) -> TrackedOrder:
        """Follow one order. Returns at once.

        There is no race: it may be called before the order is placed, while its events come, or long after it has
        ended. An order that the stream has told nothing of is looked for in the REST API, newest orders first.

        Args:
            order_id: the order's id.

        Raises:
            ConfigurationError: it is no text, or empty.
            StateError: this is a forked child of the process that has started the client.
        """
        if not isinstance(order_id, str) or not order_id:
            raise ConfigurationError("order_id must be a text that is not empty")
        self._refuse_other_process()
        tracked = self._tracker.track(order_id)
        if not tracked.is_known:
            self._find_out(order_id)
        return TrackedOrder(tracked, self._tracker, self._registry, guard=self._guard_wait, call=self._call)

    def wait_until_caught_up(self, timeout: float | None = None) -> None:
        """Wait until `continuity` is LIVE: nothing is missing of what happened to the user's orders.

        Args:
            timeout: seconds; None: until that is so, or the stream ends.

        Raises:
            WaitTimeout: it was not so in time.
            StateError: the client does not run, or this is a thread that would have to see to it.
            AggStreamError: what ended the stream meanwhile.
        """
        self._guard_wait()
        if self._tracker.wait_until_caught_up(Deadline(timeout)):
            return
        if self._tracker.stopped:
            self._lifetime.raise_error()
            raise StateError("the stream does not run: there is nothing to wait for")
        raise WaitTimeout(f"not caught up within {timeout} s: {self._why_not_caught_up()}")

    # --- the rest ---------------------------------------------------------------------------------------

    def on_error(self, handler: OnError) -> OnError:
        """Register a function for the exceptions of handlers; a decorator, or called plainly.

        It is called with the exception and the event on the dispatch thread, before the next handler runs.
        Exceptions are logged, with or without one.

        Raises:
            ConfigurationError: it cannot be called with two arguments.
        """
        check_handler(handler, arguments=2)
        self._refuse_other_process()
        with self._lock:
            self._dispatcher.calls.error_handlers = (*self._dispatcher.calls.error_handlers, handler)
        return handler

    @border
    def switch_user(self, token: TokenSource) -> None:
        """Sign in as another user, on a new connection: on the open one, late messages could be either user's.

        Once this returns, no event of the user before is given to a handler any more, also none that was
        received earlier; a handler that runs at this moment finishes. `Authenticated` tells when the service
        has acknowledged the new one.

        Args:
            token: the new user's, as for the constructor.

        Raises:
            ConfigurationError: it is no token.
            StateError: there is a journal, which holds the events of one user only: make another client.
        """
        provider = as_provider(token)
        self._refuse_other_process()
        if self._has_journal:
            raise StateError("a journal holds one user's events: make another client, with a journal of its own")
        with self._lock:
            self._dispatcher.calls.epoch += 1
            self._waiting.switch_user(self._dispatcher.calls.epoch)
            self._stream.switch_user(provider, self._dispatcher.calls.epoch)

    def redeliver(self, stored: Sequence[StoredEvent]) -> None:
        """Give stored events to their handlers again, after they were made pending while the stream runs.

        Args:
            stored: the events; a page of them, because they wait in memory. What is not handled when the process
                ends is pending still.

        Raises:
            StateError: the client was not started, or has no store.
        """
        self._refuse_other_process()
        if self._lifetime.store is None:
            raise StateError("only a client that was started and has a journal delivers anything again")
        self._stream.redeliver(stored)

    def health(self) -> Health:
        """Return how the client is at this moment, from any thread, without waiting."""
        self._refuse_other_process()
        return check_up(self._stream, self._dispatcher, self._options)

    # --- inside -----------------------------------------------------------------------------------------

    def _refuse_other_process(self) -> None:
        self._lifetime.refuse_other_process()

    # The dispatcher is made before the stream that it calls back.
    def _wake(self) -> None:
        self._stream.wake()

    def _fail(self, error: BaseException) -> None:
        self._stream.fail(error)

    def _handlers_ended(self) -> None:
        self._lifetime.handlers_ended()

    def _find_out(self, order_id: str) -> None:
        self._stream.find_out(order_id)

    def _call(self, function: Callable[[], object]) -> None:
        self._dispatcher.call(function)

    def _guard_wait(self) -> None:
        """Raise StateError on the I/O thread, which must tell of an order's end, and so cannot wait for it."""
        self._refuse_other_process()
        if self._stream.engine.is_own_thread():
            raise StateError("this thread of the client's own must tell of it, so it cannot wait for it")
        if not self._lifetime.is_started:
            raise StateError("the client is not started: call start() first, or use run()")

    def _why_not_caught_up(self) -> str:
        if not self._is_live():
            return f"not live: {self._stream.last_error or self._stream.phase}"
        error = self._stream.pipeline.catch_up.last_error
        if error is not None:
            return f"the REST API does not tell what was missed: {error}"
        return (
            "there is no REST API to ask: see the option rest_url"
            if not self._stream.pipeline.has_rest
            else "still reading"
        )

    def _turn(self) -> None:
        self._waiting.turn(is_live=self._is_live())

    def _let_go(self) -> None:
        """Let go of the stream in a forked child: it is the parent's."""
        self._lock = threading.Lock()
        self._tracker.after_fork_in_child()
        self._registry.after_fork_in_child()
        self._waiting.after_fork_in_child()
        self._lifetime.after_fork_in_child()
