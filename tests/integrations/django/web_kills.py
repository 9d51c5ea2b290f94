"""Kills what a project runs beside its stream, again and again, and balances the books.

The project has four web workers, a stream, a standby, a database and a network, and a page that reads live events.
The books: what the simulator says has become of each order is stored, once, and nothing that it has not said.
Whatever is stored has reached the handlers, and the page, which gets each event once and in order.
"""

from __future__ import annotations

import collections
import contextlib
import http.client
import json
import os
import random
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from django.contrib.auth.models import User
from django.db import DatabaseError, connections
from django.test import Client
from integrations.django.manage import Manage
from integrations.processes import Process
from integrations.servers import Server
from kills import Books
from ports import free_port
from shop.models import Seen

from aggstream.events import OrderEvent
from aggstream.integrations.django._store.queries import stored
from aggstream.integrations.django.models import Event, Order, Stream
from aggstream.simulator import OrderInPlay, Simulator
from aggstream.testing import ChaosProxy

USER = "usr_1"
_PATIENCE = 90.0
_WORKERS = 4
_RATE = 60.0
_RESTING = 4
_FAULTS = ("stream", "standby", "both", "worker", "cut", "black hole", "rest refused", "rest stalled", "dropped")
_WITH_SERVER = (*_FAULTS, "database", "database and stream")
_OPTIONS = {"ping_interval": 1.0, "pong_timeout": 3.0, "catch_up_timeout": 2.0}
# A handler that uses a database that is away fails; it is not set aside for that here.
_SETTING = {"MAX_ATTEMPTS": 1000, "LEASE": 2.0, "EVENTS_FOR": 3.0, "RETRY_DELAY": 0.5, "RETRY_DELAY_MAXIMUM": 1.0}
_FAILURES = 0.2  # so that something waits for its handlers at any time


class Violation(AssertionError):
    """A promise was broken, or the project did not come through."""


class Page(threading.Thread):
    """A page that reads live events from the first one on, and does what a browser does when an answer ends."""

    def __init__(self, port: int, cookie: str) -> None:
        super().__init__(name="page")
        self.ids: list[int] = []
        self.problems: list[str] = []
        self.answers = 0
        self._port = port
        self._headers = {"Cookie": cookie}
        self._place = "0"
        self._is_closed = threading.Event()
        self._answer: http.client.HTTPConnection | None = None

    def run(self) -> None:
        while not self._is_closed.is_set() and not self.problems:
            with contextlib.suppress(OSError, http.client.HTTPException):  # a browser asks again
                self._read()
            self._is_closed.wait(0.2)

    def close(self) -> None:
        self._is_closed.set()
        self.join()

    def _read(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=_PATIENCE)
        with contextlib.closing(connection):
            connection.request("GET", "/events/", headers={**self._headers, "Last-Event-ID": self._place})
            answer = connection.getresponse()
            if answer.status != http.client.OK:  # a browser never asks again
                self.problems.append(f"the page was answered with {answer.status}: {answer.read()[:500]!r}")
                return
            self.answers += 1
            place, has_data = self._place, False
            while not self._is_closed.is_set() and (line := answer.readline().decode()):
                name, _, value = line.rstrip("\n").partition(": ")
                if name == "id":
                    place = value
                elif name == "data":
                    has_data = True
                elif not name:
                    self._place = place
                    if has_data:
                        self.ids.append(int(place))
                    has_data = False


