"""Starting and ending a stream: once, in one process, from any thread, by a signal, at the interpreter's end."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Protocol

from aggstream._base.deadline import Deadline
from aggstream._base.fork_and_exit import call_at_exit, is_worker_process
from aggstream._base.greenlets import Patching, is_in_hub
from aggstream._base.signals import SAME_WISH, caught_signals
from aggstream._base.threads import Gate
from aggstream._delivery.handler_calls import Running
from aggstream._stream.engine import Engine
from aggstream.errors import JournalError, StateError
from aggstream.health import StopReport

logger = logging.getLogger("aggstream.stream")

_SIGNAL_EXIT = 128
_WATCH_EVERY = 0.5


class Living(Protocol):
    """One stream with its handlers, or many. All but `begin` and `reset` is for any thread."""

    @property
    def phase(self) -> str:
        """It is "stopped" once everything has ended but the handlers."""
        ...

    @property
    def error(self) -> BaseException | None:
        """The error that has ended it; None if none has."""
        ...

    @property
    def trace(self) -> TracebackType | None:
        """Where that error came about, if nobody expected it."""
        ...

    @property
    def stop_requested(self) -> bool:
        """True once it is to end."""
        ...

    @property
    def undelivered(self) -> int:
        """How many events no handler has been given yet."""
        ...

    @property
    def to_retry(self) -> int:
        """How many events wait to be tried again, those behind them included; the journal keeps them."""
        ...

    def begin(self, store: Any, failure: JournalError | None) -> None:
        """Take the store, before the threads are started.

        Args:
            store: where events are written first; None: nowhere.
            failure: why there is no store, although there should be one.
        """
        ...

    def reset(self) -> None:
        """Be as if `begin` had never been called."""
        ...

    def request_stop(self) -> None:
        """Ask for the end. Takes no lock, so a signal handler may call it."""
        ...

    def running(self) -> list[Running]:
        """Return the handlers that are running now."""
        ...

    def abandon(self) -> int:
        """Deliver nothing more; return how many events that leaves."""
        ...

    def poll_handlers(self) -> None:
        """Log the handlers that take too long, once the I/O thread has ended."""
        ...

    def log_stuck(self) -> None:
        """Log where the handlers are that are given up."""
        ...

    def after_fork_in_child(self) -> None:
        """Let go of what is the parent's, in a forked child."""
        ...


