"""Looking at a running stream from outside, without waiting for it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import attrs

from aggstream._delivery.dispatcher import Dispatcher
from aggstream._delivery.handler_calls import Running
from aggstream._stream.options import Options
from aggstream._stream.stream import Stream
from aggstream.health import Health

# A ping is sent when the silence is due, not before; so much later it must have been.
_SILENCE_GRACE = 2.0


def check_up(stream: Stream, dispatcher: Dispatcher, options: Options) -> Health:
    """Return how a stream is at this moment; from any thread."""
    connection = stream.connection
    session = None if connection is None else connection.session
    handlers = dispatcher.running()
    now = time.monotonic()
    live_since = stream.live_since
    silent_for = None if session is None else now - session.last_heard
    threads = dispatcher.threads()
    threads[stream.loop.name] = stream.loop.is_alive()
    # It is made with the first job, perhaps long after the start: until then it is missing only before that.
    has_started = stream.phase != "idle" or stream.loop.is_alive()
    threads[stream.work.name] = has_started and stream.work.is_alive()
    return Health(
        phase=stream.phase,
        problems=tuple(_problems(stream, options, silent_for, threads, handlers)),
        user_id=stream.user_id,
        continuity=stream.continuity,
        live_for=None if live_since is None else now - live_since,
        silent_for=silent_for,
        threads=threads,
        queue_depth=dispatcher.depth,
        running={running.handler: running.seconds for running in handlers},
        coalesced=dispatcher.coalesced,
        delivered=dispatcher.delivered,
        handler_errors=dispatcher.handler_errors,
        dead=dispatcher.dead,
        counters=attrs.evolve(stream.counters),
        last_error=stream.last_error,
    )


def _problems(
    stream: Stream,
    options: Options,
    silent_for: float | None,
    threads: Mapping[str, bool],
    handlers: Sequence[Running],
) -> list[str]:
    problems = []
    if stream.phase not in ("idle", "stopped"):
        problems += [f"the thread {name} is not alive" for name, alive in threads.items() if not alive]
    if stream.phase != "live":
        problems.append(f"not live, but {stream.phase}")
    if stream.is_switching:
        problems.append("switching users: nothing is delivered until the other user is signed in")
    if stream.phase == "live" and stream.pipeline.has_rest and stream.pipeline.is_in_the_dark:
        why = stream.pipeline.catch_up.last_error or "it was not asked yet"
        problems.append(f"the REST API does not tell what was missed: {why}")
    if stream.pipeline.log.failure is not None:
        problems.append(f"the journal is not written to: {stream.pipeline.log.failure}")
    if stream.pressure.paused:
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
