"""The client: what a program uses."""

from __future__ import annotations

import importlib
import os
import ssl
import threading
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Literal, NoReturn, TypeVar

from aggstream._base.backoff import ReconnectPolicy
from aggstream._base.border import border
from aggstream._base.checks import check_seconds
from aggstream._base.fork_and_exit import call_in_child
from aggstream._base.limits import Limits
from aggstream._base.service_checks import check_auth, setting
from aggstream._delivery.handler_calls import ErrorHandler
from aggstream._delivery.registrar import Registrar
from aggstream._delivery.registry import check_handler
from aggstream._delivery.workers import Workers
from aggstream._protocol.codec import Codec
from aggstream._protocol.options import AUTH_CLOSE_CODES, SessionOptions
from aggstream._stream.connector import Connector
from aggstream._stream.engine import Engine
from aggstream._stream.face import StreamFace
from aggstream._stream.lifetime import Lifetime
from aggstream._stream.options import Options
from aggstream._stream.parts import Parts
from aggstream._stream.rest_choice import choose_rest
from aggstream.errors import StateError
from aggstream.health import StopReport
from aggstream.rest._options import RestOptions
from aggstream.tokens._providers import as_provider
from aggstream.typing import TokenSource

if TYPE_CHECKING:
    from typing_extensions import Self

    from aggstream.journal import OpensStore, StoredEvent

__all__ = ["Client"]

OnError = TypeVar("OnError", bound=ErrorHandler)

_STOP_TIMEOUT = 5.0


class Client(Registrar, StreamFace):
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
        account: str = "",
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
            account: a name of the program's own for the user, which each event tells in `event.account`.
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
            account=account,
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
        # Guards what `on_error` and `switch_user` change. It is never held while something is waited for or user
        # code runs.
        self._lock = threading.Lock()
        engine = Engine(name, Workers(self._options.workers, name))
        self._parts = Parts(
            self._options,
            engine,
            Connector(self._options),
            self._registry,
            provider,
            calls,
            on_end=self._handlers_ended,
            account=self._options.account,
        )
        self._stream, self._dispatcher = self._parts.stream, self._parts.dispatcher
        engine.add(self._stream)
        self._life = self._lifetime = Lifetime(
            engine,
            self._parts,
            name=name,
            open_store=None if opens_store is None else opens_store.open,
            on_store_failure="stop" if opens_store is None else opens_store.on_failure,
            on_end=self._parts.waiting.end,
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
            self._parts.waiting.switch_user(self._dispatcher.calls.epoch)
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

    # --- inside -----------------------------------------------------------------------------------------

    def _refuse_other_process(self) -> None:
        self._lifetime.refuse_other_process()

    def _handlers_ended(self) -> None:
        self._lifetime.handlers_ended()

    def _let_go(self) -> None:
        """Let go of the stream in a forked child: it is the parent's."""
        self._lock = threading.Lock()
        self._lifetime.after_fork_in_child()
