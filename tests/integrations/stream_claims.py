"""What the command that runs a stream promises, whichever framework it is in. Each gives the fixture `service`."""

from __future__ import annotations

import signal
from typing import Protocol

import attrs
from integrations.processes import Process
from waiting import Until

from aggstream.simulator import Simulator
from aggstream.testing import ChaosProxy

USER = "usr_1"


@attrs.frozen
class Fact:
    """An event as it is stored."""

    id: str
    state: str
    order_id: str | None
    terminal: bool
    source: str


class Service(Protocol):
    """A project with one account, that of the user `usr_1`, and a handler that writes down each event."""

    token: str

    def start(self, *, token: str | None = None, **environment: str) -> Process:
        """Start the command that runs the stream; with another token if one is given."""
        ...

    def stored(self) -> list[Fact]:
        """Return the events that are stored, oldest first."""
        ...

    def ends(self) -> dict[str, str | None]:
        """Return how orders have ended, as far as handlers are done with it."""
        ...

    def seen(self) -> list[str]:
        """Return the ids of the events that the handler has written down, in order."""
        ...


def is_live(agg: Simulator, process: Process) -> bool:
    return process.says("live as") and agg.connections == 1


def all_done(service: Service, count: int) -> bool:
    return [fact.state for fact in service.stored()] == ["done"] * count


def is_pending(service: Service) -> bool:
    return any(fact.state == "pending" for fact in service.stored())


class StreamClaims:
    """The claims. A framework's tests inherit them."""

    def test_each_event_is_stored_once_and_given_to_its_handlers(
        self, agg: Simulator, service: Service, until: Until
    ) -> None:
        process = service.start()
        until(lambda: is_live(agg, process))
        agg.place_orders(USER, 5)
        emitted = agg.books(USER).emitted
        until(lambda: all_done(service, emitted))
        assert process.end() == 0
        stored = [fact.id for fact in service.stored()]
        assert len(set(stored)) == len(stored)
        assert service.seen() == stored
        assert service.ends() == agg.terminal_orders(USER)
        assert {record["level"] for record in process.records()} == {"INFO"}

    def test_a_process_killed_at_work_loses_nothing_and_its_successor_finds_out_what_it_missed(
        self, agg: Simulator, service: Service, until: Until
    ) -> None:
        process = service.start()
        until(lambda: is_live(agg, process))
        playback = agg.play(USER, orders=40, rate=200)
        until(lambda: len(service.stored()) > 50)
        process.kill()
        until(lambda: playback.done)
        assert len(service.stored()) < agg.books(USER).emitted
        again = service.start()
        until(lambda: is_live(agg, again))
        ended = agg.terminal_orders(USER)
        until(lambda: service.ends() == ended and not is_pending(service))
        assert again.end() == 0
        stored = service.stored()
        assert sorted(fact.order_id or "" for fact in stored if fact.terminal) == sorted(ended)
        assert set(service.seen()) == {fact.id for fact in stored}
        assert {fact.source for fact in stored if fact.terminal} == {"stream", "reconcile"}

    def test_a_refused_token_ends_it_with_an_exit_code_and_shows_in_no_line(
        self, agg: Simulator, service: Service
    ) -> None:
        token = service.token + "x"
        process = service.start(token=token)
        assert process.end(None) == 1
        records = process.records()
        assert any(record["level"] == "ERROR" and "refused" in record["message"] for record in records), records
        assert token not in process.output

    def test_a_standby_waits_and_takes_over_when_the_owner_dies_or_ends(
        self, agg: Simulator, service: Service, until: Until
    ) -> None:
        first = service.start()
        until(lambda: is_live(agg, first))
        second = service.start()
        until(lambda: second.says("standing by"))
        order = agg.begin_order(USER, scenario="filled")
        order.advance(2)
        until(lambda: all_done(service, 2))
        assert agg.connections == 1
        first.kill()
        order.finish()  # while nobody listens
        until(lambda: second.says("live as"))
        until(lambda: service.ends() == {order.order_id: "filled"})
        [end] = [fact for fact in service.stored() if fact.terminal]
        assert end.source == "reconcile"
        third = service.start()
        until(lambda: third.says("standing by"))
        third.kill()  # a standby that dies is nobody's loss
        agg.place_order(USER, scenario="failed")
        until(lambda: len(service.ends()) == 2)
        fourth = service.start()
        until(lambda: fourth.says("standing by"))
        assert second.end(signal.SIGINT) == 0  # ended in order, it is taken over as well
        until(lambda: fourth.says("live as"))
        assert fourth.end() == 0
        assert set(service.seen()) == {fact.id for fact in service.stored()}

    def test_a_network_that_is_cut_costs_no_event(self, agg: Simulator, service: Service, until: Until) -> None:
        with ChaosProxy.for_url(agg.url) as proxy:
            urls = {"AGGSTREAM_URL": proxy.url_for(agg.url), "AGGSTREAM_REST_URL": proxy.url_for(agg.rest_url)}
            process = service.start(**urls)
            until(lambda: is_live(agg, process))
            playback = agg.play(USER, orders=20, rate=200)
            for _ in range(2):
                before = len(service.stored())
                until(lambda: len(service.stored()) > before + 10)  # noqa: B023  (called at once)
                proxy.refusing = True
                proxy.reset()
                until(lambda: agg.connections == 0)
                proxy.heal()
                until(lambda: agg.connections == 1)
            until(lambda: playback.done)
            ended = agg.terminal_orders(USER)
            until(lambda: service.ends() == ended and not is_pending(service))
            assert process.end() == 0
        assert sorted(service.seen()) == sorted(fact.id for fact in service.stored())
