"""The parts of one user's stream, put together: a client has one of these, and a fleet has many."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING

from aggstream._delivery.acks import Acks
from aggstream._delivery.dispatcher import Dispatcher
from aggstream._delivery.handler_calls import Running
from aggstream._delivery.registry import Registry
from aggstream._delivery.waiting import Waiting
from aggstream._delivery.watchdog import HandlerWatch
from aggstream._stream.connector import Connector
from aggstream._stream.engine import Engine
from aggstream._stream.options import Options
from aggstream._stream.pace import Pace
from aggstream._stream.stream import Stream
from aggstream.errors import JournalError
from aggstream.health import Phase
from aggstream.orders._tracker import Tracker
from aggstream.typing import TokenProvider

if TYPE_CHECKING:
    from aggstream.journal import EventStore
    from aggstream.rest._calls import Calls


class Parts:
    """A stream, what it knows of orders, and its way to the handlers and to the threads that wait."""

    def __init__(
        self,
        options: Options,
        engine: Engine,
        connector: Connector,
        registry: Registry,
        provider: TokenProvider,
        calls: Calls | None,
        *,
        on_end: Callable[[], None],
        on_fatal: Callable[[BaseException], None] | None = None,
        account: str = "",
        expected_user: str | None = None,
        most_workers: int | None = None,
        rests: bool = False,
        pace: Pace | None = None,
        rest_pace: Pace | None = None,
        on_phase: Callable[[Stream, Phase, Phase], None] | None = None,
    ) -> None:
        """Put them together. Nothing is started.

        Args:
            options: of the stream.
            engine: drives it.
            connector: knows how to connect.
            registry: has the handlers.
            provider: returns tokens.
            calls: how REST is asked; None: not at all.
            on_end: called by a worker when nothing more will be delivered.
            on_fatal: called by a worker with an exception that is to end everything (`SystemExit`, say); None: it
                ends the stream.
            account: see `Stream`, likewise the rest.
            expected_user: see `Stream`.
            most_workers: how many threads may be at its events at once, each at another order; None: as many as
                there are, which the orders are shared out to.
            rests: see `Stream`.
            pace: see `Stream`.
            rest_pace: see `Stream`.
            on_phase: see `Stream`.
        """
        queued_size = options.session.limits.queued_size
        self.options = options
        self.store: EventStore | None = None
        """Where the events are written first; None: nowhere."""
        self.registry = registry
        self.tracker = Tracker(kept=options.orders_kept, kept_for=options.orders_kept_for, name=options.name)
        self.dispatcher = Dispatcher(
            registry,
            engine.workers,
            queue_size=options.queue_size,
            queued_size=queued_size,
            coalesce_balances=options.coalesce_balances,
            name=options.name,
            shown=options.session.limits.shown,
            on_low_water=self._wake,
            on_fatal=on_fatal or self._fail,
            on_end=on_end,
            most_workers=most_workers,
        )
        self.waiting = Waiting(
            self.dispatcher.calls, length=options.queue_size, size=queued_size, name=options.name
        )
        self.watch = HandlerWatch(self.dispatcher, options.slow_handler_duration, options.name, engine.schedule)
        self.stream = Stream(
            options,
            engine,
            connector,
            provider,
            self.dispatcher,
            self.watch,
            self.tracker,
            calls,
            on_stopping=self.waiting.buffer.stop_waiting,
            on_turn=self._turn,
            account=account,
            expected_user=expected_user,
            rests=rests,
            pace=pace,
            rest_pace=rest_pace,
            on_phase=on_phase,
        )

    # --- its life, for `Lifetime` -----------------------------------------------------------------------

    @property
    def phase(self) -> Phase:
        """What the stream is doing."""
        return self.stream.phase

    @property
    def error(self) -> BaseException | None:
        """The error that has ended the stream; None if none has."""
        return self.stream.error

    @property
    def trace(self) -> TracebackType | None:
        """Where that error came about, if nobody expected it."""
        return self.stream.trace

    @property
    def stop_requested(self) -> bool:
        """True once the stream is to end."""
        return self.stream.stop_requested

    @property
    def undelivered(self) -> int:
        """How many events no handler has been given yet."""
        return self.dispatcher.waiting

    @property
    def to_retry(self) -> int:
        """How many events wait to be tried again, those behind them included."""
        return self.dispatcher.to_retry

    def begin(self, store: EventStore | None, failure: JournalError | None) -> None:
        """Take the store; see `Living`."""
        self.store = store
        acks = None if store is None else Acks(store, self.stream.store_failed, self.options.name)
        self.dispatcher.acknowledge(acks)
        self.stream.write_to(store, failure)

    def reset(self) -> None:
        """Be as if `begin` had never been called."""
        self.stream.reset()
        self.dispatcher.acknowledge(None)

    def request_stop(self) -> None:
        """Ask the stream to end."""
        self.stream.request_stop()

    def running(self) -> list[Running]:
        """Return the handlers that are running now."""
        return self.dispatcher.running()

    def abandon(self) -> int:
        """Deliver nothing more; return how many events that leaves."""
        return self.dispatcher.abandon()

    def poll_handlers(self) -> None:
        """Log the handlers that take too long, once the I/O thread has ended."""
        self.watch.poll()

    def log_stuck(self) -> None:
        """Log where the handlers are that are given up."""
        self.watch.log_stuck()

    def after_fork_in_child(self) -> None:
        """Replace the locks, which threads of the parent may hold, and let go of the parent's threads."""
        if self.stream.engine.is_made:
            self.dispatcher.after_fork_in_child()
        self.stream.after_fork_in_child()
        self.tracker.after_fork_in_child()
        self.registry.after_fork_in_child()
        self.waiting.after_fork_in_child()

    # The dispatcher is made before the stream that it calls back.
    def _wake(self) -> None:
        self.stream.wake()

    def _fail(self, error: BaseException) -> None:
        self.stream.fail(error)

    def _turn(self) -> None:
        self.waiting.turn(is_live=self.stream.phase == "live")
