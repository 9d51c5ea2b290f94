"""Calls that hang: a token function, a look-up or REST that does not return holds up nothing else, and is told."""

from __future__ import annotations

import functools
import re
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from clients import BRISK, MakeClient
from waiting import DEADLINE, Until

import aggstream
from aggstream._base import blocking_calls
from aggstream.simulator import Simulator

USER = "usr_1"


@pytest.fixture
def agg() -> Iterator[Simulator]:
    with Simulator() as simulator:
        yield simulator


@pytest.fixture
def release() -> Iterator[threading.Event]:
    event = threading.Event()
    yield event
    event.set()


def has_grown(items: list[Any], before: int) -> bool:
    return len(items) > before


def test_rest_that_hangs_delays_neither_tokens_nor_connections(
    agg: Simulator, client_of: MakeClient, until: Until
) -> None:
    asked: list[int] = []

    def token() -> str:
        asked.append(1)
        return agg.sign_in(USER).access_token

    client = client_of(
        agg.url, token=token, rest_url=agg.rest_url, rest=aggstream.RestOptions(timeout=3600), reconnect=BRISK
    )
    agg.stall_rest()
    with client:
        while len(asked) < 9:  # more than may hang at once
            until(lambda: client.health().phase == "live")
            before = len(asked)
            agg.drop()
            until(functools.partial(has_grown, asked, before))
        until(lambda: client.health().phase == "live")
        agg.stall_rest(False)


def test_rest_is_asked_again_after_many_calls_have_hung_and_returned(
    agg: Simulator, client_of: MakeClient, until: Until
) -> None:
    client = client_of(
        agg.url,
        token=lambda: agg.sign_in(USER).access_token,
        rest_url=agg.rest_url,
        rest=aggstream.RestOptions(timeout=3600),
        reconnect=BRISK,
    )
    gaps: list[aggstream.Gap] = []
    client.on("gap")(gaps.append)
    agg.stall_rest()
    with client:
        for _ in range(6):
            until(lambda: client.health().phase == "live")
            before = len(gaps)
            agg.drop()
            until(functools.partial(has_grown, gaps, before))
        agg.stall_rest(False)
        until(lambda: client.continuity is aggstream.Continuity.LIVE)


def test_a_rest_call_that_hangs_for_good_is_given_up_and_told(
    agg: Simulator, client_of: MakeClient, monkeypatch: pytest.MonkeyPatch, release: threading.Event
) -> None:
    look_up = socket.getaddrinfo
    is_hanging = threading.Event()

    def hang(host: str, *args: Any, **options: Any) -> Any:
        if is_hanging.is_set() and threading.current_thread().name.endswith("-rest"):
            release.wait(DEADLINE)
        return look_up(host, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    monkeypatch.setattr("aggstream._stream.pipeline._SLACK", 0.0)
    client = client_of(
        agg.url,
        token=lambda: agg.sign_in(USER).access_token,
        rest_url=agg.rest_url,
        rest=aggstream.RestOptions(timeout=0.5, attempts=1),
        token_timeout=0.5,
        reconnect=BRISK,
    )
    is_hanging.set()
    with client:
        found = client.wait_for(aggstream.Reconciled, timeout=DEADLINE)
        assert not found.resolved
        assert "no answer came within 2.5 s" in str(found.error)
        is_hanging.clear()
        release.set()
        assert client.wait_for(aggstream.Reconciled, timeout=DEADLINE).resolved


def test_a_token_function_that_always_hangs_is_asked_for_ever_and_the_error_says_what_is_so(
    client_of: MakeClient, monkeypatch: pytest.MonkeyPatch, release: threading.Event, until: Until
) -> None:
    monkeypatch.setattr(blocking_calls, "_FIRST_PAUSE", 0.5)
    monkeypatch.setattr(blocking_calls, "_LONGEST_PAUSE", 0.5)
    asked: list[int] = []

    def token() -> str:
        asked.append(1)
        release.wait(DEADLINE)
        return "late"

    client = client_of("ws://localhost:9/ws", token=token, token_timeout=0.25, reconnect=BRISK)
    errors: list[str] = []
    client.on("reconnecting")(lambda event: errors.append(str(event.error)))
    with client:
        until(lambda: len(asked) >= 8)
        until(lambda: any(re.search(r"was not called: \d+ calls have not returned", error) for error in errors))
        assert any("took longer than token_timeout: the call did not return in time" in error for error in errors)
        release.set()
        report = client.stop()
    assert report


def test_a_look_up_that_always_hangs_is_made_for_ever_and_the_error_says_what_is_so(
    client_of: MakeClient, monkeypatch: pytest.MonkeyPatch, release: threading.Event, until: Until
) -> None:
    monkeypatch.setattr(blocking_calls, "_FIRST_PAUSE", 0.5)
    monkeypatch.setattr(blocking_calls, "_LONGEST_PAUSE", 0.5)
    asked: list[int] = []

    def hang(*args: Any, **options: Any) -> Any:
        asked.append(1)
        release.wait(DEADLINE)
        raise OSError

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    client = client_of("wss://nowhere.invalid/ws", connect_timeout=0.25, reconnect=BRISK)
    errors: list[str] = []
    client.on("reconnecting")(lambda event: errors.append(str(event.error)))
    with client:
        until(lambda: len(asked) >= 8)
        until(lambda: any(re.search(r"was opened: \d+ calls have not returned", error) for error in errors))
        assert any("within connect_timeout: the call did not return in time" in error for error in errors)
        release.set()


def test_stop_tells_of_a_rest_call_that_goes_on_although_nobody_waits_for_it(
    agg: Simulator, client_of: MakeClient, until: Until
) -> None:
    client = client_of(
        agg.url,
        token=lambda: agg.sign_in(USER).access_token,
        rest_url=agg.rest_url,
        rest=aggstream.RestOptions(timeout=3600),
        reconnect=BRISK,
    )
    agg.stall_rest()
    client.start()
    until(lambda: client.health().phase == "live")
    agg.drop()  # so the first call is given up
    until(lambda: client.health().counters.reconnects == 1 and client.health().phase == "live")
    report = client.stop(timeout=0.2)
    assert not report
    assert report.running == ("reading from the REST API",)
    agg.stall_rest(False)
    until(client.stop)
