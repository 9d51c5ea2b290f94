"""Reads the head of an HTTP/1 answer, which is the status and the headers, as gateways and proxies send them.

The handshake, the tunnel through a proxy and REST read their answers here, so that all three take the same: bytes
that are not UTF-8, headers that are given twice or folded, line ends without a CR, and informational answers (100,
102, 103) before the answer itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TypeAlias

import attrs

SWITCHING_PROTOCOLS = 101
_FIRST_FINAL = 200

_BEGINNING = b"HTTP/"
# What an alert or a handshake of TLS begins with.
_TLS_RECORDS = (b"\x15", b"\x16")
_TLS = "the server speaks TLS at this port: is it wss:// or https://?"
_NO_HTTP = "the answer is not HTTP/1"
_STATUS_LINE = re.compile(rb"HTTP/([01]\.[0-9])[ \t]+([1-9][0-9]{2})(?:[ \t].*)?", re.IGNORECASE | re.DOTALL)
_NAME = re.compile(rb"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_CONTROL_CHARACTER = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")

ReceiveFunction: TypeAlias = "Callable[[int], bytes]"
"""Returns the next bytes, at most so many; empty once the peer has closed the connection."""


class HeadError(Exception):
    """The answer has no usable head. The text is aggstream's own, and holds nothing of what the server sent."""


class HeadTooLarge(HeadError):
    """The head is larger than allowed."""


class HeadEnded(HeadError):
    """The peer closed the connection before the head was complete.

    Attributes:
        is_empty: True if the peer sent nothing at all.
    """

    def __init__(self, message: str, *, is_empty: bool) -> None:
        super().__init__(message)
        self.is_empty = is_empty


@attrs.frozen
class Head:
    """The status and the headers of an answer. The texts are decoded as Latin-1, which takes any byte."""

    version: str
    """The version of HTTP, like `1.1`."""
    status: int
    headers: Mapping[str, list[str]] = attrs.field(repr=False)
    """The values of each header, by its name in lower case. The values of a header that is given twice are two."""

    def first(self, name: str) -> str | None:
        """Return the first value of a header; None if the answer does not have the header."""
        return self.headers.get(name, [None])[0]

    def joined(self) -> dict[str, str]:
        """Return the headers, each with its values as one list with commas, which is what HTTP says they mean."""
        return {name: ", ".join(values) for name, values in self.headers.items()}

    def as_bytes(self) -> bytes:
        """Return the head in the form that every parser of HTTP takes."""
        lines = [f"HTTP/{self.version} {self.status} "]
        lines += [f"{name}: {value}" for name, values in self.headers.items() for value in values]
        return "".join(f"{line}\r\n" for line in [*lines, ""]).encode("latin-1")


def read_head(receive: ReceiveFunction, largest: int) -> Head:
    """Return the head of an answer, and read no byte after it. Informational answers before it are skipped.

    Args:
        receive: returns the next bytes. It is asked for one byte at a time, because the bytes after the head are
            not for this function.
        largest: the largest size in bytes, together with the informational answers.

    Raises:
        HeadEnded: the peer closed the connection before the head was complete.
        HeadTooLarge: the head is larger than `largest`.
        HeadError: the answer is not HTTP/1.
        BaseException: whatever `receive` raises.
    """
    lines = _Lines(receive, largest)
    while True:
        head = _read_one(lines)
        if head.status == SWITCHING_PROTOCOLS or head.status >= _FIRST_FINAL:
            return head


class _Lines:
    """The lines of a head."""

    def __init__(self, receive: ReceiveFunction, largest: int) -> None:
        self._receive = receive
        self._largest = largest
        self._size = 0

    def next(self, *, begins: bytes = b"") -> bytes:
        """Return the next line without its end.

        Args:
            begins: what a line begins with that is not empty. Any other line is refused as soon as it differs: the
                end of what is not HTTP may never come.
        """
        line = bytearray()
        while not line.endswith(b"\n"):
            byte = self._receive(1)
            if not byte:
                raise HeadEnded("the connection was closed before the answer was whole", is_empty=not self._size)
            line += byte
            self._size += 1
            if self._size > self._largest:
                raise HeadTooLarge(f"the answer's head is larger than {self._largest} bytes")
            may_begin = len(line) > len(begins) or begins.startswith(line.upper())
            if not may_begin and bytes(line) not in (b"\r", b"\r\n", b"\n"):
                raise HeadError(_TLS if line.startswith(_TLS_RECORDS) else _NO_HTTP)
        return bytes(line).rstrip(b"\r\n")


def _read_one(lines: _Lines) -> Head:
    # Some servers send an empty line too many before an answer.
    while not (line := lines.next(begins=_BEGINNING)):
        pass
    match = _STATUS_LINE.fullmatch(line)
    if match is None:
        raise HeadError("the answer has no HTTP/1 status that makes sense")
    headers: dict[str, list[str]] = {}
    values: list[str] = []
    while line := lines.next():
        if line.startswith((b" ", b"\t")):  # the line before is folded, and goes on here
            if values:
                values[-1] = f"{values[-1]} {_value(line)}".strip(" ")
            continue
        name, colon, value = line.partition(b":")
        name = name.rstrip(b" \t")
        if not (colon and _NAME.fullmatch(name)):
            values = []  # no header that could mean anything; what it folds over means nothing either
            continue
        values = headers.setdefault(name.decode("ascii").lower(), [])
        values.append(_value(value))
    return Head(match[1].decode("ascii"), int(match[2]), headers)


def _value(text: bytes) -> str:
    return _CONTROL_CHARACTER.sub(b" ", text).strip(b" \t").decode("latin-1")
