"""Many accounts in one process: every signed-in user of an application."""

from __future__ import annotations

import importlib
import os
import ssl
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, NoReturn, TypeVar

from aggstream._base.backoff import ReconnectPolicy
from aggstream._base.blocking_calls import CallQueue
from aggstream._base.border import border
from aggstream._base.checks import check_seconds
from aggstream._base.fork_and_exit import call_in_child
from aggstream._base.limits import Limits
from aggstream._base.resources import descriptors_left
from aggstream._base.secret import Secret
from aggstream._base.service_checks import check_auth
from aggstream._delivery.handler_calls import ErrorHandler
from aggstream._delivery.registrar import Registrar
from aggstream._delivery.registry import AccountRegistry, check_handler
from aggstream._delivery.workers import Workers
from aggstream._protocol.codec import Codec
from aggstream._protocol.options import AUTH_CLOSE_CODES, SessionOptions
from aggstream._stream.account_list import Account, AccountList, checked_accounts
from aggstream._stream.connector import Connector
from aggstream._stream.engine import Engine
from aggstream._stream.face import StreamFace
from aggstream._stream.fleet_health import check_up_fleet
from aggstream._stream.lifetime import Lifetime
from aggstream._stream.options import Options
from aggstream._stream.pace import Pace
from aggstream._stream.parts import Parts
from aggstream._stream.rest_choice import choose_rest
from aggstream._stream.roster import Member, Roster
from aggstream.errors import ConfigurationError, StateError, WaitTimeout
from aggstream.health import FleetHealth, Phase, StopReport
from aggstream.rest._options import RestOptions
from aggstream.tokens._providers import as_provider
from aggstream.typing import TokenProvider, TokenSource

if TYPE_CHECKING:
    from typing_extensions import Self

    from aggstream.journal import OpensFleetStore

__all__ = ["Account", "AccountStream", "Fleet"]

OnError = TypeVar("OnError", bound=ErrorHandler)

_STOP_TIMEOUT = 10.0


class AccountStream(StreamFace):
    """One account of a fleet: its orders, and how it is. `Fleet.account` returns it."""

    def __init__(self, member: Member, lifetime: Lifetime) -> None:
        """Look at an account; `Fleet.account` does this."""
        self._member = member
        self._lifetime = lifetime
        self._parts = member.parts
        self._life = self

    def __repr__(self) -> str:
        return f"<aggstream.AccountStream {self.name!a}: {self.phase}>"

    @property
    def name(self) -> str:
        """The account's name."""
        return self._member.name

    @property
    def user_id(self) -> str | None:
        """The user who is signed in, by the service's word; before that, the one that was given."""
        return self._parts.stream.user_id

    @property
    def phase(self) -> Phase:
        """What its stream is doing."""
        return self._parts.stream.phase

    @property
    def is_started(self) -> bool:
        """True once the fleet was started."""
        return self._lifetime.is_started

    def is_running(self) -> bool:
        """Return True from the start until nothing more comes of this account."""
        return self._lifetime.is_running() and self.phase != "stopped"

    def is_going(self) -> bool:
        """Return True from the start until its stream has ended; handlers may still run after it."""
        return self._lifetime.is_running() and self.phase != "stopped"

    def refuse_other_process(self) -> None:
        """Raise StateError in a forked child of the process that has started the fleet."""
        self._lifetime.refuse_other_process()

    def refuse_own_thread(self, call: str) -> None:
        """Raise StateError on a thread of the fleet's own, where `call` might wait for itself."""
        self._lifetime.refuse_own_thread(call)

    def raise_error(self) -> None:
        """Raise the error that has ended the fleet, or this account's stream, if one has."""
        self._lifetime.raise_error()
        stream = self._parts.stream
        if stream.phase == "stopped" and stream.error is not None:
            raise stream.error.with_traceback(stream.trace)


