"""Looking at a running stream from outside, without waiting for it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import attrs

from aggstream._delivery.dispatcher import Dispatcher, Running
from aggstream._stream.loop import Runner
from aggstream._stream.options import Options
from aggstream.health import Health

# A ping is sent when the silence is due, not before; so much later it must have been.
_SILENCE_GRACE = 2.0


def check_up(runner: Runner, dispatcher: Dispatcher, options: Options) -> Health:
    """Return how a stream is at this moment; from any thread."""
    session = runner.session
    handlers = dispatcher.running()
    now = time.monotonic()
    live_since = runner.live_since
    silent_for = None if session is None else now - session.last_heard
    threads = dispatcher.threads()
    threads[runner.name] = runner.is_alive()
    # It is made with the first job, perhaps long after the start: until then it is missing only before that.
    has_started = runner.phase != "idle" or runner.is_alive()
    threads[runner.work.name] = has_started and runner.work.is_alive()
    return Health(
        phase=runner.phase,
        problems=tuple(_problems(runner, options, silent_for, threads, handlers)),
        user_id=runner.user_id,
        continuity=runner.continuity,
        live_for=None if live_since is None else now - live_since,
        silent_for=silent_for,
        threads=threads,
        queue_depth=dispatcher.depth,
        running={running.handler: running.seconds for running in handlers},
        coalesced=dispatcher.coalesced,
        delivered=dispatcher.delivered,
        handler_errors=dispatcher.handler_errors,
        dead=dispatcher.dead,
        counters=attrs.evolve(runner.counters),
        last_error=runner.last_error,
    )


def _problems(
    runner: Runner,
    options: Options,
    silent_for: float | None,
    threads: Mapping[str, bool],
    handlers: Sequence[Running],
) -> list[str]:
    problems = []
    if runner.phase not in ("idle", "stopped"):
        problems += [f"the thread {name} is not alive" for name, alive in threads.items() if not alive]
    if runner.phase != "live":
        problems.append(f"not live, but {runner.phase}")
    if runner.switching:
        problems.append("switching users: nothing is delivered until the service has acknowledged it")
    if runner.phase == "live" and runner.has_rest and runner.is_in_the_dark:
        why = runner.reconciler.last_error or "it was not asked yet"
        problems.append(f"the REST API does not tell what was missed: {why}")
    if runner.outbox.failure is not None:
        problems.append(f"the journal is not written to: {runner.outbox.failure}")
    if runner.paused:
        problems.append("reading is paused, because the handlers are behind")
    slow = options.slow_handler_duration
    problems += [
        f"the handler {running.handler} has run for {running.seconds:.0f} s"
        for running in handlers
        if slow is not None and running.seconds >= slow
    ]
    longest = options.session.ping_interval + options.session.pong_timeout + _SILENCE_GRACE
    if silent_for is not None and silent_for > longest:
        problems.append(f"the server has been silent for {silent_for:.0f} s")
    return problems
