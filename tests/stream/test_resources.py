"""What the system refuses while a stream runs: the stream tries again, says which limit it is, and goes on."""

from __future__ import annotations

import errno
import os
import resource
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from certificates import serving
from clients import BRISK, MakeClient
from waiting import DEADLINE, Until

import aggstream
from aggstream._base.blocking_calls import Lane
from aggstream.simulator import Simulator

USER = "usr_1"


@pytest.fixture
def agg() -> Iterator[Simulator]:
    with Simulator() as simulator:
        yield simulator


def stream_of(agg: Simulator, client_of: MakeClient, **options: Any) -> aggstream.Client:
    return client_of(
        agg.url,
        token=lambda: agg.sign_in(USER).access_token,
        rest_url=agg.rest_url,
        rest=aggstream.RestOptions(attempts=1),
        reconnect=BRISK,
        **options,
    )


class Refusing:
    """Makes the n-th socket of a kind fail, as the system does."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, code: int, *, families: tuple[int, ...] = ()) -> None:
        self.refused = 0
        self.is_on = False
        original = socket.socket.__init__

        def init(sock: socket.socket, family: int = -1, *args: Any, **options: Any) -> None:
            # Not what `accept` and `socketpair` wrap, and not the simulator's.
            is_ours = threading.current_thread().name.startswith("aggstream-") and "fileno" not in options
            if self.is_on and is_ours and len(args) < 3 and (not families or family in families):
                self.refused += 1
                raise OSError(code, os.strerror(code))
            original(sock, family, *args, **options)

        monkeypatch.setattr(socket.socket, "__init__", init)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (errno.EMFILE, "no file descriptors left: raise its limit"),
        (errno.ENFILE, "system has no file descriptors"),
        (errno.EAFNOSUPPORT, "does not allow this kind of address"),
        (errno.EACCES, "Permission denied"),
        (errno.ENOBUFS, "no memory left for sockets"),
    ],
)
def test_a_socket_that_cannot_be_made_is_tried_again_and_the_limit_is_named(
    agg: Simulator, client_of: MakeClient, until: Until, monkeypatch: pytest.MonkeyPatch, code: int, words: str
) -> None:
    refusing = Refusing(monkeypatch, code)
    client = stream_of(agg, client_of)
    with client:
        client.wait_until_live(DEADLINE)
        refusing.is_on = True
        agg.drop()
        until(lambda: refusing.refused > 3 and words in str(client.health().last_error))
        refusing.is_on = False
        client.wait_until_caught_up(DEADLINE)


def test_where_one_family_of_addresses_is_not_allowed_the_other_is_used(
    agg: Simulator, client_of: MakeClient, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    look_up = socket.getaddrinfo

    def both(host: str, port: int, *args: Any, **options: Any) -> Any:
        six = (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", port, 0, 0))
        return [six, *look_up("127.0.0.1", port, *args, **options)]

    monkeypatch.setattr(socket, "getaddrinfo", both)
    refusing = Refusing(monkeypatch, errno.EAFNOSUPPORT, families=(socket.AF_INET6,))
    refusing.is_on = True
    with stream_of(agg, client_of) as client:
        client.wait_until_live(DEADLINE)
    assert refusing.refused


def test_no_threads_for_a_while_costs_attempts_only(
    agg: Simulator, client_of: MakeClient, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    defaults = Lane.__init__.__kwdefaults__
    assert defaults is not None
    monkeypatch.setitem(defaults, "idle", 0.01)
    start = threading.Thread.start
    refused: list[str] = []

    def start_none(thread: threading.Thread) -> None:
        if thread.name.startswith("aggstream-"):
            refused.append(thread.name)
            raise RuntimeError("can't start new thread")
        start(thread)

    client = stream_of(agg, client_of)
    with client:
        client.wait_until_caught_up(DEADLINE)
        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", start_none)
            # A thread of a lane that has nothing to do ends, so a new one is needed.
            until(lambda: agg.drop() >= 0 and len(refused) > 3)
            until(lambda: "the system gives no thread" in str(client.health().last_error))
        client.wait_until_caught_up(DEADLINE)


PROGRAM = """
import os, resource, sys, threading
import aggstream
from aggstream import ReconnectPolicy