class Fleet(Registrar):
    """The streams of many accounts, with the same handlers, in one process.

    Register handlers with `on`, then `start()` it in the background, use it in a `with` statement, or give it the
    main thread with `run()`. One fleet runs once; make another to begin again.

    Handlers run on the threads `<name>-dispatch-1` and so on. Events of one order of one account are handled one
    after the other, different orders at the same time. `event.account` says whose event it is. An account keeps at
    most a quarter of the threads, at least one, so that handlers of one account that hang do not stop the others;
    as many such accounts as it takes to hold all threads do stop all, and `health()` names them.

    Every method may be called from any thread, and from handlers unless it says otherwise.
    """

    @border
    def __init__(  # noqa: D417  (the others are those of `Client`)
        self,
        *,
        accounts: Iterable[Account | str] | Callable[[], Iterable[Account | str]] = (),
        token: Callable[[str], str] | None = None,
        refresh_interval: float = 60.0,
        app_id: str | None = None,
        origin: str | None = None,
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
        connects_per_second: float = 20.0,
        queue_size: int = 10_000,
        coalesce_balances: bool = False,
        workers: int = 8,
        slow_handler_duration: float | None = 5.0,
        rest_url: str | None = None,
        rest: RestOptions | None = RestOptions(),  # noqa: B008  (it is immutable)
        rest_requests_per_second: float = 10.0,
        catch_up_timeout: float = 10.0,
        rest_lag: float = 10.0,
        check_user_id: bool = True,
        orders_kept: int = 1_000,
        orders_kept_for: float = 86_400.0,
        journal: str | os.PathLike[str] | OpensFleetStore | None = None,
        on_error: ErrorHandler | None = None,
        name: str = "aggstream",
    ) -> None:
        """Make a fleet. Nothing is connected, and no thread started, before `start()`.

        An argument that is not named here is as for `Client`, and holds for each account.

        Args:
            accounts: the accounts, or a function that returns them, which is called on a thread of ours at the
                start, every `refresh_interval`, and after `refresh()`: accounts that are new in its answer begin,
                those that are missing end. A text is the name of an account. If the function raises, or returns
                nothing, all accounts stay, and `health()` says why.
            token: called with the name of an account that has no token of its own; returns its access token. It is
                called on threads of ours, for several accounts at once, and for one account once at a time.
            refresh_interval: seconds between two calls of `accounts`.
            connects_per_second: how many accounts connect in a second at most (assumed: the service's own limit is
                not public). 2,000 accounts take 100 seconds after a restart of the service.
            queue_size: events of one account that may wait for handlers; at this number reading from its
                connection pauses.
            workers: threads that run handlers.
            rest_requests_per_second: how many requests of all accounts go to the REST API in a second at most
                (assumed). Accounts whose live events wait for an answer come first.
            orders_kept: how many orders that have ended are remembered for each account.
            journal: a file, `JournalOptions`, or whatever else opens a store for many accounts: each user event is
                stored there before its handlers run. One file holds the events of all accounts.

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
        super().__init__()
        for seconds, what in (
            (refresh_interval, "refresh_interval"),
            (connects_per_second, "connects_per_second"),
            (rest_requests_per_second, "rest_requests_per_second"),
        ):
            check_seconds(seconds, what)
        if token is not None:
            check_handler(token, what="the token function", wanted="one argument, the name of an account")
        # Here, and not by a thread of ours: a fork meanwhile would leave the child with a module that is locked.
        Codec(self._options.session.limits)
        for module in ("email.utils", "encodings.idna"):
            importlib.import_module(module)
        self._token = token
        self._calls = choose_rest(rest, rest_url, self._options, api_key=api_key, proxy=proxy)
        self._error_handlers: tuple[ErrorHandler, ...] = ()
        self._users: dict[str, str] = {}
        self._most_workers = max(1, workers // 4)
        self._connector = Connector(self._options)
        pool = Workers(workers, name)
        pool.is_shared = True
        self._engine = engine = Engine(name, pool)
        longest = self._options.reconnect.maximum
        self._pace, self._rest_pace = (
            Pace(per_second, longest_hold=longest, schedule=engine.schedule)
            for per_second in (connects_per_second, rest_requests_per_second)
        )
        self._list = AccountList(
            accounts if callable(accounts) else None,
            self._apply,
            CallQueue(engine.lanes.accounts, self._wake),
            every=refresh_interval,
            timeout=token_timeout,
            name=name,
        )
        self._roster = Roster(
            engine, name=name, revive_after=longest, on_end=self._handlers_ended, account_list=self._list
        )
        engine.add(self._roster)
        opens_store: OpensFleetStore | None = None
        if journal is not None:
            from aggstream.journal import as_fleet_store  # noqa: PLC0415  (not every fleet has one)

            opens_store = as_fleet_store(journal)
        self._lifetime = Lifetime(
            engine,
            self._roster,
            name=name,
            open_store=None if opens_store is None else opens_store.open_fleet,
            on_store_failure="stop" if opens_store is None else opens_store.on_failure,
            on_end=lambda: None,
        )
        if self._list.is_fixed:
            members = [self._member(account, is_listed=True) for account in checked_accounts(accounts)]
            self._roster.add_all(members)
        if on_error is not None:
            self.on_error(on_error)
        call_in_child(self, Fleet._let_go)

    def __repr__(self) -> str:
        if not hasattr(self, "_lifetime"):  # its constructor refused an option
            return "<aggstream.Fleet, not made>"
        phase = self._roster.phase if self._lifetime.is_in_own_process() else "another process's"
        return f"<aggstream.Fleet {self._options.name!r} of {len(self._roster.members)} accounts: {phase}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a fleet cannot be pickled: make one in the process that uses it")

    # --- running ----------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin in the background, and return at once. `wait`, `run` and `stop` raise an error that comes later.

        Raises:
            StateError: it was started before, even if it has ended since: make another fleet.
            JournalError: the journal cannot be opened, and the fleet is not to go on without it.
            RuntimeError: the system has no more threads.
        """
        self._roster.limit_to(self._capacity())
        self._lifetime.start()

    def stop(self, timeout: float = _STOP_TIMEOUT) -> StopReport:
        """End all streams: close the connections, let the handlers finish what is queued, end the threads.

        May be called twice, before `start`, and from a handler or a signal handler, as `Client.stop`.

        Args:
            timeout: seconds after which it returns all the same.

        Returns:
            What was left undone, of all accounts, if the time ran out.

        Raises:
            AggStreamError: what ended the fleet before, if something did.
            StateError: this is a forked child of the process that has started it.
        """
        return self._lifetime.stop(timeout)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the fleet has ended and its handlers are done; see `Client.wait`.

        Args:
            timeout: seconds; None: for ever.

        Returns:
            True if it has ended, False if the time ran out first.

        Raises:
            StateError: it was not started, or this is a thread of the fleet's own.
            AggStreamError: what ended the fleet, if it was not `stop`.
        """
        return self._lifetime.wait(timeout)

    def run(self, *, stop_timeout: float = _STOP_TIMEOUT) -> int:
        """Run the fleet until it is stopped, SIGINT (Ctrl-C) or SIGTERM comes, or it fails; see `Client.run`.

        Args:
            stop_timeout: seconds that the handlers have after a signal to finish what is queued.

        Returns:
            The exit code that a shell expects: 0 after `stop()`, 130 after SIGINT, 143 after SIGTERM.

        Raises:
            StateError: this is a thread of the fleet's own.
            AggStreamError: what ended the fleet.
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
            # The program's own exception is the news; the fleet's error is in the log.
            if error is None:
                raise

    def wait_until_live(self, timeout: float | None = None) -> None:
        """Wait until each account is live, or rests because it is refused: see `Resting`.

        Args:
            timeout: seconds; None: until that is so, or the fleet ends.

        Raises:
            WaitTimeout: some accounts are still on the way; says how many.
            StateError: the fleet has ended or is not started, or this is a thread of the fleet's own.
            AggStreamError: what ended the fleet meanwhile.
        """
        self._lifetime.refuse_own_thread("wait_until_live()")
        if not self._lifetime.is_started:
            raise StateError("the fleet is not started: call start() first, or use run()")
        is_settled = self._roster.wait_until_settled(timeout)
        if self._roster.is_ended:
            self._lifetime.raise_error()
            raise StateError("the fleet does not run: there is nothing to wait for")
        if not is_settled:
            raise WaitTimeout(f"not all accounts are live within {timeout} s: {self._phases_in_words()}")

    # --- accounts ---------------------------------------------------------------------------------------

    @property
    def accounts(self) -> tuple[str, ...]:
        """The names of the accounts at this moment."""
        self._refuse_other_process()
        return tuple(self._roster.members)

    def account(self, name: str) -> AccountStream:
        """Return one account, to look at its orders, to wait for them, and to ask how it is.

        Raises:
            ConfigurationError: there is no account of this name.
        """
        self._refuse_other_process()
        member = self._roster.members.get(name)
        if member is None:
            raise ConfigurationError(f"there is no account {name!a}")
        return AccountStream(member, self._lifetime)

    @border
    def add(self, account: Account | str) -> AccountStream:
        """Take one more account, and begin its stream if the fleet runs.

        An account that was added so stays until `remove`, also if the `accounts` function does not know it.

        Raises:
            ConfigurationError: there is one of this name, or it has no token and the fleet no `token` function.
            StateError: the fleet has ended.
        """
        self._refuse_other_process()
        [checked] = checked_accounts([account])
        member = self._member(checked, is_listed=False)
        self._roster.add(member)
        return AccountStream(member, self._lifetime)

    def remove(self, name: str) -> bool:
        """Let the stream of an account end. Returns at once; a handler of it that runs at this moment finishes.

        Its events that wait for handlers are still handled, and `Stopped` is its last one. An account of the same
        name may be added again at once: it begins when this one has ended.

        Returns:
            True if there was such an account.
        """
        self._refuse_other_process()
        return self._remove(name)

    def refresh(self) -> None:
        """Have the `accounts` function called now. Returns at once."""
        self._refuse_other_process()
        self._roster.refresh()

    # --- the rest ---------------------------------------------------------------------------------------

    def on_error(self, handler: OnError) -> OnError:
        """Register a function for the exceptions of handlers, of all accounts; see `Client.on_error`.

        Raises:
            ConfigurationError: it cannot be called with two arguments.
        """
        check_handler(handler, arguments=2)
        self._refuse_other_process()
        self._error_handlers = (*self._error_handlers, handler)
        for member in self._roster.members.values():
            member.parts.dispatcher.calls.error_handlers = self._error_handlers
        return handler

    def health(self, *, details: bool = False) -> FleetHealth:
        """Return how the fleet is at this moment, from any thread, without waiting.

        Args:
            details: return the health of each account as well, which takes the longer the more there are.
        """
        self._refuse_other_process()
        return check_up_fleet(self._roster, self._engine, self._list, self._pace, self._options, details=details)

    # --- inside -----------------------------------------------------------------------------------------

    def _refuse_other_process(self) -> None:
        self._lifetime.refuse_other_process()

    def _wake(self) -> None:
        self._engine.wake(self._roster)

    def _handlers_ended(self) -> None:
        self._lifetime.handlers_ended()

    def _let_go(self) -> None:
        """Let go of the streams in a forked child: they are the parent's."""
        self._registry.after_fork_in_child()
        self._lifetime.after_fork_in_child()

    def _phases_in_words(self) -> str:
        return ", ".join(f"{number} {phase}" for phase, number in sorted(self._roster.phases.items()))

    def _capacity(self) -> int | None:
        """Return how many streams may be open at once; None if the system allows as many as there are accounts."""
        left = descriptors_left()
        return None if left is None else max(1, left)

    def _provider(self, name: str, token: TokenSource | Secret | None) -> TokenProvider:
        if token is not None:
            return as_provider(token)
        function = self._token
        if function is None:
            raise ConfigurationError(
                f"the account {name!a} has no token: give it one, or give the fleet a token function"
            )
        return as_provider(lambda: function(name))

    def _member(self, account: Account, *, is_listed: bool) -> Member:
        """Put the stream of an account together."""
        member: Member
        name = account.name

        def ended() -> None:
            parts.waiting.end()
            if parts.store is not None:
                parts.store.close()
            self._roster.delivered_all()

        def has_left() -> None:
            self._note_user(member)

        def phase_changed(stream: Any, before: Phase, phase: Phase) -> None:
            self._roster.phase_changed(stream, before, phase)
            if phase == "stopped":
                self._roster.stream_ended(member)

        parts = Parts(
            self._options.for_account(name),
            self._engine,
            self._connector,
            AccountRegistry(self._registry),
            self._provider(name, account.token),
            self._calls,
            on_end=ended,
            on_fatal=self._roster.fail,
            account=name,
            expected_user=account.user_id or self._users.get(name),
            most_workers=self._most_workers,
            rests=True,
            pace=self._pace,
            rest_pace=self._rest_pace,
            on_phase=phase_changed,
        )
        parts.dispatcher.calls.error_handlers = self._error_handlers
        member = Member(
            name,
            parts,
            account.token,
            is_listed=is_listed,
            again=lambda: self._member(account, is_listed=is_listed),
            has_left=has_left,
        )
        return member

    def _remove(self, name: str) -> bool:
        member = self._roster.remove(name)
        if member is not None:
            self._note_user(member)  # now, because the name may come back before its stream has ended
        return member is not None

    def _note_user(self, member: Member) -> None:
        """Remember whose the name of an account is, for when it comes back."""
        if (user_id := member.parts.stream.user_id) is not None:
            self._users[member.name] = user_id

    def _apply(self, accounts: Sequence[Account]) -> None:
        """Have just these accounts, and those that were added one by one. Called on a thread that may block."""
        members = self._roster.members
        wanted = {account.name: account for account in accounts}
        for name, member in members.items():
            if member.is_listed and name not in wanted:
                self._remove(name)
        fresh: list[Member] = []
        for name, account in wanted.items():
            known = members.get(name)
            if known is None:
                fresh.append(self._member(account, is_listed=True))
            elif known.is_listed:
                self._update(known, account)
        self._roster.add_all(fresh)

    def _update(self, member: Member, account: Account) -> None:
        """Give an account the token that it has now, if that is another one."""
        if account.token == member.token or account.token is None:
            return
        is_text = isinstance(account.token, Secret)
        stream = member.parts.stream
        # A function may be another object each time, and return the same token.
        if is_text or stream.phase in ("must sign in again", "failed"):
            stream.use(as_provider(account.token))
        member.token = account.token