class Lifetime:
    """The life of one client's threads, or of a fleet's. Every method may be called from any thread."""

    def __init__(
        self,
        engine: Engine,
        living: Living,
        *,
        name: str,
        open_store: Callable[[], Any] | None,
        on_store_failure: str = "stop",
        on_end: Callable[[], None],
    ) -> None:
        """Start nothing yet.

        Args:
            engine: the I/O thread.
            living: what lives on it.
            name: begins the log lines.
            open_store: opens the store that events are written to first; None: there is none.
            on_store_failure: "stop": do not start if that fails; "continue": start without it.
            on_end: called when nothing more is delivered, perhaps twice.
        """
        self.store: Any = None
        """The store, from `start` on; None if there is none."""
        self._engine = engine
        self._living = living
        self._name = name
        self._open = open_store
        self._on_store_failure = on_store_failure
        self._on_end = on_end
        self._patching = Patching()
        # Guards the decision to start. `stop`, which a signal handler may call, does not take it.
        self._lock = threading.Lock()
        self._starter: int | None = None
        self._has_begun = threading.Event()
        # The process that has started it, which alone may use it from then on.
        self._pid: int | None = None
        self.is_started = False
        """True once `start` was called, and did not fail for the store."""
        self._is_ended = False
        # How many events were abandoned, by a `stop` that ran out of time.
        self._abandoned = 0

    # --- the life ---------------------------------------------------------------------------------------

    def start(self) -> None:
        """Open the store, and start the threads. If that fails, it is as if it had not been tried.

        Raises:
            StateError: it was started before, or gevent or eventlet make that impossible.
            JournalError: the store cannot be opened, and the stream is not to go on without it.
            RuntimeError: the system has no more threads.
            OSError: the process has no more descriptors.
        """
        self.refuse_other_process()
        self._patching.check("this client")
        gate = Gate()
        is_ours = False  # not if another call of `start` was first
        try:
            with self._lock:
                if self.is_started:
                    # Here, because a signal handler may raise between any two calls.
                    raise StateError("this client was started before; make another one to begin again")  # noqa: TRY301
                self.is_started = is_ours = True
            self._starter = threading.get_ident()
            self._pid = os.getpid()
            self.store, failure = self._open_store()
            self._living.begin(self.store, failure)
            self._engine.start(gate)
            call_at_exit(self, Lifetime._ask_to_stop_at_exit, Lifetime._stop_at_exit)
            self._has_begun.set()
            gate.open()
        except BaseException:
            if gate.is_open:  # a signal handler has raised at the very end: the threads cannot be taken back
                self._living.request_stop()
                gate.open()
            elif is_ours:
                gate.cancel()
                self._reset()
            raise

    def _reset(self) -> None:
        """Undo what `start` has done so far."""
        self._engine.reset()
        self._living.reset()
        store, self.store = self.store, None
        if store is not None:
            store.close()
        self.is_started = False
        self._starter = self._pid = None
        # Other threads may wait for the beginning already.
        begun, self._has_begun = self._has_begun, threading.Event()
        begun.set()

    def stop(self, timeout: float) -> StopReport:
        """End the stream within `timeout` seconds; see `Client.stop`."""
        self.refuse_other_process()
        if not self.is_started:
            return StopReport()
        self._living.request_stop()
        if self.is_own_thread() or is_in_hub():
            return StopReport(undelivered=self._living.undelivered, running=self._still_running())
        deadline = Deadline(timeout)
        if not self._await_begin(deadline):
            return StopReport()
        is_done = self._join_engine(deadline.remaining()) and self._join_handlers(deadline)
        self._engine.lanes.join(deadline.remaining())
        if not is_done and not self._abandoned:
            self._abandoned = self._living.abandon()
        undelivered = self._abandoned or self._living.to_retry
        running = self._still_running() or (() if is_done else ("starting",))
        report = StopReport(undelivered=undelivered, running=running)
        self._end()
        if not report:
            still = f", still running: {', '.join(running)}" if running else ""
            logger.warning("%s: stopped; %d events undelivered%s", self._name, undelivered, still)
            self._living.log_stuck()
        self.raise_error()
        return report

    def wait(self, timeout: float | None) -> bool:
        """Wait until the stream has ended and its handlers are done; return True if they have."""
        self.refuse_own_thread("wait()")
        if not self.is_started:
            raise StateError("the client is not started: call start() first, or use run()")
        deadline = Deadline(timeout)
        if not self._await_begin(deadline):
            raise StateError("start() has failed meanwhile: call it again")
        if not (self._join_engine(deadline.remaining()) and self._join_handlers(deadline)):
            return False
        self.raise_error()
        return True

    def run(self, start: Callable[[], None], stop_timeout: float) -> int:
        """Run the stream until it ends or a signal comes; return an exit code. See `Client.run`.

        Args:
            start: starts the client, if it was not started.
            stop_timeout: seconds that the handlers have after a signal.
        """
        self.refuse_own_thread("run()")
        with caught_signals(lambda _: self._living.request_stop()) as received:
            if not self.is_started:
                start()
            self._join_engine(None)
            # Without a signal the handlers have all the time they need; but one may still come.
            self._join_handlers(Deadline(None), unless=lambda: bool(received))
            if received:
                self._stop_by_signal(stop_timeout)
        self.raise_error()
        return _SIGNAL_EXIT + received[0] if received else 0

    def handlers_ended(self) -> None:
        """Close the store, and end: nothing more is delivered. Called by the last dispatch thread."""
        if self.store is not None:
            self.store.close()
        self._end()

    # --- its state --------------------------------------------------------------------------------------

    def is_running(self) -> bool:
        """Return True from the start until the handlers have ended."""
        return self.is_started and not self._is_ended

    def is_going(self) -> bool:
        """Return True from the start until the stream has ended; handlers may still run after it."""
        return self.is_running() and self._living.phase != "stopped"

    def is_own_thread(self) -> bool:
        """Return True if the calling thread is one of the client's."""
        return self._engine.is_own_thread() or self._engine.workers.is_own_thread()

    def is_in_own_process(self) -> bool:
        """Return False in a forked child of the process that has started the stream."""
        return self._pid in (None, os.getpid())

    def refuse_other_process(self) -> None:
        """Raise StateError in a forked child of the process that has started the stream."""
        if not self.is_in_own_process():
            raise StateError(
                "this client was started before the process was forked, and its threads are the parent's: "
                "make and start another one in the child"
            )

    def refuse_own_thread(self, call: str) -> None:
        """Raise StateError on a thread of the client's own, where `call` would wait for itself."""
        self.refuse_other_process()
        if self.is_own_thread():
            raise StateError(f"{call} on a thread of the client's own would wait for itself; use another thread")

    def raise_error(self) -> None:
        """Raise the error that has ended the stream, if one has."""
        if self._living.phase == "stopped" and self._living.error is not None:
            # Where in here it came about is no news to the user, and each raise would make it longer.
            raise self._living.error.with_traceback(self._living.trace)

    def after_fork_in_child(self) -> None:
        """Replace the lock, which a thread of the parent may hold, and let go of the parent's threads."""
        self._lock = threading.Lock()
        self._living.after_fork_in_child()
        self._engine.after_fork_in_child()

    # --- inside -----------------------------------------------------------------------------------------

    def _join_engine(self, timeout: float | None) -> bool:
        """Wait for the I/O thread to end; return True if it has. One that is not quite started has not."""
        has_ended = self._engine.join(timeout)
        return self._living.phase == "stopped" if has_ended is None else has_ended

    def _open_store(self) -> tuple[Any, JournalError | None]:
        """Return the store, or why there is none and it is to start all the same."""
        if self._open is None:
            return None, None
        try:
            return self._open(), None
        except JournalError as error:
            if self._on_store_failure == "stop":
                raise
            return None, error

    def _end(self) -> None:
        self._is_ended = True
        self._on_end()

    def _still_running(self) -> tuple[str, ...]:
        handlers = [running.handler for running in self._living.running()]
        closes = ["closing the connection"] if self._engine.is_alive() else []
        return (*handlers, *self._engine.lanes.doing(), *closes)

    def _await_begin(self, deadline: Deadline) -> bool:
        """Wait until another thread has done `start`; return False if it has failed."""
        # A signal handler may have interrupted start() itself: that must not be waited for. The threads that it
        # makes afterwards end at once, because the end was asked for.
        if threading.get_ident() != self._starter:
            self._has_begun.wait(deadline.remaining())
        return self.is_started

    def _stop_by_signal(self, timeout: float) -> None:
        began = time.monotonic()
        if not self._join_handlers(Deadline(min(timeout, SAME_WISH))):
            for running in self._living.running():
                logger.warning(
                    "%s: stopping; the handler %s still runs; once more to leave at once",
                    self._name,
                    running.handler,
                )
        self.stop(timeout - (time.monotonic() - began))

    def _join_handlers(self, deadline: Deadline, unless: Callable[[], bool] = lambda: False) -> bool:
        """Wait for the handlers after the I/O thread has ended, which until then watches them."""
        while not unless() and not deadline.expired():
            remaining = deadline.remaining()
            step = _WATCH_EVERY if remaining is None else min(_WATCH_EVERY, remaining)
            if self._engine.workers.join(Deadline(step)):
                return True
            self._living.poll_handlers()
        return self._engine.workers.join(Deadline(0.0))

    def _ask_to_stop_at_exit(self) -> None:
        if self.is_in_own_process():
            if is_worker_process() and self.is_going() and not self._living.stop_requested:
                logger.warning(
                    "%s: the worker process ends, but stop() was not called: the stream is stopped now; "
                    "call stop() before a worker ends, so that the handlers have time to finish",
                    self._name,
                )
            self._living.request_stop()

    def _stop_at_exit(self, deadline: Deadline) -> None:
        if self.is_in_own_process() and not self._is_ended:
            with contextlib.suppress(BaseException):  # the error was logged, and nobody waits for it
                self.stop(deadline.remaining() or 0.0)
