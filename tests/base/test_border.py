"""No exception leaves the package with the frames that it went through, and a program's time limit is its own."""

from __future__ import annotations

import contextlib
import functools
import gc
import http.server
import inspect
import json
import os
import signal
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import jwt
import pytest
import trustme
from waiting import DEADLINE

import aggstream
from aggstream._base import border as border_module

SECRETS = ("access-of-the-user", "refresh-of-the-user", "header-of-the-app")
pytestmark = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no timers by signal")


class TimeLimit(Exception):
    """As Celery's soft limit is: an `Exception`."""


class SlowAnswer(TimeoutError):
    """A time limit that `except OSError` would catch."""


def frames_of(error: BaseException | None, seen: set[int]) -> Iterator[FrameType]:
    if error is None or id(error) in seen:
        return
    seen.add(id(error))
    trace: TracebackType | None = error.__traceback__
    while trace is not None:
        yield trace.tb_frame
        trace = trace.tb_next
    yield from frames_of(error.__cause__, seen)
    yield from frames_of(error.__context__, seen)


def values_in(value: object, depth: int = 3) -> Iterator[str]:
    """Yield what error reporters show of a local: its repr, and what is inside it."""
    with contextlib.suppress(Exception):
        yield repr(value)
    if depth == 0:
        return
    inner: list[object] = []
    if isinstance(value, dict):
        inner += [*value.keys(), *value.values()]
    elif isinstance(value, (list, tuple, set, frozenset)):
        inner += value
    elif not isinstance(value, (type, type(pytest), str, bytes, int, float)) and not callable(value):
        inner += vars(value).values() if hasattr(value, "__dict__") else []
    for one in inner:
        yield from values_in(one, depth - 1)


def check_frames(error: BaseException, here: str) -> None:
    """See that below the calling test there is the border only, and that no frame holds a secret."""
    frames = list(frames_of(error, set()))
    files = [frame.f_code.co_filename for frame in frames if frame.f_code.co_filename != here]
    assert set(files) <= {border_module.__file__, aggstream.rest._client.__file__}, files
    for frame in frames:
        if frame.f_code.co_filename == here:
            continue
        for name, value in frame.f_locals.items():
            for text in values_in(value):
                assert not any(secret in text for secret in SECRETS), (frame.f_code, name)


@contextlib.contextmanager
def limit(error: Callable[[], BaseException], seconds: float = 0.2, *, disarms: bool = False) -> Iterator[None]:
    """Raise an exception in the program's thread after a while, again and again until it has ended the call."""

    def on_alarm(number: int, frame: FrameType | None) -> None:
        if disarms:
            signal.signal(signal.SIGALRM, signal.SIG_IGN)
        raise error()

    before = signal.signal(signal.SIGALRM, on_alarm)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


class Mute:
    """A server that takes a request, and says nothing, or says a little and no more."""

    def __init__(self, answer: bytes, context: ssl.SSLContext | None = None) -> None:
        self.requests = 0
        self._answer = answer
        self._context = context
        self._listener = socket.create_server(("localhost", 0))
        self.port = self._listener.getsockname()[1]
        self._peers: list[socket.socket] = []
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                peer, _ = self._listener.accept()
            except OSError:
                return
            self._peers.append(peer)
            with contextlib.suppress(OSError):
                if self._context is not None:
                    peer = self._context.wrap_socket(peer, server_side=True)
                    self._peers.append(peer)
                peer.recv(65536)
                self.requests += 1
                peer.sendall(self._answer)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(DEADLINE)
        for peer in self._peers:
            peer.close()


