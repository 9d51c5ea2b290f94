"""Clients in this process, and in programs of their own."""

from __future__ import annotations

import subprocess
from typing import Any, Protocol

import attrs

import aggstream


class MakeClient(Protocol):
    def __call__(self, url: str, /, **options: Any) -> aggstream.Client: ...


BRISK = aggstream.ReconnectPolicy(initial=0.05, maximum=0.2, healthy_after=0.05)
# Takes a refusal for final also after the first sign-in.
IMPATIENT = attrs.evolve(BRISK, fatal_after=0.0)
"""Pauses that a test can wait for."""


PRELUDE = """
import multiprocessing, os, ssl, sys, threading, time, warnings
import attrs

import aggstream

def make(**options):
    context = ssl.create_default_context(cafile=sys.argv[2]) if sys.argv[1].startswith("wss") else None
    options = {"token": "t0ken", "url": sys.argv[1], **options}
    return aggstream.Client(app_id="a", origin="https://app.example", ssl_context=context, **options)

def say(*words):
    sys.stdout.write(" ".join(map(str, words)) + "\\n")  # one write, because threads speak at once
    sys.stdout.flush()

client = make()
client.on("order_submitted")(lambda event: say(event.order_id))
"""


class Run(Protocol):
    def __call__(self, program: str, url: str, /, *, first: str = "") -> subprocess.Popen[str]: ...
