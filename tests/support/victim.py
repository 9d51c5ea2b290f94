"""A program that is killed: it writes down each call of its handlers, before and after its work.

Each line is one write to a pipe, so what was written before the kill is read after it. Ends when its input does.
"""

from __future__ import annotations

import json
import logging
import os
import random
import ssl
import sys
import threading
from typing import Any

import aggstream
from aggstream._stream import catch_up, gaps
from aggstream.journal import JournalOptions


def write(**fields: object) -> None:
    os.write(1, (json.dumps(fields) + "\n").encode())


class Handlers:
    """One that does its work, and one that sometimes fails."""

    def __init__(self, chance: random.Random, failures: float) -> None:
        self.chance = chance
        self.failures = failures
        self.pause = threading.Event()

    def steady(self, event: aggstream.UserEvent) -> None:
        self.note("before", "steady", event)
        if self.chance.random() < 0.02:
            self.pause.wait(self.chance.uniform(0.0, 0.01))
        self.note("after", "steady", event)

    def shaky(self, event: aggstream.UserEvent) -> None:
        self.note("before", "shaky", event)
        if self.chance.random() < self.failures:
            raise RuntimeError("as it happens")
        self.note("after", "shaky", event)

    def told(self, event: aggstream.LifecycleEvent) -> None:
        error, resolved = getattr(event, "error", None), getattr(event, "resolved", None)
        write(told=event.type, error=repr(error), resolved=resolved)

    def note(self, when: str, handler: str, event: aggstream.UserEvent) -> None:
        filled = event.filled_amount_raw if isinstance(event, aggstream.OrderEvent) else None
        write(
            when=when,
            handler=handler,
            id=event.id,
            type=event.type,
            order=getattr(event, "order_id", None),
            event=event.sub_event,
            terminal=getattr(event, "is_terminal", False),
            filled=filled,
            timestamp=event.timestamp,
            source=event.source,
            redelivered=event.redelivered,
        )


def main() -> None:
    settings: dict[str, Any] = json.loads(sys.argv[1])
    logging.getLogger("aggstream").setLevel(logging.CRITICAL)
    # Its minute hides what was forgotten in a crash, unless an outage is longer; the simulator needs none of it,
    # because one clock stands behind all of its timestamps.
    vars(gaps)["OVERLAP_MS"] = vars(catch_up)["OVERLAP_MS"] = 0
    client = aggstream.Client(
        app_id=settings["app_id"],
        origin=settings["origin"],
        token=settings["token"],
        url=settings["url"],
        ssl_context=ssl.create_default_context(cafile=settings["authority"]) if settings["authority"] else None,
        rest_url=settings["rest_url"],
        rest=aggstream.RestOptions(timeout=2.0, page_size=settings["page_size"], max_pages=10_000),
        catch_up_timeout=0.5,
        rest_lag=0,
        reconnect=aggstream.ReconnectPolicy(initial=0.02, maximum=0.2, healthy_after=0.2),
        close_timeout=0.2,
        workers=settings["workers"],
        journal=JournalOptions(
            path=settings["journal"],
            synchronous=settings["synchronous"],
            max_attempts=3,
            retry_delay=0.01,
            retry_delay_maximum=0.05,
        ),
    )
    handlers = Handlers(random.Random(settings["seed"]), settings["failures"])
    client.on(aggstream.UserEvent)(handlers.steady)
    client.on(aggstream.UserEvent)(handlers.shaky)
    client.on(aggstream.LifecycleEvent)(handlers.told)
    client.on(aggstream.Authenticated)(lambda event: write(told=event.type))
    write(told="starting")
    client.start()
    sys.stdin.read()
    report = client.stop(30.0)
    write(told="ended", done=bool(report), report=repr(report))


if __name__ == "__main__":
    main()
