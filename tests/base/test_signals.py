"""Signals belong to the program: our threads take none, and our calls raise none."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from typing import Any

import pytest
from clients import MakeClient
from waiting import DEADLINE, Until

import aggstream
from aggstream._base.signals import caught_signals, present_mask, without_sigpipe

pytestmark = pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="this system has no signal masks")


def test_our_own_threads_take_no_signal_and_the_programs_functions_run_as_its_own_threads_do(
    client_of: MakeClient, until: Until
) -> None:
    masks: dict[str, frozenset[int]] = {}

    def note(name: str) -> None:
        masks[name] = present_mask() or frozenset()

    def decide(error: aggstream.AggStreamError) -> bool:
        note("decide")
        return True

    def token() -> str:
        note("token")
        return "t"

    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGUSR2,))
    try:
        client = client_of(
            "ws://localhost:9/ws", token=token, reconnect=aggstream.ReconnectPolicy(initial=0.01, decide=decide)
        )
        client.on("*")(lambda event: note("handler"))
        with client:
            until(lambda: masks.keys() == {"decide", "token", "handler"})
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGUSR2,))
    assert {signal.SIGINT, signal.SIGTERM, signal.SIGALRM, signal.SIGPIPE} <= masks["decide"]
    assert not {signal.SIGSEGV, signal.SIGPROF} & masks["decide"]
    assert masks["token"] == masks["handler"] == {signal.SIGUSR2}


def run(program: str) -> subprocess.CompletedProcess[str]:
    first = "import os, signal\nfrom aggstream._base.signals import without_sigpipe\n"
    first += "signal.signal(signal.SIGPIPE, signal.SIG_DFL)\nreader, writer = os.pipe()\nos.close(reader)\n"
    return subprocess.run(
        [sys.executable, "-c", first + program], capture_output=True, text=True, timeout=DEADLINE, check=False
    )


def test_a_peer_that_went_away_is_an_error_of_the_call_and_not_the_end_of_the_program() -> None:
    done = run("""
try:
    with without_sigpipe():
        os.write(writer, b"x")
except BrokenPipeError:
    print("broken", signal.sigpending(), signal.pthread_sigmask(signal.SIG_BLOCK, ()))
""")
    assert (done.returncode, done.stdout, done.stderr) == (0, "broken set() set()\n", "")


def test_a_wake_up_that_comes_as_the_stream_ends_is_not_the_end_of_the_program() -> None:
    done = run("""
import socket
from aggstream._network.waker import Waker

waker, close = Waker(), socket.socket.close

def close_and_wake(sock):
    close(sock)
    waker.wake()  # as another thread may do at any time

socket.socket.close = close_and_wake
waker.close()
print("closed")
""")
    assert (done.returncode, done.stdout, done.stderr) == (0, "closed\n", "")


def test_outside_of_the_call_the_signal_does_what_the_program_has_set() -> None:
    done = run('with without_sigpipe():\n    pass\nos.write(writer, b"x")\n')
    assert (done.returncode, done.stderr) == (-signal.SIGPIPE, "")


def test_a_signal_that_the_program_itself_keeps_pending_stays_pending() -> None:
    done = run("""
signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGPIPE,))
try:
    os.write(writer, b"x")
except BrokenPipeError:
    pass
with without_sigpipe():
    pass
print(signal.SIGPIPE in signal.sigpending(), signal.SIGPIPE in signal.pthread_sigmask(signal.SIG_BLOCK, ()))
""")
    assert (done.returncode, done.stdout, done.stderr) == (0, "True True\n", "")


def test_a_handler_that_python_did_not_install_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: seen.append(number))
    try:
        # As the interpreter says it of a handler that was there before it began.
        installed = signal.getsignal
        monkeypatch.setattr(
            signal, "getsignal", lambda number: None if number == signal.SIGTERM else installed(number)
        )
        with caught_signals(lambda number: None) as received:
            os.kill(os.getpid(), signal.SIGTERM)
            assert threading.main_thread() is threading.current_thread()
        assert (seen, received) == ([signal.SIGTERM], [])
        os.kill(os.getpid(), signal.SIGTERM)
        assert seen == [signal.SIGTERM] * 2
    finally:
        signal.signal(signal.SIGTERM, before)


def test_nothing_is_left_blocked() -> None:
    before = present_mask()
    with without_sigpipe():
        assert signal.SIGPIPE in (present_mask() or ())
    assert present_mask() == before


@pytest.mark.parametrize("name", ["pthread_sigmask", "sigtimedwait"])
def test_nothing_is_left_blocked_if_a_signal_handler_raises_as_it_is_blocked(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = present_mask()
    original = getattr(signal, name)

    def interrupted(*args: Any) -> Any:
        result = original(*args)
        if args[-1] or name == "sigtimedwait":  # it changes something; the interpreter runs handlers after that
            monkeypatch.setattr(signal, name, original)
            raise TimeoutError
        return result

    monkeypatch.setattr(signal, name, interrupted)
    with pytest.raises(TimeoutError), without_sigpipe():
        pass
    assert present_mask() == before


@pytest.mark.parametrize("which", [1, 2, 3, 4])
def test_handlers_are_put_back_if_another_signals_handler_raises_as_they_are_set(
    which: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    original = signal.signal
    calls = 0

    def interrupted(*args: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == which:  # the interpreter runs handlers first
            raise TimeoutError
        return original(*args)

    monkeypatch.setattr(signal, "signal", interrupted)
    with pytest.raises(TimeoutError), caught_signals(lambda number: None):
        pass
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
