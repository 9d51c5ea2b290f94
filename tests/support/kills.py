"""Kills a program with a journal again and again, and balances the books over all of its lives.

The books: every order's end reached every handler and was finished, the same fact always came by the same id and
no two by one, of one order in the order of their happening, a repeat was marked as one, and nothing was made up.
"""

from __future__ import annotations

import collections
import contextlib
import json
import os
import pathlib
import random
import select
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import IO, Any

import attrs
import trustme
from journals import is_intact

from aggstream.journal import JournalReader, retry
from aggstream.simulator import OrderInPlay, Playback, Simulator, _player

USER = "usr_1"
PATIENCE = 60.0
_HERE = pathlib.Path(__file__).parent
_RATE = 250.0
_OVERLAP = 6
_RESTING = 6
_PAGE = 8
_FAILURES = 0.2
_HANDLERS = ("steady", "shaky")
_TERMINAL = ("filled", "failed", "cancelled", "expired")

Line = dict[str, Any]


class Violation(AssertionError):
    """A promise about delivery was broken, or the program did not come through."""


@attrs.frozen(kw_only=True)
class Settings:
    """What a run is made of."""

    directory: pathlib.Path
    seed: int = 1
    kills: int = 300
    tls: bool = False
    synchronous: str = "full"
    workers: int = 1


