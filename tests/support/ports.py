"""Ports for servers that are told on which one to listen, and that do so a moment later."""

from __future__ import annotations

import itertools
import os
import random
import socket

# Below those that systems give to who connects, and to who asks for any.
_FIRST, _COUNT = 20_000, 12_000
# Tests that run side by side must not be given the same one: each of their processes has ports of its own.
_WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_SHARE = _COUNT // _WORKERS
_begin = random.SystemRandom().randrange(_SHARE)
_numbers = itertools.count(_begin)


def free_port() -> int:
    """Return a port of 127.0.0.1 at which nothing listens."""
    for number in itertools.islice(_numbers, _SHARE):
        port = _FIRST + _WORKER * _SHARE + number % _SHARE
        try:
            with socket.create_server(("127.0.0.1", port)):
                return port
        except OSError:
            continue
    raise AssertionError("all ports are taken")
