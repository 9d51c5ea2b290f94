"""Looking at a running stream from outside, without waiting for it."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence

import attrs

from aggstream._delivery.dispatcher import Dispatcher
from aggstream._delivery.handler_calls import Running
from aggstream._stream.options import Options
from aggstream._stream.stream import Stream
from aggstream.health import Health

# A ping is sent when the silence is due, not before; so much later it must have been.
_SILENCE_GRACE = 2.0
# A doubt that lasts for longer is not one gap's.
_LONG_DOUBT = 120.0
_SLOW_STORE = 5.0


def check_up(stream: Stream, dispatcher: Dispatcher, options: Options) -> Health:
    """Return how a stream is at this moment; from any thread."""
    connection = stream.connection
    session = None if connection is None else connection.session
    handlers = dispatcher.running()
    now = time.monotonic()
    live_since = stream.live_since
    silent_for = None if session is None else now - session.last_heard
    threads = stream.engine.workers.threads()
    threads[stream.engine.name] = stream.engine.is_alive()
    return Health(
        phase=stream.phase,
        problems=tuple(_problems(stream, options, silent_for, threads, handlers)),
        user_id=stream.user_id,
        continuity=stream.continuity,
        live_for=None if live_since is None else now - live_since,
        silent_for=silent_for,
        threads=threads,
        queue_depth=dispatcher.depth,
        held=stream.pipeline.catch_up.held,
        unknown_statuses=stream.unknown_statuses,
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
    dead = [name for name, alive in threads.items() if not alive]
    slow = math.inf if options.slow_handler_duration is None else options.slow_handler_duration
    longest = options.session.ping_interval + options.session.pong_timeout + _SILENCE_GRACE
    return [
        *(f"the thread {name} is not alive" for name in dead if stream.phase not in ("idle", "stopped")),
        *_problems_of_stream(stream),
        *(f"the handler {it.handler} has run for {it.seconds:.0f} s" for it in handlers if it.seconds >= slow),
        *([f"the server has been silent for {silent_for:.0f} s"] if (silent_for or 0.0) > longest else []),
    ]


def _problems_of_stream(stream: Stream) -> Iterator[str]:
    pipeline = stream.pipeline
    if stream.phase != "live":
        cause = f": {stream.last_error}" if stream.last_error is not None and stream.phase == "waiting" else ""
        yield f"not live, but {stream.phase}{cause}"
    yield from filter(None, _problems_of_outage(stream))
    if stream.is_switching:
        yield "switching users: nothing is delivered until the other user is signed in"
    if stream.phase == "live" and pipeline.has_rest and pipeline.is_in_the_dark:
        why = pipeline.catch_up.last_error or "it was not asked yet"
        yield f"the REST API does not tell what was missed: {why}"
    if stream.counters.foreign_events:
        yield f"{stream.counters.foreign_events} messages named another user, and were not delivered"
    if (held := pipeline.catch_up.held) > 0:
        yield f"{held} events wait for what the REST API says of a gap"
    if (lasts := pipeline.doubt_lasts_for) is not None and lasts > _LONG_DOUBT and not pipeline.is_in_the_dark:
        yield f"something has been in doubt for {lasts:.0f} s: messages come again and again that raise it"
    asked_at = pipeline.log.asked_at
    if asked_at is not None and (waited := time.monotonic() - asked_at) > _SLOW_STORE:
        yield f"the journal has not taken what came for {waited:.0f} s: another program may hold a lock on it"
    if pipeline.log.failure is not None:
        yield f"the journal is not written to: {pipeline.log.failure}"
    if stream.pressure.paused:
        yield "reading is paused, because the handlers are behind"


def _problems_of_outage(stream: Stream) -> Iterator[str | None]:
    if stream.phase != "stopped":
        yield stream.patience.problem(time.monotonic(), stream.live_since)
        yield stream.outage.problem(stream.last_error)
