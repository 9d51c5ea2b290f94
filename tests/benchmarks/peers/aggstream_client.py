"""aggstream's client with its default options, without msgspec, and with a journal."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from benchmarks.aggstream_parts import hidden_msgspec
from benchmarks.messages import SUB_EVENTS
from benchmarks.peers.functions import Handle

import aggstream
from aggstream.journal import JournalOptions


@contextlib.contextmanager
def listening(url: str, handle: Handle, **options: Any) -> Iterator[None]:
    client = aggstream.Client(
        url=url, app_id="app_demo123", origin="https://app.example", token="t", rest=None, **options
    )

    @client.on("order_submitted")
    def submitted(event: aggstream.OrderSubmitted) -> None:
        handle(event.timestamp)

    @client.on("balance_update")
    def balance(event: aggstream.BalanceUpdate) -> None:
        handle(event.timestamp)

    @client.on("order_event", *SUB_EVENTS)
    def order_event(event: aggstream.OrderEvent) -> None:
        handle(event.timestamp)

    with client:
        client.wait_until_live()
        yield


@contextlib.contextmanager
def without_msgspec(url: str, handle: Handle) -> Iterator[None]:
    with hidden_msgspec(), listening(url, handle):
        yield


def with_normal_journal(url: str, handle: Handle) -> contextlib.AbstractContextManager[None]:
    return _with_journal("normal", url, handle)


def with_full_journal(url: str, handle: Handle) -> contextlib.AbstractContextManager[None]:
    return _with_journal("full", url, handle)


@contextlib.contextmanager
def _with_journal(synchronous: Literal["normal", "full"], url: str, handle: Handle) -> Iterator[None]:
    # In the working directory, because a system's directory for temporary files may be in memory.
    with tempfile.TemporaryDirectory(dir=".") as directory:
        journal = JournalOptions(path=Path(directory, "events.db"), synchronous=synchronous)
        with listening(url, handle, journal=journal):
            yield
