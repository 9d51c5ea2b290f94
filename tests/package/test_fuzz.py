"""Arbitrary bytes, and bytes that are almost right, against everything that takes bytes from a server.

`FUZZ_EXAMPLES=20000 pytest tests/package/test_fuzz.py` looks for longer.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
from fuzz_targets import TARGETS, TEXTS, seeds
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "150"))
unhurried = settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck), deadline=None)

messages = st.sampled_from(TEXTS).map(str.encode)
sizes = st.sampled_from([0, 1, 2, 5, 124, 125, 126, 200, 1000, 1001, 65535, 65536, 1 << 40])


@st.composite
def frames(draw: st.DrawFn) -> bytes:
    """A frame of a server, or something like one."""
    first = draw(st.sampled_from([0x81, 0x01, 0x00, 0x80, 0x82, 0x88, 0x89, 0x8A]) | st.integers(0, 255))
    payload = draw(
        st.sampled_from(TEXTS).map(str.encode) | st.binary(max_size=300) | st.text(max_size=90).map(str.encode)
    )
    size = draw(st.just(len(payload)) | sizes)
    mask = draw(st.sampled_from([0, 0, 0, 0, 0, 0x80]))
    if size < 126:
        head = bytes([first, mask | size])
    elif size < 65536:
        head = bytes([first, mask | 126]) + size.to_bytes(2, "big")
    else:
        head = bytes([first, mask | 127]) + size.to_bytes(8, "big")
    return head + payload


@st.composite
def mutated(draw: st.DrawFn, texts: st.SearchStrategy[bytes]) -> bytes:
    """Something that is right, with a piece replaced by another."""
    text = draw(texts)
    at = draw(st.integers(0, len(text)))
    return text[:at] + draw(st.binary(max_size=8)) + text[at + draw(st.integers(0, 8)) :]


header_lines = st.sampled_from(
    [
        b"HTTP/1.1 101 Switching Protocols",
        b"HTTP/1.1 307 Moved",
        b"HTTP/1.1 100 Continue\r\n",
        b"HTTP/1.0 200 OK\n",
        b" folded",
        b"X-\xff: \xfe",
        b"HTTP/1.1 503 No",
        b"HTTP/1.1 0 \0:",
        b"HTTP/1.1",
        b"Upgrade: websocket",
        b"Connection: Upgrade",
        b"Sec-WebSocket-Accept: AAAA",
        b"Sec-WebSocket-Protocol: chat",
        b"Set-Cookie: a=b",
        b"Location: ws://elsewhere/",
        b"Content-Length: 5",
        b"Content-Length: -5",
        b"Transfer-Encoding: chunked",
        b"Retry-After: 1e9",
        b"",
    ]
) | st.binary(max_size=30)

INPUTS: dict[str, st.SearchStrategy[bytes]] = {
    "codec": mutated(messages)
    | st.text().map(str.encode)
    | st.text('{}[]":,.-+eE0123456789 \\ud8').map(str.encode),
    "session": st.binary(max_size=400),
    "transport": st.lists(frames(), max_size=8).map(lambda some: bytes([len(some)]) + b"".join(some))
    | st.binary(max_size=200),
    "handshake": st.lists(header_lines, max_size=8).map(b"\r\n".join)
    | mutated(st.sampled_from(list(seeds("handshake")))),
    "answer": st.lists(header_lines, max_size=8).map(b"\r\n".join)
    | mutated(st.sampled_from(list(seeds("answer")))),
}


@pytest.mark.parametrize("name", TARGETS)
def test_arbitrary_bytes_do_no_harm(name: str) -> None:
    target = TARGETS[name]
    for seed in seeds(name):
        target(seed)
    _hold(target, INPUTS[name])


def _hold(target: Callable[[bytes], None], inputs: st.SearchStrategy[bytes]) -> None:
    @unhurried
    @given(inputs)
    @example(b"")
    def holds(data: bytes) -> None:
        target(data)

    holds()