ANSWERS = {
    "nothing": b"",
    "half a header": b"HTTP/1.1 200 OK\r\nContent-",
    "half a body": b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"data": [',
}


@pytest.fixture(params=list(ANSWERS))
def mute(request: pytest.FixtureRequest) -> Iterator[Mute]:
    server = Mute(ANSWERS[request.param])
    yield server
    server.close()


def rest_client(port: int, attempts: int = 3) -> aggstream.RestClient:
    return aggstream.RestClient(
        app_id="a",
        token=SECRETS[0],
        rest_url=f"http://localhost:{port}",
        options=aggstream.RestOptions(timeout=DEADLINE, attempts=attempts, headers={"x-key": SECRETS[2]}),
    )


def refreshing(port: int) -> aggstream.RefreshingToken:
    return aggstream.RefreshingToken(SECRETS[1], app_id="a", rest_url=f"http://localhost:{port}", timeout=DEADLINE)


LIMITS: list[Callable[[], BaseException]] = [TimeLimit, SlowAnswer, TimeoutError, OSError, KeyboardInterrupt]


@pytest.mark.parametrize("error", LIMITS)
@pytest.mark.parametrize("disarms", [False, True])
def test_a_time_limit_ends_a_call_of_rest_at_once_and_shows_no_secret(
    mute: Mute, error: type[BaseException], disarms: bool
) -> None:
    with contextlib.closing(rest_client(mute.port)) as rest:
        with pytest.raises(error) as caught, limit(error, disarms=disarms):
            rest.balances()
        assert caught.type is error
        check_frames(caught.value, __file__)
        assert mute.requests == 1  # the call was not made again


@pytest.mark.parametrize("error", LIMITS)
def test_a_time_limit_ends_a_refresh_at_once_and_shows_no_secret(mute: Mute, error: type[BaseException]) -> None:
    provider = refreshing(mute.port)
    with pytest.raises(error) as caught, limit(error):
        provider.get_token()
    assert caught.type is error
    check_frames(caught.value, __file__)
    assert mute.requests == 1


# The interpreter leaves the socket of an interrupted handshake to the garbage collector.
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("error", [TimeLimit, SlowAnswer])
def test_a_time_limit_in_a_handshake_over_tls_is_the_programs(
    error: type[BaseException],
) -> None:
    server = Mute(b"")  # it never answers the hello
    try:
        rest = aggstream.RestClient(app_id="a", token=SECRETS[0], rest_url=f"https://localhost:{server.port}")
        with pytest.raises(error) as caught, limit(error):
            rest.balances()
        check_frames(caught.value, __file__)
        rest.close()
        del caught
        gc.collect()
    finally:
        server.close()


@pytest.mark.parametrize("error", [TimeLimit, TimeoutError])
def test_a_time_limit_in_the_pause_before_the_next_attempt_is_the_programs(error: type[BaseException]) -> None:
    with socket.create_server(("localhost", 0)) as unused:
        port = unused.getsockname()[1]
    options = aggstream.RestOptions(attempts=100)
    rest = aggstream.RestClient(app_id="a", token=SECRETS[0], rest_url=f"http://localhost:{port}", options=options)
    with contextlib.closing(rest), pytest.raises(error) as caught, limit(error):
        rest.balances()
    assert caught.type is error
    check_frames(caught.value, __file__)


@pytest.mark.parametrize("name", ["save", "load", "body"])
@pytest.mark.parametrize("error", [TimeLimit, TimeoutError, OSError])
def test_a_time_limit_in_a_function_of_the_program_is_no_failure_of_that_function(
    name: str, error: type[BaseException], refresh_server: str
) -> None:
    def hang(*args: object) -> None:
        threading.Event().wait(DEADLINE)

    provider = aggstream.RefreshingToken(
        SECRETS[1],
        app_id="a",
        rest_url=refresh_server,
        **{name: hang},  # type: ignore[arg-type]
    )
    with pytest.raises(error) as caught, limit(error):
        provider.get_token()
    assert caught.type is error
    check_frames(caught.value, __file__)


def test_a_time_limit_in_the_token_function_is_the_programs() -> None:
    rest = aggstream.RestClient(
        app_id="a", token=lambda: str(threading.Event().wait(DEADLINE)), rest_url="http://localhost:9"
    )
    with contextlib.closing(rest), pytest.raises(TimeLimit), limit(TimeLimit):
        rest.balances()


@pytest.fixture
def refresh_server() -> Iterator[str]:
    """Answer every refresh with a new pair."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            access = jwt.encode({"sub": "usr_1", "exp": 4_000_000_000}, "k" * 32, algorithm="HS256")
            body = json.dumps({"accessToken": access, "refreshToken": "next"}).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("localhost", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://localhost:{server.server_port}"
        server.shutdown()
        thread.join(DEADLINE)


def test_what_a_call_raises_itself_has_no_frames_and_no_contexts(caplog: pytest.LogCaptureFixture) -> None:
    server = Mute(b"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n")
    try:
        for call in (rest_client(server.port, attempts=1).balances, refreshing(server.port).get_token):
            with pytest.raises(aggstream.AggStreamError) as caught, caplog.at_level("DEBUG", "aggstream.base"):
                call()
            check_frames(caught.value, __file__)
    finally:
        server.close()
    assert "came about in these calls" in caplog.text
    assert "_calls.py:" in caplog.text
    assert not any(secret in caplog.text for secret in SECRETS)


def test_a_certificate_that_does_not_verify_is_named_without_frames() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("localhost").configure_cert(context)
    server = Mute(b"", context)
    try:
        rest = aggstream.RestClient(app_id="a", token=SECRETS[0], rest_url=f"https://localhost:{server.port}")
        with contextlib.closing(rest), pytest.raises(aggstream.RestError) as caught:
            rest.balances()
        assert isinstance(caught.value.__cause__, ssl.SSLCertVerificationError)
        check_frames(caught.value, __file__)
    finally:
        server.close()


@pytest.mark.parametrize(
    "handler",
    [
        lambda number, frame: None,
        lambda *given: None,
        functools.partial(lambda extra, number, frame: None, "extra"),
    ],
)
def test_a_signal_handler_is_known_by_how_it_is_called(handler: Callable[..., None]) -> None:
    inner = handler.func if isinstance(handler, functools.partial) else handler
    source = inner.__code__

    def fail(*args: Any) -> None:
        raise TimeoutError

    changed = functools.partial(fail) if source.co_argcount == 0 else fail
    with pytest.raises(TimeoutError) as caught:
        changed(*(["extra"] if isinstance(handler, functools.partial) else []), 14, _frame())
    assert border_module.is_raised_by_signal_handler(caught.value)


def takes_more(number: int, frame: FrameType | None, seconds: int = 1) -> None:
    raise TimeoutError(f"after {seconds} s")


def forgets_its_arguments(number: int, frame: FrameType | None) -> None:
    del number, frame
    raise TimeoutError


def changes_its_arguments(number: object, frame: FrameType | None) -> None:
    number = signal.Signals(14).name
    signal.signal(signal.SIGALRM, signal.SIG_IGN)
    raise TimeoutError(number)


class Handler:
    def __call__(self, number: int, frame: FrameType | None, *more: object) -> None:
        del frame
        raise TimeoutError(number)

    def method(self, number: int, frame: FrameType | None) -> None:
        number, frame = 0, None
        raise TimeoutError(number, frame)


HANDLERS: list[Callable[..., None]] = [
    takes_more,
    forgets_its_arguments,
    changes_its_arguments,
    Handler(),
    Handler().method,
    functools.partial(forgets_its_arguments),
]


@pytest.mark.parametrize("handler", HANDLERS)
def test_a_time_limit_is_known_whatever_its_handler_does_with_its_arguments(
    handler: Callable[..., None],
) -> None:
    server = Mute(b"")
    before = signal.signal(signal.SIGALRM, handler)
    try:
        with contextlib.closing(rest_client(server.port)) as rest:
            signal.setitimer(signal.ITIMER_REAL, 0.2)
            with pytest.raises(TimeoutError) as caught:
                rest.balances()
            check_frames(caught.value, __file__)
        assert server.requests == 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        server.close()


@pytest.mark.parametrize("scheme", ["http", "socks5h"])
@pytest.mark.parametrize("error", LIMITS)
def test_a_time_limit_while_a_proxy_is_asked_is_the_programs(scheme: str, error: type[BaseException]) -> None:
    server = Mute(b"")
    try:
        proxy = f"{scheme}://user:{SECRETS[2]}@localhost:{server.port}"
        options = aggstream.RestOptions(timeout=DEADLINE, attempts=3)
        rest = aggstream.RestClient(
            app_id="a", token=SECRETS[0], rest_url="https://rest.example", options=options, proxy=proxy
        )
        with contextlib.closing(rest), pytest.raises(error) as caught, limit(error):
            rest.balances()
        assert caught.type is error
        check_frames(caught.value, __file__)
        assert server.requests == 1
    finally:
        server.close()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
@pytest.mark.parametrize("error", LIMITS)
def test_a_time_limit_while_a_token_file_is_read_is_the_programs(
    error: type[BaseException], tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "token")  # nobody writes to it, as on a network drive whose server is away
    with pytest.raises(error) as caught, limit(error):
        aggstream.FileToken(tmp_path / "token").get_token()
    assert caught.type is error
    check_frames(caught.value, __file__)


@pytest.mark.parametrize("given", [(), (14,), (14, None), (14, 15), ("a", "b")])
def test_any_other_function_is_not_taken_for_one(given: tuple[object, ...]) -> None:
    def fail(*args: object) -> None:
        raise TimeoutError

    with pytest.raises(TimeoutError) as caught:
        fail(*given)
    assert not border_module.is_raised_by_signal_handler(caught.value)


def _frame() -> FrameType:
    frame = inspect.currentframe()
    assert frame is not None
    return frame
