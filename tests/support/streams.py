"""Many streams on one engine: the parts of a client, put together so that one I/O thread drives all of them."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable
from typing import Any

from waiting import DEADLINE

from aggstream import ReconnectPolicy
from aggstream._base.deadline import Deadline
from aggstream._base.threads import Gate
from aggstream._delivery.dispatcher import Dispatcher
from aggstream._delivery.registry import Registry
from aggstream._delivery.watchdog import HandlerWatch
from aggstream._delivery.workers import Workers
from aggstream._protocol.options import SessionOptions
from aggstream._stream.connector import Connector
from aggstream._stream.engine import Engine
from aggstream._stream.options import Options
from aggstream._stream.stream import Stream
from aggstream.orders._tracker import Tracker
from aggstream.rest._calls import Calls
from aggstream.rest._options import RestOptions
from aggstream.tokens._providers import as_provider
from aggstream.typing import TokenProvider


class Streams:
    """Streams on one engine, with one registry of handlers and one pool of workers."""

    def __init__(
        self,
        url: str,
        *,
        workers: int = 2,
        ssl_context: ssl.SSLContext | None = None,
        app_id: str = "a",
        origin: str = "https://app.example",
        **options: Any,
    ) -> None:
        self.registry = Registry()
        self.workers = Workers(workers, "many")
        self.engine = Engine("many", self.workers)
        self._options = Options(
            app_id=app_id,
            origin=origin,
            url=url,
            allow_insecure=False,
            headers={},
            ssl_context=ssl_context,
            workers=workers,
            session=SessionOptions(),
            name="many",
            **{"reconnect": ReconnectPolicy(), **options},
        )
        self._connector = Connector(self._options)
        self.streams: list[Stream] = []
        self.dispatchers: list[Dispatcher] = []
        self.has_turned = threading.Event()

    def add(self, token: str | Callable[[], str] | TokenProvider, *, rest_url: str | None = None) -> Stream:
        """Make one more stream, before the start."""
        made: list[Stream] = []

        def wake() -> None:
            made[0].wake()

        def fail(error: BaseException) -> None:
            made[0].fail(error)

        dispatcher = Dispatcher(
            self.registry,
            self.workers,
            queue_size=self._options.queue_size,
            queued_size=self._options.session.limits.queued_size,
            coalesce_balances=False,
            name="many",
            on_low_water=wake,
            on_fatal=fail,
            on_end=lambda: None,
        )
        stream = Stream(
            self._options,
            self.engine,
            self._connector,
            as_provider(token),
            dispatcher,
            HandlerWatch(dispatcher, None, "many"),
            Tracker(kept=10_000, kept_for=86_400.0, name="many"),
            None if rest_url is None else self._calls(rest_url),
            on_stopping=lambda: None,
            on_turn=self.has_turned.set,
        )
        made.append(stream)
        self.streams.append(stream)
        self.dispatchers.append(dispatcher)
        self.engine.add(stream)
        return stream

    def _calls(self, rest_url: str) -> Calls:
        return Calls(
            app_id=self._options.app_id,
            rest_url=rest_url,
            options=RestOptions(url=rest_url, timeout=3600),
            api_key=None,
            ssl_context=None,
            proxy=None,
            limits=self._options.session.limits,
        )

    def start(self) -> None:
        """Start the threads."""
        gate = Gate()
        self.engine.start(gate)
        gate.open()

    def are_live(self) -> bool:
        return all(stream.phase == "live" for stream in self.streams)

    def request_stop(self) -> None:
        for stream in self.streams:
            stream.request_stop()

    def stop(self, timeout: float = DEADLINE) -> bool:
        """End all streams and threads; return True if they have ended in time."""
        self.request_stop()
        deadline = Deadline(timeout)
        has_ended = self.engine.join(deadline.remaining()) and self.workers.join(deadline)
        self.engine.lanes.join(deadline.remaining())
        return bool(has_ended)
