"""Live events as a browser reads them."""

from __future__ import annotations

import http.client
from collections.abc import Callable, Iterable, Iterator

import attrs
from integrations.processes import DEADLINE


@attrs.frozen
class Frame:
    """What a browser makes of the lines between two empty ones."""

    id: str
    event: str
    data: str


def read(chunks: Iterable[bytes | str]) -> Iterator[Frame]:
    """Read as the specification of an `EventSource` says; blocks without data are told as well."""
    fields: dict[str, list[str]] = {}
    text = ""
    for chunk in chunks:
        text += chunk.decode() if isinstance(chunk, bytes) else chunk
        while "\n" in text:
            line, _, text = text.partition("\n")
            if line:
                name, _, value = line.partition(":")
                fields.setdefault(name, []).append(value.removeprefix(" "))
            else:
                yield Frame(*("\n".join(fields.get(name, [])) for name in ("id", "event", "data")))
                fields = {}


class Browsers:
    """Pages of signed-in users that read live events."""

    def __init__(self, port: int, path: str, cookie_of: Callable[[str], str]) -> None:
        """Make some.

        Args:
            port: the server's.
            path: where the events are.
            cookie_of: signs a user in; returns the header `Cookie`.
        """
        self._port = port
        self._path = path
        self._cookie_of = cookie_of
        self._open: list[http.client.HTTPConnection] = []

    def __call__(self, name: str, place: str) -> Iterator[Frame]:
        """Open a page of a user, who has seen the events up to a place."""
        browser = http.client.HTTPConnection("127.0.0.1", self._port, timeout=DEADLINE)
        self._open.append(browser)
        browser.request("GET", self._path, headers={"Cookie": self._cookie_of(name), "Last-Event-ID": place})
        answer = browser.getresponse()
        assert answer.status == 200
        return read(iter(answer.readline, b""))

    def close(self) -> None:
        for browser in self._open:
            browser.close()