url, rest_url, token = sys.argv[1:4]
client = aggstream.Client(
    url=url, rest_url=rest_url, app_id=sys.argv[4], origin=sys.argv[5], token=token, rest_lag=0.0,
    reconnect=ReconnectPolicy(initial=0.05, maximum=0.1), rest=aggstream.RestOptions(attempts=1),
)
said = threading.Event()
client.on("reconnecting")(lambda event: "no file descriptors left" in str(event.error) and said.set())
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]

def starve():
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))

client.start()
client.wait_until_caught_up(30)
starve()
print("starved", flush=True)
sys.stdin.readline()
assert said.wait(30), client.health().last_error
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
client.wait_until_caught_up(30)
assert client.stop()
print("caught up", flush=True)
"""


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="this system does not list descriptors")
@pytest.mark.parametrize("tls", [False, True], ids=["tcp", "tls"])
def test_a_program_without_descriptors_goes_on_when_there_are_some_again(
    authority: trustme.CA, tmp_path: Path, until: Until, tls: bool
) -> None:
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    with Simulator(ssl_context=serving(authority) if tls else None) as agg:
        signed_in = agg.sign_in(USER)
        arguments = (agg.url, agg.rest_url, signed_in.access_token, agg.app_id, agg.origin)
        with subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "SSL_CERT_FILE": str(tmp_path / "ca.pem")},
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "starved\n"
            agg.place_order(USER, scenario="filled")
            agg.drop()
            out, err = process.communicate("\n", timeout=DEADLINE)
        assert out == "caught up\n", err
        assert "Traceback" not in err


@pytest.mark.skipif(not hasattr(resource, "RLIMIT_NOFILE"), reason="this system has no limits of descriptors")
def test_authorities_that_could_not_be_loaded_are_loaded_again(
    authority: trustme.CA, tmp_path: Path, client_of: MakeClient, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    made = ssl.create_default_context
    empty: list[ssl.SSLContext] = []

    def without_authorities(*args: Any, **options: Any) -> ssl.SSLContext:
        if len(empty) < 2:  # as it comes out while no file can be opened
            empty.append(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
            return empty[-1]
        return made(*args, **options)

    monkeypatch.setattr(ssl, "create_default_context", without_authorities)
    with Simulator(ssl_context=serving(authority)) as agg:
        client = client_of(agg.url, token=lambda: agg.sign_in(USER).access_token, reconnect=BRISK)
        errors: list[str] = []
        client.on("reconnecting")(lambda event: errors.append(str(event.error)))
        with client:
            client.wait_until_live(DEADLINE)
        assert len(errors) == len(empty) == 2
        assert "certificate authorities cannot be loaded" in errors[0]


@pytest.mark.parametrize(
    "error", [ssl.SSLError(524338, "[SSL] PEM lib"), PermissionError(13, "Permission denied")]
)
def test_authorities_that_cannot_be_read_for_a_while_cost_attempts_only(
    error: OSError, authority: trustme.CA, client_of: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = ssl.create_default_context
    refused: list[OSError] = []

    def refuse_twice() -> ssl.SSLContext:
        if len(refused) < 2:  # as while the file of the authorities is being replaced
            refused.append(error)
            raise error
        context = made()
        authority.configure_trust(context)
        return context

    with Simulator(ssl_context=serving(authority)) as agg:
        client = client_of(agg.url, token=agg.sign_in(USER).access_token, rest=None, reconnect=BRISK)
        errors: list[str] = []
        client.on("reconnecting")(lambda event: errors.append(str(event.error)))
        monkeypatch.setattr(ssl, "create_default_context", refuse_twice)
        with client:
            client.wait_until_live(DEADLINE)
    assert len(errors) == len(refused) == 2
    assert "certificate authorities cannot be loaded" in errors[0]