@attrs.define
class Books:
    """What the simulator said, and what the handlers were given, over all lives."""

    said: dict[str, list[Line]] = attrs.field(factory=lambda: collections.defaultdict(list))
    """By order, what happened to it, told to anybody or not."""
    balances: set[int] = attrs.field(factory=set)
    facts: dict[str, tuple[object, ...]] = attrs.field(factory=dict)
    """By an event's id."""
    ids: dict[tuple[object, ...], str] = attrs.field(factory=dict)
    begun: set[tuple[str, str]] = attrs.field(factory=set)
    """Handler and id of each call."""
    finished: set[tuple[str, str]] = attrs.field(factory=set)
    newest: dict[str, int] = attrs.field(factory=dict)
    """By order, the timestamp of what was delivered last for the first time."""
    counts: collections.Counter[str] = attrs.field(factory=collections.Counter)
    problems: list[str] = attrs.field(factory=list)

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Enter what happens in the simulator, whether anybody is connected or not."""
        emit_next = _player.Player._emit_next

        def recording(player: Any, user: Any, lifecycle: Any) -> str | None:
            text = emit_next(player, user, lifecycle)
            if text is not None:
                frame = json.loads(text)
                if frame["type"] == "balance_update":
                    self.balances.add(frame["timestamp"])
                else:
                    self.said[frame["orderId"]].append(frame)
            return text

        _player.Player._emit_next = recording  # type: ignore[method-assign,assignment]
        try:
            yield
        finally:
            _player.Player._emit_next = emit_next  # type: ignore[method-assign]

    def enter(self, line: Line, life: int) -> None:
        """Enter a line of the program."""
        key = (line["handler"], line["id"])
        if line["when"] == "after":
            self.finished.add(key)
            return
        if key in self.begun:
            self.counts["repeats"] += 1
            if not line["redelivered"]:
                self.fail("a repeat that is not marked as redelivered", life, line)
        elif line["handler"] == _HANDLERS[0]:
            self._enter_first(line, life)
        self.begun.add(key)
        if line["handler"] == _HANDLERS[0]:
            self.counts["delivered"] += 1
            self.counts["redelivered"] += line["redelivered"]

    def _enter_first(self, line: Line, life: int) -> None:
        self.counts[f"from_{line['source']}"] += 1
        fact = _fact(line)
        if self.facts.setdefault(line["id"], fact) != fact:
            self.fail(f"it shares its id with {self.facts[line['id']]}", life, line)
        if self.ids.setdefault(fact, line["id"]) != line["id"]:
            self.fail(f"the same fact had the id {self.ids[fact]}", life, line)
        order = line["order"]
        if order is not None:
            if line["timestamp"] < self.newest.get(order, 0):
                self.fail(f"it came after what happened at {self.newest[order]}", life, line)
            self.newest[order] = line["timestamp"]
        if not self._was_said(line):
            self.fail("nobody has said so", life, line)

    def _was_said(self, line: Line) -> bool:
        if line["type"] == "balance_snapshot":
            return True
        if line["order"] is None:
            return line["timestamp"] in self.balances
        frames = self.said.get(line["order"], [])
        if line["source"] == "reconcile":
            names = [_REST_WORDS.get(name, name) for name in (frame.get("event", "") for frame in frames)]
            # A status, as of the latest thing that had happened to the order.
            return line["event"] in names and line["timestamp"] in [frame["timestamp"] for frame in frames]
        what = (line["type"], line["event"], line["timestamp"])
        return any((frame["type"], frame.get("event"), frame["timestamp"]) == what for frame in frames)

    def fail(self, problem: str, life: int, line: Line) -> None:
        self.problems.append(f"{problem}: {line} in life {life}")

    def missing(self, ends: dict[str, str]) -> list[tuple[str, str, str]]:
        """Return the ends, by order, that a handler has not finished: with the handler."""
        return [
            (handler, order, status)
            for order, status in ends.items()
            for handler in _HANDLERS
            if (handler, self.ids.get(("status", order, status, None), "")) not in self.finished
        ]


# Until the first fill REST has words of its own for how far an order is.
_REST_WORDS = {"": "pending", "dag_started": "open"}


def _fact(line: Line) -> tuple[object, ...]:
    """Return what an event tells, which by whatever way it comes is the same."""
    if line["terminal"]:
        return ("status", line["order"], line["event"], None)
    if line["type"] == "order_event" and (line["source"] == "reconcile" or line["event"] == "partially_filled"):
        return ("status", line["order"], line["event"], line["filled"])
    return (line["type"], line["order"], line["event"], line["timestamp"])


class Life:
    """One process of the program, and the lines that it has written."""

    def __init__(self, number: int, settings: dict[str, Any], errors: IO[bytes]) -> None:
        self.number = number
        self.process = subprocess.Popen(
            [sys.executable, str(_HERE / "victim.py"), json.dumps(settings)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
        )
        self._rest = b""
        self._unread: collections.deque[Line] = collections.deque()

    def lines(self, timeout: float) -> Iterator[Line]:
        """Yield what it writes, until a time is over or it has written its last."""
        assert self.process.stdout is not None
        fd, deadline = self.process.stdout.fileno(), time.monotonic() + timeout
        while True:
            while self._unread:
                yield self._unread.popleft()
            remaining = deadline - time.monotonic()
            if remaining <= 0 or not select.select([fd], [], [], remaining)[0]:
                return
            data = os.read(fd, 65536)
            if not data:
                return
            *lines, self._rest = (self._rest + data).split(b"\n")
            self._unread.extend(map(json.loads, lines))

    def kill(self) -> None:
        self.process.kill()

    def end(self) -> None:
        """Let it stop in peace."""
        assert self.process.stdin is not None
        self.process.stdin.close()

    def join(self) -> int:
        code = self.process.wait(PATIENCE)
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
        return code


class Kills:
    """One run. `run` returns a summary, whose `problems` are empty if all was well."""

    def __init__(self, stack: contextlib.ExitStack, settings: Settings) -> None:
        self.settings = settings
        self.chance = random.Random(settings.seed)
        self.books = Books()
        self.journal = settings.directory / "journal.db"
        self.authority = ""
        serving = self._serving() if settings.tls else None
        stack.enter_context(self.books.watching())
        self.simulator = stack.enter_context(
            Simulator(seed=settings.seed, ssl_context=serving, token_lifetime=86_400.0, history=1_000_000)
        )
        self.token = self.simulator.sign_in(USER).access_token
        self.errors = stack.enter_context((settings.directory / "errors.txt").open("wb"))
        self.record = stack.enter_context((settings.directory / "lines.jsonl").open("w"))
        self.resting: list[OrderInPlay] = []
        self.oldest: list[OrderInPlay] = []
        self.playback: Playback | None = None
        self.lives = 0
        self.killed = 0
        self.moments: collections.Counter[str] = collections.Counter()
        self.troubles: collections.Counter[str] = collections.Counter()
        self.trouble_lasts = 0
        self.life: Life | None = None
        stack.callback(self._abandon)

    def run(self) -> dict[str, Any]:
        began = time.monotonic()
        # Some are older than the program, and rest until all others have come after them.
        self.oldest = [self._begin_order() for _ in range(3)]
        self._begin_life(failures=0.0)
        self._watch(lambda line: line.get("told") == "reconciled")
        self._kill("caught up")
        self.playback = self.simulator.play(USER, orders=None, rate=_RATE, overlap=_OVERLAP)
        while self.killed < self.settings.kills and not self.books.problems:
            self._let_some_rest()
            self._cause_trouble()
            self._begin_life(failures=_FAILURES)
            self._live_until_killed()
        died = self._finish()
        return {
            "seed": self.settings.seed,
            "tls": self.settings.tls,
            "synchronous": self.settings.synchronous,
            "workers": self.settings.workers,
            "minutes": round((time.monotonic() - began) / 60, 1),
            "kills": self.killed,
            "starts": self.lives,
            "moments": dict(sorted(self.moments.items())),
            "troubles": dict(sorted(self.troubles.items())),
            "orders": len(self.books.said),
            "terminal_events": len(self.simulator.terminal_orders(USER)),
            **dict(sorted(self.books.counts.items())),
            "revived": died,
            "missing": len(self.books.missing(self.simulator.terminal_orders(USER))),
            "problems": self.books.problems[:20],
        }

    # --- one life ---------------------------------------------------------------------------------------

    def _begin_life(self, *, failures: float) -> Life:
        self.lives += 1
        settings = {
            "app_id": self.simulator.app_id,
            "origin": self.simulator.origin,
            "token": self.token,
            "url": self.simulator.url,
            "rest_url": self.simulator.rest_url,
            "authority": self.authority,
            "journal": str(self.journal),
            "synchronous": self.settings.synchronous,
            "workers": self.settings.workers,
            "page_size": _PAGE,
            "failures": failures,
            "seed": f"{self.settings.seed}/{self.lives}",
        }
        self.life = Life(self.lives, settings, self.errors)
        self._watch(lambda line: line.get("told") == "starting")
        return self.life

    def _live_until_killed(self) -> None:
        chance = self.chance
        moment = chance.choice(["start", "redelivery", "sign-in", "catch-up", "lines", "lines", "time"])
        if moment == "redelivery":
            self._watch_lines(chance.randrange(1, 8), 0.3, lambda line: line.get("redelivered"))
        elif moment == "sign-in":
            self._watch(lambda line: line.get("told") == "authenticated")
        elif moment == "catch-up":
            self._watch(lambda line: line.get("source") == "reconcile", 0.5)
        elif moment == "lines":
            self._watch_lines(chance.randrange(1, 600), 1.0, lambda line: "when" in line)
        elif moment == "time":
            self._watch(lambda line: False, chance.uniform(0.0, 0.8))
        fault = chance.choice([None, None, None, "close", "abort"])
        if fault is not None:
            self.simulator.drop(code=1001, abort=fault == "abort")
            self.troubles[fault] += 1
        self._watch(lambda line: False, chance.choice([0.0, chance.uniform(0.0, 0.03), chance.uniform(0.0, 0.2)]))
        self._kill(moment)

    def _kill(self, moment: str) -> None:
        assert self.life is not None
        self.life.kill()
        self._read_on(lambda line: False, PATIENCE)
        self.life.join()
        self.life = None
        self.killed += 1
        self.moments[moment] += 1

    def _watch_lines(self, count: int, timeout: float, wanted: Callable[[Line], object]) -> None:
        left = iter(range(count - 1))
        self._watch(lambda line: bool(wanted(line)) and next(left, None) is None, timeout)

    def _watch(self, until: Callable[[Line], object], timeout: float = PATIENCE) -> None:
        """Enter what it writes, up to a line, or for a while; it must go on living."""
        assert self.life is not None
        if not self._read_on(until, timeout) and timeout >= PATIENCE:
            raise Violation(f"life {self.life.number} did not come so far: {self.settings}")
        if (code := self.life.process.poll()) is not None:
            raise Violation(f"life {self.life.number} ended by itself with {code}: {self.settings}")

    def _read_on(self, until: Callable[[Line], object], timeout: float) -> bool:
        assert self.life is not None
        for line in self.life.lines(timeout):
            self.record.write(json.dumps({"life": self.life.number, **line}) + "\n")
            if "when" in line:
                self.books.enter(line, self.life.number)
            elif line["told"] in ("stopped", "journal_failed", "decode_failed") and line["error"] != "None":
                self.books.fail("the stream has ended", self.life.number, line)
            if until(line):
                return True
        return False

    # --- what happens around it -------------------------------------------------------------------------

    def _let_some_rest(self) -> None:
        """Keep some orders that rest for long, while others are played; let one of them go on, or two."""
        for order in self.chance.sample(self.resting, min(len(self.resting), self.chance.randrange(3))):
            order.advance(self.chance.choice([1, 1, 3, order.total]))
        self.resting = [order for order in self.resting if not order.done]
        while len(self.resting) < _RESTING:
            self.resting.append(self._begin_order())

    def _begin_order(self) -> OrderInPlay:
        order = self.simulator.begin_order(USER)
        order.advance(self.chance.randrange(1, order.total - 3))
        return order

    def _cause_trouble(self) -> None:
        """Let REST be out of order, sometimes for several lives, or well again."""
        self.trouble_lasts -= 1
        if self.trouble_lasts > 0:
            return
        self._heal()
        trouble = self.chance.choice([None, None, None, "refused", "stalled", "cut off"])
        if trouble is not None:
            self.trouble_lasts = self.chance.randrange(1, 5)
            self.troubles[f"rest {trouble}"] += 1
        if trouble == "refused":
            self.simulator.refuse_rest(None)
        elif trouble == "stalled":
            self.simulator.stall_rest()
        elif trouble == "cut off":
            self.simulator.drop_rest(self.chance.randrange(1, 8))

    def _heal(self) -> None:
        self.simulator.refuse_rest(0)
        self.simulator.stall_rest(stalled=False)
        self.simulator.drop_rest(0)

    def _finish(self) -> int:
        """Let the program do in peace what is left, and look at its journal; return how many events had died."""
        assert self.playback is not None
        self._heal()
        self.playback.cancel()
        for order in (*self.resting, *self.oldest):
            order.finish()
        died = retry(self.journal)
        life = self._begin_life(failures=0.0)
        # One order more, so that something comes after what was missed; what is missing by then is lost.
        self._watch(lambda line: line.get("told") == "reconciled" and line["resolved"])
        last = self.simulator.place_order(USER, scenario="filled")
        self._watch(lambda line: (line.get("order"), line.get("event")) == (last, "dag_completed"))
        life.end()
        if not self._read_on(lambda line: line.get("told") == "ended" and line["done"], PATIENCE) or life.join():
            raise Violation(f"it did not end in peace: {self.settings}")
        self.life = None
        self._look_at_what_is_left()
        return died

    def _look_at_what_is_left(self) -> None:
        problems = self.books.problems
        for handler, order, status in self.books.missing(self.simulator.terminal_orders(USER)):
            problems.append(f"{handler} was never through with {order}, which is {status}")
        with JournalReader(self.journal) as reader:
            counts = reader.counts()
        if counts.pending or counts.dead:
            problems.append(f"something is left in the journal: {counts}")
        if not is_intact(self.journal):
            problems.append("the journal is damaged")

    def _serving(self) -> ssl.SSLContext:
        authority = trustme.CA()
        path = self.settings.directory / "authority.pem"
        authority.cert_pem.write_to_path(path)
        self.authority = str(path)
        serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1", "localhost").configure_cert(serving)
        return serving

    def _abandon(self) -> None:
        if self.life is not None:
            self.life.kill()
            self.life.join()
