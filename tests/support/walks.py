"""The way of one `order_event` through the files of the package: on the I/O thread, from socket to queue."""

from __future__ import annotations

import contextlib
import json
import pathlib
import sys
import tempfile
from collections.abc import Iterator
from types import FrameType
from unittest import mock

import attrs
from line import USER, Line
from raw_server import frame

import aggstream

ROOT = pathlib.Path(aggstream.__file__).parent


@attrs.frozen
class Call:
    """A call of a function of the package."""

    file: str
    function: str
    enters: bool
    """True if the caller, the nearest one in the package, stands in another file."""


@attrs.frozen
class Walk:
    calls: tuple[Call, ...]

    @property
    def files(self) -> int:
        return len({call.file for call in self.calls})

    @property
    def entries(self) -> int:
        return sum(call.enters for call in self.calls)

    def __str__(self) -> str:
        lines = [f"{'->' if call.enters else '  '} {call.file}: {call.function}" for call in self.calls]
        return "\n".join([*lines, f"{self.files} files, {self.entries} entries, {len(self.calls)} calls"])


def walk(*, journal: bool, fast: bool) -> Walk:
    """Follow an event of an order that is known, on a connection that is warm."""
    hidden = contextlib.nullcontext() if fast else mock.patch.dict(sys.modules, {_FAST: None})
    with (
        hidden,
        tempfile.TemporaryDirectory() as folder,
        _line(f"{folder}/journal.db" if journal else None) as line,
    ):
        line.client.on("order_event")(lambda event: None)
        for number in range(5):
            line.send(_event(number))
            line.take()
        line.send(_event(99))
        follower = _Follower()
        sys.setprofile(follower)
        try:
            line.take()
        finally:
            sys.setprofile(None)
        return Walk(tuple(follower.calls))


_FAST = "aggstream._protocol.codec_msgspec"


@contextlib.contextmanager
def _line(journal: str | None) -> Iterator[Line]:
    line = Line(journal=journal)
    store, _ = line.client._lifetime._open_store()
    line.stream.pipeline.write_to(store, None)
    try:
        yield line
    finally:
        line.close()
        if store is not None:
            store.close()


def _event(number: int) -> bytes:
    message = {
        "type": "order_event",
        "event": "step_started",
        "userId": USER,
        "orderId": "ord_1",
        "venue": "kalshi",
        "stepId": f"execute-{number}",
        "stepType": "execute",
        "attempt": 1,
        "timestamp": 1_710_000_000_000 + number,
    }
    return frame(json.dumps(message, separators=(",", ":")).encode())


class _Follower:
    def __init__(self) -> None:
        self.calls: list[Call] = []

    def __call__(self, called: FrameType, event: str, _: object) -> None:
        file = _file_of(called)
        if event != "call" or file is None:
            return
        caller = called.f_back
        while caller is not None and _file_of(caller) is None:
            caller = caller.f_back
        self.calls.append(Call(file, called.f_code.co_name, caller is None or _file_of(caller) != file))


def _file_of(called: FrameType) -> str | None:
    path = pathlib.Path(called.f_code.co_filename)
    return path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else None