class WebKills:
    """One run. `run` returns a summary, whose `problems` are empty if all was well."""

    def __init__(
        self,
        stack: contextlib.ExitStack,
        directory: Path,
        database: dict[str, Any],
        server: Server | None,
        *,
        seed: int = 1,
        kills: int = 30,
        longest_pause: float = 1.5,
    ) -> None:
        """Make one.

        Args:
            stack: what is to be ended is put on it.
            directory: for what the processes say.
            database: what DATABASES says, with tables in it.
            server: of the database; None for SQLite.
            seed: of everything that is left to chance.
            kills: how many.
            longest_pause: seconds between two of them, at most; what is broken is so for some times as long.
        """
        self.problems: list[str] = []
        self._stack = stack
        self._database = database
        self._server = server
        self._seed = seed
        self._kills = kills
        self._longest_pause = longest_pause
        self._chance = random.Random(seed)
        self._books = Books()
        self._troubles: collections.Counter[str] = collections.Counter()
        self._streams: list[Process] = []
        self._resting: list[OrderInPlay] = []
        self._agg = stack.enter_context(
            Simulator(allowed_hosts=["127.0.0.1"], seed=seed, token_lifetime=86_400.0, history=1_000_000)
        )
        self._proxy = stack.enter_context(ChaosProxy.for_url(self._agg.url, seed=seed))
        self._manage = Manage(database, self._agg, directory)
        stack.callback(self._manage.close)
        self._manage.environment |= {
            "AGGSTREAM_URL": self._proxy.url_for(self._agg.url),
            "AGGSTREAM_REST_URL": self._proxy.url_for(self._agg.rest_url),
            "SHOP_AGGSTREAM": json.dumps(_SETTING),
            "SHOP_FAILURES": str(_FAILURES),
            "SHOP_OPTIONS": json.dumps(_OPTIONS),
        }
        port = free_port()
        threads = ("-k", "gthread", "--threads", "2")
        self._web = self._manage.python(
            "-m", "gunicorn", "-w", str(_WORKERS), *threads, "-b", f"127.0.0.1:{port}", "wsgi"
        )
        client = Client()
        client.force_login(User.objects.create(username="1"))
        self._page = Page(port, f"sessionid={client.cookies['sessionid'].value}")

    def run(self) -> dict[str, Any]:
        began = time.monotonic()
        self._begin()
        faults = self._faults()
        playback = self._agg.play(USER, orders=None, rate=_RATE, overlap=4)
        try:
            for _ in range(self._kills):
                self._pause(self._longest_pause)
                self._let_some_rest()
                self._kill(next(faults))
                self.problems += self._page.problems
                if self.problems:
                    break
        finally:
            playback.cancel()
        self._finish()
        self._look()
        sources = collections.Counter(Event.objects.values_list("source", flat=True))
        return {
            "seed": self._seed,
            "database": self._database["ENGINE"].rpartition(".")[2],
            "minutes": round((time.monotonic() - began) / 60, 1),
            "troubles": dict(sorted(self._troubles.items())),
            "orders": len(self._books.said),
            "sent": self._agg.books(USER).emitted,
            **{f"from_{source}": count for source, count in sorted(sources.items())},
            "handled": Seen.objects.filter(handler="keep").count(),
            "repeated": Seen.objects.filter(handler="keep").count() - Event.objects.count(),
            "answers": self._page.answers,
            "problems": self.problems[:20],
        }

    # --- the project ------------------------------------------------------------------------------------

    def _begin(self) -> None:
        self._stack.enter_context(self._books.watching())
        self._await("the web workers", lambda: self._web.output.count("Booting worker") == _WORKERS)
        self._streams = [self._manage.stream(), self._manage.stream()]
        self._await("a stream", lambda: self._agg.connections == 1)
        self._page.start()
        self._stack.callback(self._page.close)

    def _faults(self) -> Iterator[str]:
        """Yield what to kill: each thing before one comes again."""
        while True:
            kinds = _FAULTS if self._server is None else _WITH_SERVER
            yield from self._chance.sample(kinds, len(kinds))

    def _kill(self, what: str) -> None:
        self._troubles[what] += 1
        if what in ("stream", "standby"):
            owner = self._owner()
            self._replace(lambda process: (process.process.pid == owner) == (what == "stream"))
        elif what == "both":
            self._replace(lambda _: True)
        elif what == "worker":
            os.kill(self._chance.choice(self._workers()), signal.SIGKILL)
        elif what.startswith("database"):
            self._kill_database(what)
        else:
            self._break_network(what)

    def _kill_database(self, what: str) -> None:
        assert self._server is not None
        connections.close_all()
        self._server.stop()
        self._pause(1.5 * self._longest_pause)
        if what == "database and stream":
            self._replace(lambda _: self._chance.random() < 0.7)
        self._server.start()

    def _break_network(self, what: str) -> None:
        if what == "cut":
            self._proxy.refusing = True
            self._proxy.reset()
            self._pause(self._longest_pause)
            self._proxy.heal()
        elif what == "black hole":
            self._proxy.downstream.blackhole = True
            self._pause(4 * self._longest_pause)
            self._proxy.heal()
        elif what == "rest refused":
            self._agg.refuse_rest(self._chance.randrange(1, 8))
        elif what == "rest stalled":
            self._agg.stall_rest()
            self._agg.drop(abort=True)
            self._pause(3 * self._longest_pause)
            self._agg.stall_rest(stalled=False)
        elif what == "dropped":
            self._agg.drop(code=1001, abort=self._chance.random() < 0.5)

    def _owner(self) -> int:
        """Return the process that runs the stream, as far as anybody knows."""
        try:
            name = Stream.objects.values_list("owner_name", flat=True).get()
        except DatabaseError:
            return 0
        finally:
            connections.close_all()
        found = re.search(r"process (\d+)", name)
        return int(found[1]) if found else 0

    def _workers(self) -> list[int]:
        pid = self._web.process.pid
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def _replace(self, doomed: Callable[[Process], bool]) -> None:
        """Kill some processes, and start others as a supervisor does."""
        for number, process in enumerate(self._streams):
            if process.process.poll() is not None:
                raise Violation(f"it ended by itself with {process.process.poll()}: {process.output}")
            if doomed(process):
                process.kill()
                self._streams[number] = self._manage.stream()

    # --- what happens around it -------------------------------------------------------------------------

    def _let_some_rest(self) -> None:
        for order in self._chance.sample(self._resting, min(len(self._resting), self._chance.randrange(3))):
            order.advance(self._chance.choice([1, 3, order.total]))
        self._resting = [order for order in self._resting if not order.done]
        while len(self._resting) < _RESTING:
            order = self._agg.begin_order(USER)
            order.advance(self._chance.randrange(1, order.total - 3))
            self._resting.append(order)

    def _pause(self, longest: float) -> None:
        threading.Event().wait(self._chance.uniform(0.0, longest))

    def _await(self, what: str, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + _PATIENCE
        while not condition():
            if self._page.problems:
                raise Violation(str(self._page.problems))
            if time.monotonic() > deadline:
                raise Violation(f"{what} did not come: {[each.output[-3000:] for each in self._streams]}")
            threading.Event().wait(0.05)

    # --- the books --------------------------------------------------------------------------------------

    def _finish(self) -> None:
        """Let everything be in order again, and wait until nothing is left to do."""
        self._agg.refuse_rest(0)
        for order in self._resting:
            order.finish()
        ends = self._agg.terminal_orders(USER)
        self._await("the ends", lambda: Order.objects.filter(is_terminal=True).count() >= len(ends))
        # One order more, so that something comes after what was missed; what is missing by then is lost.
        self._await("the stream", lambda: self._agg.connections == 1)
        last = self._agg.place_order(USER, scenario="filled")
        self._await("the last order", lambda: Order.objects.filter(order_id=last, is_terminal=True).exists())
        self._await("the handlers", lambda: not Event.objects.exclude(state=Event.State.DONE).exists())
        newest = Event.objects.latest("pk").pk
        self._await("the page", lambda: self._page.ids[-1:] == [newest])
        for process in self._streams:  # before that, a signal ends it as it ends every program
            self._await("a start", lambda: process.says("standing by") or process.says("runs the stream"))  # noqa: B023
        # The standby first: it would take over, and read the balances anew.
        owner = self._owner()
        self._streams.sort(key=lambda process: process.process.pid == owner)
        codes = [process.end() for process in (*self._streams, self._web)]
        if any(codes):
            self.problems.append(f"the exit codes are {codes}")

    def _look(self) -> None:
        for line in self._lines():
            self._books.enter(line, 0)
        self.problems += self._books.problems
        ends = self._agg.terminal_orders(USER)
        # The others are those that were being played when it was enough.
        if (known := dict(Order.objects.filter(is_terminal=True).values_list("order_id", "status"))) != ends:
            self.problems.append(f"the orders' table differs: {set(known.items()) ^ set(ends.items())}")
        stored_ends = Event.objects.filter(terminal=True).values_list("order__order_id", "sub_event")
        if sorted(stored_ends) != sorted(ends.items()):
            self.problems.append(f"the events' ends differ: {set(stored_ends) ^ set(ends.items())}")
        ids = set(Event.objects.values_list("event_id", flat=True))
        seen = Seen.objects.filter(handler="keep", is_committed=True).values_list("event_id", flat=True)
        if ids != set(seen):
            self.problems.append(f"not both given to the handler and stored: {self._described(ids ^ set(seen))}")
        heard = Seen.objects.filter(handler="signal default").values_list("event_id", flat=True)
        told = set(Event.objects.filter(type="order_event").values_list("event_id", flat=True))
        if told != set(heard):
            self.problems.append(
                f"not both given to the receiver and stored: {self._described(told ^ set(heard))}"
            )
        if self._page.ids != list(Event.objects.order_by("pk").values_list("pk", flat=True)):
            self.problems.append("the page has not read everything once and in order")

    def _described(self, ids: set[str]) -> list[object]:
        """Return what the tables hold of some events."""
        columns = ("event_id", "state", "attempts", "sub_event", "source", "stored_at")
        rows = Event.objects.filter(event_id__in=ids).values(*columns)
        return [*rows, *Seen.objects.filter(event_id__in=ids).values("event_id", "handler", "is_committed")]

    def _lines(self) -> Iterator[dict[str, Any]]:
        """Yield what is stored, as the books take it."""
        for row in stored(Event.objects.all()):
            event = row.event
            yield {
                "when": "before",
                "handler": "steady",
                "id": row.id,
                "type": event.type,
                "order": getattr(event, "order_id", None),
                "event": event.sub_event,
                "terminal": getattr(event, "is_terminal", False),
                "filled": event.filled_amount_raw if isinstance(event, OrderEvent) else None,
                "timestamp": event.timestamp,
                "source": event.source,
                "redelivered": False,
            }
